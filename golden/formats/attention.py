# SPDX-License-Identifier: Apache-2.0
"""Formats of attention probabilities as a core has them: by `Config.attention`.

A core's log2 codes are what they are. Of all others every attention layer has its own scale, on a
grid of ``2**(1/128)``: a constant that is added to a distance (`vitforge.spec.probability_levels`).
So `attend` takes the format that calibration or a published method wants and returns the nearest
one that the core has, with the integers for it; and `fit` chooses one. Calibration only: real
arithmetic.
"""

__all__ = ["attend", "fit", "level_format", "log2_format"]

import math

import torch
from torch import Tensor

from golden.formats.formats import LEVELS, Format, Log2, Probability
from golden.units.softmax import LevelScale, PolynomialScale, ShiftScale, softmax_scale
from vitforge.spec.config import Config
from vitforge.spec.probability_levels import FRACTION, SHIFT_BITS, Levels
from vitforge.spec.softmax_widths import log2_depth

#: Values that `fit` looks at.
_SEARCHED = 50_000


def log2_format(bits: int) -> Log2:
    """Return the log2 format of a core, of the depth `vitforge.spec.softmax_widths.log2_depth`."""
    return Log2.of_bits(bits, log2_depth(bits))


def level_format(shift: int, m: int, config: Config) -> Format:
    """Return the format of a shift, of any kind but log2; exact for the integers of a core.

    Parameters
    ----------
    shift, m
        As in `golden.units.softmax.LevelScale`.
    """
    levels = Levels(config)
    scale = 2.0 ** (shift / (1 << FRACTION)) / levels.full
    return LEVELS[levels.kind].of_levels(scale, m, levels)


def attend(score_scale: float, wanted: Format, config: Config) \
        -> tuple[ShiftScale | PolynomialScale, Format]:
    """Return the integers of a softmax, and the format of its codes that is next to the wanted.

    Parameters
    ----------
    score_scale
        Step of the scores.
    wanted
        Of the kind and width that the configuration says. Its scale is rounded to the grid; the
        values of a table must be those of one of the core's.

    Raises
    ------
    ValueError
        If the core has no such format, or a scale is out of range.
    """
    scale = softmax_scale(score_scale, config)
    if (wanted.kind, wanted.code_bits) != (config.attention, config.attention_bits):
        raise ValueError(f"attention must be {config.attention} codes of {config.attention_bits} "
                         f"bits in this configuration, not {wanted.kind} codes of "
                         f"{wanted.code_bits}")
    if isinstance(wanted, Log2):
        return scale, log2_format(wanted.bits)
    assert isinstance(wanted, Probability)
    levels = Levels(config)
    m = wanted.level(levels)
    shift = round(math.log2(float(wanted.scale) * levels.full) * (1 << FRACTION))
    if not -1 << SHIFT_BITS - 1 <= shift < 1 << SHIFT_BITS - 1:
        raise ValueError(f"scale of attention codes must lie within 2**16 of "
                         f"{1 / levels.full:.3g}, not be {wanted.scale}")
    assert isinstance(scale, ShiftScale)
    return LevelScale(scale.multiplier, shift, m), level_format(shift, m, config)


def fit(seen: Tensor, config: Config) -> Format:
    """Choose a format for probabilities: by their maximum, and by the least squared error.

    Uniform codes span up to the maximum. Of two-scale codes m and how much is clipped are searched
    (OPT-m's aim; [R]), of tables the slope and the quantile that is the highest level, of log-sqrt2
    codes the quantile.
    """
    if config.attention == "log2":
        return log2_format(config.attention_bits)
    seen = seen.flatten().double()
    values = seen[::max(1, seen.numel() // _SEARCHED)]
    values = torch.cat((values, seen.max()[None]))

    def error(item: Format) -> float:
        return float((item.dequantize(item.quantize(values)) - values).square().sum())

    levels = Levels(config)
    return min(LEVELS[levels.kind].candidates(seen, levels), key=error)
