# SPDX-License-Identifier: Apache-2.0
"""The integer-only vision transformer: image codes in, integer logits out, on the four units.

Every step is a golden function of a unit, and all between them is decoding and moving codes.
`golden.network.calibrate` makes a `golden.network.integers.Network` from a float one.
"""

__all__ = ["Call", "gathered", "heads_of", "image_codes", "merged", "patches", "run"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from golden.formats.formats import Shifted, Uniform
from golden.network.halves import packed_stationary, stationary
from golden.network.integers import Network
from golden.network.ops import (
    BLANK,
    PICTURES,
    Beside,
    Context,
    Image,
    Logits,
    Merge,
    Norm,
    Operation,
    PairBias,
    Pool,
    Position,
    Product,
    RegionContext,
    RegionScores,
    RegionSoftmax,
    Requantize,
    Scores,
    Softmax,
    Tokens,
    chosen,
    last_reads,
)
from golden.network.regions import distances, groups
from golden.network.topology import Spec
from golden.units.layernorm import layernorm
from golden.units.requant import Requantization, requantize
from golden.units.softmax import log_softmax
from golden.units.systolic import matmul
from vitforge.spec.formats import CODE_BITS


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One use of a unit: the arguments of its golden function (but for the config), the result.

    The result is what the operation writes, side by side if it is several tensors.
    """

    operation: Operation
    unit: str
    inputs: Mapping[str, Any]
    output: Tensor = field(repr=False)

    @property
    def name(self) -> str:
        """The operation's, which a product and its requantization may share."""
        return self.operation.name

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor among the inputs, the fields of a requantization too."""
        values = dict(self.inputs)
        if isinstance(layer := values.pop("layer", None), Requantization):
            values |= vars(layer)
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def image_codes(images: Tensor, spec: Spec) -> Tensor:
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


def patches(images: Tensor, spec: Spec) -> Tensor:
    """Cut codes ``[B, channels, H, W]`` into ``[B, patches, channels * size * size]``."""
    size, count = spec.patch_size, spec.image_size // spec.patch_size
    cut = images.reshape(len(images), spec.in_channels, count, size, count, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(len(images), spec.patches, spec.patch_values)


def gathered(tensor: Tensor, source: tuple[int, ...], blank: int = 0) -> Tensor:
    """Return rows of ``[B, T, C]`` in the order of `golden.network.ops.Tokens`.

    `blank` is the value in blank rows.
    """
    index = torch.tensor(source, device=tensor.device)
    rows = tensor.index_select(1, index.clamp_min(0))
    return rows.masked_fill_((index == BLANK)[:, None], blank) if BLANK in source else rows


def merged(tensor: Tensor, size: int) -> Tensor:
    """Put 2x2 tokens of ``[B, size * size, C]`` side by side: `golden.network.ops.Merge`."""
    rows = tensor.unflatten(1, (size, size))
    corners = [rows[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return torch.cat(corners, dim=-1).flatten(1, 2)


def heads_of(tensor: Tensor, heads: int) -> Tensor:
    """Cut ``[B, T, channels]`` into ``[B, heads, T, channels / heads]``."""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


_Made = tuple[Tensor, ...]


class _Run:
    """What an operation does to its tensors: the table that `run` goes by."""

    def __init__(self, network: Network, record: Callable[[Call], object] | None) -> None:
        self.network, self.config, self.record = network, network.config, record
        self.packed = packed_stationary(network)
        self.table: dict[type[Operation], Callable[..., _Made]] = {
            Image: self.image, Position: self.position, PairBias: self.pair_bias,
            Tokens: self.tokens, Merge: self.merge, Beside: self.beside, Pool: self.pool,
            Product: self.product,
            Scores: self.scores, RegionScores: self.region_scores, Context: self.context,
            RegionContext: self.region_context, Requantize: self.requantize, Norm: self.norm,
            Softmax: self.softmax, RegionSoftmax: self.region_softmax, Logits: self.logits}

    def done(self, operation: Operation, unit: str, output: Tensor, **inputs: Any) -> Tensor:
        if self.record:
            self.record(Call(operation=operation, unit=unit, inputs=inputs, output=output))
        return output

    def multiply(self, operation: Operation, codes: Tensor, weights: Tensor) -> Tensor:
        mantissa, shift = self.network.formats[operation.reads[0]].decode(codes)
        return self.done(operation, "systolic", matmul(mantissa, shift, weights),
                         mantissa=mantissa, shift=shift, weights=weights)

    def image(self, operation: Image, pictures: Tensor) -> _Made:
        return (patches(image_codes(pictures, self.network.spec), self.network.spec),)

    def position(self, operation: Position) -> _Made:
        return (self.network.constants[operation.name],)

    def tokens(self, operation: Tokens, tensor: Tensor) -> _Made:
        zero = getattr(self.network.formats.get(operation.reads[0]), "zero_point", 0)
        return (gathered(tensor, operation.source, zero),)

    def pair_bias(self, operation: PairBias) -> _Made:
        index = distances(operation.regions, operation.window)
        return (self.network.constants[operation.name][index].T,)

    def merge(self, operation: Merge, codes: Tensor) -> _Made:
        return (merged(codes, operation.size),)

    def beside(self, operation: Beside, codes: Tensor) -> _Made:
        return (codes.flatten(1)[:, None],)

    def pool(self, operation: Pool, codes: Tensor) -> _Made:
        return (self.network.formats[operation.reads[0]].operand(codes).sum(1, keepdim=True),)

    def product(self, operation: Product, codes: Tensor) -> _Made:
        return (self.multiply(operation, codes, self.network.weights[operation.name]),)

    def scores(self, operation: Scores, query: Tensor, key: Tensor) -> _Made:
        return (self.multiply(operation, query, self.weights(operation, key).transpose(-2, -1)),)

    def weights(self, operation: Scores | Context, codes: Tensor) -> Tensor:
        """Keys or values as the stationary weights of a product."""
        name = operation.reads[1]
        return stationary(codes - self.network.uniform(name).zero_point, name in self.packed)

    def context(self, operation: Context, probability: Tensor, value: Tensor) -> _Made:
        acc = self.multiply(operation, probability, self.weights(operation, value))
        return (acc.transpose(1, 2).flatten(2),)

    def requantize(self, operation: Requantize, acc: Tensor, codes: Tensor | None = None) -> _Made:
        layer = self.network.requantizations[operation.name]
        residual = None
        if operation.residual is not None and codes is not None:
            # The constant is one for all images.
            residual = self.network.formats[operation.residual].operand(codes).expand(acc.shape)
        output = self.done(operation, "requant", requantize(acc, layer, self.config, residual),
                           acc=acc, layer=layer, residual=residual)
        if not operation.heads:
            return (output,)
        return tuple(heads_of(part, operation.heads)
                     for part in output.chunk(len(operation.writes), -1))

    def norm(self, operation: Norm, codes: Tensor) -> _Made:
        read, affine = self.network.stream(operation.reads[0]), self.network.norms[operation.name]
        mantissa, shift = codes - read.zero_point, read.shift
        made = self.network.formats[operation.writes[0]]
        assert isinstance(made, Uniform | Shifted)
        output = layernorm(mantissa, shift, affine.gamma, affine.beta, made.zero_point, self.config,
                           made.bits)
        return (self.done(operation, "layernorm", output, mantissa=mantissa, shift=shift,
                          gamma=affine.gamma, beta=affine.beta, zero_point=made.zero_point,
                          bits=made.bits),)

    def region_scores(self, operation: RegionScores, query: Tensor, key: Tensor) -> _Made:
        """Region by region, and all of as many tokens at once: ``[B, heads, pairs]``."""
        found = groups(operation.regions)
        sums = torch.zeros(*query.shape[:2], sum(item.pairs.numel() for item in found),
                           dtype=torch.int64)
        for item in found:
            sums[..., item.pairs], = self.scores(operation, query[:, :, item.tokens],
                                                 key[:, :, item.tokens])
        return (sums,)

    def region_context(self, operation: RegionContext, probability: Tensor,
                       value: Tensor) -> _Made:
        stationary = value - self.network.uniform(operation.reads[1]).zero_point
        sums = torch.zeros_like(value)
        for item in groups(operation.regions):
            sums[:, :, item.tokens] = self.multiply(operation, probability[..., item.pairs],
                                                    stationary[:, :, item.tokens])
        return (sums.transpose(1, 2).flatten(2),)

    def region_softmax(self, operation: RegionSoftmax, codes: Tensor) -> _Made:
        found = torch.empty_like(codes)
        for item in groups(operation.regions):
            found[..., item.pairs], = self.softmax(operation, codes[..., item.pairs])
        return (found,)

    def softmax(self, operation: Softmax, codes: Tensor) -> _Made:
        half = 1 << min(CODE_BITS, self.config.score_bits) - 1   # whatever the width of the codes
        scores, scale = codes - half, self.network.scales[operation.name]
        keep = torch.ones_like(scores, dtype=torch.bool)
        return (self.done(operation, "softmax", log_softmax(scores, keep, scale, self.config),
                          scores=scores, keep=keep, scale=scale),)

    def logits(self, operation: Logits, acc: Tensor) -> _Made:
        return (acc[:, 0] + self.network.biases[operation.name],)


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
        If they have another size, or an operation is unknown.
    """
    work, operations = _Run(network, record), network.operations
    tensors = {PICTURES: images}
    for operation, free in zip(operations, last_reads(operations), strict=True):
        todo = chosen("golden.network.inference", work.table, operation)
        found = todo(operation, *(tensors[name] for name in operation.reads))
        tensors |= dict(zip(operation.writes, found, strict=True))
        for name in free:
            del tensors[name]
    return tensors[operations[-1].writes[0]]
