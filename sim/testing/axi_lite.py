# SPDX-License-Identifier: Apache-2.0
"""A master for AXI4-Lite in Amaranth's simulator, and a monitor of what the slave answers."""

__all__ = ["Master", "monitor"]

import random
from typing import Any

#: Addresses and data are this while their `valid` is low: nothing may depend on them.
NOISE = 0xA5A5A5A5

#: Cycles after which a transfer is given up.
LIMIT = 1000


class Master:
    """Reads and writes of one bus, one of each at a time.

    Parameters
    ----------
    bus
        The slave's interface.
    rng
        Chooses when address, data and the response's ready come, each 0 to 3 cycles late. Without
        it none is late.
    """

    def __init__(self, bus: Any, rng: random.Random | None = None):
        self.bus = bus
        self.rng = rng

    def _waits(self, count: int) -> list[int]:
        return [self.rng.randrange(4) if self.rng else 0 for _ in range(count)]

    async def write(self, ctx: Any, address: int, data: int, strobes: int = 0b1111) -> int:
        """Write, and return the response.

        Raises
        ------
        AssertionError
            If the response comes too early, or not within `LIMIT` cycles.
        """
        bus = self.bus
        address_wait, data_wait, ready_wait = self._waits(3)
        send_address = send_data = True
        for cycle in range(LIMIT):
            address_valid = send_address and cycle >= address_wait
            data_valid = send_data and cycle >= data_wait
            ctx.set(bus.awvalid, address_valid)
            ctx.set(bus.awaddr, address if address_valid else NOISE)
            ctx.set(bus.wvalid, data_valid)
            ctx.set(bus.wdata, data if data_valid else NOISE)
            ctx.set(bus.wstrb, strobes if data_valid else NOISE)
            ctx.set(bus.bready, cycle >= ready_wait)
            address_taken, data_taken = ctx.get(bus.awready), ctx.get(bus.wready)
            answered, response = ctx.get(bus.bvalid), ctx.get(bus.bresp)
            if answered and (send_address or send_data):
                raise AssertionError("a response before the address and the data were taken")
            await ctx.tick()
            send_address = send_address and not (address_valid and address_taken)
            send_data = send_data and not (data_valid and data_taken)
            if answered and cycle >= ready_wait:
                ctx.set(bus.bready, 0)
                return int(response)
        raise AssertionError("a write without a response")

    async def read(self, ctx: Any, address: int) -> tuple[int, int]:
        """Read, and return the data and the response.

        Raises
        ------
        AssertionError
            If the response comes too early, or not within `LIMIT` cycles.
        """
        bus = self.bus
        address_wait, ready_wait = self._waits(2)
        send = True
        for cycle in range(LIMIT):
            valid = send and cycle >= address_wait
            ctx.set(bus.arvalid, valid)
            ctx.set(bus.araddr, address if valid else NOISE)
            ctx.set(bus.rready, cycle >= ready_wait)
            taken = ctx.get(bus.arready)
            answered = ctx.get(bus.rvalid)
            data, response = ctx.get(bus.rdata), ctx.get(bus.rresp)
            if answered and send:
                raise AssertionError("data before the address was taken")
            await ctx.tick()
            send = send and not (valid and taken)
            if answered and cycle >= ready_wait:
                ctx.set(bus.rready, 0)
                return int(data), int(response)
        raise AssertionError("a read without a response")


async def monitor(ctx: Any, bus: Any) -> None:
    """Raise AssertionError if a response goes or changes before it is taken; run in background."""
    waiting: dict[str, tuple[int, ...]] = {}
    async for _, _, *values in ctx.tick().sample(
            bus.bvalid, bus.bready, bus.bresp, bus.rvalid, bus.rready, bus.rdata, bus.rresp):
        answers = {"write": (*values[:2], (values[2],)), "read": (*values[3:5], tuple(values[5:]))}
        for name, (valid, ready, payload) in answers.items():
            if name in waiting and (not valid or payload != waiting[name]):
                raise AssertionError(f"a {name}'s response was not kept until it was taken")
            waiting.pop(name, None)
            if valid and not ready:
                waiting[name] = payload
