# SPDX-License-Identifier: Apache-2.0
"""Rounding weights so that the error of the layer's output is small, not that of the weights (ERQ).

The error of an output is ``sum(delta_c x_c)`` for rounding errors delta, and its mean square is
``delta G delta^T`` with the inputs' second moment G. Rounding every weight to the nearest makes
each delta small, not their sum.

- `refine`: some weights of a row are rounded the other way, along the gradient.
- `half_by_half`: weights that are not rounded yet make up for the error of those that are.
"""

__all__ = ["half_by_half", "refine"]

import torch
from torch import Tensor

from golden.ptq.formats import TensorFormat, weight_grid
from golden.ptq.ridge import Moments, ridge


def refine(delta: Tensor, below: Tensor, above: Tensor, moment: Tensor, *, limit: int = 100,
           flips: int = 1) -> Tensor:
    """Change some rounding errors so that the output error falls.

    Of the errors that have their gradient's sign, those of the largest gradient take, of `below`
    and `above`, the one that is nearer to a full step along the gradient. A row ends when its
    output error would rise, or when nothing changes. All rows go on at once; they are independent.

    Parameters
    ----------
    delta
        Error of every weight when rounded to the nearest, float64 ``[N, C]``.
    below, above
        The error when rounded down and up.
    moment
        Second moment of the inputs, ``[C, C]``.
    limit
        Changes of a row.
    flips
        Weights that change at once.

    Returns
    -------
    Tensor
        New errors ``[N, C]``; none of a row's output error is larger than before.
    """
    delta = delta.clone()
    flips = min(flips, delta.shape[1])
    live = torch.arange(len(delta), device=delta.device)
    slope = 2 * delta @ moment
    error = (delta * slope).sum(1) / 2
    for _ in range(limit):
        old, gradient = delta[live], slope[live]
        steep = torch.where(gradient.sign() == old.sign(), gradient.abs(), 0)
        size, place = steep.topk(flips, dim=1)
        was = old.gather(1, place)
        wanted = was - gradient.gather(1, place)
        low, high = (value[live].gather(1, place) for value in (below, above))
        now = torch.where((low - wanted).abs() <= (high - wanted).abs(), low, high)
        now = torch.where(size > 0, now, was)
        change = now - was
        new = old.scatter(1, place, now)
        # Only the changed columns of the moment contribute.
        gradient = gradient + 2 * (change[..., None] * moment[place]).sum(1)
        rest = (new * gradient).sum(1) / 2
        better = (rest <= error[live]) & (change != 0).any(1)
        live = live[better]
        if not len(live):
            break
        delta[live], slope[live], error[live] = new[better], gradient[better], rest[better]
    return delta


def half_by_half(weight: Tensor, item: TensorFormat, seen: Moments, *, penalty: float = 2000.0,
                 refinements: int = 100, flips: int = 1, compensation: bool = True) -> Tensor:
    """Put weights on the grid of their format, half of the columns that are left at a time.

    After each half, the other columns and the bias change by the ridge regression of its error.

    Parameters
    ----------
    weight
        float64 ``[N, K]``; the bias, which stays real, is the last column if the layer has one.
    item
        Format of the weights without the bias.
    seen
        Of the layer's input.
    penalty
        Of the regression.
    refinements, flips
        `limit` and `flips` of `refine`; 0 refinements round to the nearest.
    compensation
        False: nothing makes up for the error.

    Returns
    -------
    Tensor
        float64 ``[N, K]``.
    """
    weight = weight.clone()
    scale, zero = weight_grid(item)
    left = torch.arange(weight.shape[1])
    while len(left) > seen.bias:
        # The bias is never among the first half of at least two.
        now, left = left[:max(1, len(left) // 2)], left[max(1, len(left) // 2):]
        step, offset = (value.expand_as(weight)[:, now] if value.shape[1] == 1 else value[:, now]
                        for value in (scale, zero))
        old = weight[:, now]
        nearest, below, above = (
            (code - offset) * step - old for code in (
                (code + offset).clamp(item.low, item.high)
                for code in ((old / step + 0.5).floor(), (old / step).floor(),
                             (old / step).ceil())))
        gram = seen.gram[now][:, now]
        delta = refine(nearest, below, above, gram / seen.rows, limit=refinements, flips=flips)
        if compensation and len(left):
            target = seen.gram[left][:, now] @ delta.T
            weight[:, left] -= ridge(seen.gram[left][:, left], target, penalty).T
        weight[:, now] = old + delta
    return weight
