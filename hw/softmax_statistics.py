# SPDX-License-Identifier: Apache-2.0
"""First half of the shift-based softmax: reference and log2 of the sum of every row."""

__all__ = ["SoftmaxStatistics"]

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.softmax_lanes import depth, exponent, larger, mask, power_pipeline, tree
from hw.softmax_tables import ShiftWidths
from hw.stream import delay


class SoftmaxStatistics(wiring.Component):
    """One pass over the scores of a row, in any number of words.

    Takes a word on any cycle and never stalls. `latency` cycles after the last word of a row its
    result is valid for one cycle. Initiation interval 1, across rows too.

    The reference is the largest integer part of an exponent so far. It runs ahead of the sum: the
    powers of a word are aligned to the reference that includes the word, and what has been summed
    before is shifted right by the growth in the cycle in which the word is added. So the two
    feedback loops are one subtraction (reference), and one shift and one addition (sum).

    Members
    -------
    i : :py:`In(stream.Signature(StructLayout({scores, keep, multiplier, last})))`
        A word of `lanes` keys; always ready.
    o : :py:`Out(stream.Signature(unsigned(10 + exp_fraction_bits)))`
        ``reference + log2(sum)``, and half a code more for log2 codes, modulo ``2**10``; the
        consumer must be always ready.
    """

    def __init__(self, config: Config):
        self.config = config
        self.widths = ShiftWidths(config)
        #: Registers between the exponents and the reference: the trees, but no less than the
        #: table needs.
        self._levels = max(depth(config.lanes), 1)
        self.latency = 10 + self._levels + depth(config.lanes) + 1
        word = data.StructLayout({
            "scores": data.ArrayLayout(signed(config.score_bits), config.lanes),
            "keep": unsigned(config.lanes),
            "multiplier": unsigned(self.widths.multiplier),
            "last": unsigned(1),
        })
        super().__init__({
            "i": In(stream.Signature(word, always_ready=True)),
            "o": Out(stream.Signature(unsigned(self.widths.offset), always_ready=True)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, widths = self.config, self.widths
        always = Const(1)
        step = {"advance": always}

        # Words, with masked keys at the lowest score.
        valid = delay(m, self.i.valid, **step, name="valid", init=0)
        last = delay(m, self.i.p.last, **step, name="last")
        multiplier = delay(m, self.i.p.multiplier, **step, name="multiplier")
        keep = delay(m, self.i.p.keep, **step, name="keep")
        scores = [delay(m, mask(self.i.p.scores[lane], self.i.p.keep[lane]), **step,
                        name=f"score_{lane}") for lane in range(config.lanes)]

        # Exponents; their integer parts go through the tree, their fractions through the table.
        exponents = [exponent(m, score, multiplier, widths, **step, name=f"exponent_{lane}")
                     for lane, score in enumerate(scores)]
        integers = [value >> widths.fraction for value in exponents]
        largest = tree(m, integers, larger, **step, name="largest")
        if config.lanes == 1:
            largest = delay(m, largest, **step, name="largest")
        valid = delay(m, valid, **step, cycles=1 + self._levels, name="valid_at_reference", init=0)
        last = delay(m, last, **step, cycles=1 + self._levels, name="last_at_reference")

        # First loop: the reference.
        reference = Signal(signed(widths.integer), reset_less=True)
        first = Signal(init=1)
        difference = largest - reference
        with m.If(valid):
            m.d.sync += first.eq(last)
            with m.If(first | (difference > 0)):
                m.d.sync += reference.eq(largest)
        growth = delay(m, difference, **step, name="growth")
        fresh = delay(m, first, **step, name="fresh")
        valid = delay(m, valid, **step, name="valid_at_distance", init=0)
        last = delay(m, last, **step, name="last_at_distance")

        # Powers, aligned to the reference.
        limit = widths.sum_fraction
        terms = []
        for lane in range(config.lanes):
            integer = delay(m, integers[lane], **step, cycles=self._levels + 1,
                            name=f"integer_{lane}")
            fraction = exponents[lane][:widths.fraction]
            if self._levels > 1:
                fraction = delay(m, fraction, **step, cycles=self._levels - 1,
                                 name=f"fraction_{lane}")
            power = power_pipeline(m, fraction, widths.power, **step, name=f"power_{lane}")
            kept = delay(m, keep[lane], **step, cycles=self._levels + 2, name=f"kept_{lane}")
            # Never negative: the reference includes this word.
            distance = (reference - integer)[:widths.integer]
            counts = kept & (distance <= limit)
            mantissa = Signal(widths.fraction + 1, name=f"mantissa_{lane}", reset_less=True)
            with m.If(counts):
                m.d.sync += mantissa.eq(power | 1 << widths.fraction)
            with m.Else():
                m.d.sync += mantissa.eq(0)
            amount = delay(m, distance[:limit.bit_length()], **step, name=f"amount_{lane}")
            aligned = (mantissa << limit - widths.fraction) >> amount
            terms.append(delay(m, aligned[:widths.term], **step, name=f"term_{lane}"))

        # Second loop: the sum.
        shrink = delay(m, Mux(growth > 0, growth, 0)[:limit.bit_length()], **step,
                       name="shrink", cycles=2 + depth(config.lanes))
        clear = delay(m, fresh | (growth > limit), **step, name="clear",
                      cycles=2 + depth(config.lanes))
        valid = delay(m, valid, **step, cycles=2 + depth(config.lanes), name="valid_at_sum",
                      init=0)
        last = delay(m, last, **step, cycles=2 + depth(config.lanes), name="last_at_sum")
        added = tree(m, terms, lambda left, right: left + right, **step, name="added")
        total = Signal(widths.sum, reset_less=True)
        with m.If(valid):
            m.d.sync += total.eq(Mux(clear, 0, total >> shrink) + added)
        done = delay(m, valid & last, **step, name="done", init=0)
        final = delay(m, reference, **step, cycles=3 + depth(config.lanes), name="final")

        self._logarithm(m, done, total, final)
        return m

    def _logarithm(self, m: Module, done: Value, total: Value, reference: Value) -> None:
        """``reference + log2(total)``: leading one, normalising shift, table."""
        widths = self.widths
        step = {"advance": Const(1)}
        # A sum is at least 1.0, or 0 in a row that is masked as a whole, whose codes don't
        # depend on it.
        whole = total >> widths.sum_fraction
        leading = Signal(range(len(whole)))
        for position in range(len(whole)):
            with m.If(whole[position]):
                m.d.comb += leading.eq(position)
        position = delay(m, leading, **step, name="position")
        normal = delay(m, total >> widths.sum_fraction - widths.fraction, **step, name="normal")
        reference = delay(m, reference, **step, name="reference_at_position")
        fraction = delay(m, (normal >> position)[:widths.fraction], **step, name="fraction")
        integer = delay(m, reference + position, **step, cycles=3, name="integer")
        logarithm = power_pipeline(m, fraction, widths.logarithm, **step, name="logarithm")
        half = 1 << widths.fraction - 1 if self.config.attention == "log2" else 0
        m.d.sync += [
            self.o.valid.eq(delay(m, done, **step, cycles=4, name="done_at_table", init=0)),
            self.o.payload.eq((integer << widths.fraction) + logarithm + half),
        ]
