# SPDX-License-Identifier: Apache-2.0
"""A short queue of wide entries, in distributed memory."""

__all__ = ["Queue"]

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """First in, first out; an entry is offered from the cycle after it was taken.

    Parameters
    ----------
    shape
        Shape of an entry.
    depth
        Entries; a power of two.

    Members
    -------
    i : In(stream.Signature(shape))
        Ready unless full.
    o : Out(stream.Signature(shape))
        The oldest entry. Valid and payload are registers.
    """

    def __init__(self, shape: Any, depth: int):
        self.depth = depth
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(Value.cast(self.i.payload))
        m.submodules.memory = memory = Memory(shape=width, depth=self.depth, init=[],
                                              attrs={"ram_style": "distributed"})
        write = memory.write_port()
        read = memory.read_port(domain="comb")
        # The oldest entry has a register of its own, for what is decided by it is decided late; the
        # memory is read one place ahead.
        newest = Signal(range(self.depth))
        second = Signal(range(self.depth), init=1 % self.depth)
        level = Signal(range(self.depth + 1))
        room = Signal(init=1)
        single = Signal()
        head = Signal(width, reset_less=True)
        put = Signal()
        take = Signal()
        m.d.comb += [
            self.i.ready.eq(room),
            put.eq(self.i.valid & self.i.ready), take.eq(self.o.valid & self.o.ready),
            write.en.eq(put),
            write.addr.eq(newest),
            write.data.eq(Value.cast(self.i.payload)),
            read.addr.eq(second),
            single.eq(level == 1),
            self.o.payload.eq(head),
        ]
        m.d.sync += [
            newest.eq(newest + put), second.eq(second + take), level.eq(level + put - take),
            room.eq(take | Mux(put, level < self.depth - 1, level < self.depth)),
        ]
        with m.If(take | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(put | self.o.valid & ~single),
                head.eq(Mux(single | ~self.o.valid, self.i.payload, read.data)),
            ]
        return m
