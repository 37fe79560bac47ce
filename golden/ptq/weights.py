# SPDX-License-Identifier: Apache-2.0
"""Symmetric weights, as the array multiplies them: searched scales, a row each or one for all.

A weight of b bits is an integer of at most ``2**(b-1) - 1`` either way, which b bits store.
"""

__all__ = ["SHARES", "WIDE_SHARES", "channel_symmetric", "common_weights", "quantile_ends"]

from collections.abc import Sequence

import torch
from torch import Tensor

from golden.ptq.formats import TensorFormat

#: Quantiles that are tried as the largest weight: those of ERQ's official code.
SHARES = (0.97, 0.98, 0.99, 0.995, 0.9995, 0.9997, 0.9999, 0.99995, 0.99999, 1.0)
#: The same for few bits, whose best range leaves many weights out: ours.
WIDE_SHARES = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
#: Smallest scale.
LEAST = 1e-8


def quantile_ends(columns: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Quantiles ``1 - share`` and `share` of sorted columns ``[N, C]``, ``[C]`` each, around 0."""
    place = (len(columns) - 1) * (1 - share)
    index, part = int(place), place - int(place)
    following = min(index + 1, len(columns) - 1)
    low = torch.lerp(columns[index], columns[following], part)
    high = torch.lerp(columns[-1 - index], columns[-1 - following], part)
    return low.clamp_max(0), high.clamp_min(0)


def channel_symmetric(x: Tensor, bits: int, shares: Sequence[float] = SHARES,
                      ) -> tuple[Tensor, Tensor]:
    """Search symmetric formats of the columns of ``[N, C]``, each for itself.

    Codes are ``-(2**(bits-1) - 1)`` to ``2**(bits-1) - 1``.

    Returns
    -------
    scale, zero_point
        float64 ``[C]``, of the quantile of least squared error; int64 ``[C]``, the middle of
        unsigned codes.
    """
    x = x.double()
    columns = x.abs().sort(0).values
    top = (1 << bits - 1) - 1
    least = torch.full((x.shape[1],), float("inf"), dtype=torch.float64)
    best = torch.ones_like(least)
    for share in shares:
        _, peak = quantile_ends(columns, share)
        scale = (peak / top).clamp_min(LEAST)
        code = (x / scale + 0.5).floor().clamp(-top, top)
        error = (code * scale - x).square().sum(0)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(least, error)
    return best, torch.full_like(best, top + 1).long()


def common_weights(weight: Tensor, bits: int, shares: Sequence[float] = SHARES) -> TensorFormat:
    """Make symmetric weights with one searched step for all rows: those of a classifier.

    Its sums are the logits, which are compared as they are.
    """
    scale, _ = channel_symmetric(weight.flatten()[:, None], bits, shares)
    return TensorFormat(kind="uniform", bits=bits, signed=True, scale=float(scale))
