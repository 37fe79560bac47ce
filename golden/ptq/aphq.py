# SPDX-License-Identifier: Apache-2.0
"""APHQ-ViT: blocks reconstructed by an average-perturbation Hessian (CVPR 2025, GoatWu/APHQ-ViT).

Formats are FIMA-Q's (`golden.ptq.fimaq`): uniform codes for every operand, reparameterized
LayerNorm outputs. Each block is trained to make up for its error, weighted by the
average-perturbation Hessian (`golden.ptq.losses.Perturbation`; the paper's section 3.2).
"""

__all__ = ["Aphq", "AphqSettings"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from golden.ptq.fimaq import FimaQ, FimaQSettings


@dataclass(frozen=True, kw_only=True)
class AphqSettings(FimaQSettings):
    """Options of APHQ-ViT, and those of RepQ-ViT and of reconstruction."""

    PLANS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"loss": "perturbation"},
        "paper": {"steps": 20000, "batch": 32, "rate": 4e-5, "scale_rate": 4e-5, "keep": 0.5,
                  "probes": 1024, "stages": ("weights",)}}


@dataclass(frozen=True)
class Aphq(FimaQ):
    """Uniform codes for all operands, and reconstruction by the average-perturbation Hessian."""

    name: ClassVar[str] = "aphq-vit"
    settings: AphqSettings = field(default_factory=AphqSettings)
