# SPDX-License-Identifier: Apache-2.0
"""An AXI4 memory for Amaranth's simulator, which also checks what the master does.

With no stalls it keeps the rule of `sim/memory.v` and `golden.machine.memory`: a burst whose
address is taken in cycle a has its first beat valid in cycle ``max(a + latency, cycle after the
last beat of the burst before)``, and then one beat a cycle.
"""

__all__ = ["AxiMemory", "Burst"]

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.testing.axi_order import WriteOrder

OKAY, SLVERR, DECERR = 0, 2, 3


@dataclass
class Burst:
    """A burst that the memory has accepted: what was asked for, and when."""

    address: int
    beats: int
    cycle: int
    response: int = OKAY
    due: int = 0


@dataclass
class AxiMemory:
    """Bytes behind the two halves of a bus; `read` and `write` are processes of a simulation.

    Attributes
    ----------
    data
        The bytes; an address is taken modulo their number.
    bits
        Width of the bus.
    latency
        Cycles from an address to its first beat, and from the last beat written to its response.
    stall
        Probability that a channel isn't ready or valid in a cycle in which it could be.
    extra
        Largest number of random cycles on top of `latency`, burst by burst.
    errors
        Ranges of addresses with their response: ``(low, high, response)``.
    limit
        Beats of the longest burst that is legal here.
    order
        In which order address and beats of a write burst are taken: see `sim.testing.axi_order`.
        What waits until something is valid is ready one cycle later.
    """

    data: bytearray
    bits: int
    latency: int = 60
    stall: float = 0
    extra: int = 0
    errors: Sequence[tuple[int, int, int]] = ()
    limit: int = 256
    order: str = "free"
    seed: int = 0
    #: Never accept an address: a slave that is broken.
    deaf: bool = False
    reads: list[Burst] = field(default_factory=list)
    writes: list[Burst] = field(default_factory=list)

    def _response(self, address: int) -> int:
        return next((code for low, high, code in self.errors if low <= address < high), OKAY)

    def _check(self, burst: Burst, size: int, kind: int) -> None:
        width = self.bits // 8
        last = burst.address + burst.beats * width - 1
        assert kind == 1 and 1 << size == width, "full-width incrementing bursts only"
        assert burst.address % width == 0, f"unaligned burst at {burst.address:#x}"
        assert burst.beats <= self.limit, f"burst of {burst.beats} beats"
        assert burst.address // 4096 == last // 4096, f"{burst.address:#x} crosses a page"

    def _ready(self, rng: random.Random, *allowed: bool) -> list[bool]:
        """Return which channels are ready, of those that may be."""
        return [not self.deaf and rng.random() >= self.stall and one for one in allowed]

    async def read(self, ctx: Any, axi: Any) -> None:
        """Serve AR and R of `axi`."""
        rng = random.Random(f"read {self.seed}")
        width, size = self.bits // 8, len(self.data)
        queue: deque[Burst] = deque()
        beat = cycle = 0
        waiting: tuple[int, ...] | None = None
        accept = not self.deaf and rng.random() >= self.stall
        ctx.set(axi.arready, accept)
        async for (_, _, arvalid, address, more, log, kind, rvalid, rready) in ctx.tick().sample(
                axi.arvalid, axi.araddr, axi.arlen, axi.arsize, axi.arburst, axi.rvalid,
                axi.rready):
            now = (address, more, log, kind)
            assert waiting is None or (arvalid and now == waiting), "AR must stay until taken"
            waiting = now if arvalid and not accept else None
            if arvalid and accept:
                burst = Burst(address, more + 1, cycle, self._response(address))
                burst.due = cycle + self.latency + rng.randint(0, self.extra)
                self._check(burst, log, kind)
                self.reads.append(burst)
                queue.append(burst)
            if rvalid and rready:
                beat += 1
                if beat == queue[0].beats:
                    queue.popleft()
                    beat = 0
            if not rvalid or rready:
                offer = bool(queue) and queue[0].due <= cycle + 1 and rng.random() >= self.stall
                ctx.set(axi.rvalid, offer)
                if offer:
                    at = (queue[0].address + beat * width) % size
                    ctx.set(axi.rdata, int.from_bytes(self.data[at:at + width], "little"))
                    ctx.set(axi.rresp, queue[0].response)
                    ctx.set(axi.rlast, beat == queue[0].beats - 1)
                else:
                    # Nothing may depend on what is there while nothing is valid.
                    ctx.set(axi.rdata, rng.getrandbits(self.bits))
                    ctx.set(axi.rlast, rng.getrandbits(1))
                    ctx.set(axi.rresp, rng.getrandbits(2))
            accept = not self.deaf and rng.random() >= self.stall
            ctx.set(axi.arready, accept)
            cycle += 1

    async def write(self, ctx: Any, axi: Any) -> None:
        """Serve AW, W and B of `axi`; beats may come before their address."""
        rng = random.Random(f"write {self.seed}")
        width, size = self.bits // 8, len(self.data)
        addresses: deque[Burst] = deque()
        beats: deque[tuple[int, int, int]] = deque()
        responses: deque[Burst] = deque()
        order = WriteOrder(self.order, self.seed)
        cycle = beat = 0
        held_address: Any = None
        held_beat: Any = None
        take_address, take_beat = self._ready(rng, *order.allow(False, False))
        ctx.set(axi.awready, take_address)
        ctx.set(axi.wready, take_beat)
        async for (_, _, awvalid, address, more, log, kind, wvalid, word, strobe, last, bvalid,
                   bready) in ctx.tick().sample(
                axi.awvalid, axi.awaddr, axi.awlen, axi.awsize, axi.awburst, axi.wvalid, axi.wdata,
                axi.wstrb, axi.wlast, axi.bvalid, axi.bready):
            now = (address, more, log, kind)
            assert held_address is None or (awvalid and now == held_address), "AW must stay"
            held_address = now if awvalid and not take_address else None
            data = (word, strobe, last)
            assert held_beat is None or (wvalid and data == held_beat), "W must stay until taken"
            held_beat = data if wvalid and not take_beat else None
            order.took(awvalid and take_address, wvalid and take_beat, last)
            if awvalid and take_address:
                burst = Burst(address, more + 1, cycle, self._response(address))
                self._check(burst, log, kind)
                self.writes.append(burst)
                addresses.append(burst)
            if wvalid and take_beat:
                beats.append(data)
            while addresses and beats:
                word, strobe, last = beats.popleft()
                burst = addresses[0]
                at = (burst.address + beat * width) % size
                for index in range(width):
                    if strobe >> index & 1 and burst.response == OKAY:
                        self.data[at + index] = word >> 8 * index & 255
                beat += 1
                assert last == (beat == burst.beats), "WLAST is at the last beat and nowhere else"
                if last:
                    beat = 0
                    burst.due = cycle + self.latency + rng.randint(0, self.extra)
                    responses.append(addresses.popleft())
            if bvalid and bready:
                responses.popleft()
            if not bvalid or bready:
                offer = (bool(responses) and responses[0].due <= cycle + 1
                         and rng.random() >= self.stall)
                ctx.set(axi.bvalid, offer)
                ctx.set(axi.bresp, responses[0].response if offer else rng.getrandbits(2))
            take_address, take_beat = self._ready(rng, *order.allow(held_address is not None,
                                                                    held_beat is not None))
            ctx.set(axi.awready, take_address)
            ctx.set(axi.wready, take_beat)
            cycle += 1
