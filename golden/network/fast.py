# SPDX-License-Identifier: Apache-2.0
"""The integer network at the speed of floating point, with the same bits.

`golden.network.inference.run` is the definition, and works on integers alone. `Fast` computes the
same logits with floating-point units, which are exact as long as no integer leaves their
significand: 24 bits in single and 53 in double precision. That is proved, not hoped for:

- a product of operands and weights is taken in single precision if ``sum |operand| * |weight|``
  is below ``2**24``, with the greatest sum of a column's weights and the greatest operand of the
  format, or, where that is not enough, the greatest sum of a row's operands; else in double
  precision, with ``2**53``. Every partial sum is within the same bound, whatever the order;
- requantization, ``floor((acc + bias) * multiplier / 2**shift + 1/2)``, is exact in double
  precision if ``|acc + bias| * multiplier + 2**(shift-1)`` is below ``2**53``: all terms are
  multiples of ``2**-shift``;
- LayerNorm's integers have at most 50 bits (`vitforge.spec.layernorm_widths`), checked from the
  configuration.

GeLU and the code behind it are one table of all `value_bits` inputs. The units are in
`golden.network.fast_units`, softmax in `golden.network.fast_softmax`.
"""

__all__ = ["Fast", "UnprovableError", "pixel_network"]

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from golden.float.models import Preprocessing
from golden.formats import formats
from golden.formats.formats import Shifted
from golden.network import fast_units, ops
from golden.network.fast_softmax import FastSoftmax
from golden.network.fast_units import (
    Add,
    Gelu,
    Norm,
    Product,
    Scale,
    Uniform,
    UnprovableError,
    stepped,
)
from golden.network.halves import packed_stationary, stationary
from golden.network.inference import gathered, heads_of, image_codes, merged, patches, run
from golden.network.integers import Network
from golden.network.regions import distances, groups

#: Values of the residual stream at a time: few stay in the caches.
_CHUNK = 4 * 197 * 192
_WHO = "golden.network.fast"

#: A tensor of regions is a list, with one for each `golden.network.regions.Group`.
_Made = Tensor | list[Tensor] | tuple[Tensor, ...]
_Work = Callable[..., _Made]


@dataclass(frozen=True)
class _Step:
    """What is done to some tensors, what comes of it, and which are not needed any more."""

    work: _Work
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    free: tuple[str, ...]


class _Prepare:
    """From operations to functions: of operands, but for sums, which are in double precision."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self.network, self.config, self.device = network, network.config, device
        self.bounds: dict[str, int] = {}   # of sums
        self.packed = packed_stationary(network)
        self.table: dict[type[ops.Operation], Callable[..., _Work]] = {
            ops.Image: self.image, ops.Position: self.position, ops.PairBias: self.pair_bias,
            ops.Tokens: self.tokens, ops.Merge: self.merge, ops.Beside: self.beside,
            ops.Pool: self.pool,
            ops.Product: self.product, ops.Scores: self.scores,
            ops.RegionScores: self.region_scores, ops.Context: self.context,
            ops.RegionContext: self.region_context, ops.Requantize: self.requantize,
            ops.Norm: self.norm, ops.Softmax: self.softmax,
            ops.RegionSoftmax: self.region_softmax, ops.Logits: self.logits}
        self.roles: dict[str, Callable[[ops.Requantize, int], _Work]] = {
            "stream": self.add, "gelu": self.gelu, "query": self.projections,
            "scores": self.score_codes, "context": self.uniform, "pool": self.uniform}

    def steps(self) -> list[_Step]:
        operations = self.network.operations
        return [_Step(ops.chosen(_WHO, self.table, operation)(operation), operation.reads,
                      operation.writes, free)
                for operation, free in zip(operations, ops.last_reads(operations), strict=True)]

    def image(self, operation: ops.Image) -> _Work:
        spec, found = self.network.spec, self.network.formats[operation.writes[0]]
        return lambda pictures: found.operand(
            patches(image_codes(pictures, spec), spec).to(self.device)).float()

    def position(self, operation: ops.Position) -> _Work:
        found = self.network.formats[operation.writes[0]]
        constant = found.operand(self.network.constants[operation.name]).double().to(self.device)
        return lambda: constant

    def tokens(self, operation: ops.Tokens) -> _Work:
        if (bound := self.bounds.get(operation.reads[0])) is not None:
            self.bounds[operation.writes[0]] = bound
        return lambda tensor: gathered(tensor, operation.source)

    def pair_bias(self, operation: ops.PairBias) -> _Work:
        """Operands of each group of regions: keys first, padded as scores are."""
        found = self.network.formats[operation.writes[0]]
        table = found.operand(self.network.constants[operation.name]).double().to(self.device)
        pairs = table[distances(operation.regions, operation.window)].T
        constants = [functional.pad(pairs[:, item.pairs].transpose(-2, -1),
                                    (0, 0, 0, self.padding(item.size)))
                     for item in groups(operation.regions)]
        return lambda: constants

    def merge(self, operation: ops.Merge) -> _Work:
        return lambda tensor: merged(tensor, operation.size)

    def beside(self, operation: ops.Beside) -> _Work:
        return lambda tensor: tensor.flatten(1)[:, None]

    def pool(self, operation: ops.Pool) -> _Work:
        bound = operation.tokens * self.largest(operation.reads[0])
        self.bounds[operation.writes[0]] = bound
        return lambda operands: operands.double().sum(1, keepdim=True)

    def region_scores(self, operation: ops.RegionScores) -> _Work:
        found = groups(operation.regions)
        works = [self.scores(dataclasses.replace(operation, columns=item.size)) for item in found]
        tokens = [item.tokens.to(self.device) for item in found]
        return lambda query, key: [work(query[:, :, index], key[:, :, index])
                                   for work, index in zip(works, tokens, strict=True)]

    def region_context(self, operation: ops.RegionContext) -> _Work:
        found = groups(operation.regions)
        # The largest regions come last, so their bound stays.
        works = [self.contexts(dataclasses.replace(operation, inner=item.size))
                 for item in reversed(found)][::-1]
        tokens = [item.tokens.to(self.device) for item in found]
        back = torch.cat([index.flatten() for index in tokens]).argsort()

        def work(operands: list[Tensor], value: Tensor) -> Tensor:
            acc = torch.cat([one(part, value[:, :, index]).flatten(2, 3) for one, part, index
                             in zip(works, operands, tokens, strict=True)], dim=2)
            return acc.index_select(2, back).transpose(1, 2).flatten(2)
        return work

    def region_softmax(self, operation: ops.RegionSoftmax) -> _Work:
        works = [self.softmax_of(operation, item.size) for item in groups(operation.regions)]
        return lambda codes: [work(part) for work, part in zip(works, codes, strict=True)]

    def product(self, operation: ops.Product) -> _Work:
        found = Product(self.network.weights[operation.name], self.largest(operation.reads[0]),
                        self.device)
        self.bounds[operation.writes[0]] = found.bound
        return found

    def largest(self, name: str) -> int:
        return fast_units.largest(self.network.formats[name])

    def scores(self, operation: ops.Scores) -> Callable[[Tensor, Tensor], Tensor]:
        query, key = (self.largest(name) for name in operation.reads)
        bound = operation.inner * query * key
        if bound >= fast_units.SINGLE:
            raise UnprovableError(f"scores may reach {bound}")
        self.bounds[operation.writes[0]] = bound
        padding, packed = (0, 0, 0, self.padding(operation.columns)), \
            operation.reads[1] in self.packed

        def work(query: Tensor, key: Tensor) -> Tensor:
            # Keys come first, so that rows are the elements of vectors when their keys are added.
            key = functional.pad(stationary(key, packed), padding)
            return (key @ query.transpose(-2, -1)).double()
        return work

    def padding(self, tokens: int) -> int:
        """Keys beyond the last, so that words of keys are whole."""
        return -tokens % self.config.lanes

    def context(self, operation: ops.Context) -> _Work:
        work = self.contexts(operation)
        return lambda operands, value: work(operands, value).transpose(1, 2).flatten(2)

    def contexts(self, operation: ops.Context) -> Callable[[Tensor, Tensor], Tensor]:
        """P V of every head, ``[..., tokens, channels]``."""
        peak = self.largest(operation.reads[1])
        bound = operation.inner * self.bounds[operation.reads[0]] * peak
        if bound >= fast_units.DOUBLE:
            raise UnprovableError(f"sums may reach {bound}")
        self.bounds[operation.writes[0]] = bound
        sure, padding = bound < fast_units.SINGLE, (0, 0, 0, self.padding(operation.inner))
        packed = operation.reads[1] in self.packed

        def work(operands: Tensor, value: Tensor) -> Tensor:
            value = functional.pad(stationary(value, packed), padding)
            if sure or fast_units.surely(operands, peak):
                return (operands @ value).double()
            return operands.double() @ value.double()
        return work

    def requantize(self, operation: ops.Requantize) -> _Work:
        make = ops.for_role(_WHO, self.roles, operation)
        return make(operation, self.bounds[operation.reads[0]])

    def add(self, operation: ops.Requantize, bound: int) -> _Work:
        after = self.network.stream(operation.writes[0])
        if operation.residual is None:
            codes = Uniform(self.network.requantizations[operation.name], bound, after.zero_point,
                            self.config, self.device)
            return stepped(codes, after, self.device)
        return Add(self.network.requantizations[operation.name], bound, after,
                   self.config, self.device)

    def gelu(self, operation: ops.Requantize, bound: int) -> _Work:
        if self.network.requantizations[operation.name].operation == "linear":   # ReLU
            return self.uniform(operation, bound)
        return Gelu(self.network.requantizations[operation.name], bound,
                    self.network.formats[operation.writes[0]], self.config, self.device)

    def uniform(self, operation: ops.Requantize, bound: int) -> Uniform:
        return Uniform(self.network.requantizations[operation.name], bound,
                       self.network.uniform(operation.writes[0]).zero_point, self.config,
                       self.device)

    def projections(self, operation: ops.Requantize, bound: int) -> _Work:
        codes, count = self.uniform(operation, bound), len(operation.writes)

        def work(acc: Tensor) -> tuple[Tensor, ...]:
            found = codes(acc)
            assert isinstance(found, Tensor)
            return tuple(heads_of(part, operation.heads) for part in found.chunk(count, -1))
        return work

    def score_codes(self, operation: ops.Requantize, bound: int) -> _Work:
        layer = self.network.requantizations[operation.name]
        if operation.residual is not None:
            one = Add(layer, bound, Shifted(scale=1.0, bits=layer.encoding.bits, zero_point=0,
                                            shift=torch.tensor(0)), self.config, self.device)
            return lambda parts, constants: [one(part, constant) for part, constant
                                             in zip(parts, constants, strict=True)]
        scale, zero = Scale(layer, bound, self.config, self.device), layer.encoding.zero_point
        scale.narrow(-zero, (1 << layer.encoding.bits) - 1 - zero)
        return lambda acc: scale(acc).add_(zero)

    def norm(self, operation: ops.Norm) -> _Work:
        made = self.network.formats[operation.writes[0]]
        assert isinstance(made, formats.Uniform | Shifted)
        found = Norm(self.network.norms[operation.name], made, self.config, self.device)
        return stepped(found, made, self.device) if isinstance(made, Shifted) else found

    def softmax(self, operation: ops.Softmax) -> _Work:
        return self.softmax_of(operation, self.network.spec.keys)

    def softmax_of(self, operation: ops.Softmax, keys: int) -> Callable[[Tensor], Tensor]:
        """Rows of so many keys."""
        name = operation.writes[0]
        found = FastSoftmax(self.network.scales[operation.name], self.network.formats[name],
                            keys, self.config, self.device)
        self.bounds[name] = found.largest
        return lambda codes: found(codes).transpose(-2, -1)

    def logits(self, operation: ops.Logits) -> _Work:
        bias = self.network.biases[operation.name]
        return lambda acc: acc[:, 0].to(torch.int64).cpu() + bias


class Fast:
    """An integer network, prepared to classify many images.

    Parameters
    ----------
    network
        The integers.
    device
        Where to compute.

    Raises
    ------
    UnprovableError
        If an integer may leave the significand of double precision.
    UnknownOperationError
        If an operation is unknown.
    """

    def __init__(self, network: Network, device: torch.device | str = "cpu") -> None:
        self.network, self.device = network, torch.device(device)
        self.steps = _Prepare(network, self.device).steps()

    def __call__(self, images: Tensor) -> Tensor:
        """Return what `golden.network.inference.run` returns for images ``[B, ...]``."""
        tensors: dict[str, Any] = {ops.PICTURES: images}
        with torch.inference_mode():
            for step in self.steps:
                found = step.work(*(tensors[name] for name in step.reads))
                for name in step.free:
                    del tensors[name]
                made: tuple[Any, ...] = found if isinstance(found, tuple) else (found,)
                tensors |= dict(zip(step.writes, made, strict=True))
        logits: Tensor = tensors[self.steps[-1].writes[0]]
        return logits.to(images.device)


def pixel_network(network: Network, how: Preprocessing, device: torch.device | str = "cpu",
                  ) -> Callable[[Tensor], Tensor]:
    """Return a function from normalised images, as a float network takes them, to logits.

    Falls back to `golden.network.inference.run` where exactness can't be proved.
    """
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    some = max(1, _CHUNK // (network.spec.tokens * network.spec.dim))
    whole: Callable[[Tensor], Tensor]
    try:
        whole = Fast(network, device)
    except UnprovableError:
        def whole(codes: Tensor) -> Tensor:
            return run(network, codes)

    def classify(images: Tensor) -> Tensor:
        codes = ((images.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return torch.cat([whole(part) for part in codes.chunk(-(-len(codes) // some))])

    return classify
