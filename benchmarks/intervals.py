# SPDX-License-Identifier: Apache-2.0
"""How sure counts of right images are: intervals of shares, and of differences on the same images.

Two networks on the same images are not independent: most images are right, or wrong, by both. So a
difference is judged by the images on which they differ.
"""

__all__ = ["Difference", "paired", "wilson"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Standard deviations of a 95 % interval.
Z = 1.959963984540054


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a share (Wilson, 1927)."""
    share, spread = right / total, Z * Z / total
    middle = share + spread / 2
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4)
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


@dataclass(frozen=True)
class Difference:
    """Share of the second less that of the first, on the same images.

    Attributes
    ----------
    points
        In percent of the images.
    low, high
        Ends of the 95 % interval, in percent of the images.
    p
        Probability of so uneven a split of the images on which they differ, if they were as good
        (McNemar's exact test, two-sided).
    """

    points: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.points:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def paired(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Compare two networks on the same images.

    The interval is Newcombe's (1998, method 10): Wilson's of both shares, joined by the correlation
    of the two.

    Raises
    ------
    ValueError
        If there are no images, or not as many of both.
    """
    total = len(first)
    if not total or total != len(second):
        raise ValueError(f"both must have the same images, not {total} and {len(second)}")
    both = sum(map(all, zip(first, second, strict=True)))
    one, other = sum(first), sum(second)
    lost, won = one - both, other - both
    neither = total - both - lost - won
    difference = (other - one) / total
    (low1, high1), (low2, high2) = wilson(one, total), wilson(other, total)
    p1, p2 = one / total, other / total
    margins = one * (total - one) * other * (total - other)
    excess = both * neither - lost * won
    if excess > total / 2:   # Newcombe's correction of a positive correlation
        excess = max(excess - total / 2, 0)
    elif excess >= 0:
        excess = 0
    phi = excess / math.sqrt(margins) if margins else 0.0
    down, up = (p2 - low2, high1 - p1), (high2 - p2, p1 - low1)
    low, high = (difference - sign * math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))
                 for sign, (a, b) in ((1, down), (-1, up)))
    differ = lost + won
    tail = sum(math.comb(differ, k) for k in range(min(lost, won) + 1)) / 2**differ
    return Difference(100 * difference, 100 * low, 100 * high, min(1.0, 2 * tail))
