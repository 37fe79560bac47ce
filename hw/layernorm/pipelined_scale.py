# SPDX-License-Identifier: Apache-2.0
"""From a row's totals to the factors that normalise it, a row every cycle."""

__all__ = ["PipelinedRowScale"]

from functools import partial

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.layernorm.scale import factors_word, tangent
from hw.layernorm.statistics import totals_word
from hw.lib.stream import delay, layout
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.products import DrainProducts
from vitforge.spec.rsqrt_table import rsqrt_table
from vitforge.spec.words import Word

#: Bits of the number of steps that one register of the shifter takes.
STAGE = 2


def _flow(word: Word) -> stream.Signature:
    return stream.Signature(layout(word), always_ready=True)


class PipelinedRowScale(wiring.Component):
    """`hw.layernorm.scale.RowScale` without its search: a barrel shifter in stages.

    ``root = 2**(rsqrt_bits - 1) / sqrt(v)``, v the leading bits of ``V << 2 * up``, 1/4 to 1.

    Rounding: downwards only, as there.

    Takes totals on any cycle and never stalls; the factors are valid for the one cycle that comes
    ``latency = 7 + ceil(bits of NormFormat.pairs / 2)`` cycles later (9 for 4 to 15 pairs), and
    more where the table's product is made of LUTs (`vitforge.spec.products`).
    Initiation interval 1. The same bits as `RowScale`, those of a variance of 0 included.

    A step is four leading zero bits of V; one more position, of two bits, may follow the steps.

    Members
    -------
    i : In(stream.Signature(totals, always_ready=True))
        A row's totals, `hw.layernorm.statistics.totals_word`.
    o : Out(stream.Signature(factors, always_ready=True))
        Its factors, `hw.layernorm.scale.factors_word`; the consumer must be always ready.
    """

    def __init__(self, config: Config):
        self.config = config
        self.width = NormFormat(config)
        self._stages = -(-self.width.pairs.bit_length() // STAGE)
        self._registers = DrainProducts.of(config).root
        self.latency = 6 + self._stages + self._registers
        super().__init__({"i": In(_flow(totals_word(config))),
                          "o": Out(_flow(factors_word(config)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width, table = self.width, rsqrt_table(self.config.rsqrt_bits)
        late = partial(delay, m, advance=Const(1))
        totals = self.i.payload

        steps = self._steps(m, totals.variance)
        variance = late(totals.variance, cycles=2, name="variance")
        # The table wants this many bits, or two fewer after the last position.
        wanted = table.argument_bits + 2
        value: Value = Cat(Const(0, max(0, wanted - len(variance))), variance)
        shift: Value = steps
        for stage in reversed(range(self._stages)):
            for bit in reversed(range(stage * STAGE, min((stage + 1) * STAGE, len(steps)))):
                value = Mux(shift[bit], value << (4 << bit), value)[:len(value)]
            # What the shifts that are left can't bring to the top isn't needed any more.
            keep = wanted + 4 * ((1 << stage * STAGE) - 1)
            value = late(value[max(0, len(value) - keep):], name=f"shifted_{stage}")
            if stage:
                shift = late(shift[:stage * STAGE], name=f"shift_{stage}")
        single = value[-2:] == 0
        argument = late(Mux(single, value[-table.argument_bits - 2:-2],
                            value[-table.argument_bits:]), name="argument")
        position = late(argument[:table.step_bits], cycles=2, name="position")

        # Steps beyond those that C has room for are left to the differences.
        phases = width.coarse_step // 2
        counts = range(width.pairs + 1)
        coarse = late(Value.cast(Array(Const(n // phases, len(self.o.p.coarse))
                                       for n in counts)[steps]),
                      cycles=self.latency - 2, name="coarse")
        fine = late(Value.cast(Array(Const(n % phases, max(1, (phases - 1).bit_length()))
                                     for n in counts)[steps]),
                    cycles=self.latency - 4, name="fine")
        single = late(single, cycles=3 + self._registers, name="single")
        for name, shape in (("count", unsigned(width.count_bits + width.coarse_step - 2)),
                            ("total", signed(width.sum_bits + width.coarse_step - 2))):
            row = late(totals[name], cycles=self.latency - 2, name=name)
            shifted = Signal(shape, name=f"{name}_shifted", reset_less=True)
            m.d.sync += [
                shifted.eq(row << (fine << 1)),
                self.o.p[name].eq(Mux(single, shifted << 1, shifted)),
            ]
        m.d.sync += self.o.p.root.eq(tangent(m, argument, position, self.config.rsqrt_bits,
                                           self._registers))
        m.d.comb += [
            self.o.p.coarse.eq(coarse),
            self.o.valid.eq(late(self.i.valid, cycles=self.latency, name="valid", init=0)),
        ]
        return m

    def _steps(self, m: Module, variance: Value) -> Signal:
        """Count the steps, at most `pairs`, in two registers."""
        filled = Signal(self.width.pairs, reset_less=True)
        steps = Signal(range(self.width.pairs + 1), reset_less=True)
        for n in range(self.width.pairs):
            top = len(variance) - 4 * n
            m.d.sync += filled[n].eq(variance[max(0, top - 4):top].any())
        m.d.sync += steps.eq(self.width.pairs)
        for n in reversed(range(self.width.pairs)):
            with m.If(filled[n]):
                m.d.sync += steps.eq(n)
        return steps
