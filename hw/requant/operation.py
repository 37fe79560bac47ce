# SPDX-License-Identifier: Apache-2.0
"""Second step of the requantizer, one lane: nothing, GeLU, or the addition of a residual."""

__all__ = ["Operation"]

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay
from hw.requant.multiply import STEPS, multiply
from vitforge.spec.config import Config
from vitforge.spec.gelu import bump_bits


class Operation(wiring.Component):
    """``v``, ``gelu(v) * factor`` or ``v + residual * factor`` from v's sign and magnitude.

    Rounding: half up, of the product alone, by its bit below y as the carry of the last addition;
    GeLU's table has entries that are rounded already.

    One subtraction makes two's complement of v, ``(v > 0 ? |v| : 0) - (v < 0 ? |v| : 0)``, and
    GeLU, ``(v > 0 ? |v| : 0) - bump(|v|)``. One multiplier takes GeLU's result or the residual.

    Widths: ``|gelu(v)| < 2**(value_bits-1)`` and the factor is below 1; a residual times its factor
    is at most ``2**(value_bits-1)`` in magnitude, so the sum takes ``value_bits + 1`` bits.

    Members
    -------
    advance : In(1)
        The pipeline takes a step.
    magnitude, negative : In
        Sign and magnitude of v, in step 0.
    bump : In(bump_bits)
        Entry of the table for v, in step 2.
    gelu : In(1)
        Whether the operation is GeLU, in step 2.
    late_gelu, late_residual : In(1)
        Which operation it is, in step 4.
    residual : In(signed(norm_bits))
        In step 4.
    factor : In(factor_bits)
        In step 5.
    y : Out(signed(value_bits + 1))
        In step 9.
    """

    latency = 9

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "advance": In(1),
            "magnitude": In(config.value_bits - 1),
            "negative": In(1),
            "bump": In(bump_bits(config)),
            "gelu": In(1),
            "late_gelu": In(1),
            "late_residual": In(1),
            "residual": In(signed(config.norm_bits)),
            "factor": In(config.factor_bits),
            "y": Out(signed(config.value_bits + 1)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        bits, table = config.value_bits, bump_bits(config)
        # Both operands of the multiplier are aligned to the wider one.
        width = max(bits, config.norm_bits)

        # The bump comes two steps later.
        magnitude = delay(m, self.magnitude, advance=self.advance, cycles=2, name="magnitude")
        negative = delay(m, self.negative, advance=self.advance, cycles=2, name="negative")
        positive_part = Signal.like(self.magnitude, reset_less=True)
        low_part = Signal(table, reset_less=True)
        high_part = Signal(bits - 1 - table, reset_less=True)
        value = Signal(signed(bits), reset_less=True)
        operand = Signal(signed(width), reset_less=True)
        base = Signal(signed(bits), reset_less=True)
        y = Signal(signed(bits + 1), reset_less=True)

        # Value plus product, in steps of y; the lowest column carries the rounding bit in.
        drop = config.factor_bits + width - bits
        product = multiply(m, operand, self.factor, advance=self.advance, name="scaled",
                           luts=config.drain_products == "luts")
        base_late = delay(m, base, advance=self.advance, cycles=STEPS, name="base")
        idle = ~(self.late_residual | self.late_gelu)
        scaled = Mux(self.late_residual, self.residual << width - config.norm_bits,
                     value << width - bits)
        total = Signal(signed(bits + 2))
        m.d.comb += total.eq(Cat(product[drop - 1], base_late).as_signed()
                             + Cat(product[drop - 1], product[drop:]).as_signed())
        with m.If(self.advance):
            m.d.sync += [
                positive_part.eq(Mux(negative, 0, magnitude)),
                low_part.eq(Mux(self.gelu, self.bump, Mux(negative, magnitude[:table], 0))),
                high_part.eq(Mux(self.gelu | ~negative, 0, magnitude[table:])),

                value.eq(positive_part - Cat(low_part, high_part)),

                operand.eq(Mux(idle, 0, scaled)),
                base.eq(Mux(self.late_gelu, 0, value)),

                y.eq(total >> 1),
            ]
        m.d.comb += self.y.eq(y)
        return m
