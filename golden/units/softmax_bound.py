# SPDX-License-Identifier: Apache-2.0
"""What the operands of a row of log2 codes add up to, whatever its scores."""

__all__ = ["row_bound"]

import math
from functools import cache

import torch

from golden.units.softmax import interpolate
from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import ShiftWidths, log2_depth

#: What rounding of the real arithmetic here may be off by, many times over.
_FLOAT = 1 + 2.0**-40


@cache
def _table_errors(widths: ShiftWidths) -> tuple[float, float]:
    """Return by what factor a power, and a power of two of a logarithm, may be too small.

    Over all fractions f of F bits: ``2**f / power(f)``, and ``2**(log2(1 + f + 2**-F) - log(f))``,
    because the logarithm's argument was truncated to F bits.
    """
    one = 1 << widths.fraction
    number = torch.arange(one)
    fraction = number.double() / one
    power = 1 + interpolate(widths.power, number).double() / one
    logarithm = interpolate(widths.logarithm, number).double() / one
    return (float((2**fraction / power).max()),
            float(((1 + fraction + 1 / one) / 2**logarithm).max()))


def row_bound(keys: int, config: Config) -> int:
    """Return a bound of the sum of a row's operands, for log2 codes of the shift-based softmax.

    The codes stand for probabilities that add up to 1, so the operands ``2**(D - code)`` of a row
    add up to little more than ``2**D``, however many keys there are: in the presets less than
    ``1.47 * 2**D`` for up to 1,024 of them. D is the depth of the format
    (`vitforge.spec.softmax_widths.log2_depth`).

    Proof, for the arithmetic of `golden.units.softmax` with F fraction bits of exponents and S of
    sums. Let y be the floored exponents of the kept keys, T the row's total in steps of ``2**-S``
    of ``2**reference``, and L its logarithm, the row's offset.

    1. A code is ``floor(L - y + 1/2)`` in steps of ``2**-F``, so it is at least
       ``L - y - 1/2 + 2**-F``; clamping to 0 only makes its operand smaller, and masked keys and
       the highest code give 0. So the operands add up to at most
       ``2**(D + 1/2 - 2**-F) * 2**-L * sum 2**y``.
    2. The table of powers gives p with ``2**y <= e * p``; the table of logarithms gives L with
       ``T * 2**(reference - S) <= l * 2**L``. Both factors are the largest of all arguments.
    3. T falls short of ``R = sum p * 2**(S - reference)`` by less than `keys` steps. A key whose
       power is shifted right, or is below the sum, loses less than one step; the one whose exponent
       became the last reference loses nothing. When the reference grows, what the n keys so far
       have lost is halved at least, and truncation of the sum adds less than one step: from less
       than ``n + 1`` steps to less than ``(n + 1) / 2 + 1 <= n + 1``. A growth beyond S drops n
       powers of less than 2, each less than one step by then. So the loss stays below ``n + 1``
       steps with n the keys that lose, at most ``keys - 1``.
    4. T is at least ``2**S``, for the key of the last reference adds that, so ``R / T`` is less
       than ``1 + keys / 2**S``.

    Together: ``2**D * 2**(1/2 - 2**-F) * e * l * (1 + keys / 2**S)``.

    Parameters
    ----------
    keys
        That are not masked; a row's codes come from its own statistics, of the same multiplier.
    """
    widths, depth = ShiftWidths(config), log2_depth(config.attention_bits)
    power, logarithm = _table_errors(widths)
    half = 2 ** (0.5 - 2.0**-widths.fraction)
    rest = 1 + keys / (1 << widths.sum_fraction)
    return math.floor((half * power * logarithm * rest * _FLOAT) * (1 << depth))
