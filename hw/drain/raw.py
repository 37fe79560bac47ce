# SPDX-License-Identifier: Apache-2.0
"""Accumulators that leave the accelerator as they are: bias, and room for a stream that waits."""

__all__ = ["RawOutput"]

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.layouts import RAW_BITS, raw_layout
from hw.lib.queue import Queue
from hw.lib.stream import delay
from vitforge.spec.config import Config

#: Groups under way: more than the cycles from a group's issue to its room being counted again,
#: so that a consumer that is always ready gets one a cycle. What one distributed memory holds.
DEPTH = 16


class RawOutput(wiring.Component):
    """``acc + bias``, 32 bits, into a queue; a group is only issued if the queue has its place.

    The sum of a group is offered two cycles after `valid`. It fits 32 bits, by the program.

    Members
    -------
    issue : In(1)
        A group has been issued and will come.
    room : Out(1)
        One more may be issued. A register's bit.
    valid : In(1)
    acc, bias : In(ArrayLayout(signed, lanes))
        The group, later.
    o : Out(stream.Signature(raw_layout(config)))
        The sums.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "issue": In(1), "room": Out(1), "valid": In(1),
            "acc": In(data.ArrayLayout(signed(config.acc_bits), config.lanes)),
            "bias": In(data.ArrayLayout(signed(RAW_BITS), config.lanes)),
            "o": Out(stream.Signature(raw_layout(config))),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = Queue(raw_layout(self.config), DEPTH)
        taken = Signal(range(DEPTH + 1))
        m.d.comb += self.room.eq(~taken[-1])
        m.d.sync += taken.eq(taken + self.issue - (self.o.valid & self.o.ready))

        for lane in range(self.config.lanes):
            total = Signal(signed(RAW_BITS), name=f"total_{lane}", reset_less=True)
            m.d.sync += total.eq(self.acc[lane] + self.bias[lane])
            m.d.comb += queue.i.payload[lane].eq(total)
        m.d.comb += queue.i.valid.eq(delay(m, self.valid, advance=1, name="summed", init=0))
        wiring.connect(m, wiring.flipped(self.o), queue.o)
        return m
