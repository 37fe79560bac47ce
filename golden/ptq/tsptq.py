# SPDX-License-Identifier: Apache-2.0
"""TSPTQ-ViT: two scales for values, and for outlier channels (arXiv 2305.12901). A reconstruction.

The paper's equations and code were not available. From its abstract: attention and GeLU values are
split by magnitude into two regions whose scales differ by a power of two (V-2SF), outlier channels
before LayerNorm have a scale of their own (O-2SF), and scales are found by a Hessian-guided search.
How each is done here is reconstructed:

- V-2SF: `golden.formats.formats.TwoScale`; GeLU is signed, and both its scales and m are searched;
- O-2SF: `golden.formats.ptf.outlier_two_scale`;
- the Hessian is approximated by its diagonal, the squared gradients of the cross-entropy to the
  float network's own classes, at the tensor itself; ranges shrink on a linear grid;
- a weight's scale minimizes ``dW E[x x^T] dW^T`` per output channel, which is the Hessian-weighted
  error of the layer's output if the weight does not depend on the token.
"""

__all__ = ["Tsptq", "TsptqSettings", "output_weights", "squared_gradients"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.formats.ptf import outlier_two_scale
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.method import Method, Settings
from golden.ptq.ranges import affine, channel_weights
from golden.ptq.record import Record
from golden.ptq.sites import CLASSIFIERS, INPUT, Site, layers, source
from golden.ptq.statistics import Observed, Statistics, collect, observed_sites, spaced
from golden.ptq.weights import common_weights


@dataclass(frozen=True, kw_only=True)
class TsptqSettings(Settings):
    """Options of TSPTQ-ViT; all defaults are reconstructions.

    Attributes
    ----------
    operands_only
        True: the residual stream and the scores stay in floating point, and the operands of matrix
        products alone are quantized. That is what the papers' 4-bit figures must mean: MPTQ-ViT's
        abstract sets 4-bit networks apart from its fully quantized ones.
    value_scales
        False: attention and GeLU are uniform (no V-2SF).
    outlier_scales
        False: the residual stream is uniform (no O-2SF).
    hessian
        False: squared errors count alike.
    threshold
        A channel is an outlier if it is so many times as large as the median one.
    largest_m
        Of the two-scale formats.
    candidates
        Ranges that the linear grids try.
    least
        The smallest of those, as a share of the whole range.
    kept
        Values of a tensor that are kept of a batch.
    """

    operands_only: bool = False
    value_scales: bool = True
    outlier_scales: bool = True
    hessian: bool = True
    threshold: float = 4.0
    largest_m: int = 6
    candidates: int = 12
    least: float = 0.4
    kept: int = 1 << 17

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold <= 1 or not 0 < self.least < 1:
            raise ValueError("threshold must be above 1, and least between 0 and 1")
        if min(self.largest_m, self.candidates, self.kept) < 1 or self.largest_m > 6:
            raise ValueError("largest_m must be 1 to 6, candidates and kept at least 1")

    def bits(self, role: str) -> int:
        return 0 if self.operands_only and role in ("stream", "scores") else super().bits(role)

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of a range that are tried, the whole one first."""
        step = (1 - self.least) / max(1, self.candidates - 1)
        return tuple(1 - step * index for index in range(self.candidates))


def squared_gradients(model: Vit | Swin, batches: Iterable[Tensor], found: Sequence[Site],
                      most: int) -> dict[str, Tensor]:
    """Return squared gradients at every site but the image, for the rows that `collect` keeps.

    Of the cross-entropy between the network's logits and its own most likely classes.
    """
    rows: dict[str, list[Tensor]] = {site.name: [] for site in found if site.name != INPUT}
    classified = model.spec.classified if isinstance(model, Vit) else 0

    def see(name: str, value: Tensor) -> None:
        def keep(gradient: Tensor) -> None:
            part = gradient[:, :classified] if classified and name == "norm" else gradient
            rows[name].append(spaced(part, most).square())
        value.register_hook(keep)

    wanted = [site for site in found if site.name != INPUT]
    parameters = [item for item in model.parameters() if not item.requires_grad]
    for item in parameters:
        item.requires_grad_(True)
    try:
        with observed_sites(model, wanted, see), torch.enable_grad():
            for batch in batches:
                logits = model(batch)
                loss = nn.functional.cross_entropy(logits, logits.detach().argmax(1),
                                                   reduction="sum")
                # Of the sites only; the parameters' gradients are not kept.
                torch.autograd.grad(loss, list(model.parameters()))
    finally:
        for item in parameters:
            item.requires_grad_(False)
    return {name: torch.cat(values) for name, values in rows.items()}


def output_weights(weight: Tensor, rows: Tensor, bits: int,
                   shares: Sequence[float]) -> TensorFormat:
    """Symmetric weights ``[N, C]`` whose scales minimize the error of the output over `rows`."""
    rows = rows.double()
    moment = rows.T @ rows / len(rows)
    whole = channel_weights(weight, bits)
    scale = torch.tensor(whole.scale, dtype=torch.float64)
    best, least = scale, torch.full((len(weight),), float("inf"), dtype=torch.float64)
    top = (1 << bits - 1) - 1
    for share in shares:
        step = (scale * share)[:, None]
        change = (weight / step + 0.5).floor().clamp(-top, top) * step - weight
        error = ((change @ moment) * change).sum(1)
        best = torch.where(error < least, scale * share, best)
        least = torch.minimum(least, error)
    return TensorFormat(kind="uniform", bits=bits, axis=0, signed=True, scale=tuple(best.tolist()))


@dataclass(frozen=True)
class Tsptq(Method):
    """V-2SF for attention and GeLU, O-2SF for the residual stream, a search for all scales."""

    name: ClassVar[str] = "tsptq-vit"
    settings: TsptqSettings = field(default_factory=TsptqSettings)

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        kept = list(batches)
        found = collect(model, kept, most=self.settings.kept, advance=advance)
        if not self.settings.hessian:
            return found
        importance = squared_gradients(model, kept, found.sites, self.settings.kept)
        return Statistics(model, found.sites, found.observed, importance,
                          found.class_token)

    def decide(self, statistics: Statistics) -> Record:
        settings = self.settings
        found: dict[str, TensorFormat] = {}
        for site in statistics.sites:
            if bits := settings.bits(site.role):
                found[site.name] = self.activation(statistics, site, bits)
        for name in layers(statistics.model):
            found[f"{name}.weight"] = self.weight(statistics, name, settings.weights)
        return self.record(found)

    def activation(self, statistics: Statistics, site: Site, bits: int) -> TensorFormat:
        """Search the format of a site."""
        seen = statistics.observed[site.name]
        rows = seen.all_rows
        importance = statistics.importance.get(site.name, torch.ones(()))
        candidates = self._candidates(site.role, seen, rows, bits)
        errors = [float(((simulate(rows, item) - rows).square() * importance).double().sum())
                  for item in candidates]
        return candidates[errors.index(min(errors))]

    def weight(self, statistics: Statistics, layer: str, bits: int) -> TensorFormat:
        """Search the format of a layer's weights."""
        weight = statistics.model.get_submodule(layer).get_parameter("weight").detach()
        if layer in CLASSIFIERS:
            return common_weights(weight, bits)
        if weight.ndim > 2:   # of the patch embedding, pixels and not patches were observed
            return channel_weights(weight, bits)
        rows = statistics.observed[source(layer)].all_rows
        return output_weights(weight.double(), rows, bits, self.settings.shares)

    def _candidates(self, role: str, seen: Observed, rows: Tensor,
                    bits: int) -> list[TensorFormat]:
        """Make the formats that a site of this role may have, the plainest first."""
        low, high = float(seen.low.min()), float(seen.high.max())
        settings = self.settings
        if role == "stream" and settings.outlier_scales:
            found = outlier_two_scale(rows, bits, settings.threshold, settings.largest_m)
            return [TensorFormat(kind="shifted", bits=bits, scale=found.scale * share,
                                 zero_point=found.zero_point, shift=tuple(found.shift.tolist()))
                    for share in settings.shares]
        if role in ("attention", "gelu") and settings.value_scales:
            signed = role == "gelu"
            top = (1 << bits - 1 - signed) - 1
            peak = max(abs(low), abs(high), 1e-9)
            return [TensorFormat(kind="two-scale", bits=bits, signed=signed, m=m,
                                 scale=peak * share / (top << m))
                    for m in range(1, settings.largest_m + 1) for share in settings.shares]
        return [affine(low * share, high * share, bits) for share in settings.shares]
