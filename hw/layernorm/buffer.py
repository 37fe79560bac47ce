# SPDX-License-Identifier: Apache-2.0
"""A ring of words in block memory."""

__all__ = ["Ring"]

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import signature
from vitforge.spec.words import Word


class Ring(wiring.Component):
    """First in, first out: `depth` words of memory, and the memory's output register.

    Latency 2, initiation interval 1. Both handshakes come from registers. A word is never read in
    the cycle in which it is written, so the memory is told not to care about that: what a
    synthesizer adds to give a block memory a defined answer there costs a multiplexer a bit.

    Parameters
    ----------
    word
        What is stored.
    depth
        Words of memory; a power of two, at least 2.

    Members
    -------
    i : In(signature(word))
        Ready while the memory has room.
    o : Out(signature(word))
        The same words in order.
    """

    latency = 2

    def __init__(self, word: Word, depth: int):
        if depth < 2 or depth & depth - 1:
            raise ValueError(f"depth must be a power of two from 2, not {depth}")
        self.word = word
        self.depth = depth
        super().__init__({"i": In(signature(word)), "o": Out(signature(word))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        memory: Memory = Memory(shape=unsigned(self.word.bits), depth=self.depth, init=[],
                                attrs={"no_rw_check": "1"})
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port()
        level = Signal(range(self.depth + 1))
        first = Signal(range(self.depth))
        last = Signal(range(self.depth))
        fetch = Signal()
        m.d.comb += [
            # Only the depth itself has the highest bit.
            self.i.ready.eq(~level[-1]),
            write.en.eq(self.i.valid & self.i.ready),
            write.addr.eq(last),
            write.data.eq(self.i.payload),
            fetch.eq((level != 0) & (~self.o.valid | self.o.ready)),
            read.en.eq(fetch),
            read.addr.eq(first),
            self.o.payload.eq(read.data),
        ]
        change = Signal(signed(2))
        m.d.comb += change.eq(Cat(write.en ^ fetch, fetch & ~write.en))
        m.d.sync += [level.eq(level + change), last.eq(last + write.en), first.eq(first + fetch)]
        with m.If(fetch):
            m.d.sync += self.o.valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
