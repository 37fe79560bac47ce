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
from collections.abc import Iterator

import torch
from torch import Tensor

from golden.formats.formats import Format, Log2, LogSqrt2, Table, TwoScale, Uniform
from golden.units.softmax import LevelScale, PolynomialScale, ShiftScale, softmax_scale
from vitforge.spec.config import Config
from vitforge.spec.probability_levels import FRACTION, SHIFT_BITS, SLOPES, Levels
from vitforge.spec.softmax_widths import log2_depth

#: Values that `fit` looks at.
_SEARCHED = 50_000
#: Quantiles that are tried as the largest value of tables and log-sqrt2 codes: the few values
#: beyond cost less than what the others gain.
_QUANTILES = (1.0, 0.99999, 0.9999, 0.999, 0.99)


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
    if levels.kind == "table":
        return Table(scale=scale, bits=config.attention_bits,
                     values=levels.values(m % levels.tables))
    if levels.kind == "two-scale":
        return TwoScale(scale=scale, bits=config.attention_bits, m=m)
    if levels.kind == "log-sqrt2":
        return LogSqrt2(scale=scale, m=m)
    return Uniform(scale=scale, bits=config.attention_bits)


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
    kind = {Log2: "log2", Uniform: "uniform", TwoScale: "two-scale", LogSqrt2: "log-sqrt2",
            Table: "table"}.get(type(wanted), type(wanted).__name__)
    bits = wanted.code_bits if isinstance(wanted, LogSqrt2) else wanted.bits
    if (kind, bits) != (config.attention, config.attention_bits):
        raise ValueError(f"attention must be {config.attention} codes of {config.attention_bits} "
                         f"bits in this configuration, not {kind} codes of {bits}")
    if kind == "log2":
        return scale, log2_format(wanted.bits)
    levels, m = Levels(config), 0
    if isinstance(wanted, Table):
        tables = [levels.values(number) for number in range(levels.tables)]
        if wanted.values not in tables:
            slopes = " or ".join(map(str, SLOPES))
            raise ValueError(f"values of the attention's table must be those of a tangent of slope "
                             f"{slopes}, not {wanted.values}")
        m = tables.index(wanted.values)
    if isinstance(wanted, TwoScale):
        m = wanted.m
        if wanted.signed or not 0 <= m <= config.operand_bits - 1 - levels.bits:
            raise ValueError(f"m of the attention's two-scale codes must be 0 to "
                             f"{config.operand_bits - 1 - levels.bits}, and they unsigned")
    if isinstance(wanted, Uniform) and (wanted.signed or wanted.zero_point):
        raise ValueError("attention's uniform codes must be unsigned with zero_point 0, not "
                         f"{wanted.zero_point}")
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
    if config.attention == "uniform":
        peak = max(float(seen.max()), 1e-6)
        return Uniform(scale=peak / ((1 << config.attention_bits) - 1), bits=config.attention_bits)
    values = seen[::max(1, seen.numel() // _SEARCHED)]
    values = torch.cat((values, seen.max()[None]))

    def error(item: Format) -> float:
        return float((item.dequantize(item.quantize(values)) - values).square().sum())

    return min(_candidates(seen, config), key=error)


def _candidates(seen: Tensor, config: Config) -> Iterator[Format]:
    levels = Levels(config)
    if levels.kind in ("table", "log-sqrt2"):
        ordered = seen.sort().values
        for share in _QUANTILES:
            peak = max(float(ordered[round((len(ordered) - 1) * share)]), 1e-6)
            if levels.kind == "log-sqrt2":
                yield LogSqrt2.of_peak(peak, config.attention_bits)
            for number in range(levels.tables if levels.kind == "table" else 0):
                yield Table(scale=peak / levels.full, bits=config.attention_bits,
                            values=levels.values(number))
        return
    peak, top = max(float(seen.max()), 1e-6), (1 << levels.bits) - 1
    for m in range(1, min(7, config.operand_bits - 1 - levels.bits) + 1):
        for percent in range(100, 60, -5):
            yield TwoScale(scale=peak * percent / 100 / (top << m), bits=config.attention_bits, m=m)
