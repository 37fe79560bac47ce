# SPDX-License-Identifier: Apache-2.0
"""GPTQ: weights rounded column by column, the columns left making up for each (arXiv 2210.17323).

The baseline that ERQ's paper compares its weights with, on RepQ-ViT's formats of activations. For a
layer's inputs X, quantized as they will be, ``H = 2 X^T X``; with the upper Cholesky factor U of
H's inverse, column q is rounded, and ``(w_q - round(w_q)) / U_qq * U_q,j`` is taken off all columns
j behind it (algorithm 1 there; official code, ``gptq.py``: 1 % of H's mean diagonal is added to the
diagonal, inputs that are always 0 have no weight). Formats per row are RepQ-ViT's, searched before;
biases stay. The patch embedding is not touched, as ERQ leaves it.
"""

__all__ = ["Gptq", "GptqSettings", "column_by_column"]

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from golden.data.parallel import one_thread
from golden.ptq.folding import network
from golden.ptq.formats import TensorFormat, weight_grid
from golden.ptq.kept_images import KeepsImages, SeenImages
from golden.ptq.record import Record
from golden.ptq.repqvit import RepqVitSettings
from golden.ptq.ridge import moments
from golden.ptq.sites import layers
from golden.ptq.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class GptqSettings(RepqVitSettings):
    """Options of GPTQ, at the official code's defaults, and those of RepQ-ViT.

    Attributes
    ----------
    damping
        Share of the mean of H's diagonal that is added to it.
    ordered
        True: columns of the largest inputs first (``act_order``).
    """

    damping: float = 0.01
    ordered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping < 10:
            raise ValueError(f"damping must be above 0 and below 10, not {self.damping!r}")


def column_by_column(weight: Tensor, item: TensorFormat, gram: Tensor, *, damping: float = 0.01,
                     ordered: bool = False) -> Tensor:
    """Put weights on the grid of their format.

    Parameters
    ----------
    weight
        float64 ``[N, K]``.
    item
        Uniform codes, a scale and zero point for each row.
    gram
        ``X^T X``, float64 ``[K, K]``; its own factor 2 cancels.
    damping, ordered
        As in `GptqSettings`.

    Returns
    -------
    Tensor
        float64 ``[N, K]``.
    """
    weight, gram = weight.clone(), gram.clone()
    diagonal = gram.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight[:, dead] = 0
    order = diagonal.argsort(descending=True, stable=True) if ordered \
        else torch.arange(len(gram), device=gram.device)
    weight, gram = weight[:, order], gram[order][:, order]
    gram.diagonal().add_(damping * gram.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    upper = torch.linalg.cholesky(inverse, upper=True)
    step, zero = (value[:, 0] for value in weight_grid(item))
    out = torch.empty_like(weight)
    for column in range(weight.shape[1]):
        old = weight[:, column]
        code = ((old / step + 0.5).floor() + zero).clamp(item.low, item.high)
        out[:, column] = (code - zero) * step
        error = (old - out[:, column]) / upper[column, column]
        weight[:, column:] -= error[:, None] * upper[column, column:]
    back = torch.empty_like(out)
    back[:, order] = out
    return back


@dataclass(frozen=True)
class Gptq(KeepsImages):
    """RepQ-ViT's formats, with weights that make up for each other's rounding."""

    name: ClassVar[str] = "gptq"
    settings: GptqSettings = field(default_factory=GptqSettings)

    def decide(self, statistics: Statistics) -> Record:
        if not isinstance(statistics, SeenImages):
            raise TypeError("statistics must be those that GPTQ has observed")
        plain = super().decide(statistics)
        # Sums of several cores have other last bits, and rounding has ties.
        with one_thread():
            model = network(statistics.model, plain.parameters)
            seen = moments(model, statistics.batches, plain.formats)
            parameters = dict(plain.parameters)
            for name in layers(model):
                weight = model.get_submodule(name).get_parameter("weight").detach()
                if weight.ndim == 2:
                    inputs = weight.shape[1]
                    parameters[f"{name}.weight"] = column_by_column(
                        weight.double(), plain.formats[f"{name}.weight"],
                        seen[name].gram[:inputs, :inputs], damping=self.settings.damping,
                        ordered=self.settings.ordered).float()
        return self.record(dict(plain.formats), parameters=parameters)
