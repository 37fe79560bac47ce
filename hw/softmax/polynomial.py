# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT's polynomial softmax in gateware: a pass for the maximum, one for the sum, one to code."""

__all__ = ["PolynomialMaximum", "PolynomialNormalize"]

from functools import partial

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream import Skid, delay, signature
from hw.softmax.lanes import depth, larger, mask, tree
from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import PolynomialWidths
from vitforge.spec.words import Word


class PolynomialMaximum(wiring.Component):
    """Largest score of a row, `latency` cycles after its last word; never stalls.

    ``o = max over keys of x``

    Rounding: none.

    Members
    -------
    i : In(stream.Signature(StructLayout({scores, keep, last})))
        A word of keys; masked ones count as the lowest score.
    o : Out(stream.Signature(signed(score_bits)))
        The maximum; the consumer must be always ready.
    """

    def __init__(self, config: Config):
        self.config = config
        self.latency = 2 + depth(config.lanes)
        word = data.StructLayout({
            "scores": data.ArrayLayout(signed(config.score_bits), config.lanes),
            "keep": unsigned(config.lanes), "last": unsigned(1)})
        super().__init__({
            "i": In(stream.Signature(word, always_ready=True)),
            "o": Out(stream.Signature(signed(config.score_bits), always_ready=True)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        always = Const(1)
        scores = [delay(m, mask(self.i.p.scores[lane], self.i.p.keep[lane]), advance=always,
                        name=f"score_{lane}") for lane in range(self.config.lanes)]
        largest = tree(m, scores, larger, advance=always, name="largest")
        cycles = 1 + depth(self.config.lanes)
        valid = delay(m, self.i.valid, advance=always, cycles=cycles, name="valid", init=0)
        last = delay(m, self.i.p.last, advance=always, cycles=cycles, name="last")
        first = Signal(init=1)
        with m.If(valid):
            m.d.sync += first.eq(last)
            with m.If(first | (largest > self.o.payload)):
                m.d.sync += self.o.payload.eq(largest)
        m.d.sync += self.o.valid.eq(valid & last)
        return m


class PolynomialNormalize(wiring.Component):
    """Sum and codes of a row whose maximum is known, from two passes over its words.

    ``code = round(log2(round(sum over keys of e / e)))``, ``e = c - r * (b - r) << n - q`` with
    ``q = d // x0``, ``r = d - q * x0`` and ``d = maximum - x``.

    Rounding: both roundings, half up, are comparisons of the sum with multiples of e; q is floored,
    the rest is exact.

    The first pass of a row sums; `wait` cycles after its last word has been taken the second may
    begin, and gives the codes. The next row's first pass may follow at once. The pipeline moves as
    a whole while its skid has room. A row of W words takes ``2 * W + wait`` cycles.

    The exponential is never negative and its polynomial never above c for the constants of
    `golden.units.softmax_polynomial.polynomial_scale`; with others the codes mean nothing.

    Members
    -------
    i : In(stream.Signature(StructLayout({scores, keep, x0, b, c, reciprocal, result, last})))
        A word of keys; `result` is the row's maximum.
    take, end : In(1)
        A word, the last of its row, will be in `i` one step later.
    hold : Out(1)
        No word may be taken.
    coding : Out(1)
        The pass to which a word that is taken now belongs.
    o : Out(signature(word))
        Codes, `latency` cycles after a word of the second pass has been accepted.
    """

    def __init__(self, config: Config, word: Word):
        self.config = config
        self.word = word
        self.widths = widths = PolynomialWidths(config)
        if widths.c < 2:
            raise ValueError(f"iexp_shift must leave room for the row sum, not "
                             f"{config.iexp_shift}")
        self.wait = depth(config.lanes)
        #: Registers to the exponential, and from there to the code.
        self._powers = 8
        self.stages = self._powers + 1 + config.attention_bits
        # The first word of the second pass comes a pass after the first word of the first: the
        # latency of one-word rows.
        self.latency = 1 + self.wait + self.stages + 1
        layout = data.StructLayout({
            "scores": data.ArrayLayout(signed(config.score_bits), config.lanes),
            "keep": unsigned(config.lanes), "x0": unsigned(widths.x0), "b": unsigned(widths.b),
            "c": unsigned(widths.c), "reciprocal": unsigned(widths.reciprocal),
            "result": signed(config.score_bits), "last": unsigned(1)})
        super().__init__({
            "i": In(stream.Signature(layout)), "o": Out(signature(word)),
            "take": In(1), "end": In(1), "hold": Out(1), "coding": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = Skid(self.word)
        wiring.connect(m, wiring.flipped(self.o), skid.o)
        advance = skid.i.ready
        late = partial(delay, m, advance=advance)
        m.d.comb += self.i.ready.eq(advance)
        self._passes(m, advance)

        # Which pass a word belongs to, and whether it begins or ends its row, beside the lanes.
        first = Signal(init=1)
        with m.If(advance & self.i.valid):
            m.d.sync += first.eq(self.i.p.last)
        coding = late(self.coding, name="coding_at_input")
        summing = self.i.valid & ~coding
        powers = [self._power(m, lane, advance) for lane in range(self.config.lanes)]

        at_sum = self._powers + self.wait
        added = tree(m, powers, lambda left, right: left + right, advance=advance,
                     name="added")
        total = Signal(self.widths.sum, reset_less=True)
        clear = late(first, cycles=at_sum, name="clear")
        with m.If(advance & late(summing, cycles=at_sum, name="summing", init=0)):
            m.d.sync += total.eq(Mux(clear, 0, total) + added)

        for lane, power in enumerate(powers):
            keep = late(self.i.p.keep[lane], cycles=self.stages, name=f"keep_{lane}")
            code = self._code(m, power, total, lane, advance)
            m.d.comb += skid.i.p.codes[lane].eq(
                Mux(keep, code, (1 << self.config.attention_bits) - 1))
        m.d.comb += [
            skid.i.valid.eq(late(self.i.valid & coding, cycles=self.stages,
                                  name="valid", init=0)),
            skid.i.p.last.eq(late(self.i.p.last, cycles=self.stages, name="last")),
        ]
        return m

    def _passes(self, m: Module, advance: Value) -> None:
        # One lane needs no tree, and no pause.
        hold = Signal(range(max(self.wait, 1) + 1))
        m.d.comb += self.hold.eq(hold != 0)
        with m.If(self.take & self.end):
            m.d.sync += self.coding.eq(~self.coding)
            with m.If(~self.coding):
                m.d.sync += hold.eq(self.wait)
        with m.Elif(advance & (hold != 0)):
            m.d.sync += hold.eq(hold - 1)

    def _power(self, m: Module, lane: int, advance: Value) -> Value:
        """Register the exponential of a lane after `_powers` steps; 0 of a masked key."""
        config, widths, n = self.config, self.widths, self.config.iexp_shift

        def late(value: Value, cycles: int, name: str) -> Value:
            return delay(m, value, advance=advance, cycles=cycles, name=f"{name}_{lane}")

        score = late(self.i.p.scores[lane], 1, "score")
        # From 0 to 2**score_bits - 1 where the key is kept; elsewhere it doesn't matter.
        distance = late((late(self.i.p.result, 1, "largest") - score)[:config.score_bits], 1,
                        "distance")
        quotient = late(distance * late(self.i.p.reciprocal, 2, "reciprocal")
                        >> 2 * config.score_bits, 1, "quotient")
        x0 = late(self.i.p.x0, 3, "x0")
        past = late(quotient >= n, 1, "past")
        whole = late((quotient * x0)[:config.score_bits], 1, "whole")
        rest = late(Mux(past, 0, late(distance, 2, "distance_late") - whole)[:config.score_bits],
                    1, "rest")
        linear = late((late(self.i.p.b, 5, "b") - rest)[:widths.b], 1, "linear")
        product = late((late(rest, 1, "rest_late") * linear)[:widths.c], 1, "product")
        amount = late(Mux(late(past, 1, "past_late"), 0, (n - late(quotient, 2, "quotient_late"))
                          [:n.bit_length()]), 2, "amount")
        z = (late(self.i.p.c, 7, "c") - product)[:widths.c]
        kept = late(self.i.p.keep[lane], 7, "kept")
        return late(Mux(kept, z << amount, 0)[:widths.power], 1, "power")

    def _code(self, m: Module, power: Value, total: Value, lane: int, advance: Value) -> Value:
        """Largest k with ``2 * sum >= (3 * 2**(k-1) - 1) * power``, by halving; 0 and 1 apart."""
        bits = self.config.attention_bits

        def late(value: Value, name: str) -> Value:
            return delay(m, value, advance=advance, name=f"{name}_{lane}")

        # For k >= 3 that is 2 * sum + power >= 3 * power << k - 1.
        level = late((total << 1) + power, "level")
        triple = late(power + (power << 1), "triple")
        one = late(total << 1 >= power + (power << 1), "one")
        code: Value = Const(0, 0)
        two: Value | None = None
        for bit in reversed(range(bits)):
            # Candidate code | 1 << bit: the shift of what has been found is in `triple` already.
            candidate = triple << (1 << bit) - 1
            taken = level >= candidate
            strictly = level > triple << 1
            # What is taken isn't above `level`, so it fits into its width.
            triple = late(Mux(taken, triple << (1 << bit), triple)[:len(level) + 1], f"t{bit}")
            code = late(code << 1 | taken, f"code{bit}")
            two = late(strictly if two is None else two, f"two{bit}")
            one = late(one, f"one{bit}")
            level = late(level, f"level{bit}")
        small = Mux(two, 2, one)
        return Mux(code < 3, small, code)[:bits]
