# SPDX-License-Identifier: Apache-2.0
"""The passes of a Swin: tables gather tokens, attention goes region by region, stages in parts.

The residual stream lies in the bank of residuals, channel tile by channel tile, in an order that
lets patch merging read it as it is (`gen.compiler.swin_order`). It is always whole, and so is the
context of an attention, until it is projected; all else is of a part of the tokens. Tables say
which token of the stream stands where among the windows' regions, and back. Queries, keys and
values of a head are made of all tokens of a part at once, in the order of the regions; then each
region has scores and context (`gen.compiler.region_attention`).
"""

__all__ = ["schedule_swin"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from gen.compiler.gathered import Codes, Row, Target, copying
from gen.compiler.modes import choose
from gen.compiler.pooled import Pooled
from gen.compiler.region_attention import RegionAttention, woven
from gen.compiler.steps import Load, Region, Schedule, Step, padded, take, tiles_of
from gen.compiler.swin_order import Order, Part, cut
from golden.float.swin import SwinSpec
from golden.formats.formats import Shifted
from golden.network import ops
from golden.network.integers import Network
from golden.units.layernorm import offset
from vitforge.spec.instruction import OPERANDS
from vitforge.spec.sizes import SHORT


@dataclass(frozen=True)
class Made:
    """Passes of a head's queries, keys and values, and where they put them."""

    steps: list[Step]
    regions: dict[str, Region]


class _Builder(Pooled):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        assert isinstance(network.spec, SwinSpec)
        self.order = Order(network.spec, self.config)
        self.streams: dict[str, Region] = {}
        self.hidden: dict[str, ops.Requantize] = {}
        self.room = self._room()
        self.merged = {item.reads[0] for item in network.operations if isinstance(item, ops.Merge)}
        self.table: dict[type[ops.Operation], Callable[..., Iterator[Step]]] = {
            ops.Image: self.image, ops.Tokens: self.later, ops.Merge: self.merge,
            ops.PairBias: self.later, ops.Pool: self.pool, ops.Product: self.later,
            ops.RegionScores: self.later, ops.RegionSoftmax: self.later,
            ops.RegionContext: self.later, ops.Requantize: self.requantize, ops.Norm: self.norm,
            ops.Logits: self.logits}
        self.roles: dict[str, Callable[..., Iterator[Step]]] = {
            "stream": self.stream, "gelu": self.gelu, "query": self.later, "scores": self.later,
            "context": self.attention, "pool": self.mean}

    def _room(self) -> int:
        """Return the words of the largest tensor in scratch, of a whole stage or of a part."""
        tokens = [item.count * tiles_of(item.columns, self.width) * item.rows
                  for item in self.network.operations if isinstance(item, ops.RegionContext)]
        sums = [ops.summed(item, self.made) for item in self.network.operations
                if isinstance(item, ops.Requantize) and item.roles == ("gelu",)]
        return max(tokens + [tiles_of(item.columns, self.width) * max(
            count for _, count in cut(item.rows, self.order.most))
            for item in sums if isinstance(item, ops.Product)])

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
        image = self.order.image
        self.patches = Region("patches", "scratch", image.tiles * image.count)
        return self.later(operation)

    def stream(self, operation: ops.Requantize) -> Iterator[Step]:
        """Add a branch to the stream, or begin it."""
        product = ops.summed(operation, self.made)
        assert isinstance(product, ops.Product)
        (name,) = operation.writes
        if operation.residual is not None:
            self.streams[name] = self.streams[operation.residual]
            make = self.mlp if product.reads[0] in self.hidden else self.project
            return make(operation, product)
        tiles = tiles_of(product.columns, self.width)
        self.streams[name] = Region(name, "residual", tiles * product.rows)
        return self.reduce(operation, product) if product.reads[0] in self.codes \
            else self.later(operation)

    def added(self, operation: ops.Requantize, product: ops.Product, source: Codes, first: int,
              *, number: int | None = None, corner: int | None = None) -> Iterator[Step]:
        """Make the passes of some rows of the stream, from its row `first` on.

        Parameters
        ----------
        number
            Of these rows among those whose statistics are kept, if not the same.
        corner
            Of four tokens that are merged: their row goes over all.
        """
        network, (name,) = self.network, operation.writes
        region, residual = self.streams[name], operation.residual
        row = Row(network.stream(name), product.columns * (1 if corner is None else 4),
                  first if number is None else number,
                  before=None if residual is None else network.stream(residual),
                  begins=corner in (None, 0), ends=corner in (None, 3))
        return self.linear(product.name, network.weights[product.name], source,
                           padded(0, product.columns, self.width),
                           Target(region, product.rows, first),
                           network.requantizations[operation.name], row=row)

    def embed(self, operation: ops.Norm, source: Codes, made: Shifted) -> Iterator[Step]:
        """Make the patches, and copy them through their norm to the stream.

        A pass makes a part of all blocks, with weights of 0 for its patches' neighbours. They stay
        in scratch until those of the next part are made, so nothing is waited for.
        """
        network, stream = self.network, self.made[operation.reads[0]]
        product = ops.summed(stream, self.made)
        assert isinstance(product, ops.Product)
        fields, count = network.formats[product.reads[0]].operand_fields(), self.order.image.count
        weights, columns = network.weights[product.name], padded(0, product.columns, self.width)
        self.modes[product.name] = choose(weights, fields, self.config)
        tiles, before = len(columns) // self.width, network.stream(stream.writes[0])
        target, layer = Target(source.region, source.tokens), copying(made.zero_point, made.bits)
        waiting: list[tuple[int, Codes]] = []
        for patch in self.order.embedding():
            tokens = len(patch.blocks)
            region = Region(f"{stream.name} {patch.first}", "scratch", tiles * tokens)
            found = self.part(Codes(self.patches, patch.values, count, count, fields,
                                    first=patch.tile * count), patch.blocks)
            yield from self.linear(product.name, weights, found, columns, Target(region, tokens),
                                   network.requantizations[stream.name],
                                   row=Row(before, product.columns, patch.first))
            part = replace(source, region=region, tokens=tokens, stride=tokens,
                           fields=source.fields | {"f_base": patch.first, "from_residual": 0})
            source = self.further(source)
            waiting.append((patch.first, part))
            for first, part in waiting[:-1]:
                yield from self.copied(operation.name, part, first, target, layer, made)
            waiting = waiting[-1:]
        for first, part in waiting:
            yield from self.copied(operation.name, part, first, target, layer, made)

    def reduce(self, operation: ops.Requantize, product: ops.Product) -> Iterator[Step]:
        """Make the stream of a stage of merged tokens."""
        source = self.codes[product.reads[0]]
        for ((first, count),) in self.order.stream(product.rows):
            part = self.part(source, np.arange(first, first + count))
            yield from self.added(operation, product, part, first)
            source = replace(source, norm=None)

    def project(self, operation: ops.Requantize, product: ops.Product) -> Iterator[Step]:
        """Gather the context in the order of the stream and add it."""
        source = self.codes[product.reads[0]]
        for first, places in self.order.back(self.windows):
            yield from self.added(operation, product, self.part(source, places), first)

    def gelu(self, operation: ops.Requantize) -> Iterator[Step]:
        """Leave the hidden layer of an MLP for the passes that read it."""
        self.hidden[operation.writes[0]] = operation
        return self.later(operation)

    def mlp(self, operation: ops.Requantize, product: ops.Product) -> Iterator[Step]:
        """Make hidden layer and stream, as many parts at a time as there is room for anyway.

        What is merged then gets the statistics of four tokens: part by part of all first ones, of
        all second ones, and so on.
        """
        network, (name,) = self.network, operation.writes
        active = self.hidden[product.reads[0]]
        inner = ops.summed(active, self.made)
        assert isinstance(inner, ops.Product)
        source, columns = self.codes[inner.reads[0]], padded(0, inner.columns, self.width)
        merges, tiles = name in self.merged, len(columns) // self.width
        fields = network.formats[product.reads[0]].operand_fields()
        waiting: list[Iterator[Step]] = []
        words = 0
        for parts in self.order.stream(product.rows, merges):
            for corner, (first, count) in enumerate(parts):
                hidden = Region(f"{product.reads[0]} {first}", "scratch", tiles * count)
                if words + hidden.words > self.room:
                    yield from chain(*waiting)
                    waiting, words = [], 0
                words += hidden.words
                yield from self.linear(
                    inner.name, network.weights[inner.name],
                    self.part(source, np.arange(first, first + count)), columns,
                    Target(hidden, count), network.requantizations[active.name])
                source = replace(source, norm=None)
                waiting.append(self.added(
                    operation, product, Codes(hidden, columns, count, count, fields), first,
                    number=parts[0][0], corner=corner if merges else None))
        yield from chain(*waiting)

    def norm(self, operation: ops.Norm) -> Iterator[Step]:
        """Read the stream through a LayerNorm; a norm whose results are the stream is copied."""
        network, (read,), (name,) = self.network, operation.reads, operation.writes
        found, norm, made = network.stream(read), network.norms[operation.name], \
            network.formats[name]
        region, count = self.streams[read], len(norm.gamma)
        channels = padded(0, count, self.width)
        if isinstance(self.made[read], ops.Merge):   # whole words of the four tokens, in turn
            one = padded(0, count // 4, self.width)
            several = [np.where(one < 0, -1, one + corner * (count // 4)) for corner in range(4)]
            channels = np.stack([part.reshape(-1, self.width) for part in several], 1).reshape(-1)
        tokens = region.words // (len(channels) // self.width)
        zero = int(made.zero_point)   # type: ignore[attr-defined]
        self.codes[name] = source = Codes(region, channels, tokens, tokens, {
            "operand": OPERANDS["norm"], "from_residual": 1, "norm_slot": self.slot(),
            "norm_zero_point": found.zero_point, "operand_zero_point": zero,
            "operand_bits": made.bits,
        }, {"gamma": take(norm.gamma, channels), "offset": take(offset(norm.beta, zero), channels),
            "shift": take(found.shift, channels),
            "reserved": np.zeros(len(channels), np.int64)})
        if isinstance(made, Shifted):
            self.streams[name] = region
            yield from self.embed(operation, source, made)

    def merge(self, operation: ops.Merge) -> Iterator[Step]:
        """Merge 2x2 tokens, which lie as they should, with the statistics of all four."""
        self.streams[operation.writes[0]] = self.streams[operation.reads[0]]
        return self.later(operation)

    # -- attention

    def attention(self, operation: ops.Requantize) -> Iterator[Step]:
        """Make the passes from Q, K and V to the context: part by part, head by head."""
        made = self.made
        context = ops.summed(operation, made)
        assert isinstance(context, ops.RegionContext)
        product = ops.summed(made[context.reads[1]], made)
        windows = made[product.reads[0]]
        assert isinstance(windows, ops.Tokens)
        self.windows = windows.source
        source, heads, size = self.codes[windows.reads[0]], context.count, context.columns
        tiles, (name,) = tiles_of(size, self.width), operation.writes
        region = Region(name, "scratch", heads * tiles * context.rows)
        channels = np.concatenate([padded(head * size, size, self.width)
                                   for head in range(heads)])
        self.codes[name] = Codes(region, channels, context.rows, context.rows,
                                 self.network.formats[name].operand_fields())
        attention = RegionAttention(self, context, operation)
        units = [(part, head) for part in self.order.attention(windows.source, context.regions)
                 for head in range(heads)]
        made_of = [self.head(head, context, source if not number else replace(source, norm=None),
                             part) for number, (part, head) in enumerate(units)]
        loads: tuple[Load, ...] = (attention.load,)
        before: list[Step] = []
        for number, (part, head) in enumerate(units):
            for later in made_of[:1] * (not number) + made_of[number + 1:number + 2]:
                for step in later.steps:
                    yield replace(step, loads=loads) if loads else step
                    loads = ()
            scores, contexts = attention.head(head, part, made_of[number].regions, region,
                                              slot=number % 2)
            yield from woven(scores, before)
            before = contexts
        yield from before

    def head(self, head: int, context: ops.RegionContext, source: Codes, part: Part) -> Made:
        """Make queries, keys and values of a head's tokens of a part.

        Scores want keys of the third pass before at the latest.
        """
        projection = self.made[context.reads[1]]
        product = ops.summed(projection, self.made)
        weights, size, count = self.network.weights[product.name], context.columns, \
            len(part.places)
        tiles = tiles_of(size, self.width)
        room = max(self.columns, SHORT)   # that passes of the last regions may reach beyond
        mode = self.modes[product.name] = self.modes.get(product.name) or choose(
            weights, source.fields, self.config)
        last = (tiles * self.width - 1) // mode.columns * mode.columns
        part_of, found = self.part(source, part.places), Made([], {})
        # Shorter passes follow, so the last one's drain must not be long.
        largest = max(rows * columns for rows, columns in part.regions)
        halves = cut(count, -(-count // 2)) if count > 2 * largest else [(0, count)]
        for number, name in ((1, "K"), (2, "V"), (0, "Q")):
            region = found.regions[name] = Region(
                f"{name} {head}, {part.first}", "scratch" if name == "Q" else "stationary",
                tiles * count + room)
            columns = padded((number * context.count + head) * size, size, self.width)
            pieces = [(columns, 0, 0, count)] if name != "Q" else [
                (columns[:last], 0, 0, count),
                *((columns[last:], last, begin, begin + some) for begin, some in halves)]
            for channels, channel, begin, end in pieces:
                found.steps.extend(self.linear(
                    product.name, weights, self.some(part_of, begin, end), channels,
                    Target(region, count, channel // self.width * count + begin),
                    self.network.requantizations[projection.name], detail=f"{name} {head}"))
            part_of = replace(part_of, norm=None)
        return found


def schedule_swin(network: Network) -> Schedule:
    """Make the steps of a Swin, for a machine with tables."""
    builder = _Builder(network)
    steps = tuple(builder.steps())
    return Schedule(steps, builder.order.image, builder.patches, tuple(builder.loads),
                    tuple(builder.indices))
