# SPDX-License-Identifier: Apache-2.0
"""Scores to uniform, two-scale, log-sqrt2 or table codes, with what the statistics have found.

The definition is in `vitforge.spec.probability_levels`; here it is applied to tensors.
"""

__all__ = ["level_codes", "level_words"]

import torch
from torch import Tensor

from vitforge.spec.config import Config
from vitforge.spec.probability_levels import FRACTION, Levels
from vitforge.spec.softmax_widths import ShiftWidths


def level_words(scores: Tensor, offset: Tensor, multiplier: int, shift: int, m: int,
                config: Config) -> Tensor:
    """Return what the operand path decodes: mantissas, with the region, if any, above them.

    With L the multiplier and o the row's offset, ``i = floor(128 * (o + shift/128 - x*L) - u)``
    with an infinitesimal u: one step of the product, which makes an inversion of what the hardware
    has, ``x*L - o``, do.

    Parameters
    ----------
    scores
        int64 ``[..., K]``, all of a row or some.
    offset
        int64 ``[...]``, of `golden.units.softmax.offsets`.
    multiplier, shift, m
        As in `golden.units.softmax.LevelScale`.

    Returns
    -------
    Tensor
        int64 ``[..., K]``, 0 to 255.
    """
    widths, levels = ShiftWidths(config), Levels(config)
    places = max(widths.multiplier_fraction, widths.fraction)
    distance = (offset.unsqueeze(-1) << places - widths.fraction) \
        + (shift << places - FRACTION) \
        - (scores * multiplier << places - widths.multiplier_fraction)
    index = distance - 1 >> places - FRACTION
    size = 1 << levels.index_bits
    region = torch.zeros_like(index)
    if levels.regions:
        region = (index < 0).to(torch.int64)
        index = index + region * (m << FRACTION)
    beyond = index >= size
    entries = torch.tensor(levels.entries).reshape(levels.tables, size)[m % levels.tables]
    return torch.where(beyond, 0, entries[index.clamp(0, size - 1)] | region << levels.bits)


def level_codes(scores: Tensor, keep: Tensor, offset: Tensor, multiplier: int, shift: int, m: int,
                config: Config) -> Tensor:
    """Return the format's codes: `level_words`, but a table's are indices of its levels.

    Masked keys get the code of 0, which is 0.
    """
    words = level_words(scores, offset, multiplier, shift, m, config)
    levels = Levels(config)
    if levels.kind == "table":
        words = torch.searchsorted(torch.tensor(levels.values(m % levels.tables)), words)
    return torch.where(keep, words, 0)
