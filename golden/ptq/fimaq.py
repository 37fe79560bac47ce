# SPDX-License-Identifier: Apache-2.0
"""FIMA-Q: blocks reconstructed by a Fisher matrix, uniform codes only (CVPR 2025).

Every operand of a matrix product has uniform codes, attention too; LayerNorm outputs are
reparameterized as RepQ-ViT's. Then each block is trained to make up for its error, which counts by
a diagonal plus low-rank Fisher matrix (`golden.ptq.losses.Fisher`; the paper's section 3.3).

Ranges are those of the least squared error of the values themselves, on a grid; the official code
searches that of the layer's output. It has a scale for each head and for attention's, one for each
head too; here a tensor has one, which the datapath has. Weights are symmetric, so that they stay
what they are in as many bits on the datapath; ``symmetric=false`` has the paper's zero points.
"""

__all__ = ["FimaQ", "FimaQSettings", "range_search"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from golden.ptq.codebook import Values
from golden.ptq.formats import TensorFormat
from golden.ptq.ranges import affine
from golden.ptq.record import Record
from golden.ptq.repqvit import RepqVit, RepqVitSettings
from golden.ptq.statistics import Statistics, spaced
from golden.ptq.weights import WIDE_SHARES

#: Values that a search looks at.
_SEARCHED = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FimaQSettings(RepqVitSettings):
    """Options of FIMA-Q, and those of RepQ-ViT and of reconstruction.

    Attributes
    ----------
    candidates
        Ranges that the grid of activations tries.
    """

    PLANS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"loss": "fisher"},
        "paper": {"steps": 20000, "batch": 32, "rate": 4e-5, "scale_rate": 4e-5, "keep": 0.5,
                  "rank": 5, "probes": 1024, "stages": ("weights",)}}

    reconstruct: str = "quick"
    shares: tuple[float, ...] = (0.97, 0.98, 0.99, 0.995, 0.999, 0.9999, 0.99999)
    weight_shares: tuple[float, ...] = WIDE_SHARES
    candidates: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.candidates, int) or self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {self.candidates!r}")


def range_search(x: Tensor, bits: int, candidates: int) -> TensorFormat:
    """Uniform codes of the least squared error, of ranges that shrink to a hundredth."""
    values = Values(spaced(x, _SEARCHED))
    low, high = float(values.ascending[0]), float(values.ascending[-1])
    found = [affine(low * share, high * share, bits)
             for share in torch.linspace(1, 0.01, candidates).tolist()]
    codes = torch.arange(1 << bits, dtype=torch.float64)
    scale = torch.tensor([item.scale for item in found], dtype=torch.float64)[:, None]
    zero = torch.tensor([item.zero_point for item in found], dtype=torch.float64)[:, None]
    errors = values.errors((codes - zero) * scale, (codes[1:] - 0.5 - zero) * scale)
    return found[int(errors.argmin())]


@dataclass(frozen=True)
class FimaQ(RepqVit):
    """Uniform codes for all operands, and reconstruction by a Fisher matrix."""

    name: ClassVar[str] = "fima-q"
    settings: FimaQSettings = field(default_factory=FimaQSettings)

    def attention(self, rows: Tensor, bits: int) -> TensorFormat:
        return range_search(rows, bits, self.settings.candidates)

    def decide(self, statistics: Statistics) -> Record:
        plain = super().decide(statistics)
        roles = {site.name: site.role for site in statistics.sites}
        formats = dict(plain.formats)
        for name in formats:
            if roles.get(name) in ("query", "key", "value", "context", "gelu"):
                formats[name] = range_search(statistics.observed[name].all_rows,
                                             formats[name].bits, self.settings.candidates)
        return self.record(formats, parameters=plain.parameters)
