# SPDX-License-Identifier: Apache-2.0
"""A short queue of wide entries, in distributed memory."""

__all__ = ["Queue"]

from typing import Any

from amaranth.hdl import Module, Signal, Value
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
        The oldest entry.
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
        # One bit more than an address: equal is empty, that bit alone apart is full.
        newest = Signal(range(2 * self.depth))
        oldest = Signal(range(2 * self.depth))
        m.d.comb += [
            self.i.ready.eq(newest ^ oldest != self.depth),
            self.o.valid.eq(newest != oldest),
            write.en.eq(self.i.valid & self.i.ready),
            write.addr.eq(newest[:-1]),
            write.data.eq(Value.cast(self.i.payload)),
            read.addr.eq(oldest[:-1]),
            self.o.payload.eq(read.data),
        ]
        m.d.sync += [newest.eq(newest + (self.i.valid & self.i.ready)),
                     oldest.eq(oldest + (self.o.valid & self.o.ready))]
        return m
