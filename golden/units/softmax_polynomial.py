# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT's log-int-softmax in pure integers (arXiv 2111.13824, i-exp of I-BERT)."""

__all__ = ["PolynomialScale", "polynomial_log_softmax", "polynomial_scale", "powers"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import PolynomialWidths


@dataclass(frozen=True)
class PolynomialScale:
    """Constants of the integer exponential for one score scale S.

    Attributes
    ----------
    x0
        ``-floor(-0.6931 / S)``, positive.
    b, c
        ``floor(2.7073... / S)`` and ``floor(2.7921... / S**2)``.
    reciprocal
        ``ceil(4**score_bits / x0)``: ``d * reciprocal >> 2 * score_bits`` is exactly ``d // x0``
        for ``0 <= d < 2**score_bits``, because the excess is below ``2**-score_bits < 1 / x0``.
    """

    x0: int
    b: int
    c: int
    reciprocal: int


def polynomial_scale(s: float, config: Config) -> PolynomialScale:
    """Compute the constants as the official code does, in double precision.

    Raises
    ------
    ValueError
        If `s` is outside what the words hold, or so large that c is 0.
    """
    widths = PolynomialWidths(config)
    lead, linear, constant = 0.35815147, 0.96963238, 1.0
    low = max(0.6931 / ((1 << widths.x0) - 1), math.sqrt(constant / lead / ((1 << widths.c) - 1)))
    high = math.sqrt(constant / lead)
    if not low <= s <= high:
        raise ValueError(f"s must lie in {low:.4g}..{high:.5g} for scores of {config.score_bits} "
                         f"bits and n = {config.iexp_shift}, not {s}")
    x0 = -math.floor(-0.6931 / s)
    return PolynomialScale(x0=x0, b=math.floor(linear / lead / s),
                           c=math.floor(constant / lead / s ** 2),
                           reciprocal=-(-(1 << 2 * config.score_bits) // x0))


def powers(distance: Tensor, scale: PolynomialScale, config: Config) -> Tensor:
    """Exponentials e of distances to a row's largest score, int64 of any shape.

    ``z << (n - q)`` with the q, r and z of `polynomial_log_softmax`.
    """
    n = config.iexp_shift
    quotient = distance * scale.reciprocal >> 2 * config.score_bits
    rest = torch.where(quotient >= n, 0, distance - quotient * scale.x0)
    z = scale.c - rest * (scale.b - rest)
    return z << n - quotient.clamp_max(n)


def polynomial_log_softmax(scores: Tensor, keep: Tensor, scale: PolynomialScale, config: Config) \
        -> Tensor:
    """Codes of FQ-ViT's LIS; see `golden.units.softmax.log_softmax` for shapes.

    With ``d = rowmax - x`` and ``n = iexp_shift``: ``q = d // x0``, ``r = d - q * x0`` (``q = n``
    and ``r = 0`` from ``n * x0`` on), ``z = c - r * (b - r)``, ``e = z << (n - q)``. The official
    rounding of ``sum / e`` and of its logarithm is done without a division:

    - code >= 1 iff ``2 * sum >= 3 * e``,
    - code >= 2 iff ``2 * sum > 5 * e``,
    - code >= k iff ``2 * sum >= (3 * 2**(k-1) - 1) * e`` for k >= 3.

    The highest code is exactly zero. With 4 bits it stands for the official code 15
    (``2**-15``) and for the official zero (code >= 16) alike; all other codes are the official
    ones.

    A doubled sum is below ``2**62`` by `PolynomialWidths.c`, so int64 holds everything.
    """
    lowest = -(1 << config.score_bits - 1)
    masked = torch.where(keep, scores, lowest)
    distance = masked.amax(-1, keepdim=True) - masked
    e = torch.where(keep, powers(distance, scale, config), 0)
    doubled = 2 * e.sum(-1, keepdim=True)
    # 2 * sum >= t * e iff (2 * sum) // e >= t, and t * e itself might not fit.
    ratio = doubled // e.clamp_min(1)
    above = (doubled - 1) // e.clamp_min(1)
    code = (ratio >= 3).to(torch.int64) + (above >= 5)
    zero = (1 << config.attention_bits) - 1
    for k in range(3, zero + 1):
        code += ratio >= 3 * (1 << k - 1) - 1
    return torch.where(keep, code, zero)
