# SPDX-License-Identifier: Apache-2.0
"""Attention within regions: which tokens and which pairs are together.

Swin shifts its windows by half a window, cyclically, and masks the pairs of tokens that were no
neighbours before (arXiv 2103.14030, section 3.2). A softmax over what a mask leaves is a softmax
over the tokens of a region alone, so the masks are replaced by attention per region: the same real
numbers, fewer products, and no masked key that would have to be skipped.

Regions of the same number of tokens are computed together: a `Group`.
"""

__all__ = ["Group", "distances", "groups", "windowed"]

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.network.ops import Region


@dataclass(frozen=True, eq=False)
class Group:
    """Regions of `size` tokens each.

    Attributes
    ----------
    tokens
        Index of each region's tokens, int64 ``[regions, size]``.
    pairs
        Index of each region's pairs, int64 ``[regions, size, size]``: query, then key.
    """

    size: int
    tokens: Tensor
    pairs: Tensor


@functools.cache
def groups(regions: tuple[Region, ...]) -> tuple[Group, ...]:
    """Return the regions by their size, the largest first."""
    found: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    token = pair = 0
    for rows, columns in regions:
        size = rows * columns
        tokens, pairs = found.setdefault(size, ([], []))
        tokens.append(torch.arange(token, token + size))
        pairs.append(torch.arange(pair, pair + size**2).reshape(size, size))
        token, pair = token + size, pair + size**2
    return tuple(Group(size, *map(torch.stack, found[size]))
                 for size in sorted(found, reverse=True))


def windowed(size: int, window: int, shift: int) -> tuple[tuple[int, ...], tuple[Region, ...]]:
    """Cut a square of tokens into the regions of shifted windows.

    Parameters
    ----------
    size, window, shift
        Tokens of a side, of a window's side, and by which the windows are shifted.

    Returns
    -------
    source
        For each place in the order of the regions the token, row by row, that stands there.
    regions
        Window by window, row by row; in the last windows of a row or column the parts that were
        neighbours before the shift.
    """
    bands = [(start, window) for start in range(0, size - window, window)]
    last = size - window
    bands += [(last, window - shift), (size - shift, shift)] if shift else [(last, window)]
    rows: dict[int, list[tuple[int, int]]] = {}   # bands of each row of windows
    for start, count in bands:
        rows.setdefault(start // window, []).append((start, count))
    source: list[int] = []
    regions: list[Region] = []
    for vertical in rows.values():
        for horizontal in rows.values():
            for top, height in vertical:
                for left, width in horizontal:
                    regions.append((height, width))
                    source += [(y + shift) % size * size + (x + shift) % size
                               for y in range(top, top + height) for x in range(left, left + width)]
    return tuple(source), tuple(regions)


@functools.cache
def distances(regions: tuple[Region, ...], window: int) -> Tensor:
    """Return the row of a position bias table for each pair of tokens, int64 ``[pairs]``.

    As `golden.float.swin.position_index`: a query that lies ``(dy, dx)`` behind its key has
    ``(dy + window - 1) * (2 * window - 1) + dx + window - 1``.
    """
    known: dict[Region, Tensor] = {}
    for rows, columns in dict.fromkeys(regions):
        y = torch.arange(rows * columns) // columns
        x = torch.arange(rows * columns) % columns
        down, right = y[:, None] - y + window - 1, x[:, None] - x + window - 1
        known[rows, columns] = (down * (2 * window - 1) + right).flatten()
    return torch.cat([known[region] for region in regions])
