# SPDX-License-Identifier: Apache-2.0
"""The order of a network's passes, and what each of them does.

A pass is a product with what rides on it: the norm or softmax in front of it, and the
requantization behind it. So the loop over a network's operations makes passes where it comes to
the operation that ends them, and finds the others through the tensors that they read.

A pass depends on earlier ones through banks, and the accelerator drains a pass while the next two
run. So the heads of a block are interleaved (`gen.compiler.attention`).
"""

__all__ = ["STYLES", "Style", "schedule", "styles"]

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from gen.compiler.attention import STYLES, Style
from gen.compiler.classified import Classified, refusal
from gen.compiler.gathered import copying, identity
from gen.compiler.image import Patches
from gen.compiler.layers import Attention, Linear, Normed
from gen.compiler.modes import choose
from gen.compiler.schedule_swin import schedule_swin
from gen.compiler.steps import (
    Array,
    Load,
    Region,
    Schedule,
    Step,
    padded,
    take,
)
from golden.float.swin import SwinSpec
from golden.formats.formats import Shifted, Uniform
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.layernorm import offset
from golden.units.requant import Requantization
from vitforge.spec.instruction import OPERANDS, PACKS

_T = TypeVar("_T")
_WHO = "gen.compiler"
#: Raw results have no code; one field must still say so.
_RAW = Encoding()


def styles(network: Network) -> tuple[Style, ...]:
    """Return the styles that make a difference, from the fastest to the one that needs least."""
    return STYLES[:1] if isinstance(network.spec, SwinSpec) else STYLES


def schedule(network: Network, style: Style) -> Schedule:
    """Make the steps of a network; of a Swin there is one order alone."""
    if isinstance(network.spec, SwinSpec):
        return schedule_swin(network)
    builder = _Builder(network, style)
    steps = tuple(builder.steps())
    position = Load(builder.begun, builder.loaded.reshape(-1, builder.width))
    return Schedule(steps, builder.order, builder.patches, (*builder.registers(), position))


class _Builder(Classified):
    def __init__(self, network: Network, style: Style) -> None:
        super().__init__(network, style)
        spec = self.spec
        self.order = Patches(spec, self.config)
        self.hidden = padded(0, spec.mlp_hidden, self.width)
        self.patches = self.region("patches", "scratch", self.order.tiles)
        self.places: dict[str, tuple[Array, Region]] = {}   # of tensors: channels, and where
        self.begun = self.stream   # its place before a norm that it goes on behind
        self.loaded = np.zeros((0, spec.tokens, self.width), np.int64)
        self.table: dict[type[ops.Operation], Callable[..., Iterator[Step]]] = {
            ops.Image: self.image, ops.Position: self.position, ops.Tokens: self.tokens,
            ops.Product: self.later, ops.Scores: self.later, ops.Context: self.later,
            ops.Requantize: self.requantize, ops.Norm: self.norm, ops.Softmax: self.later,
            ops.Beside: self.beside, ops.Pool: self.pool, ops.Logits: self.classify,
            **dict.fromkeys((ops.PairBias, ops.Merge, ops.RegionScores, ops.RegionContext,
                             ops.RegionSoftmax), self.windows)}
        self.roles: dict[str, Callable[..., Iterator[Step]]] = {
            "stream": self.branch, "gelu": self.gelu, "query": self.later, "scores": self.later,
            "context": self.attention}

    def steps(self) -> Iterator[Step]:
        for operation in self.network.operations:
            yield from ops.chosen(_WHO, self.table, operation)(operation)

    def registers(self) -> Iterator[Load]:
        """Bring the registers' words of the patches: zeros, as no field of a pass blanks them."""
        count, tokens = self.spec.registers, self.spec.tokens
        if count:
            for tile in range(self.order.tiles):
                yield Load(self.patches, np.zeros((count, self.width), np.int64),
                           tile * tokens + 1)

    def windows(self, operation: ops.Operation) -> Iterator[Step]:
        """Refuse what Swin needs."""
        raise refusal(operation, "there are none for windows")

    def later(self, operation: ops.Operation) -> Iterator[Step]:
        """Part of the passes that another operation ends."""
        return iter(())

    def tokens(self, operation: ops.Tokens) -> Iterator[Step]:
        """Refuse tokens in an order that passes have no fields for."""
        sums = operation.reads[0] not in self.network.formats
        begun = (*(ops.BLANK,) * self.spec.first, *range(self.spec.patches))
        ends = {tuple(range(self.spec.classified)),
                tuple(range(self.spec.first, self.spec.tokens))}
        if operation.source not in ({begun} if sums else ends):
            raise refusal(operation, "an order of tokens that no field of a pass has")
        return self.later(operation)

    def in_bank(self, name: str, operation: ops.Operation) -> None:
        """Refuse a residual that the bank of the stream doesn't hold any more."""
        if name != self.held:
            raise refusal(operation, f"it reads {name}, where the residual stream is {self.held}")

    def requantize(self, operation: ops.Requantize) -> Iterator[Step]:
        return ops.for_role(_WHO, self.roles, operation)(operation)

    def image(self, operation: ops.Image) -> Iterator[Step]:
        self.places[operation.writes[0]] = self.order.order, self.patches
        return self.later(operation)

    def position(self, operation: ops.Position) -> Iterator[Step]:
        """Codes of the constant residual, int64 ``[tiles, tokens, rows]``."""
        zero = self.network.stream(operation.writes[0]).zero_point
        codes = self.network.constants[operation.name].numpy()[:, np.maximum(self.dim, 0)]
        codes = np.where(self.dim < 0, zero, codes)
        self.loaded = codes.reshape(self.spec.tokens, -1, self.width).transpose(1, 0, 2)
        self.held = operation.writes[0]
        return self.later(operation)

    def layer(self, product: ops.Operation, requantization: Requantization) -> Linear:
        read = self.made[product.reads[0]]
        if isinstance(read, ops.Norm) and isinstance(self.made[read.reads[0]], ops.Tokens):
            raise refusal(product, "only the logits are of one token")
        return Linear(self.network.formats[product.reads[0]], self.network.weights[product.name],
                       requantization)

    def branch(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes that end a branch of the residual stream."""
        product = ops.summed(operation, self.made)
        if isinstance(product, ops.Pool):
            yield from self.mean(operation)
            return
        assert operation.residual is not None
        self.in_bank(operation.residual, operation)
        self.held = operation.writes[0]
        layer = self.layer(product, self.network.requantizations[operation.name])
        rows, source = self.operands(self.places, product)
        blank = self.made[operation.reads[0]] != product   # the class token's row, of no products
        yield from self.linear(
            product, layer, rows, self.dim, source, self.stream,
            before=self.network.stream(operation.residual),
            after=self.network.stream(operation.writes[0]), more={"blank_first": int(blank)})

    def gelu(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes from a norm to GeLU's codes."""
        product = ops.summed(operation, self.made)
        packed = self.packs(operation.writes[0])
        stride = self.pairs if packed else self.spec.tokens
        hidden = self.region("hidden", "scratch", len(self.hidden) // self.width, stride)
        self.places[operation.writes[0]] = self.hidden, hidden
        layer = self.layer(product, self.network.requantizations[operation.name])
        yield from self.linear(product, layer, self.dim, self.hidden, self.stream, hidden,
                               normed=self.operands(self.normed, product), stride=stride,
                               more={"pack": PACKS["tokens"] if packed else 0})

    def attention(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes from Q, K and V to the context."""
        network, made = self.network, self.made
        context = ops.summed(operation, made)
        softmax = made[context.reads[0]]
        scores = made[softmax.reads[0]]
        product = ops.summed(scores, made)
        projection = made[product.reads[0]]
        packed = self.packs(operation.writes[0])
        place = self.region("context", "scratch", self.spec.heads * self.head_tiles,
                            self.pairs if packed else None)
        self.places[operation.writes[0]] = np.concatenate(
            [self.head(0, head) for head in range(self.spec.heads)]), place
        layer = ops.summed(projection, made)
        yield from self.heads(
            projection, self.layer(layer, network.requantizations[projection.name]),
            Attention(product, context, network.uniform(product.reads[0]),
                      network.requantizations[scores.name], network.scales[softmax.name],
                      network.formats[softmax.writes[0]], network.requantizations[operation.name]),
            self.operands(self.normed, layer), place, PACKS["tokens"] if packed else 0)

    def norm(self, operation: ops.Norm) -> Iterator[Step]:
        """Take the next half of the norm parameter memory."""
        network, slot = self.network, len(self.normed) % 2
        source, (name,) = self.made[operation.reads[0]], operation.writes
        self.in_bank((source.reads if isinstance(source, ops.Tokens) else operation.reads)[0],
                     operation)
        read, norm = network.stream(operation.reads[0]), network.norms[operation.name]
        made, shift = network.formats[name], torch.as_tensor(read.shift)
        assert isinstance(made, Uniform | Shifted)
        zero = made.zero_point
        kept = self.region("codes of a norm", "scratch", len(self.dim) // self.width, self.pairs,
                           early=True) if self.packs(name) else None
        self.normed[name] = Normed(slot, {
            "operand": OPERANDS["norm"], "from_residual": 1, "norm_slot": slot, "has_norm": 1,
            "norm_zero_point": read.zero_point, "operand_zero_point": zero,
            "operand_bits": made.bits,
        }, {"gamma": take(norm.gamma, self.dim),
            "offset": take(offset(norm.beta, zero), self.dim),
            "shift": take(shift, self.dim), "reserved": np.zeros(len(self.dim), np.int64)}, kept)
        return self.copied(operation, made) if isinstance(made, Shifted) else self.later(operation)

    def copied(self, operation: ops.Norm, made: Shifted) -> Iterator[Step]:
        """Make the passes that write a norm's codes as the stream, elsewhere in its bank."""
        source, (name,) = self.stream, operation.writes
        self.stream = self.region(name, "residual", len(self.dim) // self.width)
        self.held, normed, weights = name, self.normed[name], identity(self.spec.dim)
        codes = Uniform(scale=1.0, bits=made.bits, zero_point=made.zero_point)
        self.modes[name] = choose(weights, normed.fields, self.config,
                                  quad="the stream goes on behind it")
        yield from self.linear(
            operation, Linear(codes, weights, copying(made.zero_point, made.bits)), self.dim,
            self.dim, source, self.stream, after=made, normed=normed, mode=self.modes[name])
