# SPDX-License-Identifier: Apache-2.0
"""Codes of operands on their way back into the scratchpad, two tokens to a byte."""

__all__ = ["Keeper"]

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitforge.spec.config import Config
from vitforge.spec.sizes import ADDRESS_BITS


class Keeper(wiring.Component):
    """Give the codes of a pass that keeps them their places, one word of a token a step.

    Token 0 of a tile goes into the lower halves of its first word, token 1 into the upper ones;
    a last one without another takes both, so that what stands there is a code that fits. The next
    tile follows without a gap.

    Members
    -------
    begin : In(StructLayout({en, address}))
        Where the words of the next pass go. None of the pass before are missing.
    kept : In(StructLayout({en, last, data}))
        Codes of 4 bits of a token, and whether it is the last of its tile.
    write : Out(StructLayout({en, address, halves, data}))
        In the same cycle, for a bank.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "begin": In(data.StructLayout({"en": 1, "address": ADDRESS_BITS})),
            "kept": In(data.StructLayout({"en": 1, "last": 1, "data": config.rows * 4})),
            "write": Out(data.StructLayout({"en": 1, "address": ADDRESS_BITS, "halves": 2,
                                            "data": config.rows * 8})),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upper = Signal()
        address = Signal(ADDRESS_BITS, reset_less=True)
        with m.If(self.begin.en):
            m.d.sync += [address.eq(self.begin.address), upper.eq(0)]
        with m.Elif(self.kept.en):
            m.d.sync += [address.eq(address + (upper | self.kept.last)),
                         upper.eq(~upper & ~self.kept.last)]
        m.d.comb += [
            self.write.en.eq(self.kept.en), self.write.address.eq(address),
            self.write.halves.eq(Cat(~upper, upper | self.kept.last)),
            *(self.write.data.word_select(place, 4).eq(self.kept.data.word_select(place // 2, 4))
              for place in range(2 * self.config.rows)),
        ]
        return m
