# SPDX-License-Identifier: Apache-2.0
"""Dual uniform quantization of weights: outlier columns have scales of their own (ERQ).

A column is an input channel. Every output row has one uniform format for the columns that most
rows see as outliers, and another for the rest. The paper leaves both free. Where they differ by a
power of two and have no offset, one accumulator is enough: an operand of these columns is shifted.
"""

__all__ = ["RATIOS", "dual_weights", "outlier_columns"]

from collections.abc import Callable

import torch
from torch import Tensor

from golden.ptq.formats import TensorFormat

RATIOS = ("free", "row", "layer")
"""The two scales of a row have any ratio, a power of two, or the power of two of the layer."""
_POWERS = range(-2, 8)


def outlier_columns(weight: Tensor, count: int, tail: float = 0.01) -> Tensor:
    """Choose the `count` columns of ``[N, C]`` that the most rows see as outliers.

    Those are, in a row, above the ``1 - tail`` quantile of its positive weights or below the `tail`
    quantile of its negative ones. Among equals the first columns are taken.

    Returns
    -------
    Tensor
        bool ``[C]``.
    """
    weight = weight.double()
    nothing = torch.full((), float("nan"), dtype=weight.dtype, device=weight.device)
    # Comparisons with the quantile of no values, NaN, are false.
    high = torch.where(weight > 0, weight, nothing).nanquantile(1 - tail, 1, keepdim=True)
    low = torch.where(weight < 0, weight, nothing).nanquantile(tail, 1, keepdim=True)
    votes = ((weight > high) | (weight < low)).sum(0)
    chosen = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
    chosen[votes.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def dual_weights(weight: Tensor, bits: int, apart: Tensor,
                 search: Callable[[Tensor], tuple[Tensor, Tensor]],
                 ratio: str = "free") -> TensorFormat:
    """Make a dual format of weights ``[N, C]``.

    Parameters
    ----------
    apart
        bool ``[C]``; both values occur.
    search
        Finds scale and zero point ``[N]`` of some columns, for unsigned codes.
    ratio
        One of `RATIOS`. Powers of two are those of least squared error.
    """
    (scale, zero), (own, own_zero) = search(weight[:, ~apart]), search(weight[:, apart])
    if ratio != "free":
        scale, zero, own, own_zero = _coupled(weight, bits, apart, (scale, zero, own, own_zero),
                                              ratio == "layer")
    return TensorFormat(kind="dual", bits=bits, axis=0, scale=tuple(scale.tolist()),
                        zero_point=tuple(zero.tolist()), group=tuple(apart.long().tolist()),
                        group_scale=tuple(own.tolist()), group_zero_point=tuple(own_zero.tolist()))


def _coupled(weight: Tensor, bits: int, apart: Tensor,
             free: tuple[Tensor, Tensor, Tensor, Tensor],
             common: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Couple two scales of each row by a power of two, by the least squared error of the row.

    The smaller scale is one that was found for either group, or lies in the middle.
    """
    weight, (scale, zero, own, own_zero) = weight.double(), free
    middle = 1 << bits - 1

    def moved(zero: Tensor, before: Tensor, after: Tensor) -> Tensor:
        # The same real offset on the new grid; the middle stays in the middle.
        offset = (zero - middle) * before / after
        return ((offset + 0.5).floor() + middle).clamp(0, 2 * middle - 1)

    found, errors = [], []
    for m in _POWERS:
        fitting = own * 2.0**-m
        for low in (scale, fitting, (scale * fitting).sqrt()):
            high = low * 2.0**m
            grid = (low, moved(zero, scale, low), high, moved(own_zero, own, high))
            step, offset = (torch.where(apart, high[:, None], low[:, None])
                            for low, high in (grid[::2], grid[1::2]))
            code = ((weight / step + 0.5).floor() + offset).clamp(0, 2 * middle - 1)
            found.append(torch.stack(grid))
            errors.append(((code - offset) * step - weight).square().sum(1))
    total = torch.stack(errors)                        # powers and scales, [options, N]
    if common:
        options = total.reshape(len(_POWERS), -1, len(scale))
        m = int(options.amin(1).sum(1).argmin())
        chosen = options[m].argmin(0) + m * options.shape[1]
    else:
        chosen = total.argmin(0)
    low, low_zero, high, high_zero = torch.stack(found).gather(0, chosen.expand(1, 4, -1))[0]
    return low, low_zero.long(), high, high_zero.long()
