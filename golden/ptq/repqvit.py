# SPDX-License-Identifier: Apache-2.0
"""RepQ-ViT: scale reparameterization and log-sqrt2 attention (ICCV 2023, arXiv 2212.08254).

LayerNorm outputs are calibrated per channel and folded into one scale and zero point per layer
(section 3.2 there; `reparameterize`); the attention map has log-sqrt2 codes. Ranges are quantiles
of the kept rows, chosen by squared error. The residual stream, the scores, LayerNorm, softmax and
GELU stay in floating point, as in the paper. One difference: the common zero point is rounded to an
integer before it is folded, because the datapath has no others. Weights are symmetric
as the array's are, unless `symmetric` is False, and the classifier's have one step. And Swin's
patch merging is not reparameterized: its layer has no bias to fold into.
"""

__all__ = ["RepqVit", "RepqVitSettings", "asymmetric_weights", "channel_affine", "reparameterize"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.folding import fold, folded
from golden.ptq.formats import TensorFormat
from golden.ptq.method import Method, Settings
from golden.ptq.ranges import affine, percentile_search
from golden.ptq.record import Record
from golden.ptq.sites import CLASSIFIERS, layers, source
from golden.ptq.statistics import Statistics, collect
from golden.ptq.weights import LEAST, channel_symmetric, common_weights, quantile_ends


@dataclass(frozen=True, kw_only=True)
class RepqVitSettings(Settings):
    """Options of RepQ-ViT, at the official code's defaults.

    Attributes
    ----------
    reparameterize
        False: LayerNorm outputs get the plain searched format of the layer.
    sqrt2
        False: the attention map gets plain log2 codes.
    shares
        Quantiles that the search of activation ranges tries.
    weight_shares
        The same for weights.
    symmetric
        False: weights have zero points, as in the paper; integers have none, and round once more.
    kept
        Values of a tensor that are kept of a batch, and searched.
    """

    stream: int = 0
    reparameterize: bool = True
    sqrt2: bool = True
    shares: tuple[float, ...] = (0.999, 0.9999, 0.99999)
    weight_shares: tuple[float, ...] = (0.999, 0.9999, 0.99999)
    symmetric: bool = True
    kept: int = 1 << 20

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shares", "weight_shares"):
            shares = getattr(self, name)
            if not shares or not all(0.5 < share <= 1 for share in shares):
                raise ValueError(f"{name} must be numbers above 0.5 and at most 1, not {shares!r}")
        if not isinstance(self.kept, int) or self.kept < 1:
            raise ValueError(f"kept must be at least 1, not {self.kept!r}")


def channel_affine(x: Tensor, bits: int, shares: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Search asymmetric formats of the columns of ``[N, C]``, each for itself.

    Returns
    -------
    scale, zero_point
        float64 and int64 ``[C]``, of the quantile of least squared error.
    """
    x = x.double()
    columns = x.sort(0).values
    top = (1 << bits) - 1
    least = torch.full((x.shape[1],), float("inf"), dtype=torch.float64)
    best_scale, best_zero = torch.ones_like(least), torch.zeros_like(least)
    for share in shares:
        low, high = quantile_ends(columns, share)
        scale = ((high - low) / top).clamp_min(LEAST)
        zero = (-low / scale + 0.5).floor()
        code = ((x / scale + 0.5).floor() + zero).clamp(0, top)
        error = ((code - zero) * scale - x).square().sum(0)
        better = error < least
        least = torch.where(better, error, least)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero.long()


def asymmetric_weights(weight: Tensor, bits: int, shares: Sequence[float]) -> TensorFormat:
    """Asymmetric weights per output channel, with searched ranges."""
    scale, zero = channel_affine(weight.flatten(1).T, bits, shares)
    return TensorFormat(kind="uniform", bits=bits, axis=0, scale=tuple(scale.tolist()),
                        zero_point=tuple(zero.tolist()))


def reparameterize(norm: tuple[Tensor, Tensor], layer: tuple[Tensor, Tensor | None],
                   scale: Tensor, zero: Tensor, common: tuple[float, int],
                   ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor | None]]:
    """Fold channel formats of a LayerNorm's output into one of the layer (equations 6 to 9).

    With ``r = scale / s`` and ``b = (z - zero) * s`` for the common ``(s, z)``, the new output is
    ``x / r - b``, and the next layer computes the same function of it.

    Parameters
    ----------
    norm
        Its weight and bias ``[C]``.
    layer
        Weight ``[N, C]`` and bias ``[N]`` of the layer that reads it; None stays None, and needs
        all `zero` equal to the common one.
    scale, zero
        Of every channel, ``[C]``.
    common
        The layer's scale and zero point.
    """
    return fold(norm, layer, *_onto(scale, zero, common))


def _onto(scale: Tensor, zero: Tensor, common: tuple[float, int]) -> tuple[Tensor, Tensor]:
    """Ratio and shift that move channel grids onto the common one."""
    # x / ratio lies on the grid of the common scale; less the shift, on that of its zero point too.
    return scale / common[0], (common[1] - zero).double() * common[0]


@dataclass(frozen=True)
class RepqVit(Method):
    """Searched ranges, reparameterized LayerNorm outputs, log-sqrt2 attention."""

    name: ClassVar[str] = "repq-vit"
    settings: RepqVitSettings = field(default_factory=RepqVitSettings)

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        return collect(model, batches, most=self.settings.kept, advance=advance)

    def decide(self, statistics: Statistics) -> Record:
        settings = self.settings
        state = {name: value.detach() for name, value in statistics.model.named_parameters()}
        changed: dict[str, Tensor] = {}
        readers = {source(layer): layer for layer in layers(statistics.model)}
        found: dict[str, TensorFormat] = {}
        for site in statistics.sites:
            bits = settings.bits(site.role)
            if not bits:
                continue
            rows = statistics.observed[site.name].all_rows
            if site.role == "attention":
                found[site.name] = self.attention(rows, bits)
            elif (site.role == "norm" and settings.reparameterize
                  and _folds(readers.get(site.name))):
                found[site.name] = self._fold(site.name, readers[site.name], rows, bits, state,
                                              changed)
            else:
                found[site.name] = percentile_search(rows, bits, affine, settings.shares)
        state |= changed
        for name in layers(statistics.model):
            found[f"{name}.weight"] = self.weights(name, state[f"{name}.weight"])
        return self.record(found, parameters=changed)

    def attention(self, rows: Tensor, bits: int) -> TensorFormat:
        """Return log-sqrt2 codes whose largest value is the best quantile, or log2 codes."""
        if not self.settings.sqrt2:
            return TensorFormat(kind="log2", bits=bits, scale=2.0 ** -((1 << bits) - 1))

        def make(low: float, high: float, width: int) -> TensorFormat:
            return TensorFormat(kind="log-sqrt2", bits=width, scale=max(high, LEAST))

        return percentile_search(rows, bits, make, self.settings.shares)

    def weights(self, layer: str, weight: Tensor) -> TensorFormat:
        """Format of a layer's weights ``[N, ...]``: a step a row, but one for the classifier."""
        settings = self.settings
        if layer in CLASSIFIERS:
            return common_weights(weight, settings.weights, settings.weight_shares)
        if not settings.symmetric:
            return asymmetric_weights(weight, settings.weights, settings.weight_shares)
        scale, _ = self.weight_search(weight.flatten(1))
        return TensorFormat(kind="uniform", bits=settings.weights, axis=0, signed=True,
                            scale=tuple(scale.tolist()))

    def weight_search(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point ``[N]`` of unsigned codes for the rows of ``[N, C]``."""
        settings = self.settings
        search = channel_symmetric if settings.symmetric else channel_affine
        return search(weight.T, settings.weights, settings.weight_shares)

    def common(self, scale: Tensor, zero: Tensor) -> tuple[float, int]:
        """Scale and zero point of a layer for those ``[C]`` of its channels: their means."""
        return float(scale.mean()), int((zero.double().mean() + 0.5).floor())

    def _fold(self, norm: str, layer: str, rows: Tensor, bits: int, state: dict[str, Tensor],
              changed: dict[str, Tensor]) -> TensorFormat:
        """Reparameterize one LayerNorm; the new parameters go to `changed`."""
        scale, zero = channel_affine(rows, bits, self.settings.shares)
        step, middle = self.common(scale, zero)
        changed |= folded(state, norm, layer, *_onto(scale, zero, (step, middle)))
        return TensorFormat(kind="uniform", bits=bits, scale=step, zero_point=middle)


def _folds(layer: str | None) -> bool:
    """Whether the paper folds into this layer: the inputs of qkv and fc1."""
    return layer is not None and layer.rpartition(".")[2] in ("qkv", "fc1")
