# SPDX-License-Identifier: Apache-2.0
"""The order of a network's passes, and what each of them does.

A pass depends on earlier ones through banks, and the accelerator drains a pass while the next two
run. So the heads of a block are interleaved: Q, K and V of a later head are made between a head's
scores and its use of them. How far ahead that is, and whether the last heads' scores are made
ahead too, is a `Style`: more of both costs more words of the scratchpad.
"""

__all__ = ["STYLES", "Schedule", "Style", "schedule"]

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gen.compiler.image import Patches
from gen.compiler.steps import (
    Array,
    Place,
    Region,
    Step,
    Vectors,
    minimal_bits,
    padded,
    pass_fields,
    requantization_fields,
    split,
    take,
    take_matrix,
    tiles_of,
)
from golden.formats.formats import Shifted
from golden.machine.program import Columns, output_bytes
from golden.network.run import Attention, Block, Linear, Network, Norm
from golden.units.encoding import Encoding
from golden.units.layernorm import offset
from golden.units.requant import Requantization
from golden.units.softmax import LevelScale, ShiftScale
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, OPERATIONS, STATISTICS
from vitforge.spec.sizes import columns


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


#: Raw results have no code; one field must still say so.
_RAW = Encoding()
#: From the fastest to the one that needs least.
STYLES = (Style(2, True), Style(2, False), Style(1, False), Style(0, False))


@dataclass(frozen=True, eq=False)
class Schedule:
    """Steps in their order, with the two regions that are loaded."""

    steps: tuple[Step, ...]
    patches: Region
    stream: Region
    position: Array


def schedule(network: Network, style: Style) -> Schedule:
    """Make the steps of a network."""
    builder = _Builder(network, style)
    steps = tuple(builder.steps())
    return Schedule(steps, builder.patches, builder.stream, builder.position())


@dataclass(frozen=True, eq=False)
class _Normed:
    """Operands that a LayerNorm makes of the residual stream; `norm` until a pass carried it."""

    slot: int
    fields: dict[str, int]
    parameters: Columns


class _Builder:
    def __init__(self, network: Network, style: Style) -> None:
        self.network, self.style = network, style
        self.spec, self.config = network.spec, network.config
        # Regions are words of the scratchpad; a pass makes several of a token, if it can.
        self.width = self.config.rows
        self.columns = columns(self.config)
        spec = self.spec
        self.order = Patches(spec, self.config)
        self.dim = padded(0, spec.dim, self.width)
        self.hidden = padded(0, spec.mlp_hidden, self.width)
        self.head_tiles = tiles_of(spec.head_dim, self.width)
        # Keys and values are read in whole tiles of tokens, keys as many as the array has columns.
        self.stride = tiles_of(spec.tokens, self.columns) * self.columns
        self.patches = self.region("patches", "scratch", self.order.tiles)
        self.stream = self.region("residual stream", "residual", len(self.dim) // self.width)
        self.norms = 0
        self.bits: dict[str, int] = {}   # width of each layer's weights

    def region(self, name: str, bank: str, tiles: int, stride: int | None = None) -> Region:
        return Region(name, bank, tiles * (stride or self.spec.tokens))

    def parts(self, columns: Array) -> Iterator[tuple[int, Array]]:
        """Cut channels into those of each pass, as many as it may have; with their first word."""
        for number, part in enumerate(split(columns, self.columns)):
            yield number * self.columns // self.width, part

    def spread(self, channels: int, pitch: int) -> dict[str, int]:
        """Fields of a PASS that makes so many channels, whose words are `pitch` words apart."""
        words = tiles_of(channels, self.width)
        return {"words": words - 1, "d_pitch": pitch if words > 1 else 0}

    def head(self, part: int, head: int) -> Array:
        """Channels of Q, K or V (part 0, 1, 2; or 0 for the context) of one head."""
        return padded(part * self.spec.dim + head * self.spec.head_dim, self.spec.head_dim,
                      self.width)

    def position(self) -> Array:
        """Codes of the constant residual, int64 ``[tiles, tokens, rows]``."""
        codes = self.network.position.numpy()[:, np.maximum(self.dim, 0)]
        codes = np.where(self.dim < 0, self.network.position_format.zero_point, codes)
        return codes.reshape(self.spec.tokens, -1, self.width).transpose(1, 0, 2)

    def steps(self) -> Iterator[Step]:
        network = self.network
        yield from self.linear(
            "patch_embed.proj", network.embedding, self.order.order, self.dim, self.patches,
            self.stream, before=network.position_format, after=self.format("embedding"),
            blank_first=1)
        before = self.format("embedding")
        for index, block in enumerate(network.blocks):
            yield from self.block(f"blocks.{index}", block, before)
            before = self.format(f"blocks.{index}.residual2")
        yield from self.classify()

    def format(self, name: str) -> Shifted:
        found = self.network.formats[name]
        assert isinstance(found, Shifted)
        return found

    def block(self, name: str, block: Block, before: Shifted) -> Iterator[Step]:
        context = self.region("context", "scratch", self.spec.heads * self.head_tiles)
        hidden = self.region("hidden", "scratch", len(self.hidden) // self.width)
        middle = self.format(f"{name}.residual1")
        after = self.format(f"{name}.residual2")
        yield from self.heads(name, block, context)
        yield from self.linear(
            f"{name}.attn.proj", block.proj,
            np.concatenate([self.head(0, head) for head in range(self.spec.heads)]), self.dim,
            context, self.stream, before=before, after=middle)
        yield from self.linear(f"{name}.mlp.fc1", block.fc1, self.dim, self.hidden, self.stream,
                               hidden, normed=self.normed(block.norm2))
        yield from self.linear(f"{name}.mlp.fc2", block.fc2, self.hidden, self.dim, hidden,
                               self.stream, before=middle, after=after)

    def heads(self, name: str, block: Block, context: Region) -> Iterator[Step]:
        """Attention of all heads, interleaved."""
        spec, normed = self.spec, self.normed(block.norm1)
        parts = [{part: self.region(f"{part} {head}", "scratch" if part == "Q" else "stationary",
                                    self.head_tiles, None if part == "Q" else self.stride)
                  for part in "KVQ"} for head in range(spec.heads)]
        scores = [self.region(f"scores {head}", "scratch", tiles_of(spec.tokens, self.width))
                  for head in range(spec.heads)]
        made = scored = 0

        def project(head: int) -> Iterator[Step]:
            for number, part in ((1, "K"), (2, "V"), (0, "Q")):
                carried = normed if not head and part == "K" else _carried(normed)
                yield from self.linear(
                    f"{name}.attn.qkv", block.qkv, self.dim, self.head(number, head), self.stream,
                    parts[head][part], normed=carried, detail=f"{part} {head}",
                    stride=None if part == "Q" else self.stride)

        for head in range(spec.heads):
            while made < min(spec.heads, head + max(1, self.style.ahead)):
                yield from project(made)
                made += 1
            if scored == head:
                yield from self.scores(name, block.attention, head, parts[head], scores[head])
                scored += 1
            if self.style.ahead and made < spec.heads:
                yield from project(made)
                made += 1
            elif self.style.fill and scored < spec.heads and made > scored:
                following = parts[scored]
                yield from self.scores(name, block.attention, scored, following, scores[scored])
                scored += 1
            yield from self.context(name, block.attention, head, parts[head], scores[head], context)

    def scores(self, name: str, layer: Attention, head: int, parts: dict[str, Region],
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
            yield Step(f"{name}.attn.scores", f"head {head}, keys {first}", fields,
                       Vectors(layer.scores).parameters(np.zeros(channels, np.int64)),
                       Place(parts["Q"]), Place(parts["K"], first),
                       Place(scores, first // self.width * spec.tokens))

    def context(self, name: str, layer: Attention, head: int, parts: dict[str, Region],
                scores: Region, context: Region) -> Iterator[Step]:
        """P V, a tile of channels a pass; scores become probabilities on their way."""
        spec, config = self.spec, self.config
        tiles = tiles_of(spec.tokens, config.rows)
        for first, part in self.parts(self.head(0, head)):
            fields = pass_fields(
                stationary=1, operand=OPERANDS["softmax"], tokens=spec.tokens, tiles=tiles,
                valid=spec.tokens - (tiles - 1) * config.rows, a_stride=spec.tokens,
                w_stride=config.rows, probability_slot=head % 2,
                destination=DESTINATIONS["scratch"], **probability_fields(layer),
                **requantization_fields(layer.context), **self.spread(len(part), spec.tokens))
            if fields["words"]:
                fields["w_pitch"] = self.stride
            yield Step(f"{name}.attn.context", f"head {head}", fields,
                       Vectors(layer.context).parameters(part), Place(scores),
                       Place(parts["V"], first * self.stride),
                       Place(context, (head * self.head_tiles + first) * spec.tokens))

    def normed(self, norm: Norm) -> _Normed:
        """Take the next half of the norm parameter memory."""
        slot, self.norms = self.norms % 2, self.norms + 1
        shift = torch.as_tensor(norm.input.shift)
        return _Normed(slot, {
            "operand": OPERANDS["norm"], "from_residual": 1, "norm_slot": slot, "has_norm": 1,
            "norm_zero_point": norm.input.zero_point, "operand_zero_point": norm.zero_point,
        }, {"gamma": take(norm.gamma, self.dim),
            "offset": take(offset(norm.beta, norm.zero_point), self.dim),
            "shift": take(shift, self.dim), "reserved": np.zeros(len(self.dim), np.int64)})

    def linear(self, name: str, layer: Linear, rows: Array, columns: Array, source: Region,
               target: Region, *, before: Shifted | None = None, after: Shifted | None = None,
               normed: _Normed | None = None, detail: str = "", stride: int | None = None,
               **more: int) -> Iterator[Step]:
        """Make the passes of a linear layer; with `after` it ends a branch of the stream."""
        spec, requantization = self.spec, layer.requantization
        if name not in self.bits:
            self.bits[name] = minimal_bits(layer.weights, self.config)
        vectors = Vectors(requantization, *(item.shift if item else 0 for item in (before, after)))
        stride = stride or spec.tokens
        for first, part in self.parts(columns):
            fields = pass_fields(
                weight_bits=self.bits[name], tokens=spec.tokens,
                tiles=len(rows) // self.config.rows,
                a_stride=spec.tokens, destination=DESTINATIONS[target.bank],
                **layer.input.operand_fields(), **requantization_fields(requantization),
                **self.spread(len(part), stride), **more)
            if normed:
                fields |= normed.fields
            if before and after:
                fields |= {
                    "residual_zero_point": before.zero_point, "channels": spec.dim,
                    "statistics": STATISTICS["norm"], "statistics_first": int(first == 0),
                    "statistics_last": int(first * self.width + len(part) == len(columns))}
            yield Step(name, detail, fields, vectors.parameters(part), Place(source),
                       d=Place(target, first * stride),
                       norm=normed.parameters if normed and fields["has_norm"] else None,
                       weights=take_matrix(layer.weights, rows, part, self.config.rows),
                       encoding=layer.requantization.encoding)
            normed = normed and _carried(normed)

    def classify(self) -> Iterator[Step]:
        """Make the head's, for the class token alone: accumulators go to memory as they are."""
        network, normed = self.network, self.normed(self.network.norm)
        spec, bits = self.spec, minimal_bits(network.head, self.config)
        raw = Requantization(bias=network.head_bias, encoding=_RAW)
        line = output_bytes(1, self.config)
        for first, part in self.parts(padded(0, spec.classes, self.width)):
            fields = pass_fields(
                weight_bits=bits, tokens=1, tiles=len(self.dim) // self.config.rows,
                a_stride=spec.tokens, destination=DESTINATIONS["memory"],
                offset=first * self.width // self.columns * line,
                **self.spread(len(part), 0)) | normed.fields
            fields |= {"operation": OPERATIONS["raw"], "bits": 8}
            yield Step("head", "", fields, Vectors(raw).parameters(part), Place(self.stream),
                       norm=normed.parameters if fields["has_norm"] else None,
                       weights=take_matrix(network.head, self.dim, part, self.config.rows))
            normed = _carried(normed)


def _carried(normed: _Normed) -> _Normed:
    """Return the same norm for the passes after the one that brought its parameters."""
    return _Normed(normed.slot, normed.fields | {"has_norm": 0}, normed.parameters)


def probability_fields(layer: Attention) -> dict[str, int]:
    """Fields of a PASS that say how scores become operands."""
    scale = layer.scale
    assert isinstance(scale, ShiftScale)
    fields = {"softmax_multiplier": scale.multiplier, **layer.probability.probability_fields()}
    if isinstance(scale, LevelScale):
        fields |= {"softmax_shift": scale.shift, "operand_m": scale.m}
    return fields
