# SPDX-License-Identifier: Apache-2.0
"""The passes of a Swin: tables gather tokens, attention goes region by region.

The residual stream lies in the bank of residuals, channel tile by channel tile, with its tokens row
by row; only where patches are so small that an image comes in blocks of them, the first stage has
its tokens in the order of these blocks. Tables say which token of the stream stands where among the
windows' regions, and back. Queries, keys and values of a head are made of all tokens at once, in
the order of the regions; then each region has scores and context (`gen.compiler.region_attention`).
"""

__all__ = ["schedule_swin"]

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from gen.compiler.gathered import Codes, Gathered, copying, identity, where
from gen.compiler.image import Blocks
from gen.compiler.modes import choose
from gen.compiler.region_attention import RegionAttention
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
    spread,
    take,
    tiles_of,
)
from golden.float.swin import SwinSpec
from golden.formats.formats import Shifted
from golden.machine.program import output_bytes
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.layernorm import offset
from golden.units.requant import Requantization
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, OPERATIONS, STATISTICS
from vitforge.spec.sizes import SHORT, tables


class _Builder(Gathered):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        assert isinstance(network.spec, SwinSpec)
        if not tables(self.config):
            raise ValueError("table_tokens must be more than 0 for windows, so for Swin")
        self.spec = network.spec
        self.order = Blocks(self.spec, self.config)
        self.codes: dict[str, Codes] = {}
        self.streams: dict[str, Region] = {}
        self.slots = 0
        self.table: dict[type[ops.Operation], Callable[..., Iterator[Step]]] = {
            ops.Image: self.image, ops.Tokens: self.tokens, ops.Merge: self.merge,
            ops.PairBias: self.later, ops.Pool: self.pool, ops.Product: self.later,
            ops.RegionScores: self.later, ops.RegionSoftmax: self.later,
            ops.RegionContext: self.later, ops.Requantize: self.requantize, ops.Norm: self.norm,
            ops.Logits: self.logits}
        self.roles: dict[str, Callable[..., Iterator[Step]]] = {
            "stream": self.stream, "gelu": self.gelu, "query": self.later, "scores": self.later,
            "context": self.attention, "pool": self.mean}

    def steps(self) -> Iterator[Step]:
        for operation in self.network.operations:
            yield from ops.chosen("gen.compiler", self.table, operation)(operation)

    def later(self, operation: ops.Operation) -> Iterator[Step]:
        """Part of the passes that another operation ends."""
        return iter(())

    def requantize(self, operation: ops.Requantize) -> Iterator[Step]:
        return ops.for_role("gen.compiler", self.roles, operation)(operation)

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
                operation.name, identity(count), source, channels, region,
                copying(zero, made.bits), after=made, channels=count)

    def tokens(self, operation: ops.Tokens) -> Iterator[Step]:
        """Gather the tokens of a norm in another order; sums are when they are written."""
        (read,), (name,) = operation.reads, operation.writes
        if read in self.codes:
            place = where(tuple(self.stream_order(len(operation.source)).tolist()))
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
        place = where(tuple(self.stream_order(size * size).tolist()))
        grid = np.arange(size * size).reshape(size, size)
        corners = [grid[row::2, column::2].reshape(-1) for column in (0, 1) for row in (0, 1)]
        layer = copying(before.zero_point, before.bits)
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
        attention = RegionAttention(self, context, operation)
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
        copies = [*self.linear(operation.name, identity(count), source, source.channels,
                               self.pooled, copying(made.zero_point, made.bits), pitch=pitch)]
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
                **requantization_fields(layer), **spread(len(part), SHORT, self.width))
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
