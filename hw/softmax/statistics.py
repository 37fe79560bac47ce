# SPDX-License-Identifier: Apache-2.0
"""First half of the shift-based softmax: reference and log2 of the sum of every row."""

__all__ = ["SoftmaxStatistics"]

from functools import partial

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay
from hw.softmax.lanes import depth, exponent, larger, mask, power_pipeline, tree
from vitforge.spec.config import Config
from vitforge.spec.products import DrainProducts
from vitforge.spec.softmax_widths import ShiftWidths


class SoftmaxStatistics(wiring.Component):
    """One pass over the scores of a row, in any number of words.

    ``o = reference + log2(sum over keys of 2**(y - reference))`` with ``y = x * multiplier``;
    for log2 codes plus 1/2, the half of their rounding.

    Rounding: y is floored to `exp_fraction_bits`, a power is truncated where it is aligned, the sum
    where it is shifted, the logarithm's argument to the bits of its table; nothing is rounded up.

    Takes a word on any cycle and never stalls. `latency` cycles after the last word of a row its
    result is valid for one cycle. Initiation interval 1, across rows too.

    The reference is the largest integer part of an exponent so far. It runs ahead of the sum: the
    powers of a word are aligned to the reference that includes the word, and what has been summed
    before is shifted right by the growth in the cycle in which the word is added. So the two
    feedback loops are one subtraction (reference), and one shift and one addition (sum).

    With `resume` a row may come in segments, with others between them: both loops take what they
    have kept of the row from outside at a segment's first word, and show what they have after every
    word. Each loop has its own time, so the sum's state is read and written after the reference's.

    Parameters
    ----------
    resume
        Whether rows come in segments.

    Members
    -------
    i : In(stream.Signature(StructLayout({scores, keep, multiplier, last})))
        A word of `lanes` keys; always ready. With `resume` also `begin`, for the first word of a
        segment, and `first`, which says on that word that it is the row's first too.
    reference_state, sum_state : In, with `resume`
        State of the row, `reference_at` and `sum_at` cycles after the first word of a segment that
        isn't the row's first.
    reference, sum : Out, with `resume`
        State after a word, one cycle later than that.
    o : Out(stream.Signature(unsigned(10 + exp_fraction_bits)))
        ``reference + log2(sum)``, and half a code more for log2 codes, modulo ``2**10``; the
        consumer must be always ready.
    """

    def __init__(self, config: Config, *, resume: bool = False):
        self.config = config
        self.widths = ShiftWidths(config)
        self._resume = resume
        #: Registers between the exponents and the reference: the trees, but no less than the
        #: table needs.
        self._levels = max(depth(config.lanes), 1)
        self._adders = depth(config.lanes)
        # The unit has multipliers.
        self._products = products = DrainProducts.of(config) if resume else DrainProducts()
        #: Registers of the powers' table beyond those for which it has time anyway.
        self._extra = max(0, products.power - self._levels)
        #: Bits of the shifts that leave anything of a term.
        self._steps = self.widths.sum_fraction.bit_length()
        #: Cycles from a word to the step of the reference, and to that of the sum.
        self.reference_at = 1 + products.exponent + self._levels
        self.sum_at = self.reference_at + 3 + self._extra + self._adders
        self.latency = self.sum_at + 4 + products.power
        word = data.StructLayout({
            "scores": data.ArrayLayout(signed(config.score_bits), config.lanes),
            "keep": unsigned(config.lanes),
            "multiplier": unsigned(self.widths.multiplier),
            "last": unsigned(1),
            **({"begin": unsigned(1), "first": unsigned(1)} if resume else {}),
        })
        states = {"reference": signed(self.widths.integer), "sum": unsigned(self.widths.sum)}
        super().__init__({
            **({f"{name}_state": In(shape) for name, shape in states.items()} if resume else {}),
            **({name: Out(shape) for name, shape in states.items()} if resume else {}),
            "i": In(stream.Signature(word, always_ready=True)),
            "o": Out(stream.Signature(unsigned(self.widths.offset), always_ready=True)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        late = partial(delay, m, advance=Const(1))

        # Words, with masked keys at the lowest score.
        valid = late(self.i.valid, name="valid", init=0)
        last = late(self.i.p.last, name="last")
        multiplier = late(self.i.p.multiplier, name="multiplier")
        keep = late(self.i.p.keep, name="keep")
        scores = [late(mask(self.i.p.scores[lane], self.i.p.keep[lane]),
                       name=f"score_{lane}") for lane in range(self.config.lanes)]

        # Exponents; their integer parts go through the tree, their fractions through the table.
        exponents = [exponent(m, score, multiplier, self.widths, advance=Const(1),
                              name=f"exponent_{lane}", registers=self._products.exponent)
                     for lane, score in enumerate(scores)]
        integers = [value.shift_right(self.widths.fraction) for value in exponents]
        largest = tree(m, integers, larger, advance=Const(1), name="largest")
        if self.config.lanes == 1:
            largest = late(largest, name="largest")
        steps = self._products.exponent + self._levels
        valid = late(valid, cycles=steps, name="valid_at_reference", init=0)
        last = late(last, cycles=steps, name="last_at_reference")

        reference, first, load, difference = self._reference(m, largest, valid, last)
        growth = late(difference, name="growth")
        fresh = late(first, name="fresh")
        valid = late(valid, name="valid_at_distance", init=0)
        last = late(last, name="last_at_distance")

        terms = [self._term(m, lane, keep[lane], exponents[lane], integers[lane], reference)
                 for lane in range(self.config.lanes)]
        total, valid, last = self._sum(m, terms, growth, fresh, load, valid, last)
        done = late(valid & last, name="done", init=0)
        final = late(reference, cycles=3 + self._extra + self._adders, name="final")

        self._logarithm(m, done, total, final)
        return m

    def _reference(self, m: Module, largest: Value, valid: Value, last: Value) \
            -> tuple[Signal, Signal, Value, Value]:
        """Build the first loop, the reference.

        Returns
        -------
        tuple
            The reference; whether a word is the row's first; whether the row goes on with what was
            kept of it; how much the reference grows with the word.
        """
        late = partial(delay, m, advance=Const(1))
        reference = Signal(signed(self.widths.integer), reset_less=True)
        first = Signal(init=1)
        load: Value = Const(0)
        before: Value = reference
        if self._resume:
            begin, row = (late(self.i.p[name], cycles=self.reference_at, name=name)
                          for name in ("begin", "first"))
            load = begin & ~row
            before = Mux(load, self.reference_state, reference).as_signed()
            m.d.comb += [first.eq(begin & row), self.reference.eq(reference)]
        difference = largest - before
        with m.If(valid):
            if not self._resume:
                m.d.sync += first.eq(last)
            with m.If(first | (difference > 0)):
                m.d.sync += reference.eq(largest)
            if self._resume:
                with m.Elif(load):
                    m.d.sync += reference.eq(before)
        return reference, first, load, difference

    def _fits(self, value: Value) -> Value:
        """Say whether a shift of 0 or more leaves anything of a term, without a carry chain."""
        limit, steps = self.widths.sum_fraction, self._steps
        upper = ~value[steps:].any()
        return upper if limit == (1 << steps) - 1 else upper & (value[:steps] <= limit)

    def _term(self, m: Module, lane: int, keep: Value, exponent: Value, integer: Value,
              reference: Value) -> Signal:
        """Register a lane's power, aligned to the reference; 0 of a key that doesn't count."""
        widths = self.widths
        late = partial(delay, m, advance=Const(1))
        integer = late(integer, cycles=self._levels + 1, name=f"integer_{lane}")
        fraction = exponent[:widths.fraction]
        if self._levels > self._products.power:
            fraction = late(fraction, cycles=self._levels - self._products.power,
                            name=f"fraction_{lane}")
        power = power_pipeline(m, fraction, widths.power, advance=Const(1),
                               name=f"power_{lane}", registers=self._products.power)
        kept = late(keep, cycles=self._levels + 1 + self._products.exponent + self._extra,
                    name=f"kept_{lane}")
        # Never negative: the reference includes this word.
        distance = (reference - integer)[:widths.integer]
        if self._extra:
            distance = late(distance, cycles=self._extra, name=f"distance_{lane}")
        counts = kept & self._fits(distance)
        mantissa = Signal(widths.fraction + 1, name=f"mantissa_{lane}", reset_less=True)
        with m.If(counts):
            m.d.sync += mantissa.eq(power | 1 << widths.fraction)
        with m.Else():
            m.d.sync += mantissa.eq(0)
        amount = late(distance[:self._steps], name=f"amount_{lane}")
        aligned = (mantissa << widths.sum_fraction - widths.fraction) >> amount
        return late(aligned[:widths.term], name=f"term_{lane}")

    def _sum(self, m: Module, terms: list[Signal], growth: Value, fresh: Value, load: Value,
             valid: Value, last: Value) -> tuple[Signal, Signal, Signal]:
        """Build the second loop, the sum; return it, and `valid` and `last` beside it."""
        late = partial(delay, m, advance=Const(1))
        steps = 2 + self._extra + self._adders
        shrink = late(Mux(growth > 0, growth, 0)[:self._steps], name="shrink", cycles=steps)
        clear = late(fresh | ((growth > 0) & ~self._fits(growth)), name="clear", cycles=steps)
        valid = late(valid, cycles=steps, name="valid_at_sum", init=0)
        last = late(last, cycles=steps, name="last_at_sum")
        added = tree(m, terms, lambda left, right: left + right, advance=Const(1), name="added")
        total = Signal(self.widths.sum, reset_less=True)
        before: Value = total
        if self._resume:
            load = late(load, cycles=1 + steps, name="load")
            before = Mux(load, self.sum_state, total)
            m.d.comb += self.sum.eq(total)
        with m.If(valid):
            m.d.sync += total.eq(Mux(clear, 0, before >> shrink) + added)
        return total, valid, last

    def _logarithm(self, m: Module, done: Value, total: Value, reference: Value) -> None:
        """Output ``reference + log2(total)``: leading one, normalising shift, table."""
        widths = self.widths
        late = partial(delay, m, advance=Const(1))
        # A sum is at least 1.0, or 0 in a row that is masked as a whole, whose codes don't
        # depend on it.
        whole = total.shift_right(widths.sum_fraction)
        leading = Signal(max((len(whole) - 1).bit_length(), 1))
        for index in range(len(whole)):
            with m.If(whole[index]):
                m.d.comb += leading.eq(index)
        position = late(leading, name="position")
        normal: Value = late(total.shift_right(widths.sum_fraction - widths.fraction),
                             name="normal")
        reference = late(reference, name="reference_at_position")
        # The largest shift first: the fewer bits are left for the next ones.
        for bit in reversed(range(len(position))):
            normal = Mux(position[bit], normal >> (1 << bit), normal)
            normal = normal[:widths.fraction + (1 << bit) - 1]
        fraction = late(normal, name="fraction")
        integer = late(reference + position, cycles=2 + self._products.power, name="integer")
        logarithm = power_pipeline(m, fraction, widths.logarithm, advance=Const(1),
                                   name="logarithm", registers=self._products.power)
        # The logarithm is below 1, so the two need no adder; only the half of the rounding does.
        offset = Cat(logarithm, integer)
        if self.config.attention == "log2":
            low = widths.fraction - 1
            offset = Cat(offset[:low], (offset[low:] + 1)[:len(offset) - low])
        m.d.comb += [
            self.o.valid.eq(late(done, cycles=3 + self._products.power, name="done_at_table",
                                  init=0)),
            self.o.payload.eq(offset[:widths.offset]),
        ]
