# SPDX-License-Identifier: Apache-2.0
"""DopQ-ViT: a tangent quantizer and median scales (arXiv 2408.03291). A reconstruction.

The paper's equations and code were not available. From summaries of it: post-softmax values have a
power-law head near 0 and values that matter near 1, so their quantizer is fine at both ends
(TanQ); and because some channels of LayerNorm outputs have outlying scales, RepQ-ViT's common
scale is their median, not their mean (MOSF). Everything else is RepQ-ViT's (`golden.ptq.repqvit`).
How it is done here is reconstructed:

- TanQ: `golden.tangent`, from 0 to the largest value. That value, one of RepQ-ViT's quantiles, and
  the slope are those of least squared error;
- levels are integers of a table, as the datapath multiplies them, or real numbers (`top` of 0);
- MOSF: the median minimizes the mean absolute deviation of the channels' scales; the common zero
  point is the median of their zero points.
"""

__all__ = ["DopqVit", "DopqVitSettings", "tangent_format", "tangent_search"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from golden.ptq.codebook import Values
from golden.ptq.formats import TensorFormat
from golden.ptq.repqvit import RepqVit, RepqVitSettings
from golden.tangent import tangent_levels, tangent_thresholds

_LEAST = 1e-8


@dataclass(frozen=True, kw_only=True)
class DopqVitSettings(RepqVitSettings):
    """Options of DopQ-ViT, all reconstructions, and those of RepQ-ViT.

    Attributes
    ----------
    tanq
        False: the attention map has RepQ-ViT's format.
    mosf
        False: the common scale and zero point are means, as RepQ-ViT's.
    slopes
        How many slopes are tried, evenly spaced between 0 and pi/2.
    top
        Integer of the highest level; 0: levels are real numbers. Slopes that give two codes the
        same integer are not tried.
    """

    tanq: bool = True
    mosf: bool = True
    slopes: int = 63
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


def tangent_format(bits: int, slope: float, peak: float, top: int) -> TensorFormat | None:
    """Make the format of values from 0 to `peak`; None if two codes have the same integer.

    Parameters
    ----------
    top
        Integer of the highest level, or 0 for real levels.
    """
    if not top:
        return TensorFormat(kind="tangent", bits=bits, scale=peak, slope=slope)
    values = tuple(math.floor(value * top + 0.5) for value in tangent_levels(bits, slope))
    if len(set(values)) < len(values):
        return None
    return TensorFormat(kind="table", bits=bits, scale=peak / top, values=values)


def tangent_search(x: Tensor, bits: int, shares: Sequence[float], slopes: int,
                   top: int) -> TensorFormat:
    """Return the tangent format of least squared error.

    Parameters
    ----------
    x
        Values of at least 0.
    shares
        Quantiles that are tried as the highest level.
    slopes, top
        As in `DopqVitSettings`.
    """
    values = Values(x)
    best, least = None, math.inf
    for share in shares:
        peak = max(values.quantile(share), _LEAST)
        for index in range(slopes):
            slope = (index + 1) / (slopes + 1) * math.pi / 2
            item = tangent_format(bits, slope, peak, top)
            if item is None:
                continue
            levels, thresholds = _ends(item)
            error = values.error(levels, thresholds)
            if error < least:
                best, least = item, error
    if best is None:
        raise ValueError(f"top must be larger than {top} for attention of {bits} bits")
    return best


def _ends(item: TensorFormat) -> tuple[list[float], list[float]]:
    """Levels and thresholds of a format."""
    assert not isinstance(item.scale, tuple)
    if item.kind == "tangent":
        return ([value * item.scale for value in tangent_levels(item.bits, item.slope)],
                [value * item.scale for value in tangent_thresholds(item.bits, item.slope)])
    return ([value * item.scale for value in item.values],
            [(low + high) / 2 * item.scale for low, high in pairwise(item.values)])


@dataclass(frozen=True)
class DopqVit(RepqVit):
    """RepQ-ViT with tangent codes for attention, and medians for the common scales."""

    name: ClassVar[str] = "dopq-vit"
    summary: ClassVar[str] = "tangent quantizer, median scales, a reconstruction (arXiv 2408.03291)"
    settings: DopqVitSettings = field(default_factory=DopqVitSettings)

    def attention(self, rows: Tensor, bits: int) -> TensorFormat:
        settings = self.settings
        if not settings.tanq:
            return super().attention(rows, bits)
        return tangent_search(rows, bits, settings.shares, settings.slopes, settings.top)

    def common(self, scale: Tensor, zero: Tensor) -> tuple[float, int]:
        if not self.settings.mosf:
            return super().common(scale, zero)
        # Of an even number of channels, any value between the middle two minimizes the deviation.
        return float(scale.quantile(0.5)), math.floor(float(zero.double().quantile(0.5)) + 0.5)
