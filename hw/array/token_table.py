# SPDX-License-Identifier: Apache-2.0
"""The table of tokens by which passes gather their operands."""

__all__ = ["TokenTable", "table_write_layout"]

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vitforge.spec.config import Config
from vitforge.spec.sizes import ADDRESS_BITS, ENTRY, stream_bits


def table_write_layout(config: Config) -> data.StructLayout:
    """Return the signals that write a word of indices, as it stands in a program."""
    return data.StructLayout({"en": 1, "address": ADDRESS_BITS, "data": config.rows * 8})


class TokenTable(wiring.Component):
    """`table_tokens` indices of tokens, written `rows / 2` at a time.

    Of an index the bits that a token of a stream has are kept. Latency 1: an index follows in the
    cycle after its place, and stays until another is read.

    Members
    -------
    read : In(1)
    place : In(16)
        Counted modulo the size of the memory.
    index : Out(stream_bits)
    write : In(table_write_layout(config))
    overflow : Out(1)
        Pulses one cycle after a write beyond the table, which does nothing.
    """

    def __init__(self, config: Config):
        self.config = config
        #: Indices in a word of a program.
        self.several = config.rows * 8 // ENTRY
        self.depth = -(-config.table_tokens // self.several)
        super().__init__({
            "read": In(1), "place": In(ENTRY), "index": Out(stream_bits(config)),
            "write": In(table_write_layout(config)), "overflow": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = stream_bits(self.config)
        # Nobody reads while a LOAD writes.
        m.submodules.memory = memory = Memory(shape=bits * self.several, depth=self.depth, init=[],
                                              attrs={"no_rw_check": "1"})
        read, write = memory.read_port(), memory.write_port()
        inside = (self.several - 1).bit_length()
        lane = Signal(inside, reset_less=True)
        beyond = self.write.address >= self.depth
        m.d.comb += [
            read.en.eq(self.read),
            read.addr.eq(self.place >> inside),
            self.index.eq(read.data.word_select(lane, bits)),
            write.en.eq(self.write.en & ~beyond),
            write.addr.eq(self.write.address),
            write.data.eq(Cat(self.write.data.word_select(number, ENTRY)[:bits]
                              for number in range(self.several))),
        ]
        m.d.sync += self.overflow.eq(self.write.en & beyond)
        with m.If(self.read):
            m.d.sync += lane.eq(self.place)
        return m
