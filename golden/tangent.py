# SPDX-License-Identifier: Apache-2.0
"""Levels of a tangent quantizer, after TanQ of DopQ-ViT (arXiv 2408.03291). A reconstruction.

The paper's formula was not available. This one has what its summary says: a tangent is steep at
both ends of a period, so codes that are even behind it are dense near 0 and near 1.
"""

__all__ = ["tangent_levels", "tangent_thresholds"]

import math


def tangent_levels(bits: int, slope: float) -> list[float]:
    """Return the ascending values in 0..1 that the codes stand for.

    ``(1 + arctan((2q/L - 1) tan(slope)) / slope) / 2`` for code q, with ``L = 2**bits - 1``.

    Parameters
    ----------
    slope
        Between 0 (uniform) and pi/2 (all at the ends), both excluded.
    """
    return [_value(code, bits, slope) for code in range(1 << bits)]


def tangent_thresholds(bits: int, slope: float) -> list[float]:
    """Return the least value of every code but the first: half a code below it, behind a tangent.

    That is ``q = floor(L/2 (tan(slope (2x - 1)) / tan(slope) + 1) + 1/2)``. They are not the
    middles between the levels.
    """
    return [_value(code + 0.5, bits, slope) for code in range((1 << bits) - 1)]


def _value(code: float, bits: int, slope: float) -> float:
    if not 0 < slope < math.pi / 2:
        raise ValueError(f"slope must lie between 0 and pi/2, not {slope}")
    place = 2 * code / ((1 << bits) - 1) - 1
    return (1 + math.atan(place * math.tan(slope)) / slope) / 2
