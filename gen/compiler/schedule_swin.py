# SPDX-License-Identifier: Apache-2.0
"""The passes of a Swin: tables gather tokens, attention goes region by region.

The residual stream lies in the bank of residuals, channel tile by channel tile, with its tokens row
by row; only where patches are so small that an image comes in blocks of them, the first stage has
its tokens in the order of these blocks. Tables say which token of the stream stands where among the
windows' regions, and back. Queries, keys and values of a head are made of all tokens at once, in
the order of the regions; then each region has scores, and the context behind those of some regions
more (`AHEAD`), so that the drain is done by then.

A region of few tokens has scores of `SHORT` tokens, whose last ones nobody reads: the accumulators
want that many. What it writes too much of the context the next region writes again.
"""

__all__ = ["schedule_swin"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from gen.compiler.image import Blocks
from gen.compiler.layers import probability_fields
from gen.compiler.modes import Mode, choose
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
from golden.formats.formats import Shifted
from golden.machine.program import Columns, output_bytes
from golden.network import ops
from golden.network.integers import Network
from golden.network.regions import distances
from golden.units.encoding import Encoding
from golden.units.layernorm import offset
from golden.units.requant import Requantization
from golden.units.softmax import ShiftScale
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, OPERATIONS, STATISTICS
from vitforge.spec.sizes import SHORT, tables

#: Regions of a head whose scores are made before the first one's context.
AHEAD = 3


def _where(order: tuple[int, ...]) -> Array:
    """Return the place of each number in an order of all of them."""
    places = np.empty(len(order), np.int64)
    places[np.array(order)] = np.arange(len(order))
    return places


@dataclass(frozen=True, eq=False)
class Codes:
    """A tensor of codes in a bank, and how passes read it.

    Attributes
    ----------
    region
        A word of each token, for one tile of channels after the other.
    channels
        Indices of the channels, -1 in the places that are filled up.
    tokens
        Of the pass that reads it, and of the region, as far as tiles lie apart.
    fields
        Of a PASS: how its codes become operands, and whether they are gathered.
    norm
        Parameters of the LayerNorm on the way, if there is one.
    """

    region: Region
    channels: Array
    tokens: int
    fields: dict[str, int]
    norm: Columns | None = None
    pitch: int = 0

    @property
    def stride(self) -> int:
        return self.pitch or self.tokens


class _Builder:
    def __init__(self, network: Network) -> None:
        self.network, self.config = network, network.config
        assert isinstance(network.spec, SwinSpec)
        if not tables(self.config):
            raise ValueError("table_tokens must be more than 0 for windows, so for Swin")
        self.spec = network.spec
        self.width, self.columns = self.config.rows, self.config.cols
        self.order = Blocks(self.spec, self.config)
        self.made = ops.made(network.operations)
        self.codes: dict[str, Codes] = {}
        self.streams: dict[str, Region] = {}
        self.loads: list[Load] = []
        self.indices: list[int] = []
        self.known: dict[tuple[int, ...], int] = {}   # where a table stands
        self.slots = 0
        self.modes: dict[str, Mode] = {}
        self.place = _where(self.order.tokens)   # of a token in the first stage's stream
        self.table: dict[type[ops.Operation], Callable[..., Iterator[Step]]] = {
            ops.Image: self.image, ops.Tokens: self.tokens, ops.Merge: self.merge,
            ops.PairBias: self.later, ops.Pool: self.pool, ops.Product: self.later,
            ops.RegionScores: self.later, ops.RegionSoftmax: self.later,
            ops.RegionContext: self.later, ops.Requantize: self.requantize, ops.Norm: self.norm,
            ops.Logits: self.logits}
        self.roles: dict[str, Callable[..., Iterator[Step]]] = {
            "stream": self.stream, "gelu": self.gelu, "query": self.later, "scores": self.later,
            "context": self.attention, "pool": self.mean}

    # -- what all passes share

    def steps(self) -> Iterator[Step]:
        for operation in self.network.operations:
            yield from ops.chosen("gen.compiler", self.table, operation)(operation)

    def later(self, operation: ops.Operation) -> Iterator[Step]:
        """Part of the passes that another operation ends."""
        return iter(())

    def requantize(self, operation: ops.Requantize) -> Iterator[Step]:
        return ops.for_role("gen.compiler", self.roles, operation)(operation)

    def gather(self, index: Array) -> dict[str, int]:
        """Return the fields of a pass that gathers these tokens; none if they are in order."""
        if bool((index == np.arange(len(index))).all()):
            return {}
        key = tuple(index.tolist())
        if key not in self.known:
            self.known[key] = len(self.indices)
            self.indices += key
        return {"gathers": 1, "a_table": self.known[key]}

    def spread(self, channels: int, pitch: int) -> dict[str, int]:
        words = tiles_of(channels, self.width)
        return {"words": words - 1, "d_pitch": pitch if words > 1 else 0}

    def linear(self, name: str, weights: torch.Tensor, source: Codes, columns: Array,
               target: Region, layer: Requantization, *, detail: str = "", pitch: int = 0,
               residual: bool = False, before: Shifted | None = None,
               after: Shifted | None = None, channels: int = 0, mode: Mode | None = None,
               **more: int) -> Iterator[Step]:
        """Make the passes of a product with weights, channel tile by channel tile.

        `after` is the stream that they make, of so many `channels`: its statistics are gathered.
        """
        if mode is None:
            mode = self.modes[name] = self.modes.get(name) or choose(weights, source.fields,
                                                                     self.config)
        vectors = Vectors(layer, *(item.shift if item else 0 for item in (before, after)))
        pitch, tiles = pitch or source.tokens, len(source.channels) // self.width
        norm = source.norm
        for number, first in enumerate(range(0, len(columns), mode.columns)):
            part = columns[first:first + mode.columns]
            fields = pass_fields(**(
                mode.fields(len(part)) | {
                    "tokens": source.tokens, "tiles": tiles, "a_stride": source.stride,
                    "destination": DESTINATIONS[target.bank]}
                | requantization_fields(layer, max(int(part[0]), 0))
                | self.spread(len(part), pitch) | source.fields | more))
            fields["has_norm"] = int(norm is not None)
            if after:
                fields |= {
                    "channels": channels, "statistics": STATISTICS["norm"],
                    "statistics_first": int(first == 0),
                    "statistics_last": int(first + len(part) == len(columns))}
            if before:
                fields["residual_zero_point"] = before.zero_point
            place = Place(target, first // self.width * pitch)
            why, costs = mode.more(number, source.tokens, tiles)
            yield Step(name, detail, fields, vectors.parameters(part), Place(source.region),
                       d=place, r=place if residual else None, norm=norm,
                       weights=take_matrix(weights, source.channels, part, self.width),
                       encoding=layer.encoding, why=why, more=costs)
            norm = None

    def identity(self, channels: int) -> torch.Tensor:
        return torch.eye(channels, dtype=torch.int64)

    def copying(self, zero_point: int, bits: int = 8, lowest: int = 0) -> Requantization:
        """Return the requantization that makes codes of operands."""
        return Requantization(multiplier=1 << 14, shift=14, encoding=Encoding(
            bits=bits, zero_point=zero_point, lowest=lowest))

    # -- the stream

    def image(self, operation: ops.Image) -> Iterator[Step]:
        region = Region("patches", "scratch", self.order.tiles * self.order.count)
        self.patches = region
        self.codes[operation.writes[0]] = Codes(
            region, self.order.order, self.order.count,
            self.network.formats[operation.writes[0]].operand_fields())
        return self.later(operation)

    def stream(self, operation: ops.Requantize) -> Iterator[Step]:
        """Add a branch to the stream, or begin it."""
        product = ops.summed(operation, self.made)
        assert isinstance(product, ops.Product)
        layer, after = self.network.requantizations[operation.name], \
            self.network.stream(operation.writes[0])
        source, weights = self.codes[product.reads[0]], self.network.weights[product.name]
        writer = self.made[operation.reads[0]]
        if isinstance(writer, ops.Tokens):   # from the order of the regions into the stream's
            back = self.stream_order(len(writer.source))
            source = replace(source, fields=source.fields | self.gather(
                np.array(writer.source)[back]))
        columns = padded(0, product.columns, self.width)
        if operation.residual is not None:
            region = self.streams[operation.residual]
            self.streams[operation.writes[0]] = region
            yield from self.linear(
                product.name, weights, source, columns, region, layer, residual=True,
                before=self.network.stream(operation.residual), after=after,
                channels=product.columns)
            return
        rows = product.rows
        region = Region(operation.writes[0], "residual", len(columns) // self.width * rows)
        self.streams[operation.writes[0]] = region
        if source.tokens == rows:
            yield from self.linear(product.name, weights, source, columns, region, layer,
                                   after=after, channels=product.columns)
            return
        # Blocks of patches, of which a pass has one patch each: the others' weights are zero.
        self.modes[product.name] = mode = choose(weights, source.fields, self.config)
        for number, chosen in enumerate(self.order.blocks):
            one = replace(source, channels=chosen)
            for step in self.linear(product.name, weights, one, columns, region, layer,
                                    after=after, channels=product.columns, pitch=rows, mode=mode,
                                    detail=f"patch {number} of a block",
                                    f_base=number * source.tokens):
                assert step.d is not None
                step.d = Place(region, step.d.offset + number * source.tokens)
                yield step

    def stream_order(self, tokens: int) -> Array:
        """Return the token, counted row by row, of each place of a stream."""
        if tokens == self.spec.patches:
            return np.array(self.order.tokens)
        return np.arange(tokens)

    def norm(self, operation: ops.Norm) -> Iterator[Step]:
        """Read the stream through a LayerNorm; a norm whose results are the stream is copied."""
        network, (read,), (name,) = self.network, operation.reads, operation.writes
        found, norm, made = network.stream(read), network.norms[operation.name], \
            network.formats[name]
        region, count = self.streams[read], len(norm.gamma)
        channels = padded(0, count, self.width)
        if isinstance(self.made[read], ops.Merge):   # whole words for each of the four tokens
            channels = np.concatenate([
                np.where((part := padded(0, count // 4, self.width)) < 0, -1,
                         part + corner * count // 4) for corner in range(4)])
        tokens = region.words // (len(channels) // self.width)
        slot, self.slots = self.slots % 2, self.slots + 1
        zero = int(made.zero_point)   # type: ignore[attr-defined]
        source = Codes(region, channels, tokens, {
            "operand": OPERANDS["norm"], "from_residual": 1, "norm_slot": slot,
            "norm_zero_point": found.zero_point, "operand_zero_point": zero,
            "operand_bits": made.bits,
        }, {"gamma": take(norm.gamma, channels), "offset": take(offset(norm.beta, zero), channels),
            "shift": take(found.shift, channels),
            "reserved": np.zeros(len(channels), np.int64)})
        self.codes[name] = source
        if isinstance(made, Shifted):
            region = Region(name, "residual", region.words)
            self.streams[name] = region
            yield from self.linear(
                operation.name, self.identity(count), source, channels, region,
                self.copying(zero, made.bits), after=made, channels=count)

    def tokens(self, operation: ops.Tokens) -> Iterator[Step]:
        """Gather the tokens of a norm in another order; sums are when they are written."""
        (read,), (name,) = operation.reads, operation.writes
        if read in self.codes:
            place = _where(tuple(self.stream_order(len(operation.source)).tolist()))
            source = self.codes[read]
            self.codes[name] = replace(source, fields=source.fields | self.gather(
                place[np.array(operation.source)]))
        return self.later(operation)

    def merge(self, operation: ops.Merge) -> Iterator[Step]:
        """Copy 2x2 tokens side by side, with the statistics of all their channels."""
        (read,), (name,) = operation.reads, operation.writes
        source, before = self.streams[read], self.network.stream(read)
        count, size = ops.channels(read, self.made), operation.size
        columns = padded(0, count, self.width)
        tokens, tiles = size * size // 4, len(columns) // self.width
        merged = Region(name, "residual", 4 * tiles * tokens)
        self.streams[name] = merged
        place = _where(tuple(self.stream_order(size * size).tolist()))
        grid = np.arange(size * size).reshape(size, size)
        corners = [grid[row::2, column::2].reshape(-1) for column in (0, 1) for row in (0, 1)]
        layer = self.copying(before.zero_point, before.bits)
        vectors, last = Vectors(layer, 0, before.shift), (3, tiles - 1)
        identity = np.eye(self.width, dtype=np.int8)[None]
        for corner, inside in enumerate(corners):
            fields = pass_fields(
                weight_bits=2, tokens=tokens, tiles=1, from_residual=1, operand_bits=8,
                operand_zero_point=before.zero_point, destination=DESTINATIONS["residual"],
                channels=4 * count, statistics=STATISTICS["norm"], **self.gather(place[inside]),
                **requantization_fields(layer))
            for tile, part in enumerate(split(columns, self.width)):
                yield Step(name, f"token {corner} of 4", fields | {
                    "statistics_first": int((corner, tile) == (0, 0)),
                    "statistics_last": int((corner, tile) == last)}, vectors.parameters(part),
                    Place(source, tile * size * size),
                    d=Place(merged, (corner * tiles + tile) * tokens), weights=identity)

    # -- the branches

    def gelu(self, operation: ops.Requantize) -> Iterator[Step]:
        product = ops.summed(operation, self.made)
        assert isinstance(product, ops.Product)
        (name,) = operation.writes
        source, columns = self.codes[product.reads[0]], padded(0, product.columns, self.width)
        region = Region(name, "scratch", len(columns) // self.width * source.tokens)
        self.codes[name] = Codes(region, columns, source.tokens,
                                 self.network.formats[name].operand_fields())
        yield from self.linear(product.name, self.network.weights[product.name], source, columns,
                               region, self.network.requantizations[operation.name])

    def attention(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes from Q, K and V to the context, head by head."""
        made, network = self.made, self.network
        context = ops.summed(operation, made)
        assert isinstance(context, ops.RegionContext)
        projection = made[context.reads[1]]
        product = ops.summed(projection, made)
        source, heads, size = self.codes[product.reads[0]], context.count, context.columns
        tokens, dim, tiles = source.tokens, heads * size, tiles_of(size, self.width)
        room = max(self.columns, SHORT)   # that passes of the last regions may reach beyond
        name = operation.writes[0]
        region = Region(name, "scratch", heads * tiles * tokens + room)
        channels = np.concatenate([padded(head * size, size, self.width)
                                   for head in range(heads)])
        self.codes[name] = Codes(region, channels, tokens,
                                 network.formats[name].operand_fields())
        attention = _Attention(self, context, operation)
        for head in range(heads):
            parts = {}
            for number, part in ((1, "K"), (2, "V"), (0, "Q")):
                parts[part] = Region(f"{part} {head}", "scratch" if part == "Q" else "stationary",
                                     tiles * tokens + room)
                columns = padded(number * dim + head * size, size, self.width)
                norm = source.norm if not head and part == "K" else None
                yield from self.linear(
                    product.name, network.weights[product.name], replace(source, norm=norm),
                    columns, parts[part], network.requantizations[projection.name],
                    detail=f"{part} {head}")
            yield from attention.head(head, parts, region)

    def pool(self, operation: ops.Pool) -> Iterator[Step]:
        """Copy the normalised tokens to the stationary bank, where codes are around the middle."""
        source, (read,) = self.codes[operation.reads[0]], operation.reads
        count = len(self.network.norms[read].gamma)
        made = self.network.uniform(read)
        # Read in whole tiles of tokens.
        pitch, tiles = tiles_of(source.tokens, self.width) * self.width, len(source.channels)
        self.pooled = Region(read, "stationary", tiles // self.width * pitch)
        copies = [*self.linear(operation.name, self.identity(count), source, source.channels,
                               self.pooled, self.copying(made.zero_point, made.bits), pitch=pitch)]
        yield from copies
        # Stationary weights are those of the third pass before at the latest.
        nothing = Region("nothing", "scratch", source.tokens * tiles_of(self.columns, self.width))
        for _ in range(len(copies), 3):
            last = copies[-1]
            fields = last.fields | {"destination": DESTINATIONS["scratch"], "has_norm": 0}
            yield replace(last, detail="nothing", fields=fields, d=Place(nothing), norm=None)

    def mean(self, operation: ops.Requantize) -> Iterator[Step]:
        """Add all tokens up: a product with operands of 1."""
        pool = self.made[operation.reads[0]]
        assert isinstance(pool, ops.Pool)
        (name,), layer = operation.writes, self.network.requantizations[operation.name]
        zero = self.network.uniform(pool.reads[0]).zero_point
        layer = replace(layer, bias=pool.tokens * (128 - zero))
        tokens, tiles = pool.tokens, tiles_of(pool.tokens, self.width)
        count = len(self.network.norms[pool.reads[0]].gamma)
        ones = np.zeros((tiles, SHORT, self.width), np.int64)
        ones[:, 0] = (np.arange(tiles * self.width) < tokens).reshape(tiles, self.width)
        rows = Region("ones", "scratch", tiles * SHORT)
        self.loads.append(Load(rows, ones.reshape(-1, self.width)))
        columns = padded(0, count, self.width)
        target = Region(name, "scratch", len(columns) // self.width * SHORT)
        self.codes[name] = Codes(target, columns, 1, self.network.formats[name].operand_fields(),
                                 pitch=SHORT)
        for first in range(0, len(columns), self.columns):
            part = columns[first:first + self.columns]
            words = first // self.width
            fields = pass_fields(
                stationary=1, tokens=SHORT, tiles=tiles, a_stride=SHORT, operand_bits=8,
                w_stride=self.width, destination=DESTINATIONS["scratch"],
                **requantization_fields(layer), **self.spread(len(part), SHORT))
            pitch = tiles * self.width
            if fields["words"]:
                fields["w_pitch"] = pitch
            yield Step(name, "", fields, Vectors(layer).parameters(part), Place(rows),
                       Place(self.pooled, words * pitch), Place(target, words * SHORT))

    def logits(self, operation: ops.Logits) -> Iterator[Step]:
        product = ops.summed(operation, self.made)
        weights, source = self.network.weights[product.name], self.codes[product.reads[0]]
        raw = Requantization(bias=self.network.biases[operation.name], encoding=Encoding())
        line = output_bytes(1, self.config)
        columns = padded(0, self.spec.classes, self.width)
        mode = replace(choose(weights, source.fields, self.config), pair=0)
        sums = Region("logits", "memory", 0)
        for step in self.linear(product.name, weights, source, columns, sums, raw, mode=mode):
            assert step.d is not None
            step.fields |= {"operation": OPERATIONS["raw"], "bits": 8, "d_pitch": 0,
                            "offset": step.d.offset * self.width // self.columns * line}
            step.d = None
            yield Step(step.layer, "", step.fields, step.parameters, step.a, weights=step.weights,
                       why=step.why, more=step.more)


class _Attention:
    """Scores and context of the regions of a block's heads."""

    def __init__(self, builder: _Builder, context: ops.RegionContext,
                 operation: ops.Requantize) -> None:
        network, made = builder.network, builder.made
        self.builder, self.context_of = builder, context
        softmax = made[context.reads[0]]
        biased = made[softmax.reads[0]]
        scores = made[biased.reads[0]]
        assert isinstance(scores, ops.RegionScores) and isinstance(biased, ops.Requantize)
        assert biased.residual is not None
        position = made[biased.residual]
        assert isinstance(position, ops.PairBias)
        self.name, self.regions = scores.name, context.regions
        self.query = network.uniform(scores.reads[0])
        self.layer = network.requantizations[biased.name]
        scale = network.scales[softmax.name]
        assert isinstance(scale, ShiftScale)
        self.scale = scale
        self.after = network.requantizations[operation.name]
        self.probability = network.formats[softmax.writes[0]]
        self.position = network.stream(position.name)
        self.units = 0
        self.biases = self._biases(position)

    def _biases(self, operation: ops.PairBias) -> dict[tuple[int, ops.Region], Region]:
        """Load the position bias of every head and shape of region, a word of keys a query."""
        width, found = self.builder.width, {}
        table = self.builder.network.constants[operation.name].numpy()
        for shape in dict.fromkeys(operation.regions):
            keys = shape[0] * shape[1]
            pairs = table[distances((shape,), operation.window).numpy()].T
            for head, codes in enumerate(pairs):
                words = np.full((max(keys, SHORT), tiles_of(keys, width) * width),
                                self.position.zero_point)
                words[:keys, :keys] = codes.reshape(keys, keys)
                tiled = words.reshape(len(words), -1, width).transpose(1, 0, 2).reshape(-1, width)
                region = Region(f"bias {head} {shape}", "residual", len(tiled))
                self.builder.loads.append(Load(region, tiled))
                found[head, shape] = region
        return found

    def head(self, head: int, parts: dict[str, Region], context: Region) -> Iterator[Step]:
        """Give all regions of a head, scores some regions ahead of the context."""
        starts = np.cumsum([0, *(rows * columns for rows, columns in self.regions)])
        waiting: list[Iterator[Step]] = []
        # Statistics of some regions are kept side by side, in both halves of their memory.
        largest = max(SHORT, *(rows * columns for rows, columns in self.regions))
        ahead = min(AHEAD, 2 * (self.builder.config.max_tokens // largest) - 1)
        for shape, start in zip(self.regions, starts.tolist(), strict=False):
            unit, self.units = self.units, self.units + 1
            keys = shape[0] * shape[1]
            place = unit % (ahead + 1)
            fields = {"f_base": place // 2 * largest, "probability_slot": place % 2}
            scores = Region(f"scores {unit}", "scratch",
                            tiles_of(keys, self.builder.width) * max(keys, SHORT))
            yield from self.scores(head, shape, start, parts, scores, fields)
            waiting.append(self.context(head, keys, start, parts["V"], scores, context, fields))
            while len(waiting) > ahead:
                yield from waiting.pop(0)
        for steps in waiting:
            yield from steps

    def scores(self, head: int, shape: ops.Region, start: int, parts: dict[str, Region],
               scores: Region, more: dict[str, int]) -> Iterator[Step]:
        """Q K^T and the position bias, a tile of keys a pass."""
        builder, all_tokens = self.builder, self.context_of.rows
        tiles, keys = tiles_of(self.context_of.columns, builder.width), shape[0] * shape[1]
        tokens, width, columns = max(keys, SHORT), builder.width, builder.columns
        bias = self.biases[head, shape]
        for first in range(0, keys, columns):
            count = min(columns, keys - first)
            fields = pass_fields(
                stationary=1, by_column=1, tokens=tokens, tiles=tiles, valid=count,
                a_stride=all_tokens, w_stride=all_tokens,
                statistics=STATISTICS["softmax"], statistics_first=int(first == 0),
                statistics_last=int(first + count == keys),
                destination=DESTINATIONS["scratch"],
                residual_zero_point=self.position.zero_point,
                softmax_multiplier=self.scale.multiplier, **self.query.operand_fields(),
                **requantization_fields(self.layer), **builder.spread(count, tokens), **more)
            channels = tiles_of(count, width) * width
            word = first // width * tokens
            yield Step(self.name, f"head {head}, {keys} keys at {start}, {first}", fields,
                       Vectors(self.layer).parameters(np.zeros(channels, np.int64)),
                       Place(parts["Q"], start), Place(parts["K"], start + first),
                       Place(scores, word), r=Place(bias, word))

    def context(self, head: int, keys: int, start: int, values: Region, scores: Region,
                context: Region, more: dict[str, int]) -> Iterator[Step]:
        """P V, a tile of channels a pass."""
        builder, size = self.builder, self.context_of.columns
        all_tokens, width = self.context_of.rows, builder.width
        tiles, tokens = tiles_of(keys, width), max(keys, SHORT)
        if tiles > 1 and keys < SHORT:
            raise ValueError(f"the compiler has no passes for {self.context_of.name}: regions of "
                             f"{keys} tokens want rows of at least {SHORT}, not {width}")
        channels = padded(head * size, size, width)
        for first in range(0, len(channels), builder.columns):
            part = channels[first:first + builder.columns]
            words = first // width
            fields = pass_fields(
                stationary=1, operand=OPERANDS["softmax"], tokens=keys if tiles == 1 else tokens,
                tiles=tiles, valid=keys - (tiles - 1) * width, a_stride=tokens, w_stride=width,
                destination=DESTINATIONS["scratch"],
                **probability_fields(self.scale, self.probability),
                **requantization_fields(self.after), **builder.spread(len(part), all_tokens),
                **more)
            if fields["words"]:
                fields["w_pitch"] = all_tokens
            yield Step(self.context_of.name, f"head {head}, {keys} keys at {start}", fields,
                       Vectors(self.after).parameters(part), Place(scores),
                       Place(values, start + words * all_tokens),
                       Place(context, (head * tiles_of(size, width) + words) * all_tokens + start))


def schedule_swin(network: Network) -> Schedule:
    """Make the steps of a Swin.

    Raises
    ------
    ValueError
        If the configuration has no tables.
    """
    builder = _Builder(network)
    steps = tuple(builder.steps())
    return Schedule(steps, builder.order, builder.patches, tuple(builder.loads),
                    tuple(builder.indices))
