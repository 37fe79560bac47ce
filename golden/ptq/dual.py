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

from golden.ptq.formats import TensorFormat, simulate

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
        One of `RATIOS`. Powers of two are those of least squared error of the columns apart.
    """
    (scale, zero), (own, own_zero) = search(weight[:, ~apart]), search(weight[:, apart])
    if ratio != "free":
        # Zero points stand for the same real offset on the new grid; the middle stays the middle.
        middle = 1 << bits - 1
        grids = [(scale * 2.0**m, (((own_zero - middle) * own / (scale * 2.0**m) + 0.5).floor()
                                   + middle).clamp(0, 2 * middle - 1).long()) for m in _POWERS]
        errors = torch.stack([
            (simulate(weight[:, apart].double(), _rows(bits, *grid)) - weight[:, apart]).square()
            .sum(1) for grid in grids])
        best = errors.argmin(0) if ratio == "row" else errors.sum(1).argmin().expand(len(scale))
        own, own_zero = (torch.stack(values).gather(0, best[None])[0]
                         for values in zip(*grids, strict=True))
    return TensorFormat(kind="dual", bits=bits, axis=0, scale=tuple(scale.tolist()),
                        zero_point=tuple(zero.tolist()), group=tuple(apart.long().tolist()),
                        group_scale=tuple(own.tolist()), group_zero_point=tuple(own_zero.tolist()))


def _rows(bits: int, scale: Tensor, zero: Tensor) -> TensorFormat:
    return TensorFormat(kind="uniform", bits=bits, axis=0, scale=tuple(scale.tolist()),
                        zero_point=tuple(zero.tolist()))
