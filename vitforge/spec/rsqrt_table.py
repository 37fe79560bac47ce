# SPDX-License-Identifier: Apache-2.0
"""Table of the reciprocal square root: tangents of ``1/sqrt(v)`` for v in [1/4, 1).

The argument is a fraction of ``index_bits + step_bits`` bits; its upper bits choose a segment, its
lower bits are the position in it, and::

    root = (base[segment] - (slope[segment] * position >> slope_shift)) >> GUARD

is ``2**(bits-1) / sqrt(v)``, below the true value for every v that the argument stands for: the
function is convex, so a tangent lies below it, and the bases are lowered until every rounding is
covered. Being below keeps ``|n|`` within its bound. The relative error is below
``1.5 * 2**-(bits-1)``.

Everything is computed with integer square roots, so that the table is the same everywhere.
"""

__all__ = ["GUARD", "RsqrtTable", "rsqrt_table"]

import functools
import math
from dataclasses import dataclass

#: Bits below the last one of the root that the bases carry.
GUARD = 3


@dataclass(frozen=True)
class RsqrtTable:
    """The table of one width.

    Attributes
    ----------
    bits
        Significant bits of the root: ``2**(bits-1) <= root < 2**bits``, but for roundings below.
    index_bits, step_bits
        Upper and lower bits of the argument.
    slope_shift
        Right shift of the product of slope and position.
    base, slope
        One entry a value of the upper bits; the first quarter is never used, and zero.
    """

    bits: int
    index_bits: int
    step_bits: int
    slope_shift: int
    base: tuple[int, ...]
    slope: tuple[int, ...]

    @property
    def argument_bits(self) -> int:
        """Width of the argument."""
        return self.index_bits + self.step_bits

    @property
    def base_bits(self) -> int:
        """Unsigned width of a base."""
        return max(self.base).bit_length()

    @property
    def slope_bits(self) -> int:
        """Unsigned width of a slope."""
        return max(self.slope).bit_length()


def _root(scale: int, argument: int, bits: int) -> int:
    """``floor(2**scale / sqrt(argument / 2**bits))``."""
    return math.isqrt((1 << 2 * scale + bits) // argument)


@functools.cache
def rsqrt_table(bits: int) -> RsqrtTable:
    """Make the table for a root of `bits` significant bits.

    A tangent is off by ``h*h/8 * max|f''| = 3*h*h`` at most for segments of length
    ``h = 2**-index_bits``, 0.4 units of the root; truncating the argument costs at most half a
    unit, the last truncation one.
    """
    index = (bits + 3) // 2
    step = bits + 3 - index
    argument = index + step
    scale = bits - 1 + GUARD
    # A slope is the fall over a whole segment.
    slope_shift = step
    bases, slopes = [], []
    for segment in range(1 << index):
        if segment < 1 << index - 2:
            bases.append(0)
            slopes.append(0)
            continue
        low = segment << step
        high = low + (1 << step)
        # The chord's slope, which is the tangent's in the middle to second order.
        slope = _root(scale, low, argument) - _root(scale, high, argument)

        def room(position: int, low: int = low, slope: int = slope) -> int:
            # The argument stands for everything below the next one.
            return _root(scale, low + position + 1, argument) + (slope * position >> slope_shift)

        left, right = 0, (1 << step) - 1
        while right - left > 8:
            third = (right - left) // 3
            if room(left + third) < room(right - third):
                right -= third
            else:
                left += third
        # Two units for what truncations hide from the search.
        bases.append(min(map(room, range(left, right + 1))) - 2)
        slopes.append(slope)
    return RsqrtTable(bits, index, step, slope_shift, tuple(bases), tuple(slopes))
