# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT: power-of-two factors before LayerNorm, log-integer-softmax (arXiv 2111.13824).

Formats follow the official code: weights symmetric per output channel, activations asymmetric per
tensor, the residual stream with one of four powers of two per channel (PTF, section 4.1), and the
attention map as log2 codes from the integer softmax (LIS, section 4.2). Deliberate differences:

- weights use ``+-(2**(bits-1) - 1)`` steps, so that the largest weight is represented exactly;
- results that are only added to the residual stream stay in the accumulator, unquantized;
- LayerNorm computes in floating point on its quantized input;
- the class token's rows count as much as all others for the factors, unless `class_token` is
  False;
- the range of the scores is searched by what LIS makes of it (`golden.ptq.scores`), unless
  `search_scores` is False: its exponential rounds ``ln 2 / step`` to an integer, and one head with
  scores of 100 leaves a step for which that is far off;
- the highest log2 code is zero: ``2**-15`` and zero, which the official code keeps apart from the
  16 codes of 4 bits, are one.
"""

__all__ = ["FqVit", "FqVitSettings"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from golden.data.parallel import ordered
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.formats.ptf import power_of_two_factor
from golden.ptq.formats import TensorFormat
from golden.ptq.integer_softmax import LogIntSoftmax
from golden.ptq.method import Method, Settings, weight_formats
from golden.ptq.ranges import OBSERVERS, affine, observed_range
from golden.ptq.record import SOFTMAXES, Record
from golden.ptq.scores import score_search
from golden.ptq.sites import ROLES, Site
from golden.ptq.statistics import Statistics, collect


@dataclass(frozen=True, kw_only=True)
class FqVitSettings(Settings):
    """Options of FQ-ViT, at the official code's defaults for 8/8/4.

    Attributes
    ----------
    ptf
        Whether the residual stream has power-of-two factors.
    levels
        Number of those; 4 in the paper (K = 3).
    softmax
        "polynomial" (LIS), "shift" (the same codes from a shift-based exponential) or "float".
        An integer softmax needs `attention` of 3 to 5 bits; with 6 and more, as in the paper's
        8/8/8, the map is uniform and softmax is in floating point.
    observer
        Of all other ranges, one of `golden.ptq.ranges.OBSERVERS`.
    class_token
        Whether the class token's rows count as much as all others for the factors; False, as in
        the paper, is one row of many, and channels in which that token is the largest are clipped.
    search_scores
        False: the observer's range, as in the paper. Only for an integer softmax.
    sigma, share
        Of the observers "ema" and "percentile".
    """

    attention: int | None = 4
    ptf: bool = True
    levels: int = 4
    softmax: str = "polynomial"
    class_token: bool = True
    observer: str = "minmax"
    search_scores: bool = True
    sigma: float = 0.01
    share: float = 0.99999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stream:
            raise ValueError("stream must be 3 to 8 bits: FQ-ViT quantizes every tensor")
        if self.observer not in OBSERVERS:
            raise ValueError(f"observer must be one of {', '.join(OBSERVERS)}, "
                             f"not {self.observer!r}")
        if self.softmax not in SOFTMAXES:
            raise ValueError(f"softmax must be one of {', '.join(SOFTMAXES)}, "
                             f"not {self.softmax!r}")
        if not isinstance(self.levels, int) or not 1 <= self.levels <= 8:
            raise ValueError(f"levels must be 1 to 8, not {self.levels!r}")
        if not 0 < self.sigma <= 1 or not 0.5 < self.share <= 1:
            raise ValueError("sigma must be above 0 and at most 1, share above 0.5 and at most 1")


@dataclass(frozen=True)
class FqVit(Method):
    """PTF for the residual stream, LIS for attention, one observer for everything else."""

    name: ClassVar[str] = "fq-vit"
    settings: FqVitSettings = field(default_factory=FqVitSettings)

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        # The official code fixes factors and OMSE on the last batch; percentiles need all.
        observer = self.settings.observer
        return collect(model, batches, last=observer != "percentile", advance=advance,
                       kept=ROLES if observer in ("percentile", "omse") else ("stream", "scores"))

    def decide(self, statistics: Statistics) -> Record:
        settings, sites = self.settings, statistics.sites
        # Those that take equally long beside each other: no thread waits for another.
        alike = sorted(sites, key=lambda site: site.role)
        made = dict(zip(alike, ordered(lambda site: self._format(site, statistics), alike,
                                       torch.get_num_threads()), strict=True))
        return self.record({site.name: made[site] for site in sites}
                           | weight_formats(statistics.model, settings.weights),
                           softmax=settings.softmax if self._logarithmic else "float")

    @property
    def _logarithmic(self) -> bool:
        return self.settings.softmax != "float" and self.settings.bits("attention") <= 5

    def _format(self, site: Site, statistics: Statistics) -> TensorFormat:
        """Of one site's activations."""
        settings, seen = self.settings, statistics.observed[site.name]
        bits, width = settings.bits(site.role), settings.bits("attention")
        if site.role == "stream" and settings.ptf:
            first = statistics.class_token.get(site.name) if settings.class_token else None
            return _power_of_two(seen.rows[-1], first, bits, settings.levels)
        if site.role == "attention" and width <= 5:
            return TensorFormat(kind="log2", bits=bits, scale=2.0 ** -((1 << bits) - 1))
        if site.role == "scores" and self._logarithmic and settings.search_scores:
            return score_search(seen, bits,
                                lambda item: LogIntSoftmax(item, width, settings.softmax))
        return affine(*observed_range(seen, settings.observer, bits, sigma=settings.sigma,
                                      share=settings.share), bits)


def _power_of_two(rows: Tensor, first: Tensor | None, bits: int, levels: int) -> TensorFormat:
    """PTF by the reference search of `golden.formats.ptf`; `first` counts as much as all rows."""
    copies = 1 if first is None else -(-len(rows) // len(first))
    ptf = power_of_two_factor(rows, bits, levels, again=first, copies=copies)
    return TensorFormat(kind="shifted", bits=bits, scale=ptf.scale, zero_point=ptf.zero_point,
                        shift=tuple(ptf.shift.tolist()))
