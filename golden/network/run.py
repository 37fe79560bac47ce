# SPDX-License-Identifier: Apache-2.0
"""The integer-only vision transformer: image codes in, integer logits out, on the four units.

Every step is a golden function of a unit, and all between them is decoding and moving codes.
`golden.network.calibrate` makes a `Network` from a float one. The scheme is FQ-ViT's (arXiv
2111.13824) with 8-bit weights and activations and 4-bit log2 attention, or other codes of the
configuration, made integer from end to end:

- the residual stream is in PTF codes, and is added in the requantizer that ends each branch;
- LayerNorm reads PTF codes and gives uniform ones;
- K and V are the stationary operands of the two attention products, so the zero of their codes is
  the middle of a byte, whatever their width;
- GeLU's result is in signed two-scale codes (after TSPTQ-ViT, arXiv 2305.12901; a reconstruction);
- the class token and the position embedding, with the bias of the patch embedding, are codes like
  the residual stream's: the constant residual of the first layer.
"""

__all__ = ["Attention", "Block", "Call", "Linear", "Network", "Norm", "image_codes", "patches",
           "run"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from golden.float.vit import VitSpec
from golden.formats.formats import Format, Shifted, Uniform
from golden.units.layernorm import layernorm
from golden.units.requant import Requantization, requantize
from golden.units.softmax import PolynomialScale, ShiftScale, log_softmax
from golden.units.systolic import matmul
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """A product with int64 `weights` ``[K, N]`` of codes in the format `input`, requantized."""

    input: Format
    weights: Tensor
    requantization: Requantization


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """A LayerNorm of PTF codes, to codes of `bits` bits around `zero_point`.

    `gamma` and `beta` are `units.layernorm.layernorm_parameters`.
    """

    input: Shifted
    gamma: Tensor
    beta: Tensor
    zero_point: int
    bits: int = CODE_BITS


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """Attention of one block, between its two linear layers.

    `scores` requantizes Q K^T to codes, of which half of 8 bits is subtracted: softmax doesn't see
    a common offset. `context` requantizes P V, per channel.
    """

    query: Uniform
    key: Uniform
    value: Uniform
    scores: Requantization
    scale: ShiftScale | PolynomialScale
    probability: Format
    context: Requantization


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One encoder block."""

    norm1: Norm
    qkv: Linear
    attention: Attention
    proj: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """All integers of a network, and what they mean.

    Attributes
    ----------
    config
        Configuration whose widths the integers fit.
    embedding
        Patch embedding.
    position, position_format
        Its constant residual: codes ``[tokens, dim]``, and what they mean.
    head
        int64 ``[dim, classes]``, with `head_bias` ``[classes]``: the logits are the accumulators.
    head_input
        Format of the last norm's codes.
    logit_scale
        Real value of a logit's step; for reports, never used in between.
    formats
        Format of every tensor of codes, by the float tensor's name in `golden.float.vit.observe`,
        and of the weights, by their parameter's.
    """

    config: Config
    spec: VitSpec
    embedding: Linear
    position: Tensor
    position_format: Shifted
    blocks: tuple[Block, ...]
    norm: Norm
    head_input: Uniform
    head: Tensor
    head_bias: Tensor
    logit_scale: float
    formats: Mapping[str, Format]


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One use of a unit: the arguments of its golden function (but for the config), the result.

    `name` is the float tensor's name in `golden.float.vit.observe`, so a linear layer is two calls
    of one name: the product (`unit` "systolic") and its requantization ("requant").
    """

    name: str
    unit: str
    inputs: Mapping[str, Any]
    output: Tensor = field(repr=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor among the inputs, the fields of a requantization too."""
        values = dict(self.inputs)
        if isinstance(layer := values.pop("layer", None), Requantization):
            values |= vars(layer)
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


class _Units:
    """The four golden functions, with one configuration and an optional record of their calls."""

    def __init__(self, config: Config, record: Callable[[Call], object] | None) -> None:
        self.config = config
        self.record = record

    def _done(self, name: str, unit: str, output: Tensor, **inputs: Any) -> Tensor:
        if self.record:
            self.record(Call(name=name, unit=unit, inputs=inputs, output=output))
        return output

    def product(self, name: str, operand: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
        mantissa, shift = operand
        return self._done(name, "systolic", matmul(mantissa, shift, weights),
                          mantissa=mantissa, shift=shift, weights=weights)

    def requantize(self, name: str, acc: Tensor, layer: Requantization,
                   residual: Tensor | None = None) -> Tensor:
        return self._done(name, "requant", requantize(acc, layer, self.config, residual),
                          acc=acc, layer=layer, residual=residual)

    def linear(self, name: str, codes: Tensor, layer: Linear) -> Tensor:
        acc = self.product(name, layer.input.decode(codes), layer.weights)
        return self.requantize(name, acc, layer.requantization)

    def add(self, name: str, branch: str, codes: Tensor, layer: Linear, residual: Tensor) -> Tensor:
        acc = self.product(branch, layer.input.decode(codes), layer.weights)
        return self.requantize(name, acc, layer.requantization, residual)

    def norm(self, name: str, codes: Tensor, norm: Norm) -> Tensor:
        mantissa, shift = codes - norm.input.zero_point, norm.input.shift
        output = layernorm(mantissa, shift, norm.gamma, norm.beta, norm.zero_point, self.config,
                           norm.bits)
        return self._done(name, "layernorm", output, mantissa=mantissa, shift=shift,
                          gamma=norm.gamma, beta=norm.beta, zero_point=norm.zero_point,
                          bits=norm.bits)

    def softmax(self, name: str, scores: Tensor, scale: ShiftScale | PolynomialScale) -> Tensor:
        keep = torch.ones_like(scores, dtype=torch.bool)
        return self._done(name, "softmax", log_softmax(scores, keep, scale, self.config),
                          scores=scores, keep=keep, scale=scale)


def image_codes(images: Tensor, spec: VitSpec) -> Tensor:
    """Return uint8 images ``[B, H, W]`` or ``[B, channels, H, W]`` as int64, the latter shape.

    Raises
    ------
    TypeError
        If the images are not uint8.
    ValueError
        If they have another size.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 codes, not {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    wanted = (spec.in_channels, spec.image_size, spec.image_size)
    if images.shape[1:] != wanted:
        raise ValueError(f"images must have channels, height and width {wanted}, "
                         f"not {tuple(images.shape[1:])}")
    return images.to(torch.int64)


def patches(images: Tensor, spec: VitSpec) -> Tensor:
    """Cut codes ``[B, channels, H, W]`` into ``[B, patches, channels * size * size]``."""
    size, count = spec.patch_size, spec.image_size // spec.patch_size
    cut = images.reshape(len(images), spec.in_channels, count, size, count, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(len(images), spec.patches, spec.patch_values)


def _attend(units: _Units, name: str, qkv: Tensor, layer: Attention, heads: int) -> Tensor:
    """Codes of Q, K and V ``[B, T, 3 * dim]`` to the codes of the context ``[B, T, dim]``."""
    batch, tokens, width = qkv.shape
    parts = qkv.reshape(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    key = parts[1] - layer.key.zero_point
    value = parts[2] - layer.value.zero_point
    acc = units.product(f"{name}.scores", layer.query.decode(parts[0]), key.transpose(-2, -1))
    codes = units.requantize(f"{name}.scores", acc, layer.scores)
    half = 1 << min(8, units.config.score_bits) - 1   # whatever the width of the codes
    attention = units.softmax(f"{name}.softmax", codes - half, layer.scale)
    acc = units.product(f"{name}.context", layer.probability.decode(attention), value)
    return units.requantize(f"{name}.context", acc.transpose(1, 2).flatten(2), layer.context)


def _block(units: _Units, name: str, stream: Tensor, block: Block, heads: int) -> Tensor:
    normed = units.norm(f"{name}.norm1", stream, block.norm1)
    qkv = units.linear(f"{name}.attn.qkv", normed, block.qkv)
    context = _attend(units, f"{name}.attn", qkv, block.attention, heads)
    stream = units.add(f"{name}.residual1", f"{name}.attn.proj", context, block.proj,
                       block.norm1.input.operand(stream))
    normed = units.norm(f"{name}.norm2", stream, block.norm2)
    hidden = units.linear(f"{name}.mlp.fc1", normed, block.fc1)
    return units.add(f"{name}.residual2", f"{name}.mlp.fc2", hidden, block.fc2,
                     block.norm2.input.operand(stream))


def run(network: Network, images: Tensor, record: Callable[[Call], object] | None = None) -> Tensor:
    """Classify images, in integers only.

    Parameters
    ----------
    images
        uint8 ``[B, H, W]``, or ``[B, channels, H, W]``; a pixel is its own code.
    record
        Called with every use of a unit, in order: ``record=calls.append`` keeps all that a bench
        needs to replay the image.

    Returns
    -------
    Tensor
        Logits, int64 ``[B, classes]``, all of the step `Network.logit_scale`.

    Raises
    ------
    TypeError
        If the images are not uint8.
    ValueError
        If they have another size.
    """
    spec, units = network.spec, _Units(network.config, record)
    codes = patches(image_codes(images, spec), spec)
    layer = network.embedding
    acc = units.product("patch_embed.proj", layer.input.decode(codes), layer.weights)
    acc = torch.cat((acc.new_zeros(len(acc), 1, spec.dim), acc), dim=1)
    position = network.position_format.operand(network.position)
    stream = units.requantize("embedding", acc, layer.requantization, position.expand(acc.shape))
    for index, block in enumerate(network.blocks):
        stream = _block(units, f"blocks.{index}", stream, block, spec.heads)
    normed = units.norm("norm", stream[:, :1], network.norm)
    acc = units.product("head", network.head_input.decode(normed), network.head)
    return acc[:, 0] + network.head_bias
