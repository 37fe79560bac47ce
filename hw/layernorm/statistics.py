# SPDX-License-Identifier: Apache-2.0
"""Sums and exact variance of rows that stream by."""

__all__ = ["Statistics", "elements_word", "totals_word"]

from amaranth.hdl import Module, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layernorm.sums import VARIANCE_STEPS, add_pairs, lane_sums, variance
from hw.lib.stream import delay, register, signature
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.words import Field, Word


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

    Rounding: none, all are exact.

    A row's word leaves ``latency`` cycles after the row's last word has entered; initiation
    interval 1. Everything moves as a whole unless a finished row waits to be taken.

    Widths: see `vitforge.spec.layernorm_widths`; arithmetic: `hw.layernorm.sums`.

    Members
    -------
    i : In(signature(elements_word(config)))
        The elements; `x` must be 0 where `keep` is.
    o : Out(signature(totals_word(config)))
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

        word = self.i.payload
        sums = lane_sums(m, [word.x[n] for n in range(self.config.lanes)], advance=advance,
                         config=self.config)
        population = register(m, _population(word.keep), advance=advance, name="population")
        kept = [delay(m, population, advance=advance, name="kept")]
        valid = delay(m, self.i.valid, advance=advance, cycles=self.levels + 2, name="valid",
                      init=0)
        last = delay(m, word.last, advance=advance, cycles=self.levels + 2, name="last")
        for level in range(self.levels):
            kept = add_pairs(m, advance, f"kept_{level}", kept)

        # A running sum goes back to 0 when the row's total leaves it: no multiplexer.
        shapes = {"count": unsigned(width.count_bits), "total": signed(width.sum_bits),
                  "squares": unsigned(width.square_bits)}
        totals = {}
        for (name, shape), value in zip(shapes.items(), (kept[0], *sums), strict=True):
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

        found = variance(m, totals["count"], totals["total"], totals["squares"], advance=advance,
                         config=self.config)
        m.d.comb += [
            self.o.valid.eq(delay(m, valid & last, advance=advance, cycles=1 + VARIANCE_STEPS,
                                  name="finished", init=0)),
            self.o.payload.variance.eq(found),
            self.o.payload.count.eq(delay(m, totals["count"], advance=advance,
                                          cycles=VARIANCE_STEPS, name="count")),
            self.o.payload.total.eq(delay(m, totals["total"], advance=advance,
                                          cycles=VARIANCE_STEPS, name="total")),
        ]
        return m


def _population(bits: Value) -> Value:
    """Count the ones."""
    return sum((bit for bit in list(Value.cast(bits))[1:]), Value.cast(bits)[0])
