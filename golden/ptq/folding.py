# SPDX-License-Identifier: Apache-2.0
"""Rescaling and shifting LayerNorm outputs by channel, without changing what the network computes.

LayerNorm's weight and bias can make ``x / ratio - shift`` of its output x, and the layer that reads
it undoes this with its weights and bias. RepQ-ViT calls it reparameterization, SmoothQuant and
MPTQ-ViT migrate difficulty from activations to weights by it, and a network whose LayerNorm
outputs are uneven on purpose (`rescaled`) shows what both are worth.
"""

__all__ = ["activated", "changes", "fold", "folded", "network", "readers", "rescaled"]

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from golden.float.swin import Swin
from golden.float.vit import QuickGelu, Vit
from golden.ptq.sites import layers, sites, source


def fold(norm: tuple[Tensor, Tensor], layer: tuple[Tensor, Tensor | None], ratio: Tensor,
         shift: Tensor | None = None,
         ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor | None]]:
    """Make LayerNorm give ``x / ratio - shift`` instead of x, and the next layer the same results.

    Computed in double precision, returned in single precision.

    Parameters
    ----------
    norm
        Its weight and bias ``[C]``.
    layer
        Weight ``[N, C]`` and bias ``[N]`` of the layer that reads it.
    ratio, shift
        Of every channel, ``[C]``. No shift is 0.

    Raises
    ------
    ValueError
        If there is a shift and no bias that could undo it.
    """
    gamma, beta = (value.double() for value in norm)
    ratio = ratio.double()
    weight = layer[0].double() * ratio
    gamma, beta = gamma / ratio, beta / ratio
    bias = None if layer[1] is None else layer[1].double()
    if shift is not None and bool(shift.any()):
        if bias is None:
            raise ValueError("a layer without bias must not have a shift")
        beta = beta - shift.double()
        bias = bias + weight @ shift.double()
    return ((gamma.float(), beta.float()),
            (weight.float(), None if bias is None else bias.float()))


def folded(state: Mapping[str, Tensor], norm: str, layer: str, ratio: Tensor,
           shift: Tensor | None = None) -> dict[str, Tensor]:
    """Return the parameters that `fold` changes, by name.

    Parameters
    ----------
    state
        Parameters by name.
    norm, layer
        Module names of a LayerNorm and of the only layer that reads it.
    """
    weights, more = fold((state[f"{norm}.weight"], state[f"{norm}.bias"]),
                         (state[f"{layer}.weight"], state.get(f"{layer}.bias")), ratio, shift)
    changed = {f"{norm}.weight": weights[0], f"{norm}.bias": weights[1],
               f"{layer}.weight": more[0]}
    return changed if more[1] is None else changed | {f"{layer}.bias": more[1]}


def readers(model: Vit | Swin) -> dict[str, str]:
    """Return the layer that reads each LayerNorm output, by the norm's name.

    Swin's last norm is left out: between it and the layer there is the mean. So is that of a ViT
    whose classifier reads two tokens of it.
    """
    norms = {site.name for site in sites(model) if site.role == "norm"}
    if getattr(model.spec, "pool", "") == "both":
        norms.remove("norm")
    return {source(layer): layer for layer in layers(model) if source(layer) in norms}


def network(model: Vit | Swin, parameters: Mapping[str, Tensor]) -> Vit | Swin:
    """Copy a network with some parameters replaced."""
    changed = copy.deepcopy(model)
    for name, value in changed.named_parameters():
        if name in parameters:
            value.data = parameters[name].to(value)
    return changed


def changes(before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of `after` that differ, by name; both have the same names."""
    old = dict(before.named_parameters())
    return {name: value.detach() for name, value in after.named_parameters()
            if not torch.equal(value, old[name])}


def rescaled(model: Vit | Swin, spread: float, seed: int = 0) -> Vit | Swin:
    """Copy a network, with LayerNorm outputs of uneven channels and the same results.

    Every channel's output is multiplied by ``spread ** (u ** 4)``, u evenly spaced from 0 to 1 in
    random order: half of the channels grow by less than a quarter if `spread` is 40, one by all
    of it, as few channels of published checkpoints are so much larger than the median one.

    Parameters
    ----------
    spread
        Gain of the largest channel, at least 1.
    seed
        Draws which channels grow.

    Raises
    ------
    ValueError
        If `spread` is less than 1.
    """
    if not spread >= 1:
        raise ValueError(f"spread must be at least 1, not {spread}")
    generator = torch.Generator().manual_seed(seed)
    state = {name: value.detach() for name, value in model.named_parameters()}
    changed: dict[str, Tensor] = {}
    for norm, layer in readers(model).items():
        count = len(state[f"{norm}.weight"])
        place = torch.linspace(0, 1, count, dtype=torch.float64)
        gain = spread ** place[torch.randperm(count, generator=generator)] ** 4
        changed |= folded(state, norm, layer, 1 / gain)
    return network(model, changed)


def activated(model: Vit | Swin, activation: str) -> Vit | Swin:
    """Copy a network with its GELUs replaced, if the activation is "relu"; else it is the same."""
    if activation == "gelu":
        return model
    changed = copy.deepcopy(model)
    for module in changed.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GELU | QuickGelu):
                setattr(module, name, nn.ReLU())
    return changed
