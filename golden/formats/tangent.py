# SPDX-License-Identifier: Apache-2.0
"""Levels of a tangent quantizer, after TanQ of DopQ-ViT (arXiv 2408.03291). A reconstruction.

The paper's formula was not available. This one has what its summary says: a tangent is steep at
both ends of a period, so codes that are even behind it are dense near 0 and near 1. How dense, each
end has a slope for; the same one makes it symmetric.
"""

__all__ = ["tangent_levels", "tangent_thresholds"]

import math


def tangent_levels(bits: int, slope: float, end_slope: float | None = None) -> list[float]:
    """Return the ascending values in 0..1 that the codes stand for.

    ``(arctan(t) + a) / (a + b)`` for code q, with the slopes a and b, ``L = 2**bits - 1`` and
    ``t = (q tan(b) - (L - q) tan(a)) / L``. For ``a = b`` that is
    ``(1 + arctan((2q/L - 1) tan(a)) / a) / 2``.

    Parameters
    ----------
    slope
        Of the end at 0, between 0 (uniform) and pi/2 (all codes there), both excluded.
    end_slope
        The same of the end at 1. None: `slope`.
    """
    return [_value(code, bits, slope, end_slope) for code in range(1 << bits)]


def tangent_thresholds(bits: int, slope: float, end_slope: float | None = None) -> list[float]:
    """Return the least value of every code but the first: half a code below it, behind a tangent.

    That is ``q = floor(L (tan((a + b) x - a) + tan(a)) / (tan(a) + tan(b)) + 1/2)``. They are not
    the middles between the levels.
    """
    return [_value(code + 0.5, bits, slope, end_slope) for code in range((1 << bits) - 1)]


def _value(code: float, bits: int, slope: float, end_slope: float | None) -> float:
    end_slope = slope if end_slope is None else end_slope
    for given in (slope, end_slope):
        if not 0 < given < math.pi / 2:
            raise ValueError(f"slope must lie between 0 and pi/2, not {given}")
    share = code / ((1 << bits) - 1)
    behind = share * math.tan(end_slope) - (1 - share) * math.tan(slope)
    return (math.atan(behind) + slope) / (slope + end_slope)
