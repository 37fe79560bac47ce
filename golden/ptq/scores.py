# SPDX-License-Identifier: Apache-2.0
"""Ranges of attention scores, by what softmax makes of their codes.

Scores far below a row's largest have no weight, and a few large ones of one head must not cost all
others their resolution. And where softmax is the integer one, its error depends on the step as
such: FQ-ViT's exponential rounds ``ln 2 / step`` to an integer.
"""

__all__ = ["score_search"]

from collections.abc import Callable

import torch
from torch import Tensor

from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.ranges import affine
from golden.ptq.statistics import Observed, spaced

#: Shares of the least and of the largest score, the whole range first.
_LOWS = (1.0, 0.6, 0.35, 0.2)
_HIGHS = (1.0, 1.05, 0.95, 0.9, 0.8, 0.65, 0.5)
#: Scores that are looked at.
_SEARCHED = 1 << 16


def _float(item: TensorFormat) -> Callable[[Tensor], Tensor]:
    return lambda scores: scores.softmax(-1)


def score_search(seen: Observed, bits: int,
                 softmax: Callable[[TensorFormat], Callable[[Tensor], Tensor]] = _float,
                 ) -> TensorFormat:
    """Of shrunk min-max ranges return that of the least squared error of the probabilities.

    Parameters
    ----------
    softmax
        Makes the softmax of scores in a format, or raises ValueError if there is none.

    Raises
    ------
    ValueError
        That of `softmax`, if no range has one.
    """
    rows = spaced(seen.all_rows, _SEARCHED)
    wanted = rows.softmax(-1)
    low, high = float(seen.low.min()), float(seen.high.max())
    best: TensorFormat | None = None
    least, refused = float("inf"), ValueError("scores must be finite")
    for lower in _LOWS:
        for upper in _HIGHS:
            item = affine(low * lower, high * upper, bits)
            try:
                found = softmax(item)(simulate(rows, item))
            except ValueError as error:
                refused = error
                continue
            error_here = float((found - wanted).square_().sum(dtype=torch.float64))
            if error_here < least:
                best, least = item, error_here
    if best is None:
        raise refused
    return best
