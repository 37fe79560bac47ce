# SPDX-License-Identifier: Apache-2.0
"""From a row's totals to the factors that normalise it: a reciprocal square root."""

__all__ = ["RowScale", "factors_word", "tangent"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.layernorm.statistics import totals_word
from hw.lib.products import lut_product
from hw.lib.stream import delay, signature
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.rsqrt_table import GUARD, rsqrt_table
from vitforge.spec.words import Field, Word


def factors_word(config: Config) -> Word:
    """Return the word of what `hw.layernorm.normalize.Normalize` needs to know of a row."""
    width = NormFormat(config)
    return Word((
        Field("count", width.count_bits + width.coarse_step - 1, text="C << fine"),
        Field("total", width.sum_bits + width.coarse_step - 1, signed=True, text="S << fine"),
        Field("coarse", max(1, width.coarse_max.bit_length()),
              text=f"shift of the differences, in steps of {width.coarse_step}"),
        Field("root", config.rsqrt_bits, text="mantissa of 1/sqrt(V)")))


class RowScale(wiring.Component):
    """Shift V until it is normalised, C and S along with it, and look up ``1/sqrt(V)``.

    ``root = 2**(rsqrt_bits - 1) / sqrt(v)``, v the leading bits of ``V << 2 * up``, 1/4 to 1.

    Rounding: downwards only, by a tangent below the curve and truncation (`tangent`); v's lower
    bits are cut, C and S are exact.

    One row at a time passes a search of ``NormFormat.pairs`` cycles, four bits a cycle, while the
    row before it passes the table or waits to be taken. So the factors are offered
    ``latency = pairs + 6`` cycles after the totals are accepted, and the initiation interval is
    ``pairs + 1`` cycles, if the factors are taken at most ``pairs - 5`` cycles after they are
    offered. Bit-exact with `golden.units.layernorm.reciprocal_root`.

    Members
    -------
    i : In(signature(totals_word(config)))
        A row's totals.
    o : Out(signature(factors_word(config)))
        Its factors.
    """

    #: Registers beside the steps of the search.
    registers = 6

    def __init__(self, config: Config):
        self.config = config
        self.latency = NormFormat(config).pairs + self.registers
        super().__init__({"i": In(signature(totals_word(config))),
                          "o": Out(signature(factors_word(config)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = NormFormat(self.config)
        load = Signal()
        move = Signal()
        tail_busy = Signal()
        searching = Signal()
        step = Signal(range(width.pairs))
        done = Signal()
        m.d.comb += [
            move.eq(searching & done & ~tail_busy),
            self.i.ready.eq(~searching | move),
            load.eq(self.i.valid & self.i.ready),
        ]
        with m.If(load):
            m.d.sync += [searching.eq(1), step.eq(0), done.eq(0)]
        with m.Elif(move):
            m.d.sync += searching.eq(0)
        with m.Elif(searching & ~done):
            # The step behind the last one is a bit of its own: much hangs on it.
            m.d.sync += [step.eq(step + 1), done.eq(step == width.pairs - 1)]

        variance = Signal(width.variance_bits, reset_less=True)
        empty = Signal()
        m.d.comb += empty.eq(~done & (variance[-4:] == 0))
        with m.If(load):
            m.d.sync += variance.eq(self.i.payload.variance)
        with m.Elif(empty):
            m.d.sync += variance.eq(variance << 4)

        count, total, coarse = self._shift(m, load, empty)

        # The last, single position of the shift happens on the way to the table.
        half = Signal()
        table = rsqrt_table(self.config.rsqrt_bits)
        m.d.comb += half.eq(variance[-2:] == 0)
        padded = Cat(Const(0, max(0, table.argument_bits + 2 - width.variance_bits)), variance)
        argument = Signal(table.argument_bits, reset_less=True)
        halved = Signal()
        with m.If(move):
            m.d.sync += [
                argument.eq(Mux(half, padded[-table.argument_bits - 2:-2],
                                padded[-table.argument_bits:])),
                halved.eq(half),
            ]
        moved = Signal()
        m.d.sync += moved.eq(move)
        with m.If(moved):
            m.d.sync += [
                self.o.payload.count.eq(Mux(halved, count << 1, count)),
                self.o.payload.total.eq(Mux(halved, total << 1, total)),
                self.o.payload.coarse.eq(coarse),
            ]
        # The argument stays until the factors have been taken.
        m.d.sync += self.o.payload.root.eq(
            tangent(m, argument, argument[:table.step_bits], self.config.rsqrt_bits))

        # Table, its register, product and difference take a cycle each.
        read = Signal()
        looked_up = Signal()
        multiplied = Signal()
        m.d.sync += [read.eq(moved), looked_up.eq(read), multiplied.eq(looked_up)]
        with m.If(move):
            m.d.sync += tail_busy.eq(1)
        with m.If(multiplied):
            m.d.sync += self.o.valid.eq(1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), tail_busy.eq(0)]
        return m

    def _shift(self, m: Module, load: Value, empty: Value) -> tuple[Signal, Signal, Signal]:
        """Shift C and S with the search, one cycle behind it; after `coarse_step` start again."""
        width = NormFormat(self.config)
        loaded = Signal()
        shifted = Signal()
        m.d.sync += [loaded.eq(load), shifted.eq(empty)]
        kept_count = Signal(width.count_bits, reset_less=True)
        kept_total = Signal(signed(width.sum_bits), reset_less=True)
        with m.If(load):
            m.d.sync += [kept_count.eq(self.i.payload.count),
                         kept_total.eq(self.i.payload.total)]

        phases = width.coarse_step // 2
        phase = Signal(range(max(2, phases)))
        wrap = Signal()
        coarse = Signal(max(1, width.coarse_max.bit_length()))
        # The last step of a phase leaves room for the single position that may follow.
        count = Signal(width.count_bits + width.coarse_step - 2, reset_less=True)
        total = Signal(signed(width.sum_bits + width.coarse_step - 2), reset_less=True)
        m.d.comb += wrap.eq(phase == phases - 1)
        with m.If(loaded):
            m.d.sync += [phase.eq(0), coarse.eq(0)]
        with m.Elif(shifted & wrap):
            m.d.sync += [phase.eq(0), coarse.eq(coarse + 1)]
        with m.Elif(shifted):
            m.d.sync += phase.eq(phase + 1)
        with m.If(loaded | (shifted & wrap)):
            m.d.sync += [count.eq(kept_count), total.eq(kept_total)]
        with m.Elif(shifted):
            m.d.sync += [count.eq(count << 2), total.eq(total << 2)]
        return count, total, coarse


def tangent(m: Module, argument: Value, position: Value, bits: int, registers: int = 1
            ) -> Value:
    """Look up ``1/sqrt(v)``: table, its register, product; the difference is unregistered.

    Parameters
    ----------
    argument
        v as `vitforge.spec.rsqrt_table` takes it, in the cycle in which the table is addressed.
    position
        Lower bits of the argument, two cycles later.
    bits
        Significant bits of the root.
    registers
        Of the product (`hw.lib.products.product`).

    Returns
    -------
    Value
        The root, two cycles and those of the product after `argument`.
    """
    table = rsqrt_table(bits)
    rows = [base | slope << table.base_bits
            for base, slope in zip(table.base, table.slope, strict=True)]
    memory: Memory = Memory(
        shape=unsigned(table.base_bits + table.slope_bits), depth=len(rows), init=rows)
    m.submodules.table = memory
    port = memory.read_port()
    entry = Signal.like(port.data, reset_less=True)
    fall = Signal(table.slope_bits + table.step_bits, reset_less=True)
    base = Signal(table.base_bits, reset_less=True)
    m.d.comb += [port.addr.eq(argument[table.step_bits:]), port.en.eq(1)]
    # A block memory is slow enough to deserve a register of its own.
    m.d.sync += entry.eq(port.data)
    slope = entry[table.base_bits:]
    if registers == 1:
        m.d.sync += [fall.eq(slope * position), base.eq(entry[:table.base_bits])]
    else:
        m.d.comb += [
            fall.eq(lut_product(m, slope, position, registers=registers, advance=1, name="drop")),
            base.eq(delay(m, entry[:table.base_bits], advance=1, cycles=registers, name="kept")),
        ]
    # Never negative and below 2**bits, by the table's construction.
    return (base - (fall >> table.slope_shift)) >> GUARD
