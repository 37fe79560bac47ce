# SPDX-License-Identifier: Apache-2.0
"""Another ViT that computes the same: its residual stream, turned.

Without weight and bias, LayerNorm commutes with any orthogonal R of ``R 1 = 1``: a turned row has
the same mean and deviation. So every layer that writes the stream is multiplied by R, and every
layer that reads it by ``R^T``; LayerNorm's own weight and bias go into the layer behind it, and
others, of the size that the turned channels have, take their place. What was trained to lie on a
coarse grid no longer does, as published float checkpoints don't. (SliceGPT, arXiv 2401.15024, and
QuaRot, arXiv 2404.00456, turn streams in the same way.)

Channels are turned in groups of like size, so that large ones stay large and small ones small.
"""

__all__ = ["grid_noise", "peaks", "rotation", "turned"]

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from golden.float.vit import Vit


def peaks(model: Vit, batches: Iterable[Tensor]) -> Tensor:
    """Return the largest size of each channel of the residual stream, ``[dim]``.

    Of all blocks' outputs for images ``[B, channels, H, W]``.
    """
    found = torch.zeros(model.spec.dim)

    def see(_module: object, _inputs: object, out: Tensor) -> None:
        torch.maximum(found, out.detach().abs().amax((0, 1)), out=found)

    handles = [block.register_forward_hook(see) for block in model.blocks]
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _turn(size: int, generator: torch.Generator) -> Tensor:
    """Random orthogonal ``[size, size]`` whose rows add up to 1."""
    ones = torch.ones(size, 1, dtype=torch.float64)
    drawn = torch.randn(size, 2 * size - 2, generator=generator, dtype=torch.float64)
    across = torch.linalg.qr(torch.cat((ones, drawn[:, :size - 1]), 1))[0][:, 1:]
    inner = torch.linalg.qr(drawn[:size - 1, size - 1:])[0]
    return ones @ ones.T / size + across @ inner @ across.T


def rotation(sizes: Tensor, group: int, seed: int) -> Tensor:
    """Draw an orthogonal R ``[dim, dim]``, float64, with ``R 1 = 1``.

    Parameters
    ----------
    sizes
        Of the channels, ``[dim]``; each group of `group` has neighbours in their order.
    group
        Channels that are mixed with each other, at least 2; the last group may be smaller.
    seed
        Draws everything.

    Raises
    ------
    ValueError
        If `group` is less than 2 or more than the channels.
    """
    if not 2 <= group <= len(sizes):
        raise ValueError(f"--group must be between 2 and the {len(sizes)} channels, not {group}")
    generator = torch.Generator().manual_seed(seed)
    whole = torch.zeros(len(sizes), len(sizes), dtype=torch.float64)
    for index in sizes.argsort(stable=True).split(group):
        whole[index[:, None], index] = _turn(len(index), generator)
    return whole


def turned(model: Vit, matrix: Tensor) -> Vit:
    """Copy a network, with its residual stream multiplied by an orthogonal matrix.

    Computed in double precision, rounded to single precision once.

    Parameters
    ----------
    matrix
        As `rotation` returns it.
    """
    state = {name: value.detach().double() for name, value in model.named_parameters()}
    new = dict(state)

    def write(layer: str) -> None:
        weight = state[f"{layer}.weight"]
        new[f"{layer}.weight"] = (matrix @ weight.flatten(1)).view_as(weight)
        new[f"{layer}.bias"] = matrix @ state[f"{layer}.bias"]

    def read(norm: str, layer: str) -> None:
        gamma, beta = state[f"{norm}.weight"], state[f"{norm}.bias"]
        weight = state[f"{layer}.weight"]
        # The size that the turned channels of LayerNorm's output have.
        size = (matrix.square() @ gamma.square()).sqrt()
        size = torch.where(size > 0, size, 1.0)   # a channel that gives nothing stays so
        offset = matrix @ beta
        inner = (weight * gamma) @ matrix.T / size
        new[f"{norm}.weight"], new[f"{norm}.bias"] = size, offset
        new[f"{layer}.weight"] = inner
        new[f"{layer}.bias"] = state[f"{layer}.bias"] + weight @ beta - inner @ offset

    write("patch_embed.proj")
    for name in ("cls_token", "pos_embed"):
        new[name] = state[name] @ matrix.T
    for block in range(model.spec.depth):
        read(f"blocks.{block}.norm1", f"blocks.{block}.attn.qkv")
        read(f"blocks.{block}.norm2", f"blocks.{block}.mlp.fc1")
        write(f"blocks.{block}.attn.proj")
        write(f"blocks.{block}.mlp.fc2")
    read("norm", "head")
    other = copy.deepcopy(model)
    for name, value in other.named_parameters():
        value.data = new[name].to(value)
    return other


def grid_noise(model: Vit, bits: int) -> float:
    """Signal to noise of all linear layers' weights on symmetric grids, in decibels.

    A row's step is the best of 25, from 0.4 to 1 times that of its largest weight. Gaussian
    weights have 14.0 at 3 bits.
    """
    top = (1 << bits - 1) - 1
    error = signal = 0.0
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().double()
            peak = weight.abs().amax(1, keepdim=True).clamp_min(1e-30) / top
            errors = torch.stack([
                ((weight / (peak * share)).round().clamp(-top - 1, top) * (peak * share) - weight
                 ).square().sum(1) for share in torch.linspace(0.4, 1, 25).tolist()])
            error += float(errors.amin(0).sum())
            signal += float(weight.square().sum())
    return 10 * math.log10(signal / error) if error else math.inf
