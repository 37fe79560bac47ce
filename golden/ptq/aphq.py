# SPDX-License-Identifier: Apache-2.0
"""APHQ-ViT: blocks reconstructed by an average-perturbation Hessian (CVPR 2025, GoatWu/APHQ-ViT).

Formats are FIMA-Q's (`golden.ptq.fimaq`): uniform codes for every operand, reparameterized
LayerNorm outputs. Each block is trained to make up for its error, weighted by the
average-perturbation Hessian (`golden.ptq.losses.Perturbation`; the paper's section 3.2).

With ``relu=true`` MLPs are first trained to do with ReLU what they did with GELU
(`golden.ptq.rectify`; section 3.3), as in all of the paper's figures. It takes about as long again.
"""

__all__ = ["Aphq", "AphqSettings"]

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.fimaq import FimaQ, FimaQSettings
from golden.ptq.method import Train
from golden.ptq.record import Record
from golden.ptq.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class AphqSettings(FimaQSettings):
    """Options of APHQ-ViT, and those of RepQ-ViT and of reconstruction.

    Attributes
    ----------
    relu
        True: MLPs have ReLU for GELU. Needs reconstruction.
    """

    PLANS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "": {"loss": "perturbation"},
        "paper": {"steps": 20000, "batch": 32, "rate": 4e-5, "scale_rate": 4e-5, "keep": 0.5,
                  "probes": 1024, "stages": ("weights",)}}

    relu: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relu and self.reconstruct == "no":
            raise ValueError("relu needs a reconstruction: MLPs are trained for it")


@dataclass(frozen=True)
class Aphq(FimaQ):
    """Uniform codes for all operands, and reconstruction by the average-perturbation Hessian."""

    name: ClassVar[str] = "aphq-vit"
    settings: AphqSettings = field(default_factory=AphqSettings)

    @property
    def prepares(self) -> bool:
        return self.settings.relu

    def prepare(self, model: Vit | Swin, images: Tensor, train: Train) -> Vit | Swin:
        return train(model, images) if self.settings.relu else model

    def decide(self, statistics: Statistics) -> Record:
        record = super().decide(statistics)
        return replace(record, activation="relu" if self.settings.relu else "gelu")
