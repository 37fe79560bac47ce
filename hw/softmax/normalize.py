# SPDX-License-Identifier: Apache-2.0
"""Second half of the shift-based softmax: from a score and its row's offset to a code."""

__all__ = ["SoftmaxNormalize"]

from amaranth.hdl import Module, Mux, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream import Skid, delay, register, signature
from hw.softmax.lanes import exponent, power_pipeline
from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import ShiftWidths
from vitforge.spec.words import Word


class SoftmaxNormalize(wiring.Component):
    """``code = floor(offset - y)`` on every lane: one multiplication, one subtraction.

    With ``attention = "linear"``: ``p = 2**(y - offset)`` in steps of ``2**-15``.

    Rounding: ``y = x * multiplier`` is floored; the code is rounded half up by the 1/2 that the
    offset holds, p by the addition of its last bit.

    The pipeline moves as a whole while its skid has room. Initiation interval 1.

    Members
    -------
    i : In(stream.Signature(StructLayout({scores, keep, multiplier, result, last})))
        A word of keys and what `SoftmaxStatistics` has found for their row (the offset).
    o : Out(signature(word))
        Codes or probabilities, `latency` cycles after the word has been accepted.
    """

    def __init__(self, config: Config, word: Word):
        self.config = config
        self.word = word
        self.widths = ShiftWidths(config)
        self.stages = 3 if config.attention == "log2" else 7
        self.latency = self.stages + 1
        layout = data.StructLayout({
            "scores": data.ArrayLayout(signed(config.score_bits), config.lanes),
            "keep": unsigned(config.lanes),
            "multiplier": unsigned(self.widths.multiplier),
            "result": unsigned(self.widths.offset),
            "last": unsigned(1),
        })
        super().__init__({"i": In(stream.Signature(layout)), "o": Out(signature(word))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        widths = self.widths
        m.submodules.skid = skid = Skid(self.word)
        wiring.connect(m, wiring.flipped(self.o), skid.o)
        advance = skid.i.ready
        m.d.comb += self.i.ready.eq(advance)

        multiplier = delay(m, self.i.p.multiplier, advance=advance, name="multiplier")
        offset = delay(m, self.i.p.result, advance=advance, cycles=2, name="offset")
        for lane in range(self.config.lanes):
            score = delay(m, self.i.p.scores[lane], advance=advance, name=f"score_{lane}")
            keep = delay(m, self.i.p.keep[lane], advance=advance, cycles=self.stages,
                         name=f"keep_{lane}")
            y = exponent(m, score, multiplier, widths, advance=advance, name=f"exponent_{lane}")
            distance = register(m, offset - y, advance=advance, name=f"distance_{lane}",
                                shape=signed(widths.offset))
            encode = self._code if self.config.attention == "log2" else self._probability
            m.d.comb += skid.i.p.codes[lane].eq(encode(m, distance, keep, advance, lane))
        m.d.comb += [
            skid.i.p.last.eq(delay(m, self.i.p.last, advance=advance, cycles=self.stages,
                                   name="last")),
            skid.i.valid.eq(delay(m, self.i.valid, advance=advance, cycles=self.stages,
                                  name="valid", init=0)),
        ]
        return m

    def _code(self, m: Module, distance: Value, keep: Value, advance: Value, lane: int) -> Value:
        # The offset holds the half of the rounding. A distance is above -0.5: the tables are off
        # by less than 0.1 for any number of segments, and a sum isn't below its largest term. So
        # the bits are those of an unsigned number, and only the upper end needs a clamp.
        bits = self.config.attention_bits
        whole = distance[self.widths.fraction:]
        return whole[:bits] | (~keep | whole[bits:].any()).replicate(bits)

    def _probability(self, m: Module, distance: Value, keep: Value, advance: Value,
                     lane: int) -> Value:
        """``2**-distance`` in steps of ``2**-15``, rounded half up, at most 1."""
        widths = self.widths
        power = register(m, -distance, advance=advance, name=f"exponent_of_probability_{lane}",
                         shape=signed(widths.offset))
        one = power >= 0
        # -1 - floor(power): the shift that leaves one bit below the steps.
        amount = (~(power >> widths.fraction)).as_unsigned()
        amount = Mux(amount > 16, 16, amount)[:5]
        mantissa = power_pipeline(m, power[:widths.fraction], widths.power, advance=advance,
                                  name=f"probability_{lane}") | 1 << widths.fraction
        amount = delay(m, amount, advance=advance, cycles=2, name=f"amount_{lane}")
        shifted = delay(m, ((mantissa << 15 - widths.fraction) >> amount)[:16], advance=advance,
                        name=f"shifted_{lane}")
        one = delay(m, one, advance=advance, cycles=3, name=f"one_{lane}")
        return Mux(keep, Mux(one, 1 << 15, shifted + 1 >> 1), 0)
