# SPDX-License-Identifier: Apache-2.0
"""Log-softmax: attention scores in, log2 codes or probabilities out, row by row."""

__all__ = ["LogSoftmax"]

from dataclasses import replace
from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay, signature
from hw.softmax.normalize import SoftmaxNormalize
from hw.softmax.polynomial import PolynomialMaximum, PolynomialNormalize
from hw.softmax.rows import RowBuffer
from hw.softmax.statistics import SoftmaxStatistics
from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import PolynomialWidths, ShiftWidths
from vitforge.spec.words import Field, Word


def _parameters(config: Config) -> tuple[Field, ...]:
    if config.exponential == "shift":
        shift = ShiftWidths(config)
        return (Field("multiplier", shift.multiplier, text="log2(e) * scale in steps of "
                      f"2**-{shift.multiplier_fraction}"),)
    widths = PolynomialWidths(config)
    return (Field("x0", widths.x0, text="ln(2) / scale"),
            Field("b", widths.b, text="linear coefficient"),
            Field("c", widths.c, text="constant coefficient"),
            Field("reciprocal", widths.reciprocal, text=f"ceil({4 ** config.score_bits} / x0)"))


class LogSoftmax(wiring.Component):
    """Softmax of rows of 1 to `max_keys` scores; a row is ``ceil(keys / lanes)`` words.

    ``code = clip(round(log2(sum over keys of 2**y) - y), 0, 2**attention_bits - 1)``,
    ``y = log2(e) * s * x``

    Rounding: half up in the last step, see `hw.softmax.normalize`; floors before it.

    Bit-exact with :func:`golden.units.softmax.log_softmax`. `SoftmaxStatistics` reads a row as it
    arrives, `RowBuffer` holds it, `SoftmaxNormalize` encodes it while the next row arrives.

    The first word of a row leaves `latency` cycles after its last word has come. Initiation
    interval: 1 cycle a word and 0 more a row, for rows of equal length of whatever length.
    A short row after a longer one waits for that one to leave; `RowBuffer.rows` rows may wait
    before `i` isn't ready. With ``exponential = "iexp"`` a row of W words takes
    ``2 * W + PolynomialNormalize.wait`` cycles.

    Keys with `keep` = 0 add nothing and get the code of zero; a row of only such keys is a row of
    zeros. The parameters (`multiplier`, or `x0` and so on) must be the same on every word of a row.

    Members
    -------
    i : In(signature(words["i"]))
        Scores.
    o : Out(signature(words["o"]))
        Codes, in the words in which their scores came.

    Raises
    ------
    ValueError
        If the configuration asks for codes that only the accelerator makes
        (`vitforge.spec.probability_levels`), for linear probabilities of the polynomial
        exponential, which FQ-ViT's division-free rule doesn't give, or for a polynomial that
        doesn't fit.
    """

    def __init__(self, config: Config):
        words = self.words(config)
        self.config = config
        self._first: Any
        self._second: Any
        if config.exponential == "shift":
            self._first = SoftmaxStatistics(config)
            self._second = SoftmaxNormalize(config, words["o"])
        else:
            self._first = PolynomialMaximum(config)
            self._second = PolynomialNormalize(config, words["o"])
        #: Cycles from a one-word row in to its word out; the least from any last word.
        self.latency = self._first.latency + 2 + self._second.latency
        self._rows = RowBuffer(config, words["i"], _parameters(config),
                               len(self._first.o.payload), self._first.latency,
                               config.exponential == "iexp")
        super().__init__({"i": In(signature(words["i"])), "o": Out(signature(words["o"]))})

    @staticmethod
    def words(config: Config) -> dict[str, Word]:
        """Return the words of both streams."""
        if config.attention not in ("log2", "linear"):
            raise ValueError("attention must be log2 or linear for the log-softmax unit, not "
                             f"{config.attention}")
        if config.exponential == "iexp" and config.attention != "log2":
            raise ValueError("attention must be log2 with exponential iexp, not "
                             f"{config.attention}")
        if config.attention == "log2":
            zero = (1 << config.attention_bits) - 1
            codes = Field("codes", config.attention_bits, count=config.lanes,
                          text=f"-log2 of the probability; {zero}: exactly zero")
        else:
            codes = Field("codes", 16, count=config.lanes,
                          text="probability in steps of 2**-15, 32768 is 1")
        last = Field("last", 1, text="ends the row")
        return {
            "i": Word((Field("scores", config.score_bits, True, config.lanes, "scores"),
                       Field("keep", 1, count=config.lanes, text="0: masked or padding"),
                       *(replace(item, text=f"{item.text}, the same for a whole row")
                         for item in _parameters(config)), last)),
            "o": Word((codes, last)),
        }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rows = rows = self._rows
        m.submodules.first = first = self._first
        m.submodules.second = second = self._second
        wiring.connect(m, wiring.flipped(self.i), rows.i)
        wiring.connect(m, wiring.flipped(self.o), second.o)

        m.d.comb += [
            first.i.valid.eq(self.i.valid & self.i.ready),
            first.i.p.scores.eq(self.i.p.scores.as_value()),
            first.i.p.keep.eq(self.i.p.keep.as_value()),
            first.i.p.last.eq(self.i.p.last),
            rows.done.eq(first.o.valid),
            rows.found.eq(first.o.payload),
        ]
        if self.config.exponential == "shift":
            m.d.comb += first.i.p.multiplier.eq(self.i.p.multiplier)

        # One word a cycle is read, and is in the buffer's output register while it is offered.
        advance = second.i.ready
        issue = rows.available & advance
        if self.config.exponential == "iexp":
            issue = issue & ~second.hold
            m.d.comb += [second.take.eq(issue), second.end.eq(rows.last),
                         rows.again.eq(~second.coding)]
        m.d.comb += [
            rows.take.eq(issue),
            second.i.valid.eq(delay(m, issue, advance=advance, name="issued", init=0)),
            second.i.p.scores.eq(rows.scores),
            second.i.p.keep.eq(rows.keep),
            second.i.p.last.eq(delay(m, rows.last, advance=advance, name="last")),
        ]
        for name, value in (("result", rows.result),
                            *((item.name, rows.parameters[item.name])
                              for item in _parameters(self.config))):
            m.d.comb += second.i.p[name].eq(delay(m, value, advance=advance, name=name))
        return m
