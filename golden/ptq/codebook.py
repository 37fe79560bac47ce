# SPDX-License-Identifier: Apache-2.0
"""Squared error of any ascending codebook on the same values, without quantizing them again.

After one sort, a codebook costs its number of levels, not that of the values: between two
thresholds all values take one level, and sums of them and of their squares are differences of
running sums.
"""

__all__ = ["Values"]

from collections.abc import Sequence

import torch
from torch import Tensor


class Values:
    """Real values that codebooks are tried on.

    Attributes
    ----------
    ascending
        All of them, float64 ``[N]``.
    """

    def __init__(self, x: Tensor) -> None:
        self.ascending = x.flatten().double().sort().values
        zero = self.ascending.new_zeros(1)
        self._sums = torch.cat((zero, self.ascending.cumsum(0)))
        self._squares = torch.cat((zero, self.ascending.square().cumsum(0)))

    def quantile(self, share: float) -> float:
        """Return the `share` quantile, by linear interpolation."""
        place = (len(self.ascending) - 1) * share
        index, part = int(place), place - int(place)
        following = min(index + 1, len(self.ascending) - 1)
        return float(torch.lerp(self.ascending[index], self.ascending[following], part))

    def error(self, levels: Sequence[float], thresholds: Sequence[float]) -> float:
        """Return the mean squared error.

        Parameters
        ----------
        levels
            Ascending.
        thresholds
            One less: the least value of every level but the first.
        """
        inner = torch.searchsorted(self.ascending, torch.tensor(thresholds, dtype=torch.float64))
        ends = torch.cat((inner.new_zeros(1), inner, inner.new_full((1,), len(self.ascending))))
        level = torch.tensor(levels, dtype=torch.float64)
        total = (self._squares[-1] - 2 * (level * self._sums[ends].diff()).sum()
                 + (level.square() * ends.diff()).sum())
        return float(total / len(self.ascending))
