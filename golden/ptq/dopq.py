# SPDX-License-Identifier: Apache-2.0
"""DopQ-ViT: a tangent quantizer and median scales (arXiv 2408.03291). A reconstruction.

The paper's equations and code were not available. From summaries of it: post-softmax values have a
power-law head near 0 and values that matter near 1, so their quantizer is fine at both ends
(TanQ); and because some channels of LayerNorm outputs have outlying scales, RepQ-ViT's common
scale is their median, not their mean (MOSF). Everything else is RepQ-ViT's (`golden.ptq.repqvit`).
How it is done here is reconstructed:

- TanQ: `golden.formats.tangent`, from 0 to the largest value. That value, one of RepQ-ViT's
  quantiles, and the slopes of both ends are those of least squared error;
- up to 4 bits the table is one of the two that the datapath has, whose error is nearly the least
  (`vitforge.spec.probability_levels.SLOPES`), so that integers are what was simulated, and trained
  with; ``core=false`` takes any;
- levels are integers of a table, as the datapath multiplies them, or real numbers (`top` of 0);
- MOSF: the median minimizes the mean absolute deviation of the channels' scales; the common zero
  point is the median of their zero points. It can't change a code: of a channel's scale s and zero
  point z and the common s~ and z~, LayerNorm's code is
  ``round((y + s (z - z~)) s~ / s / s~) + z~ = round(y / s) + z``, and the weights ``W s / s~`` have
  steps proportional to 1 / s~.

Its published figures include a reconstruction of blocks (APHQ-ViT, CVPR 2025, table 1), whose
schedule is not known: here I&S-ViT's (`golden.ptq.reconstruction`), on which it builds. Weights are
symmetric, so that the datapath has them in as many bits; ``symmetric=false`` is RepQ-ViT's.
"""

__all__ = ["DopqVit", "DopqVitSettings", "core_search", "tangent_format", "tangent_search"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from typing import ClassVar

import torch
from torch import Tensor

from golden.formats.tangent import tangent_levels, tangent_thresholds
from golden.ptq.codebook import Values
from golden.ptq.formats import TensorFormat
from golden.ptq.repqvit import RepqVit, RepqVitSettings
from golden.ptq.weights import WIDE_SHARES
from vitforge.spec.formats import ATTENTION
from vitforge.spec.probability_levels import FRACTION, SLOPES, TOP, tangent_integers

_LEAST = 1e-8


@dataclass(frozen=True, kw_only=True)
class DopqVitSettings(RepqVitSettings):
    """Options of DopQ-ViT, all reconstructions, and those of RepQ-ViT.

    Attributes
    ----------
    tanq
        False: the attention map has RepQ-ViT's format.
    core
        False: attention of up to 4 bits is not one of the datapath's tables, but searched.
    mosf
        False: the common scale and zero point are means, as RepQ-ViT's.
    slopes
        How many slopes are tried for each end, evenly spaced between 0 and pi/2.
    tied
        True: both ends have the same slope.
    top
        Integer of the highest level; 0: levels are real numbers. Slopes that give two codes the
        same integer are not tried.
    """

    reconstruct: str = "quick"
    weight_shares: tuple[float, ...] = WIDE_SHARES
    tanq: bool = True
    core: bool = True
    mosf: bool = True
    slopes: int = 31
    tied: bool = False
    top: int = 255

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (("slopes", 1, 1 << 16), ("top", 0, 1 << 16)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {value!r}")
        bits = self.bits("attention")
        if self.top and self.top < (1 << bits) - 1:
            raise ValueError(f"top must be 0 or at least {(1 << bits) - 1} for attention of {bits} "
                             f"bits, not {self.top}")


def tangent_format(bits: int, slopes: tuple[float, float], peak: float,
                   top: int) -> TensorFormat | None:
    """Make the format of values from 0 to `peak`; None if two codes have the same integer.

    Parameters
    ----------
    slopes
        At 0 and at `peak`.
    top
        Integer of the highest level, or 0 for real levels.
    """
    if not top:
        return TensorFormat(kind="tangent", bits=bits, scale=peak, slope=slopes[0],
                            end_slope=slopes[1])
    values = tuple(math.floor(value * top + 0.5) for value in tangent_levels(bits, *slopes))
    if len(set(values)) < len(values):
        return None
    return TensorFormat(kind="table", bits=bits, scale=peak / top, values=values)


def tangent_search(x: Tensor, bits: int, shares: Sequence[float], slopes: int, top: int,
                   tied: bool = False) -> TensorFormat:
    """Return the tangent format of least squared error.

    Parameters
    ----------
    x
        Values of at least 0.
    shares
        Quantiles that are tried as the highest level.
    slopes, top, tied
        As in `DopqVitSettings`.
    """
    pairs, levels, thresholds = _codebooks(bits, slopes, top, tied)
    values = Values(x)
    peaks = [max(values.quantile(share), _LEAST) for share in shares]
    errors = torch.stack([values.errors(levels * peak, thresholds * peak) for peak in peaks])
    best = int(errors.argmin())
    item = tangent_format(bits, pairs[best % len(pairs)], peaks[best // len(pairs)], top)
    assert item is not None
    return item


def core_search(x: Tensor, bits: int, shares: Sequence[float]) -> TensorFormat:
    """Return the datapath's table, and its highest level, of least squared error.

    Parameters
    ----------
    x
        Values of at least 0.
    shares
        Quantiles that are tried as the highest level, rounded to the datapath's grid.
    """
    values = Values(x)
    peaks = [2.0 ** (round(math.log2(max(values.quantile(share), _LEAST)) * (1 << FRACTION))
                     / (1 << FRACTION)) for share in shares]
    tried = [TensorFormat(kind="table", bits=bits, scale=peak / TOP,
                          values=tangent_integers(bits, slopes))
             for slopes in SLOPES for peak in peaks]
    levels, thresholds = (torch.tensor(found, dtype=torch.float64)
                          for found in zip(*map(_levels, tried), strict=True))
    return tried[int(values.errors(levels, thresholds).argmin())]


@cache
def _codebooks(bits: int, slopes: int, top: int,
               tied: bool) -> tuple[tuple[tuple[float, float], ...], Tensor, Tensor]:
    """Pairs of slopes that can be had, and levels and thresholds of the formats up to 1."""
    tried = [(index + 1) / (slopes + 1) * math.pi / 2 for index in range(slopes)]
    found = {pair: _levels(item) for pair in product(tried, tried)
             if (pair[0] == pair[1] or not tied)
             and (item := tangent_format(bits, pair, 1.0, top)) is not None}
    if not found:
        raise ValueError(f"top must be larger than {top} for attention of {bits} bits")
    levels, thresholds = (torch.tensor(values, dtype=torch.float64)
                          for values in zip(*found.values(), strict=True))
    return tuple(found), levels, thresholds


def _levels(item: TensorFormat) -> tuple[list[float], list[float]]:
    """Levels and thresholds of a format."""
    scale = item.scale
    assert not isinstance(scale, tuple)
    if item.kind == "tangent":
        parameters = item.bits, item.slope, item.end_slope
        return ([value * scale for value in tangent_levels(*parameters)],
                [value * scale for value in tangent_thresholds(*parameters)])
    return ([value * scale for value in item.values],
            [(low + high) / 2 * scale for low, high in pairwise(item.values)])


@dataclass(frozen=True)
class DopqVit(RepqVit):
    """RepQ-ViT with tangent codes for attention, and medians for the common scales."""

    name: ClassVar[str] = "dopq-vit"
    settings: DopqVitSettings = field(default_factory=DopqVitSettings)

    def attention(self, rows: Tensor, bits: int) -> TensorFormat:
        settings = self.settings
        if not settings.tanq:
            return super().attention(rows, bits)
        if settings.core and bits <= ATTENTION["table"]:
            return core_search(rows, bits, settings.shares)
        return tangent_search(rows, bits, settings.shares, settings.slopes,
                              settings.top, settings.tied)

    def common(self, scale: Tensor, zero: Tensor) -> tuple[float, int]:
        if not self.settings.mosf:
            return super().common(scale, zero)
        # Of an even number of channels, any value between the middle two minimizes the deviation.
        return float(scale.quantile(0.5)), math.floor(float(zero.double().quantile(0.5)) + 0.5)
