# SPDX-License-Identifier: Apache-2.0
"""Widths and fixed points of LayerNorm, from the configuration alone.

Notation, for a row of ``C <= max_channels`` elements ``x`` of `norm_bits` bits::

    S = sum x     Q = sum x*x     V = C*Q - S*S     n = (C*x - S) / sqrt(V)

``n`` is the normalised element. Three bounds carry every width:

* ``V <= C*C*(2**norm_bits - 1)**2 / 4 < 4**root_bits``: the variance of numbers in an interval is
  at most the square of half its length (Popoviciu). For norm_bits 12 and 1,024 channels
  ``V < 2**42``.
* ``|n| <= sqrt(C - 1)``: no element lies further from the mean than that many standard deviations
  (Samuelson). So ``|n| < 2**spread_bits``; 2**5 for 1,024 channels.
* ``V = 0`` exactly if all elements are equal; then ``C*x - S = 0`` too.
"""

__all__ = ["FRACTION", "GAMMA_BITS", "OFFSET_BITS", "NormFormat"]

from dataclasses import dataclass
from functools import cached_property

from vitforge.spec.config import Config

#: Fraction bits of gamma and of the offset, both in output steps.
FRACTION = 8
#: Signed width of gamma: below 512 output steps a standard deviation.
GAMMA_BITS = 18
#: Signed width of the offset: beta, zero point and the half of the final rounding.
OFFSET_BITS = 20

#: Signed width of both operands of a hard multiplier.
MULTIPLIER_BITS = 18


def _ceil_log2(value: int) -> int:
    return (value - 1).bit_length()


@dataclass(frozen=True)
class NormFormat:
    """Every width of the unit; see the module for the notation."""

    config: Config

    @cached_property
    def shift_bits(self) -> int:
        """Unsigned width of an element's shift: reaches `norm_bits` from a full mantissa."""
        return max(1, (self.config.norm_bits - self.config.mantissa_bits).bit_length()) \
            if self.config.norm_bits > self.config.mantissa_bits else 1

    @cached_property
    def levels(self) -> int:
        """Levels of a tree that adds up the lanes."""
        return _ceil_log2(self.config.lanes)

    @cached_property
    def count_bits(self) -> int:
        """Unsigned width of C."""
        return self.config.max_channels.bit_length()

    @cached_property
    def sum_bits(self) -> int:
        """Signed width of S: ``-C * 2**(norm_bits-1) <= S < C * 2**(norm_bits-1)``."""
        return ((self.config.max_channels << self.config.norm_bits - 1) - 1).bit_length() + 1

    @cached_property
    def square_bits(self) -> int:
        """Unsigned width of Q: ``Q <= C * 4**(norm_bits-1)``, reached."""
        return (self.config.max_channels << 2 * self.config.norm_bits - 2).bit_length()

    @cached_property
    def root_bits(self) -> int:
        """``sqrt(V) < 2**root_bits``."""
        return self.config.norm_bits - 1 + _ceil_log2(self.config.max_channels)

    @cached_property
    def variance_bits(self) -> int:
        """Unsigned width of V."""
        return 2 * self.root_bits

    @cached_property
    def spread_bits(self) -> int:
        """``|n| < 2**spread_bits``."""
        return (_ceil_log2(self.config.max_channels) + 1) // 2

    @cached_property
    def element_fraction(self) -> int:
        """Fraction bits of a normalised element: what an 18-bit multiplier leaves, at most."""
        return min(MULTIPLIER_BITS - 1 - self.spread_bits, self.root_bits)

    @cached_property
    def element_bits(self) -> int:
        """Signed width of a normalised element.

        ``|n| <= sqrt(C-1) <= 2**spread_bits - 2**(-spread_bits-1)``, and every step up to the
        element rounds towards minus infinity (a deficit of less than 3 units of
        ``2**-element_fraction`` on the negative side, where that much room is left whenever
        ``element_fraction >= spread_bits + 3``, or the element is exact).
        """
        return self.spread_bits + self.element_fraction + 1

    @cached_property
    def drop(self) -> int:
        """Low bits of a difference that are beyond `element_fraction`."""
        return self.root_bits - self.element_fraction

    @cached_property
    def difference_bits(self) -> int:
        """Signed width of ``(C*x - S) << up`` for any shift that normalises V.

        V has `up` leading pairs of zeros, so ``sqrt(V) << up < 2**root_bits``, and Samuelson's
        bound gives ``|C*x - S| << up < 2**(root_bits + spread_bits)``.
        """
        return self.root_bits + self.spread_bits + 1

    @cached_property
    def coarse_step(self) -> int:
        """Even number of shift positions that C has room for in a multiplier.

        The shift `up` is ``coarse_step * coarse + fine`` with ``0 <= fine < coarse_step``; C and
        S are shifted by `fine` once a row, the differences by `coarse_step * coarse`.
        """
        return (MULTIPLIER_BITS - self.count_bits) // 2 * 2

    @cached_property
    def pairs(self) -> int:
        """Steps of the search for V's leading zeros, four bits (two positions of `up`) each.

        ``V >= 1`` needs ``up <= root_bits - 1``; one more position follows the steps.
        """
        return max(1, (self.root_bits - 1) // 2)

    @cached_property
    def coarse_max(self) -> int:
        """Largest `coarse` that the search can give."""
        return 2 * self.pairs // self.coarse_step

    @cached_property
    def buffer_words(self) -> int:
        """Words of the row buffer: a power of two.

        Holds the longest row, and as many words more as come in while its factors are computed
        (levels of the adder tree, steps of the search, and the registers between), so that rows of
        any length flow through it.
        """
        longest = -(-self.config.max_channels // self.config.lanes)
        return 1 << _ceil_log2(longest + self.levels + self.pairs + 16)
