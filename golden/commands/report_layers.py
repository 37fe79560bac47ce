# SPDX-License-Identifier: Apache-2.0
"""How far every tensor of a quantized network is from the float one's, on a few images."""

__all__ = ["noise", "observed"]

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from golden.float.models import Preprocessing
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.network import ops
from golden.network.inference import Call, heads_of, run
from golden.network.integers import Network
from golden.ptq.sites import INPUT, sites
from golden.ptq.statistics import observed_sites

_WHO = "golden.commands.report_layers"


def observed(model: Vit | Swin, images: Tensor) -> dict[str, Tensor]:
    """Return the values of every site but the image, for normalised images."""
    seen: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        seen[name] = value.detach()

    with observed_sites(model, [site for site in sites(model) if site.name != INPUT], see), \
            torch.inference_mode():
        model(images)
    return seen


def _integers(network: Network, images: Tensor, how: Preprocessing) -> dict[str, Tensor]:
    """Return the values that the integer network's codes stand for, by the sites' names."""
    found: dict[str, Tensor] = {}

    def see(call: Call) -> None:
        ops.chosen(_WHO, table, call.operation)(call.operation, call.output)

    def sums(operation: ops.Operation, output: Tensor) -> None:
        """Leave out what is no codes."""

    def codes(operation: ops.Operation, output: Tensor) -> None:
        (name,) = operation.writes
        found[name] = network.formats[name].dequantize(output)

    def parts(operation: ops.Requantize, output: Tensor) -> None:
        for name, part in zip(operation.writes, output.chunk(len(operation.writes), -1),
                              strict=True):
            values = network.formats[name].dequantize(part)
            found[name] = heads_of(values, operation.heads) if operation.heads else values

    # The others are no use of a unit.
    table: dict[type[ops.Operation], Callable[..., None]] = {
        ops.Product: sums, ops.Scores: sums, ops.RegionScores: sums, ops.Context: sums,
        ops.RegionContext: sums, ops.Requantize: parts, ops.Norm: codes, ops.Softmax: codes,
        ops.RegionSoftmax: sums}

    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    run(network, ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8), see)
    return found


def _decibels(real: Tensor, found: Tensor) -> float:
    error = (real.double() - found.double()).square().sum()
    return float(10 * (real.double().square().sum() / error.clamp_min(1e-300)).log10())


def noise(model: Vit | Swin, simulated: Vit | Swin, images: Tensor, *,
          integer: Network | None = None, how: Preprocessing | None = None,
          ) -> dict[str, Mapping[str, float]]:
    """Return signal-to-noise ratios in decibels, by site, of "simulated" and "integer".

    A tensor that reparameterization rescales is far from the float network's without being worse:
    LayerNorm's results say nothing for methods that do that.
    """
    real = observed(model, images)
    others = {"simulated": observed(simulated, images)}
    if integer is not None and how is not None:
        others["integer"] = _integers(integer, images, how)
    if isinstance(model, Swin):   # within windows the integers' tokens stand in another order
        others["integer"] = {
            name: value.reshape(real[name].shape)
            for name, value in others.get("integer", {}).items() if ".attn." not in name}
    if isinstance(model, Vit):   # the classifier reads the class token alone, or two
        for values in (real, others["simulated"]):
            values["norm"] = values["norm"][:, :model.spec.classified]
    return {name: {which: _decibels(value, values[name])
                   for which, values in others.items() if name in values}
            for name, value in real.items()}
