# SPDX-License-Identifier: Apache-2.0
"""ERQ: error reduction by two closed-form steps (ICML 2024, arXiv 2407.06794).

It starts from RepQ-ViT (`golden.ptq.repqvit`), and follows the official code:

- Aqer: every linear layer absorbs the quantization error of its input into its float weights, by
  ridge regression (`golden.ptq.ridge`);
- dual uniform quantization of the weights of qkv and fc1 (`golden.ptq.dual_scales`), if asked for;
- Wqer: rounding half of the weights at a time, with rounding refinement, while the other half
  makes up for their error by ridge regression (`golden.ptq.rounding`).

Every layer is done for itself, with the inputs of the float network. The patch embedding is not
touched. The classifier's penalty is small in Aqer only: in the official code, the one for Wqer is
overwritten. Unlike there, sums are in double precision, and columns are one set for both steps
even if a layer has no bias, where that code leaves its last column in floating point.
"""

__all__ = ["Erq", "ErqSettings"]

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from golden.data.parallel import one_thread
from golden.ptq.dual_scales import RATIOS, dual_weights, outlier_columns
from golden.ptq.folding import network
from golden.ptq.formats import TensorFormat
from golden.ptq.kept_images import KeepsImages, SeenImages
from golden.ptq.record import Record
from golden.ptq.repqvit import RepqVitSettings
from golden.ptq.ridge import absorb, moments
from golden.ptq.rounding import half_by_half
from golden.ptq.sites import layers
from golden.ptq.statistics import Statistics
from golden.ptq.weights import SHARES


@dataclass(frozen=True, kw_only=True)
class ErqSettings(RepqVitSettings):
    """Options of ERQ, at the official code's defaults, and those of RepQ-ViT.

    Attributes
    ----------
    weight_shares
        As RepQ-ViT's, but ten of them.
    aqer
        False: weights do not absorb the error of the activations.
    dual
        True: some columns of qkv and fc1 have a format of their own, as in the official code. The
        array has one step a row, so the integer network rounds these weights once more.
    rounding
        False: weights are rounded to the nearest.
    compensation
        False: columns do not make up for the error of those before them.
    activation_penalty, weight_penalty
        Of the ridge regressions of Aqer and Wqer; they weigh against sums over all tokens.
    classifier_penalty
        Of Aqer for the classifier, which sees one token an image.
    refinements
        Changes of a row and a half in rounding refinement.
    flips
        Weights that change at once.
    columns
        A layer has one column apart for so many outputs.
    tail
        Share of a row's positive and of its negative weights that are outliers.
    ratio
        Of the two scales of a row, one of `golden.ptq.dual_scales.RATIOS`; "free" in the paper.
    """

    weight_shares: tuple[float, ...] = SHARES
    aqer: bool = True
    dual: bool = False
    rounding: bool = True
    compensation: bool = True
    activation_penalty: float = 2000.0
    weight_penalty: float = 2000.0
    classifier_penalty: float = 0.1
    refinements: int = 100
    flips: int = 1
    columns: int = 20
    tail: float = 0.01
    ratio: str = "free"

    @property
    def changes_weights(self) -> bool:
        """Whether any step changes weights before they are quantized."""
        return self.aqer or self.rounding or self.compensation

    @property
    def changes_biases(self) -> bool:
        """Whether any regression is done; rounding alone leaves biases as they are."""
        return self.aqer or self.compensation

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("activation_penalty", "weight_penalty", "classifier_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")
        for name in ("refinements", "flips", "columns"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if not 0 < self.tail < 0.5:
            raise ValueError(f"tail must be above 0 and below 0.5, not {self.tail!r}")
        if self.ratio not in RATIOS:
            raise ValueError(f"ratio must be one of {', '.join(RATIOS)}, not {self.ratio!r}")


@dataclass(frozen=True)
class Erq(KeepsImages):
    """RepQ-ViT with weights that make up for the error of activations and of each other."""

    name: ClassVar[str] = "erq"
    settings: ErqSettings = field(default_factory=ErqSettings)

    def decide(self, statistics: Statistics) -> Record:
        if not isinstance(statistics, SeenImages):
            raise TypeError("statistics must be those that ERQ has observed")
        plain = super().decide(statistics)
        # The same on every number of cores: two scales of a row leave ties at 8 bits.
        with one_thread():
            return self._reduced(statistics, plain)

    def _reduced(self, statistics: SeenImages, plain: Record) -> Record:
        """Reduce the error of what RepQ-ViT has decided."""
        settings = self.settings
        model = network(statistics.model, plain.parameters)
        state = {name: value.detach() for name, value in model.named_parameters()}
        formats, parameters = dict(plain.formats), dict(plain.parameters)
        seen = moments(model, statistics.batches, formats) if settings.changes_weights else {}
        for name in layers(model):
            weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
            if weight.ndim > 2:
                continue
            inputs = weight.shape[1]
            weight = weight.double()
            if bias is not None:
                weight = torch.cat((weight, bias.double()[:, None]), 1)
            if settings.aqer:
                weight = absorb(weight, seen[name], settings.classifier_penalty
                                if seen[name].pooled else settings.activation_penalty)
            formats[f"{name}.weight"] = item = self._format(name, weight[:, :inputs])
            if settings.rounding or settings.compensation:
                weight = half_by_half(
                    weight, item, seen[name], penalty=settings.weight_penalty,
                    refinements=settings.refinements if settings.rounding else 0,
                    flips=settings.flips, compensation=settings.compensation)
            if settings.changes_weights:
                parameters[f"{name}.weight"] = weight[:, :inputs].float()
                if bias is not None and settings.changes_biases:
                    parameters[f"{name}.bias"] = weight[:, inputs].float()
        return self.record(formats, parameters=parameters)

    def _format(self, layer: str, weight: Tensor) -> TensorFormat:
        """Format of a layer's weights ``[N, C]``."""
        settings = self.settings
        count = min(len(weight) // settings.columns, weight.shape[1] - 1)
        if not settings.dual or layer.rpartition(".")[2] not in ("qkv", "fc1") or count < 1:
            return self.weights(layer, weight)
        return dual_weights(weight, settings.weights,
                            outlier_columns(weight, count, settings.tail), self.weight_search,
                            settings.ratio)
