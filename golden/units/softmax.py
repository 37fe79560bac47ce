# SPDX-License-Identifier: Apache-2.0
"""Log-softmax in integers: one pass with shifts, or FQ-ViT's polynomial."""

__all__ = ["LevelScale", "LogSoftmaxModel", "PolynomialScale", "ShiftScale", "exponents",
           "interpolate", "log2_codes", "log_softmax", "offsets", "row_offset", "softmax_scale",
           "statistics"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.units.arithmetic import integers
from golden.units.softmax_cycles import LogSoftmaxModel
from golden.units.softmax_levels import level_codes
from golden.units.softmax_polynomial import (
    PolynomialScale,
    polynomial_log_softmax,
    polynomial_scale,
)
from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import SLOPE_FRACTION, Segments, ShiftWidths


@dataclass(frozen=True)
class ShiftScale:
    """Scale of the scores for the shift-based softmax.

    Attributes
    ----------
    multiplier
        ``log2(e) * s`` in steps of ``2**-(score_bits+8)``; 1 to ``2**17 - 1``.
    """

    multiplier: int


@dataclass(frozen=True)
class LevelScale(ShiftScale):
    """Scales of the scores and of their uniform, two-scale or table codes (`formats.attention`).

    Attributes
    ----------
    shift
        Added to a distance, in steps of 1/128, for the codes' scale.
    m
        Two-scale: shift between the regions. Table: its number.
    """

    shift: int = 0
    m: int = 0


def softmax_scale(s: float, config: Config) -> ShiftScale | PolynomialScale:
    """Make the integers that stand for the score scale `s` (softmax of ``s * scores``).

    Raises
    ------
    ValueError
        If `s` is outside what the words of this configuration hold; the message gives the range.
    """
    if config.exponential == "iexp":
        return polynomial_scale(s, config)
    widths = ShiftWidths(config)
    step = math.log2(math.e) * (1 << widths.multiplier_fraction)
    low, high = 0.5 / step, ((1 << widths.multiplier) - 1) / step
    if not low <= s <= high:
        raise ValueError(f"s must lie in {low:.3g}..{high:.5g} for scores of {config.score_bits} "
                         f"bits, not {s}")
    return ShiftScale(max(1, round(s * step)))


def interpolate(table: Segments, fraction: Tensor) -> Tensor:
    """Look a table up: fractions of ``index_bits + rest_bits`` bits in and out, int64."""
    index, rest = fraction >> table.rest_bits, fraction & (1 << table.rest_bits) - 1
    return torch.tensor(table.intercept)[index] + \
        (torch.tensor(table.slope)[index] * rest >> SLOPE_FRACTION)


def exponents(scores: Tensor, scale: ShiftScale, widths: ShiftWidths) -> Tensor:
    """Return the floor of ``log2(e) * s * scores``, in steps of ``2**-exp_fraction_bits``.

    Every exponent of a row is floored alike and only differences are used, so the floor's bias
    cancels, and no rounding is spent on it.
    """
    product = scores * scale.multiplier
    surplus = widths.multiplier_fraction - widths.fraction
    return product >> surplus if surplus >= 0 else product << -surplus


def _leading_one(value: Tensor) -> Tensor:
    """Position of the highest one of positive integers below ``2**48``."""
    position = torch.zeros_like(value)
    for step in (32, 16, 8, 4, 2, 1):
        position += torch.where(value >> position + step != 0, step, 0)
    return position


def statistics(scores: Tensor, keep: Tensor, scale: ShiftScale, config: Config,
               before: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Return reference and sum of powers of each row, in the order of the hardware.

    Words of `lanes` keys are taken one after the other. The reference is the largest integer part
    of an exponent so far; a power is ``2**(y - reference)`` truncated to `sum_fraction` bits, 0 if
    it is below them; when the reference grows by d the sum is shifted right by d (0 for d beyond
    `sum_fraction`). A masked key counts as the lowest score for the reference, which no kept key is
    below, and adds nothing.

    Parameters
    ----------
    scores, keep
        Integers and bool ``[..., K]``.
    before
        Reference and total of the keys before these, of the same row.

    Returns
    -------
    reference, total
        ``[...]``: integer, and unsigned with `ShiftWidths.sum_fraction` fraction bits. The total is
        0 if nothing is kept, and at least 1.0 otherwise.
    """
    widths = ShiftWidths(config)
    lowest = -(1 << config.score_bits - 1)
    exponent = exponents(torch.where(keep, scores, lowest), scale, widths)
    integer = exponent >> widths.fraction
    fraction = exponent & (1 << widths.fraction) - 1
    mantissa = (1 << widths.fraction) + interpolate(widths.power, fraction)
    mantissa = torch.where(keep, mantissa << widths.sum_fraction - widths.fraction, 0)
    reference, total = before or (None, None)
    for word, power, kept in zip(integer.split(config.lanes, -1), mantissa.split(config.lanes, -1),
                                 keep.split(config.lanes, -1), strict=True):
        largest = word.amax(-1)
        if kept.shape[-1] < config.lanes:
            # The hardware sees the padding as masked keys.
            pad = torch.tensor(lowest * scale.multiplier)
            largest = largest.maximum(pad >> widths.multiplier_fraction)
        if reference is None or total is None:
            grown, total = largest, torch.zeros_like(largest)
        else:
            grown = torch.maximum(reference, largest)
            growth = grown - reference
            total = torch.where(growth > widths.sum_fraction, 0,
                                total >> growth.clamp_max(widths.sum_fraction))
        distance = grown.unsqueeze(-1) - word
        aligned = power >> distance.clamp_max(widths.sum_fraction)
        total = total + torch.where(distance > widths.sum_fraction, 0, aligned).sum(-1)
        reference = grown
    assert reference is not None and total is not None
    return reference, total


def row_offset(reference: Tensor, total: Tensor, widths: ShiftWidths) -> Tensor:
    """Return ``reference + log2(total)`` with `exp_fraction_bits` fraction bits."""
    position = _leading_one(total.clamp_min(1 << widths.sum_fraction))
    fraction = (total << widths.fraction >> position) & (1 << widths.fraction) - 1
    return (reference + position - widths.sum_fraction << widths.fraction) + \
        interpolate(widths.logarithm, fraction)


def offsets(scores: Tensor, keep: Tensor, scale: ShiftScale, config: Config) -> Tensor:
    """Return ``log2(sum 2**y)`` of each row ``[...]``, with `exp_fraction_bits` fraction bits."""
    return row_offset(*statistics(scores, keep, scale, config), ShiftWidths(config))


def log2_codes(scores: Tensor, keep: Tensor, offset: Tensor, scale: ShiftScale,
               config: Config) -> Tensor:
    """Return the codes of scores ``[..., K]``, all of a row or some, with the row's `offsets`."""
    widths = ShiftWidths(config)
    zero = (1 << config.attention_bits) - 1
    distance = offset.unsqueeze(-1) - exponents(scores, scale, widths)
    code = distance + (1 << widths.fraction - 1) >> widths.fraction
    # Never below 0: the tables are off by less than 0.1, and a sum is not below its largest
    # term (the tests try every table on every pair of scores).
    return torch.where(keep, code.clamp_max(zero), zero)


def log_softmax(scores: Tensor, keep: Tensor, scale: ShiftScale | PolynomialScale,
                config: Config) -> Tensor:
    """Softmax over the last dimension, as codes or linear probabilities.

    For ``exponential = "shift"``, with ``y = log2(e) * s * x``: ``-log2 p = log2(sum 2**y) - y``,
    so a log2 code is one multiplication, one subtraction and one rounding (half up), and only the
    sum needs powers. Uniform, two-scale and table codes look that distance up
    (`golden.units.softmax_levels`). For ``exponential = "iexp"`` see
    `golden.units.softmax_polynomial`.

    Parameters
    ----------
    scores
        Integers of `score_bits` bits ``[..., K]``, ``1 <= K <= max_keys``.
    keep
        Bool ``[..., K]``; False is a masked or padding key.
    scale
        From `softmax_scale`.
    config
        `lanes` matters: words of that many keys are summed at a time.

    Returns
    -------
    Tensor
        int64 ``[..., K]``. ``attention = "log2"``: ``clip(round(-log2 p), 0, 2**b - 1)``, where
        the highest code means exactly zero. ``"linear"``: p in steps of ``2**-15``, 0 to 32,768.
        Others: codes of the format that `golden.formats.attention` gives for the scale. Masked keys
        get the highest code or 0.

    Raises
    ------
    TypeError
        If `scores` are floating-point, `keep` isn't bool, or the scale is of the other kind.
    ValueError
        If shapes differ, a score or the number of keys is out of range, or FQ-ViT's polynomial is
        to give other codes than log2.
    """
    integers(scores=scores)
    if keep.dtype != torch.bool:
        raise TypeError(f"keep must be bool, not {keep.dtype}")
    if keep.shape != scores.shape:
        raise ValueError(f"keep must have the shape of scores {tuple(scores.shape)}, not "
                         f"{tuple(keep.shape)}")
    if scores.ndim == 0 or not 1 <= scores.shape[-1] <= config.max_keys:
        raise ValueError(f"a row must have 1..{config.max_keys} keys, not {tuple(scores.shape)}")
    scores = scores.to(torch.int64)
    high = 1 << config.score_bits - 1
    if scores.numel() and not -high <= int(scores.min()) <= int(scores.max()) < high:
        raise ValueError(f"scores must lie in {-high}..{high - 1}")
    if config.exponential == "iexp":
        if config.attention != "log2":
            raise ValueError("attention must be log2 with exponential iexp, not "
                             f"{config.attention}")
        if not isinstance(scale, PolynomialScale):
            raise TypeError(f"scale must be a PolynomialScale, not {type(scale).__name__}")
        return polynomial_log_softmax(scores, keep, scale, config)
    if not isinstance(scale, ShiftScale):
        raise TypeError(f"scale must be a ShiftScale, not {type(scale).__name__}")

    offset = offsets(scores, keep, scale, config)
    if config.attention == "log2":
        return log2_codes(scores, keep, offset, scale, config)
    if config.attention != "linear":
        if not isinstance(scale, LevelScale):
            raise TypeError(f"scale must be a LevelScale, not {type(scale).__name__}")
        return level_codes(scores, keep, offset, scale.multiplier, scale.shift, scale.m, config)
    widths = ShiftWidths(config)
    power = exponents(scores, scale, widths) - offset.unsqueeze(-1)
    fraction = power & (1 << widths.fraction) - 1
    mantissa = (1 << widths.fraction) + interpolate(widths.power, fraction)
    shift = -(power >> widths.fraction)
    # A rounding error may leave a distance just below 0: a probability just above 1.
    doubled = (mantissa << 16 - widths.fraction) >> shift.clamp(0, 17)
    rounded = (doubled + 1 >> 1).clamp_max(1 << 15)
    return torch.where(keep, torch.where(shift < 0, 1 << 15, rounded), 0)
