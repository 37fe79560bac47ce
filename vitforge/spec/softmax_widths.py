# SPDX-License-Identifier: Apache-2.0
"""Widths and tables of the log-softmax, from the configuration alone.

Plain Python, so that `hw` and `golden` read the same widths and the same table entries. The tables
are small enough to be checked against exact values for every input, which the tests do.
"""

__all__ = ["PolynomialWidths", "Segments", "ShiftWidths", "log2_depth"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

from vitforge.spec.config import Config
from vitforge.spec.formats import LOG2_DEPTH

#: Fraction bits of a segment's slope.
SLOPE_FRACTION = 8


def log2_depth(bits: int) -> int:
    """Return D of log2 codes of so many bits, whose operands are ``2**(D - code)``.

    With 5 bits the codes 0 to 15 are powers of two (with 4 bits 15 is 0), and the others are 0.
    """
    return min((1 << bits) - 1, LOG2_DEPTH)


@dataclass(frozen=True)
class Segments:
    """A function on [0, 1) as linear segments: ``intercept[s] + (slope[s] * rest >> 8)``.

    The argument is an unsigned fraction; its `index_bits` high bits are `s`, its `rest_bits` low
    bits are `rest`. The value is an unsigned fraction of ``index_bits + rest_bits`` bits.

    Attributes
    ----------
    intercept
        Values at the left ends, moved so that the mean error over each segment is within half a
        step of zero; never so far that a value leaves 0..1.
    slope
        Slopes with 8 fraction bits; at most 1.5, 9 bits.
    """

    index_bits: int
    rest_bits: int
    intercept: tuple[int, ...]
    slope: tuple[int, ...]

    @classmethod
    def of(cls, function: Callable[[float], float], fraction_bits: int, index_bits: int,
           centre: float) -> "Segments":
        """Fit `function`, with 0 -> 0 and 1 -> 1, rising.

        `centre` says where in its step the exact argument of a truncated one lies on average:
        0 (the argument is exact) or 0.5.
        """
        index_bits = min(index_bits, fraction_bits)
        rest_bits = fraction_bits - index_bits
        one, width = 1 << fraction_bits, 1 << rest_bits
        intercepts, slopes = [], []
        for index in range(1 << index_bits):
            left, right = index / (1 << index_bits), (index + 1) / (1 << index_bits)
            slope = round((function(right) - function(left)) * (1 << index_bits + SLOPE_FRACTION))
            errors = [function((index * width + rest + centre) / one) * one
                      - (slope * rest >> SLOPE_FRACTION) for rest in range(width)]
            highest = one - 1 - (slope * (width - 1) >> SLOPE_FRACTION)
            intercepts.append(min(max(round(sum(errors) / width), 0), highest))
            slopes.append(slope)
        return cls(index_bits, rest_bits, tuple(intercepts), tuple(slopes))


@dataclass(frozen=True)
class ShiftWidths:
    """Widths, in bits, of the shift-based softmax.

    With ``F = exp_fraction_bits`` and ``P = score_bits + 8``: the multiplier is
    ``L = log2(e) * s`` in steps of ``2**-P``, below ``2**17``. A score is at least
    ``-2**(score_bits-1)`` and at most one less than the opposite, so
    ``|score * L| <= 2**(score_bits-1) * 2**17 * 2**-P = 2**8``: the exponent ``y`` has 9 integer
    bits, sign included, whatever the configuration.
    """

    config: Config

    #: Unsigned width of the multiplier, so that an 18x18 multiplier takes it.
    multiplier = 17
    #: Signed width of the integer part of an exponent.
    integer = 9

    @property
    def fraction(self) -> int:
        """Fraction bits of exponents, powers and logarithms."""
        return self.config.exp_fraction_bits

    @property
    def multiplier_fraction(self) -> int:
        """Fraction bits of the multiplier (P)."""
        return self.config.score_bits + 8

    @property
    def sum_fraction(self) -> int:
        """Fraction bits of the sum; a power below ``2**-sum_fraction`` of the reference is 0."""
        return 22 if self.config.attention == "log2" and self.config.attention_bits > 4 else 15

    @property
    def keys(self) -> int:
        """Keys that fit the words of the longest row."""
        return -(-self.config.max_keys // self.config.lanes) * self.config.lanes

    @property
    def term(self) -> int:
        """Unsigned width of a power: below 2 in steps of ``2**-sum_fraction``."""
        return self.sum_fraction + 1

    @property
    def sum(self) -> int:
        """Unsigned width of a row's sum: every key adds less than ``2**term``."""
        return (self.keys * ((1 << self.term) - 1)).bit_length()

    @property
    def offset(self) -> int:
        """Width of ``reference + log2(sum)`` and of its difference to an exponent.

        The difference lies between ``-0.5`` and ``511 + log2(2 * keys) < 2**10``, so it is exact
        modulo ``2**10``, and so is everything that it is made of.
        """
        return 10 + self.fraction

    @property
    def code(self) -> int:
        """Unsigned width of an output element."""
        return self.config.attention_bits if self.config.attention == "log2" else 16

    @cached_property
    def power(self) -> Segments:
        """``2**f - 1``."""
        return _power(self.fraction, self.config.exp_table_bits)

    @cached_property
    def logarithm(self) -> Segments:
        """``log2(1 + f)`` of a truncated f."""
        return _logarithm(self.fraction, self.config.exp_table_bits)


# Every row of a softmax asks for its tables.
@cache
def _power(fraction: int, table: int) -> Segments:
    return Segments.of(lambda f: 2.0 ** f - 1, fraction, table, 0.0)


@cache
def _logarithm(fraction: int, table: int) -> Segments:
    return Segments.of(lambda f: math.log2(1 + f), fraction, table, 0.5)


@dataclass(frozen=True)
class PolynomialWidths:
    """Widths, in bits, of FQ-ViT's polynomial softmax.

    ``|x0| <= 2**score_bits - 1``; with it ``S >= 0.6931 / 2**score_bits``, hence
    ``b = floor(2.7073 / S) < 4 * 2**score_bits`` and
    ``c = floor(2.7921 / S**2) < 8 * 4**score_bits``.
    """

    config: Config

    @property
    def x0(self) -> int:
        """Unsigned width of ``-x0``."""
        return self.config.score_bits

    @property
    def b(self) -> int:
        """Unsigned width of b."""
        return self.config.score_bits + 2

    @property
    def c(self) -> int:
        """Unsigned width of c; capped so that a doubled row sum stays below ``2**62``."""
        keys = -(-self.config.max_keys // self.config.lanes) * self.config.lanes
        return min(2 * self.config.score_bits + 3, 60 - self.config.iexp_shift - keys.bit_length())

    @property
    def reciprocal(self) -> int:
        """Unsigned width of ``ceil(4**score_bits / -x0)``."""
        return 2 * self.config.score_bits + 1

    @property
    def power(self) -> int:
        """Unsigned width of an exponential: ``z <= c`` shifted left by at most `iexp_shift`."""
        return self.c + self.config.iexp_shift

    @property
    def sum(self) -> int:
        """Unsigned width of a row's sum."""
        keys = -(-self.config.max_keys // self.config.lanes) * self.config.lanes
        return (keys * ((1 << self.power) - 1)).bit_length()
