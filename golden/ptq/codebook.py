# SPDX-License-Identifier: Apache-2.0
"""Squared error of any ascending codebook on the same values, without quantizing them again.

After one sort, a codebook costs its number of levels, not that of the values: between two
thresholds all values take one level, and sums of them and of their squares are differences of
running sums.
"""

__all__ = ["Values"]

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

    def errors(self, levels: Tensor, thresholds: Tensor) -> Tensor:
        """Return the mean squared errors of many codebooks, ``[P]``.

        Parameters
        ----------
        levels
            Ascending, float64 ``[P, L]``.
        thresholds
            The least value of every level but the first, ``[P, L - 1]``.
        """
        inner = torch.searchsorted(self.ascending, thresholds)
        first = inner.new_zeros(len(inner), 1)
        ends = torch.cat((first, inner, first + len(self.ascending)), 1)
        total = (self._squares[-1] - 2 * (levels * self._sums[ends].diff()).sum(1)
                 + (levels.square() * ends.diff()).sum(1))
        return total / len(self.ascending)
