# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.reader`: the bursts and the beats of a range of memory, and when they come.

This is the engine alone, cycle by cycle, under any stalls; `golden.machine.memory_fetch` has the
cycles of a whole program from a memory of fixed latency, by a rule that costs less.
"""

__all__ = ["BurstsModel", "ReaderModel", "beats", "bursts"]

from collections import deque
from collections.abc import Mapping
from itertools import pairwise

from golden.machine.engines.fetch_buffer import FetchBufferModel
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit

#: A burst that is asked for: of a LOAD or not, its first byte and its bytes.
_Chosen = tuple[bool, tuple[int, int]]


def bursts(address: int, size: int, config: Config) -> list[tuple[int, int]]:
    """Return the bursts of a range of `size` bytes, the first byte and the bytes of each.

    They begin at multiples of the longest burst, except the first of the range; so they are as few
    as may be, and cross no page. The first is chosen 3 cycles after the command at the earliest,
    and then one a cycle.
    """
    span = burst_limit(config) * config.axi_bits // 8
    ends = sorted({*range(-(-address // span) * span, address + size, span), address,
                   address + size})
    return [(low, high - low) for low, high in pairwise(ends)]


def beats(memory: bytes | bytearray, address: int, size: int, config: Config) -> list[int]:
    """Return the beats of a range, `axi_bits` bits each, in order.

    A beat of the program that comes in cycle r is offered in r+2, a beat of a LOAD in r.
    """
    width = config.axi_bits // 8
    return [int.from_bytes(memory[at:at + width], "little")
            for at in range(address, address + size, width)]


class BurstsModel:
    """`hw.bus.bursts`: a range is taken when the one before is done, and cut 3 cycles later."""

    def __init__(self, config: Config):
        self.config = config
        self._wait = 0
        self._bursts: deque[tuple[int, int]] = deque()

    @property
    def ready(self) -> bool:
        """Whether a range may be taken."""
        return not self._wait and not self._bursts

    @property
    def burst(self) -> tuple[int, int] | None:
        """The burst that is offered: its first byte, and its bytes."""
        return self._bursts[0] if self._bursts and not self._wait else None

    @property
    def last(self) -> bool:
        """Whether the burst that is offered is the last of its range."""
        return len(self._bursts) == 1

    def clock(self, command: tuple[int, int] | None, taken: bool) -> None:
        """End a cycle in which this range was offered, and the burst was taken or not."""
        if self.ready:
            if command is not None:
                self._bursts = deque(bursts(*command, self.config))
                # A range without beats is dropped.
                self._wait = 2 if self._bursts else 1
        elif self._wait:
            self._wait -= 1
        elif taken:
            self._bursts.popleft()


class ReaderModel:
    """The reader on every cycle: `settle` says what it shows, `clock` ends the cycle.

    Inputs and outputs are named by the paths of their ports; an output that has no meaning in a
    cycle is left out. A burst is chosen if its address can be offered next, if less than
    `OUTSTANDING` are under way, and, for the program, if the buffer has room for a longest one.
    """

    #: Ports that `settle` and `clock` look at.
    inputs = ("start.valid", "start.payload.address", "start.payload.bytes", "load.valid",
              "load.payload.address", "load.payload.bytes", "words.ready", "data.ready", "stop",
              "axi.arready", "axi.rvalid", "axi.rdata", "axi.rlast", "axi.rresp")

    def __init__(self, config: Config):
        self.config, self._limit = config, burst_limit(config)
        self._program, self._loads = BurstsModel(config), BurstsModel(config)
        self._address: tuple[int, int] | None = None        # AR: its burst
        self._queue: deque[tuple[bool, int]] = deque()      # of a LOAD, its address
        self._room = True                                   # of the queue
        self._buffer = FetchBufferModel(config.fetch_beats)
        self._words: deque[int] = deque()
        self._places, self._freed = config.fetch_beats, False
        self._enough = True                                 # places for a longest burst
        self._begun = self._exhausted = False
        self._error: tuple[int, int] | None = None

    def settle(self, inputs: Mapping[str, int]) -> dict[str, int]:
        """Return the outputs of a cycle."""
        coming = self._queue[0][0] if self._queue else False
        takes = bool(self._queue) and bool(not coming or inputs["data.ready"] or inputs["stop"])
        beat = bool(inputs["axi.rvalid"]) and takes
        outputs: dict[str, int] = {
            "start.ready": self._program.ready, "load.ready": self._loads.ready,
            "axi.arvalid": self._address is not None, "axi.rready": takes,
            "words.valid": self._buffer.held,
            "data.valid": bool(inputs["axi.rvalid"] and coming and not inputs["stop"]),
            "idle": not self._queue, "waiting": bool(self._queue) and not beat,
            "exhausted": self._exhausted, "error.valid": self._error is not None}
        if self._address is not None:
            address, size = self._address
            outputs |= {"axi.araddr": address, "axi.arlen": size * 8 // self.config.axi_bits - 1}
        if self._buffer.held:
            outputs["words.payload"] = self._words[0]
        if outputs["data.valid"]:
            outputs["data.payload"] = inputs["axi.rdata"]
        if self._error is not None:
            outputs |= dict(zip(("error.decode", "error.address"), self._error, strict=True))
        return outputs

    def _choose(self, inputs: Mapping[str, int]) -> tuple[bool, _Chosen | None]:
        """Return whether AR is free for a burst, and the one that it gets: of a LOAD, its range."""
        free = bool((self._address is None or inputs["axi.arready"]) and self._room
                    and not inputs["stop"])
        if free and self._loads.burst is not None:
            return free, (True, self._loads.burst)
        if free and self._program.burst is not None and self._enough:
            return free, (False, self._program.burst)
        return free, None

    def clock(self, inputs: Mapping[str, int]) -> None:
        """End a cycle with these inputs."""
        outputs = self.settle(inputs)
        free, chosen = self._choose(inputs)
        beat = bool(inputs["axi.rvalid"] and outputs["axi.rready"])
        word = bool(outputs["words.valid"] and inputs["words.ready"])
        self._exhausted = self._begun and self._program.ready and not self._queue
        self._begun = self._begun or bool(inputs["start.valid"] and self._program.ready)
        self._error = None
        if beat and inputs["axi.rresp"] & 2:
            self._error = inputs["axi.rresp"] & 1, self._queue[0][1]
        self._take(inputs, beat and not self._queue[0][0], word)
        self._queued(chosen, bool(beat and inputs["axi.rlast"]))
        if free:
            self._address = chosen[1] if chosen else None
        elif inputs["axi.arready"]:
            self._address = None
        asked = chosen[1][1] * 8 // self.config.axi_bits if chosen and not chosen[0] else 0
        self._places += self._freed - asked
        self._freed = word
        self._enough = self._places + word >= self._limit
        for name, cut in (("start", self._program), ("load", self._loads)):
            command = None
            if inputs[f"{name}.valid"]:
                command = inputs[f"{name}.payload.address"], inputs[f"{name}.payload.bytes"]
            cut.clock(command, chosen is not None and chosen[0] == (name == "load"))

    def _take(self, inputs: Mapping[str, int], comes: bool, leaves: bool) -> None:
        """Let a beat of the program into the buffer, and another out of it."""
        if leaves:
            self._words.popleft()
        if comes:
            self._words.append(inputs["axi.rdata"])
        self._buffer.clock({"i": comes}, {"o": leaves})

    def _queued(self, chosen: _Chosen | None, ends: bool) -> None:
        """Note a burst that was chosen, and drop the one that has ended."""
        self._room = ends or len(self._queue) + (chosen is not None) < OUTSTANDING
        if ends:
            self._queue.popleft()
        if chosen is not None:
            self._queue.append((chosen[0], chosen[1][0]))
