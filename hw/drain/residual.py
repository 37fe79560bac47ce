# SPDX-License-Identifier: Apache-2.0
"""The residual that the drain adds: from a word of codes to operands, a group a cycle."""

__all__ = ["Residual"]

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitforge.spec.config import Config


class Residual(wiring.Component):
    """``(code - zero_point) << shift``.

    A word's groups follow from the cycle of `load` on, one a cycle. Two registers: the operands of
    a group are there two cycles after the group. They fit norm_bits, by the program.

    Members
    -------
    load : In(1)
        `codes` is a new word, and this is the cycle of its first group.
    codes : In(rows * 8)
    zero_point : In(8)
        With the group.
    shift : In(ArrayLayout(3, lanes))
        One cycle after the group.
    operands : Out(ArrayLayout(signed(norm_bits), lanes))
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "load": In(1), "codes": In(config.rows * 8), "zero_point": In(8),
            "shift": In(data.ArrayLayout(3, config.lanes)),
            "operands": Out(data.ArrayLayout(signed(config.norm_bits), config.lanes)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.config.lanes
        rest = Signal(self.config.rows * 8, reset_less=True)
        word = Signal(self.config.rows * 8)
        m.d.comb += word.eq(Mux(self.load, self.codes, rest))
        m.d.sync += rest.eq(word >> lanes * 8)
        for lane in range(lanes):
            mantissa = Signal(signed(9), name=f"mantissa_{lane}", reset_less=True)
            operand = Signal(signed(self.config.norm_bits), name=f"operand_{lane}",
                             reset_less=True)
            m.d.sync += [
                mantissa.eq(word.word_select(lane, 8) - self.zero_point),
                operand.eq(mantissa << self.shift[lane]),
            ]
            m.d.comb += self.operands[lane].eq(operand)
        return m
