# SPDX-License-Identifier: Apache-2.0
"""The order of a network's passes, and what each of them does.

A pass is a product with what rides on it: the norm or softmax in front of it, and the
requantization behind it. So the loop over a network's operations makes passes where it comes to
the operation that ends them, and finds the others through the tensors that they read.

A pass depends on earlier ones through banks, and the accelerator drains a pass while the next two
run. So the heads of a block are interleaved: Q, K and V of a later head are made between a head's
scores and its use of them. How far ahead that is, and whether the last heads' scores are made
ahead too, is a `Style`: more of both costs more words of the scratchpad.
"""

__all__ = ["STYLES", "Style", "schedule"]

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from gen.compiler.image import Patches
from gen.compiler.layers import Attention, Linear, Normed, carried, probability_fields
from gen.compiler.modes import Mode, choose
from gen.compiler.schedule_swin import schedule_swin
from gen.compiler.steps import (
    Array,
    Load,
    Place,
    Region,
    Schedule,
    Step,
    Vectors,
    padded,
    pass_fields,
    requantization_fields,
    split,
    take,
    take_matrix,
    tiles_of,
)
from golden.float.swin import SwinSpec
from golden.float.vit import VitSpec
from golden.formats.formats import Shifted
from golden.machine.program import output_bytes
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.layernorm import offset
from golden.units.requant import Requantization
from golden.units.softmax import ShiftScale
from vitforge.spec.instruction import DESTINATIONS, LINE, OPERANDS, OPERATIONS, STATISTICS
from vitforge.spec.sizes import tables


@dataclass(frozen=True)
class Style:
    """How passes of different heads overlap.

    Attributes
    ----------
    ahead
        Heads whose Q, K and V are made before they are needed.
    fill
        Whether the scores of the next head come before a head's context where no Q, K and V are
        left to make.
    """

    ahead: int
    fill: bool


_T = TypeVar("_T")
_WHO = "gen.compiler"
#: Raw results have no code; one field must still say so.
_RAW = Encoding()
#: From the fastest to the one that needs least.
STYLES = (Style(2, True), Style(2, False), Style(1, False), Style(0, False))


def schedule(network: Network, style: Style) -> Schedule:
    """Make the steps of a network; of a Swin there is one order alone."""
    if isinstance(network.spec, SwinSpec):
        return schedule_swin(network)
    builder = _Builder(network, style)
    steps = tuple(builder.steps())
    position = Load(builder.stream, builder.loaded.reshape(-1, builder.width))
    return Schedule(steps, builder.order, builder.patches, (position,))


def _refusal(operation: ops.Operation, why: str) -> ValueError:
    return ValueError(f"the compiler has no passes for {operation.name}: {why}")


class _Builder:
    def __init__(self, network: Network, style: Style) -> None:
        self.network, self.style = network, style
        assert isinstance(network.spec, VitSpec)
        self.spec, self.config = network.spec, network.config
        # Regions are words of the scratchpad; a pass makes several of a token, if it can.
        self.width = self.config.rows
        self.columns = self.config.cols
        spec = network.spec
        self.order = Patches(spec, self.config)
        self.dim = padded(0, spec.dim, self.width)
        self.hidden = padded(0, spec.mlp_hidden, self.width)
        self.head_tiles = tiles_of(spec.head_dim, self.width)
        # Keys and values are read in whole tiles of tokens, keys as many as the array has columns.
        self.stride = tiles_of(spec.tokens, self.columns) * self.columns
        self.patches = self.region("patches", "scratch", self.order.tiles)
        self.stream = self.region("residual stream", "residual", len(self.dim) // self.width)
        self.modes: dict[str, Mode] = {}   # of each layer's weights
        self.normed: dict[str, Normed] = {}
        self.places: dict[str, tuple[Array, Region]] = {}   # of tensors: channels, and where
        self.held = ""   # the tensor that is in the bank of the stream
        self.loaded = np.zeros((0, spec.tokens, self.width), np.int64)
        self.made = ops.made(network.operations)
        self.table: dict[type[ops.Operation], Callable[..., Iterator[Step]]] = {
            ops.Image: self.image, ops.Position: self.position, ops.Tokens: self.tokens,
            ops.Product: self.later, ops.Scores: self.later, ops.Context: self.later,
            ops.Requantize: self.requantize, ops.Norm: self.norm, ops.Softmax: self.later,
            ops.Logits: self.classify, **dict.fromkeys(
                (ops.PairBias, ops.Merge, ops.Pool, ops.RegionScores, ops.RegionContext,
                 ops.RegionSoftmax), self.windows)}
        self.roles: dict[str, Callable[..., Iterator[Step]]] = {
            "stream": self.branch, "gelu": self.gelu, "query": self.later, "scores": self.later,
            "context": self.attention}

    def region(self, name: str, bank: str, tiles: int, stride: int | None = None) -> Region:
        return Region(name, bank, tiles * (stride or self.spec.tokens))

    def parts(self, columns: Array, most: int) -> Iterator[tuple[int, Array]]:
        """Cut channels into those of each pass, `most` if there are; with their first word."""
        for number, part in enumerate(split(columns, most)):
            yield number * most // self.width, part

    def spread(self, channels: int, pitch: int) -> dict[str, int]:
        """Fields of a PASS that makes so many channels, whose words are `pitch` words apart."""
        words = tiles_of(channels, self.width)
        return {"words": words - 1, "d_pitch": pitch if words > 1 else 0}

    def head(self, part: int, head: int) -> Array:
        """Channels of Q, K or V (part 0, 1, 2; or 0 for the context) of one head."""
        return padded(part * self.spec.dim + head * self.spec.head_dim, self.spec.head_dim,
                      self.width)

    def steps(self) -> Iterator[Step]:
        for operation in self.network.operations:
            yield from ops.chosen(_WHO, self.table, operation)(operation)

    def windows(self, operation: ops.Operation) -> Iterator[Step]:
        """Refuse what Swin needs."""
        raise _refusal(operation, "there are none for windows")

    def later(self, operation: ops.Operation) -> Iterator[Step]:
        """Part of the passes that another operation ends."""
        return iter(())

    def tokens(self, operation: ops.Tokens) -> Iterator[Step]:
        """Refuse tokens in an order that passes have no fields for."""
        sums = operation.reads[0] not in self.network.formats
        if operation.source != ((ops.BLANK, *range(self.spec.patches)) if sums else (0,)):
            raise _refusal(operation, "an order of tokens that no field of a pass has")
        return self.later(operation)

    def in_bank(self, name: str, operation: ops.Operation) -> None:
        """Refuse a residual that the bank of the stream doesn't hold any more."""
        if name != self.held:
            raise _refusal(operation, f"it reads {name}, where the residual stream is {self.held}")

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

    def operands(self, known: Mapping[str, _T], product: ops.Operation) -> _T:
        """Return where a product's operands are; those of a stream must come out of a norm."""
        if product.reads[0] not in known:
            raise _refusal(product, f"it can't read {product.reads[0]} there")
        return known[product.reads[0]]

    def layer(self, product: ops.Operation, requantization: Requantization) -> Linear:
        read = self.made[product.reads[0]]
        if isinstance(read, ops.Norm) and isinstance(self.made[read.reads[0]], ops.Tokens):
            raise _refusal(product, "only the logits are of one token")
        return Linear(self.network.formats[product.reads[0]], self.network.weights[product.name],
                       requantization)

    def branch(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes that end a branch of the residual stream."""
        product = ops.summed(operation, self.made)
        assert operation.residual is not None
        self.in_bank(operation.residual, operation)
        self.held = operation.writes[0]
        layer = self.layer(product, self.network.requantizations[operation.name])
        rows, source = self.operands(self.places, product)
        blank = self.made[operation.reads[0]] != product   # the class token's row, of no products
        yield from self.linear(
            product.name, layer, rows, self.dim, source, self.stream,
            before=self.network.stream(operation.residual),
            after=self.network.stream(operation.writes[0]), blank_first=int(blank))

    def gelu(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes from a norm to GeLU's codes."""
        product = ops.summed(operation, self.made)
        hidden = self.region("hidden", "scratch", len(self.hidden) // self.width)
        self.places[operation.writes[0]] = self.hidden, hidden
        layer = self.layer(product, self.network.requantizations[operation.name])
        yield from self.linear(product.name, layer, self.dim, self.hidden, self.stream, hidden,
                               normed=self.operands(self.normed, product))

    def attention(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes from Q, K and V to the context."""
        network, made = self.network, self.made
        context = ops.summed(operation, made)
        softmax = made[context.reads[0]]
        scores = made[softmax.reads[0]]
        query = ops.summed(scores, made).reads[0]
        projection = made[query]
        product = ops.summed(projection, made)
        place = self.region("context", "scratch", self.spec.heads * self.head_tiles)
        self.places[operation.writes[0]] = np.concatenate(
            [self.head(0, head) for head in range(self.spec.heads)]), place
        yield from self.heads(
            product.name, self.layer(product, network.requantizations[projection.name]),
            Attention(scores.name, context.name, network.uniform(query),
                       network.requantizations[scores.name], network.scales[softmax.name],
                       network.formats[softmax.writes[0]], network.requantizations[operation.name]),
            self.operands(self.normed, product), place)

    def heads(self, name: str, qkv: Linear, attention: Attention, normed: Normed,
              context: Region) -> Iterator[Step]:
        """Attention of all heads, interleaved."""
        spec = self.spec
        parts = [{part: self.region(f"{part} {head}", "scratch" if part == "Q" else "stationary",
                                    self.head_tiles, None if part == "Q" else self.stride)
                  for part in "KVQ"} for head in range(spec.heads)]
        scores = [self.region(f"scores {head}", "scratch", tiles_of(spec.tokens, self.width))
                  for head in range(spec.heads)]
        made = scored = 0

        def project(head: int) -> Iterator[Step]:
            for number, part in ((1, "K"), (2, "V"), (0, "Q")):
                first = not head and part == "K"
                yield from self.linear(
                    name, qkv, self.dim, self.head(number, head), self.stream,
                    parts[head][part], normed=normed if first else carried(normed),
                    detail=f"{part} {head}",
                    stride=None if part == "Q" else self.stride)

        for head in range(spec.heads):
            while made < min(spec.heads, head + max(1, self.style.ahead)):
                yield from project(made)
                made += 1
            if scored == head:
                yield from self.scores(attention, head, parts[head], scores[head])
                scored += 1
            if self.style.ahead and made < spec.heads:
                yield from project(made)
                made += 1
            elif self.style.fill and scored < spec.heads and made > scored:
                following = parts[scored]
                yield from self.scores(attention, scored, following, scores[scored])
                scored += 1
            yield from self.context(attention, head, parts[head], scores[head], context)

    def scores(self, layer: Attention, head: int, parts: dict[str, Region],
               scores: Region) -> Iterator[Step]:
        """Q K^T, a tile of keys a pass, with the statistics of softmax."""
        spec = self.spec
        assert isinstance(layer.scale, ShiftScale)
        for first in range(0, spec.tokens, self.columns):
            keys = min(self.columns, spec.tokens - first)
            fields = pass_fields(
                stationary=1, by_column=1, tokens=spec.tokens, tiles=self.head_tiles, valid=keys,
                a_stride=spec.tokens, w_stride=self.stride, probability_slot=head % 2,
                statistics=STATISTICS["softmax"], statistics_first=int(first == 0),
                statistics_last=int(first + keys == spec.tokens),
                destination=DESTINATIONS["scratch"],
                softmax_multiplier=layer.scale.multiplier, **layer.query.operand_fields(),
                **requantization_fields(layer.scores), **self.spread(keys, spec.tokens))
            channels = tiles_of(keys, self.width) * self.width
            yield Step(layer.scores_name, f"head {head}, keys {first}", fields,
                       Vectors(layer.scores).parameters(np.zeros(channels, np.int64)),
                       Place(parts["Q"]), Place(parts["K"], first),
                       Place(scores, first // self.width * spec.tokens))

    def context(self, layer: Attention, head: int, parts: dict[str, Region], scores: Region,
                context: Region) -> Iterator[Step]:
        """P V, a tile of channels a pass; scores become probabilities on their way."""
        spec, config = self.spec, self.config
        tiles = tiles_of(spec.tokens, config.rows)
        for first, part in self.parts(self.head(0, head), self.columns):
            fields = pass_fields(
                stationary=1, operand=OPERANDS["softmax"], tokens=spec.tokens, tiles=tiles,
                valid=spec.tokens - (tiles - 1) * config.rows, a_stride=spec.tokens,
                w_stride=config.rows, probability_slot=head % 2,
                destination=DESTINATIONS["scratch"],
                **probability_fields(layer.scale, layer.probability),
                **requantization_fields(layer.context), **self.spread(len(part), spec.tokens))
            if fields["words"]:
                fields["w_pitch"] = self.stride
            yield Step(layer.context_name, f"head {head}", fields,
                       Vectors(layer.context).parameters(part), Place(scores),
                       Place(parts["V"], first * self.stride),
                       Place(context, (head * self.head_tiles + first) * spec.tokens))

    def norm(self, operation: ops.Norm) -> Iterator[Step]:
        """Take the next half of the norm parameter memory."""
        network, slot = self.network, len(self.normed) % 2
        source = self.made[operation.reads[0]]
        self.in_bank((source.reads if isinstance(source, ops.Tokens) else operation.reads)[0],
                     operation)
        read, norm = network.stream(operation.reads[0]), network.norms[operation.name]
        zero, shift = network.uniform(operation.writes[0]).zero_point, torch.as_tensor(read.shift)
        self.normed[operation.writes[0]] = Normed(slot, {
            "operand": OPERANDS["norm"], "from_residual": 1, "norm_slot": slot, "has_norm": 1,
            "norm_zero_point": read.zero_point, "operand_zero_point": zero,
            "operand_bits": network.uniform(operation.writes[0]).bits,
        }, {"gamma": take(norm.gamma, self.dim),
            "offset": take(offset(norm.beta, zero), self.dim),
            "shift": take(shift, self.dim), "reserved": np.zeros(len(self.dim), np.int64)})
        return self.later(operation)

    def linear(self, name: str, layer: Linear, rows: Array, columns: Array, source: Region,
               target: Region, *, before: Shifted | None = None, after: Shifted | None = None,
               normed: Normed | None = None, detail: str = "", stride: int | None = None,
               **more: int) -> Iterator[Step]:
        """Make the passes of a linear layer; with `after` it ends a branch of the stream."""
        spec, requantization = self.spec, layer.requantization
        operand = layer.input.operand_fields() | (normed.fields if normed else {})
        if name not in self.modes:
            self.modes[name] = choose(layer.weights, operand, self.config)
        mode = self.modes[name]
        vectors = Vectors(requantization, *(item.shift if item else 0 for item in (before, after)))
        stride = stride or spec.tokens
        tiles = len(rows) // self.config.rows
        for number, (first, part) in enumerate(self.parts(columns, mode.columns)):
            fields = pass_fields(
                **mode.fields(len(part)), tokens=spec.tokens, tiles=tiles,
                a_stride=spec.tokens, destination=DESTINATIONS[target.bank],
                **requantization_fields(requantization, int(part[0])),
                **self.spread(len(part), stride), **more) | operand
            if before and after:
                fields |= {
                    "residual_zero_point": before.zero_point, "channels": spec.dim,
                    "statistics": STATISTICS["norm"], "statistics_first": int(first == 0),
                    "statistics_last": int(first * self.width + len(part) == len(columns))}
            yield Step(name, detail, fields, vectors.parameters(part), Place(source),
                       d=Place(target, first * stride),
                       r=Place(target, first * stride) if before and tables(self.config) else None,
                       norm=normed.parameters if normed and fields["has_norm"] else None,
                       weights=take_matrix(layer.weights, rows, part, self.config.rows),
                       encoding=layer.requantization.encoding, why=mode.why,
                       more=mode.more(number, spec.tokens * tiles))
            if normed:
                normed = carried(normed)
                operand |= normed.fields

    def classify(self, operation: ops.Logits) -> Iterator[Step]:
        """Make the head's, for the class token alone: accumulators go to memory as they are."""
        product = ops.summed(operation, self.made)
        weights = self.network.weights[product.name]
        normed = self.operands(self.normed, product)
        if not isinstance(self.made[self.made[product.reads[0]].reads[0]], ops.Tokens):
            raise _refusal(operation, "logits are of one token")
        spec, mode = self.spec, choose(weights, normed.fields, self.config)
        if mode.pair and self.config.cols * 4 % LINE:
            mode = replace(mode, pair=0, why="fewer columns than logits in a line")
        raw = Requantization(bias=self.network.biases[operation.name], encoding=_RAW)
        line = output_bytes(1, self.config)
        channels, tiles = padded(0, spec.classes, self.width), len(self.dim) // self.config.rows
        for number, (first, part) in enumerate(self.parts(channels, mode.columns)):
            fields = pass_fields(
                **mode.fields(len(part)), tokens=1, tiles=tiles,
                a_stride=spec.tokens, destination=DESTINATIONS["memory"],
                offset=first * self.width // self.columns * line,
                **self.spread(len(part), 0)) | normed.fields
            fields |= {"operation": OPERATIONS["raw"], "bits": 8}
            yield Step(product.name, "", fields, Vectors(raw).parameters(part), Place(self.stream),
                       norm=normed.parameters if fields["has_norm"] else None,
                       weights=take_matrix(weights, self.dim, part, self.config.rows),
                       why=mode.why, more=mode.more(number, self.config.rows * tiles))
            normed = carried(normed)
