# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of one normalised element: three multiplications, nine registers, a clamp."""

__all__ = ["LaneWidths", "code_mask", "lane", "saturate"]

from dataclasses import dataclass

from amaranth.hdl import Module, Signal, Value, signed

from hw.lib.stream import delay
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.layernorm_widths import FRACTION, GAMMA_BITS, OFFSET_BITS, NormFormat


@dataclass(frozen=True, kw_only=True)
class LaneWidths:
    """Widths of a lane, in bits, all signed.

    Attributes
    ----------
    element
        An element as it enters.
    difference
        ``element*count - total``; `element*count` alone may wrap around.
    scaled
        The difference after its shift.
    shifts
        Left shift of the difference for each value of `coarse`; negative ones are right shifts.
    fraction
        Fraction bits of a scaled difference.
    root
        Significant bits of the reciprocal root.
    """

    element: int
    difference: int
    scaled: int
    shifts: tuple[int, ...]
    fraction: int
    root: int

    @classmethod
    def of(cls, config: Config) -> "LaneWidths":
        """Return what LayerNorm needs, by the bounds of `NormFormat`."""
        width = NormFormat(config)
        return cls(element=config.norm_bits, difference=width.difference_bits,
                   scaled=width.element_bits,
                   shifts=tuple(width.coarse_step * coarse - width.drop
                                for coarse in range(width.coarse_max + 1)),
                   fraction=width.element_fraction, root=config.rsqrt_bits)


def lane(m: Module, widths: LaneWidths, n: int, advance: Value, *, x: Value, count: Value,
         total: Value, coarse: Value, root: Value, gamma: Value, offset: Value,
         ) -> tuple[Signal, Signal]:
    """Build lane `n`, from an element to its code before saturation.

    ``y = (n * gamma >> fraction) + offset >> 8``,
    ``n = (x * count - total << shifts[coarse]) * root >> widths.root - 1``

    Rounding: every shift floors; a half that `offset` holds makes the last one round half up.

    A register a step, in steps of `advance` from the one with `x`: the element (1), times `count`
    (2, and 3 beside the multiplier), minus `total` (4), shifted by `coarse` (5), times `root` (6,
    7), times `gamma` (8), plus `offset` (9).

    Parameters
    ----------
    x, count, total, coarse, root, gamma, offset
        The operands, each in the step in which it is used: `x` in step 0, `count` in 1, `total` in
        3, `coarse` in 4, `root` in 5, and both `gamma` and `offset` in 7.

    Returns
    -------
    normal
        ``n``, before gamma and offset, in step 6.
    y
        ``floor(n*gamma + offset)`` in output steps, in step 9.
    """
    offset = delay(m, offset, advance=advance, name=f"offset_{n}")
    element = Signal(signed(widths.element), name=f"element_{n}", reset_less=True)
    product = Signal(signed(widths.difference), name=f"product_{n}", reset_less=True)
    # A multiplier needs a register next to it, beside the one next to what follows.
    settled = Signal.like(product, name=f"settled_{n}", reset_less=True)
    difference = Signal(signed(widths.difference), name=f"difference_{n}", reset_less=True)
    scaled = Signal(signed(widths.scaled), name=f"scaled_{n}", reset_less=True)
    normal = Signal(signed(widths.scaled), name=f"normal_{n}", reset_less=True)
    passed = Signal.like(normal, name=f"passed_{n}", reset_less=True)
    # Bits below the offset's last one can't change the floor.
    weighted = Signal(signed(widths.scaled + GAMMA_BITS - 1 - widths.fraction),
                      name=f"weighted_{n}", reset_less=True)
    y = Signal(signed(max(len(weighted), OFFSET_BITS) + 1 - FRACTION), name=f"y_{n}",
               reset_less=True)
    # A shift by a constant for each `coarse`: the value fits after it.
    shifted = Signal(signed(widths.scaled), name=f"shifted_{n}")
    with m.Switch(coarse):
        for index, up in enumerate(widths.shifts):
            # The last is the default, since the values beyond it don't occur.
            with m.Case(index) if index < len(widths.shifts) - 1 else m.Default():
                m.d.comb += shifted.eq(difference << up if up >= 0 else difference >> -up)
    with m.If(advance):
        m.d.sync += [
            element.eq(x),
            # Truncated: the difference fits, so its terms may wrap around.
            product.eq(element * count),
            settled.eq(product),
            difference.eq(settled - total),
            scaled.eq(shifted),
            # Exact: the factors keep the result within the width of its argument.
            normal.eq((scaled * root) >> widths.root - 1),
            passed.eq(normal),
            weighted.eq((passed * gamma) >> widths.fraction),
            y.eq((weighted + offset) >> FRACTION),
        ]
    return normal, y


def code_mask(bits: Value) -> Value:
    """Return ``2**bits - 1``, of 8 bits; all ones for a width beyond 8.

    As `golden.units.layernorm.code_mask`.
    """
    return ((1 << bits)[:CODE_BITS + 1] - 1)[:CODE_BITS]


def saturate(y: Value, mask: Value) -> Value:
    """Return the code ``clamp(y, 0, mask)``, unregistered.

    `mask` is ones below a width, so a y without a sign that has a bit above them is too large, and
    is all ones after an OR.
    """
    beyond = y[CODE_BITS:-1].any() | (y[:CODE_BITS] & ~mask).any()
    return (y[:CODE_BITS] | beyond.replicate(CODE_BITS)) & mask & ~y[-1].replicate(CODE_BITS)
