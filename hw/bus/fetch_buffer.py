# SPDX-License-Identifier: Apache-2.0
"""The buffer behind the memory bus: a ring of words whose consumer may be slow to say `ready`."""

__all__ = ["FetchBuffer"]

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class FetchBuffer(wiring.Component):
    """First in, first out: `depth` words of memory, its output register, and a spare word.

    Latency 2, initiation interval 1, on every cycle the words of `hw.layernorm.buffer.Ring`. But
    here ``o.ready`` doesn't decide whether the memory is read: a read that turns out to be early
    moves the word before it to the spare place. So ``o.ready`` may come at the end of a cycle.

    Parameters
    ----------
    bits
        Width of a word.
    depth
        Words of memory; a power of two, at least 2.

    Members
    -------
    i : In(stream.Signature(bits))
        Ready while the memory has room.
    o : Out(stream.Signature(bits))
        The same words in order.
    """

    latency = 2

    def __init__(self, bits: int, depth: int):
        if depth < 2 or depth & depth - 1:
            raise ValueError(f"depth must be a power of two from 2, not {depth}")
        self.depth = depth
        super().__init__({"i": In(stream.Signature(bits)), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = len(self.i.payload)
        # A word is never read in the cycle in which it is written.
        m.submodules.memory = memory = Memory(shape=width, depth=self.depth, init=[],
                                              attrs={"no_rw_check": "1"})
        write, read = memory.write_port(), memory.read_port()
        level = Signal(range(self.depth + 1))
        first = Signal(range(self.depth))
        last = Signal(range(self.depth))
        fetch = Signal()
        # The output register holds a word whenever the spare place does.
        held = Signal()
        spare = Signal(width, reset_less=True)
        spared = Signal()
        taken = Signal()
        m.d.comb += [
            # Only the depth itself has the highest bit.
            self.i.ready.eq(~level[-1]),
            write.en.eq(self.i.valid & self.i.ready),
            write.addr.eq(last),
            write.data.eq(self.i.payload),
            fetch.eq((level != 0) & ~spared),
            read.en.eq(fetch),
            read.addr.eq(first),
            self.o.valid.eq(held),
            self.o.payload.eq(Mux(spared, spare, read.data)),
            taken.eq(held & self.o.ready),
        ]
        change = Signal(signed(2))
        m.d.comb += change.eq(Cat(write.en ^ fetch, fetch & ~write.en))
        m.d.sync += [
            level.eq(level + change), last.eq(last + write.en), first.eq(first + fetch),
            held.eq(fetch | spared | (held & ~taken)),
            spared.eq(held & ~taken & (spared | fetch)),
        ]
        with m.If(~spared):
            m.d.sync += spare.eq(read.data)
        return m
