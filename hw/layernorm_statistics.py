# SPDX-License-Identifier: Apache-2.0
"""Sums and exact variance of rows that stream by."""

__all__ = ["Statistics", "elements_word", "totals_word"]

import operator
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

from amaranth.hdl import Cat, Module, Shape, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.layernorm_format import NormFormat
from hw.stream import delay, signature
from hw.words import Field, Word

#: Digits of Q: unsigned, so that they fit a signed 18-bit multiplier.
DIGIT = 17


def elements_word(config: Config) -> Word:
    """Return the word of `lanes` elements of a row."""
    return Word((Field("x", config.norm_bits, signed=True, count=config.lanes,
                       text="element; 0 where keep is 0"),
                 Field("keep", 1, count=config.lanes, text="whether the row has this element"),
                 Field("last", 1, text="last word of the row")))


def totals_word(config: Config) -> Word:
    """Return the word of what one row leaves."""
    width = NormFormat(config)
    return Word((Field("count", width.count_bits, text="C, kept elements"),
                 Field("total", width.sum_bits, signed=True, text="S, their sum"),
                 Field("variance", width.variance_bits, text="V = C*Q - S*S, exactly")))


class Statistics(wiring.Component):
    """Gather C, S and Q of a row, and compute ``V = C*Q - S*S``.

    A row's word leaves ``latency`` cycles after the row's last word has entered; initiation
    interval 1. Everything moves as a whole unless a finished row waits to be taken.

    Widths: see `hw.layernorm_format`. C*Q is a sum of products by 17-bit digits of Q, S*S is
    ``(a << 2*half | b*b) + (a*b << half+1)`` for ``S = (a << half) + b``: no product is wider than
    18 by 18 bits.

    Members
    -------
    i : :py:`In(signature(elements_word(config)))`
        The elements; `x` must be 0 where `keep` is.
    o : :py:`Out(signature(totals_word(config)))`
        The row's totals.
    """

    #: Registers beside those of the adder tree.
    registers = 6

    def __init__(self, config: Config):
        self.config = config
        self.levels = NormFormat(config).levels
        self.latency = self.levels + self.registers
        super().__init__({"i": In(signature(elements_word(config))),
                          "o": Out(signature(totals_word(config)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = NormFormat(self.config)
        advance = Signal()
        m.d.comb += [advance.eq(~self.o.valid | self.o.ready), self.i.ready.eq(advance)]

        # Square, then add up the lanes, one register a level. Multipliers have registers of their
        # own on both sides, so that the way to them and back isn't part of another path.
        word = self.i.payload
        square_shape = unsigned(2 * self.config.norm_bits - 1)
        lanes = range(self.config.lanes)
        inputs = [delay(m, word.x[n], advance=advance, name=f"input_{n}") for n in lanes]
        xs = [delay(m, x, advance=advance, name=f"x_{n}") for n, x in enumerate(inputs)]
        squares = [self._register(m, advance, f"square_{n}", x * x, square_shape)
                   for n, x in enumerate(inputs)]
        population = self._register(m, advance, "population", _population(word.keep))
        kept = [delay(m, population, advance=advance, name="kept")]
        valid = delay(m, self.i.valid, advance=advance, cycles=self.levels + 2, name="valid",
                      init=0)
        last = delay(m, word.last, advance=advance, cycles=self.levels + 2, name="last")
        for level in range(self.levels):
            xs = self._add(m, advance, f"x_sum_{level}", xs)
            squares = self._add(m, advance, f"square_sum_{level}", squares)
            kept = self._add(m, advance, f"kept_{level}", kept)

        # A running sum goes back to 0 when the row's total leaves it: no multiplexer.
        shapes = {"count": unsigned(width.count_bits), "total": signed(width.sum_bits),
                  "squares": unsigned(width.square_bits)}
        totals = {}
        for (name, shape), value in zip(shapes.items(), (kept[0], xs[0], squares[0]),
                                        strict=True):
            running = Signal(shape, name=f"running_{name}")
            total = Signal(shape, name=f"row_{name}", reset_less=True)
            # The row's bounds make every partial sum fit.
            added = Signal(shape, name=f"added_{name}")
            m.d.comb += added.eq(running + value)
            with m.If(advance & valid):
                m.d.sync += [running.eq(added), total.eq(added)]
            # Not within the other condition: so it is a reset of the register, and costs nothing.
            with m.If(advance & valid & last):
                m.d.sync += running.eq(0)
            totals[name] = total
        gathered = delay(m, valid & last, advance=advance, cycles=2, name="gathered", init=0)

        count, total, squares_total = (delay(m, item, advance=advance, name=f"final_{name}")
                                       for name, item in totals.items())
        digits = [self._register(m, advance, f"digit_{low}",
                                 count * squares_total[low:low + DIGIT])
                  for low in range(0, width.square_bits, DIGIT)]
        half = (width.sum_bits + 1) // 2
        high = Signal(signed(width.sum_bits - half))
        m.d.comb += high.eq(total >> half)
        high_square = self._register(m, advance, "high_square", high * high,
                                     unsigned(2 * (width.sum_bits - half) - 1))
        low_square = self._register(m, advance, "low_square", total[:half] * total[:half])
        cross = self._register(m, advance, "cross", high * total[:half])
        multiplied = delay(m, gathered, advance=advance, name="multiplied", init=0)

        # Both are at most C*Q, below 2**variance_bits, or equal to it in C*Q's and S*S's extreme.
        shape = unsigned(width.variance_bits + 1)
        product = self._register(
            m, advance, "product",
            reduce(operator.add, (digit << DIGIT * n for n, digit in enumerate(digits))), shape)
        square = self._register(m, advance, "square",
                                Cat(low_square, high_square) + (cross << half + 1), shape)
        m.d.comb += [
            self.o.valid.eq(delay(m, multiplied, advance=advance, name="finished", init=0)),
            # V itself is always below 2**variance_bits.
            self.o.payload.variance.eq(product - square),
            self.o.payload.count.eq(delay(m, count, advance=advance, cycles=2, name="count")),
            self.o.payload.total.eq(delay(m, total, advance=advance, cycles=2, name="total")),
        ]
        return m

    @staticmethod
    def _register(m: Module, advance: Signal, name: str, value: Value,
                  shape: Shape | None = None) -> Signal:
        """Register `value` on `advance`, in its own shape unless a bound gives a narrower one."""
        register = Signal(value.shape() if shape is None else shape, name=name, reset_less=True)
        with m.If(advance):
            m.d.sync += register.eq(value)
        return register

    def _add(self, m: Module, advance: Signal, name: str, values: Sequence[Signal]) -> list[Signal]:
        """One level of an adder tree: half as many values."""
        values = list(values)
        pairs = [left + right for left, right in list(pairwise(values))[::2]]
        odd: list[Value] = [values[-1]] if len(values) % 2 else []
        return [self._register(m, advance, f"{name}_{n}", value)
                for n, value in enumerate([*pairs, *odd])]


def _population(bits: Value) -> Value:
    """Count the ones."""
    return sum((bit for bit in list(Value.cast(bits))[1:]), Value.cast(bits)[0])
