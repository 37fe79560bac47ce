# SPDX-License-Identifier: Apache-2.0
"""The passes of attention of a Swin, region by region: scores, position bias, context.

A region of few tokens has scores of `SHORT` tokens, whose last ones nobody reads: the accumulators
want that many. What it writes too much of the context the next region writes again.
"""

__all__ = ["RegionAttention"]

from collections.abc import Iterator

import numpy as np

from gen.compiler.gathered import Gathered
from gen.compiler.layers import probability_fields
from gen.compiler.steps import (
    Load,
    Place,
    Region,
    Step,
    Vectors,
    padded,
    pass_fields,
    requantization_fields,
    spread,
    tiles_of,
)
from golden.network import ops
from golden.network.regions import distances
from golden.units.softmax import ShiftScale
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, STATISTICS
from vitforge.spec.sizes import SHORT

#: Regions of a head whose scores are made before the first one's context.
AHEAD = 3


class RegionAttention:
    """Scores and context of the regions of a block's heads."""

    def __init__(self, builder: Gathered, context: ops.RegionContext,
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
                **requantization_fields(self.layer), **spread(count, tokens, width), **more)
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
                **requantization_fields(self.after), **spread(len(part), all_tokens, width),
                **more)
            if fields["words"]:
                fields["w_pitch"] = all_tokens
            yield Step(self.context_of.name, f"head {head}, {keys} keys at {start}", fields,
                       Vectors(self.after).parameters(part), Place(scores),
                       Place(values, start + words * all_tokens),
                       Place(context, (head * tiles_of(size, width) + words) * all_tokens + start))
