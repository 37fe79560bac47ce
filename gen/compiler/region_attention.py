# SPDX-License-Identifier: Apache-2.0
"""The passes of attention of a Swin, region by region: scores, position bias, context.

A region of few tokens has scores of `SHORT` tokens, whose last ones nobody reads: the accumulators
want that many. What it writes too much of the context the next region writes again.
"""

__all__ = ["RegionAttention", "woven"]

from collections.abc import Iterator
from functools import partial

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
from gen.compiler.swin_order import Part
from golden.network import ops
from golden.network.regions import distances
from golden.units.softmax import ShiftScale
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, STATISTICS
from vitforge.spec.sizes import SHORT


def woven(scores: list[Step], contexts: list[Step]) -> Iterator[Step]:
    """Put contexts between scores, whose drains take as long as their operands.

    One comes first, behind a drain that takes longer than that, and one last: passes that read the
    residual stream wait for the drains of those that add biases.
    """
    yield from contexts[:1]
    given, among = 1, max(0, len(contexts) - 2)
    for number, step in enumerate(scores, 1):
        yield step
        wanted = 1 + among * number // len(scores)
        yield from contexts[given:wanted]
        given = wanted
    yield from contexts[given:]


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
        self.name = scores.name
        self.query = network.uniform(scores.reads[0])
        self.layer = network.requantizations[biased.name]
        scale = network.scales[softmax.name]
        assert isinstance(scale, ShiftScale)
        self.scale = scale
        self.after = network.requantizations[operation.name]
        self.probability = network.formats[softmax.writes[0]]
        self.position = network.stream(position.name)
        #: Words from tile to tile of keys, by the columns of a region: of those with most rows.
        self.pitch = {columns: max(SHORT, *(rows * columns for rows, same in context.regions
                                            if same == columns))
                      for _, columns in context.regions}
        self.biases: dict[tuple[int, int], Place] = {}
        self.load = self._biases(position)

    def _biases(self, operation: ops.PairBias) -> Load:
        """Load the position bias of every head and width of region, a word of keys a query.

        Regions of the same columns have the same distances, as far as they have rows.
        """
        width, found = self.builder.width, []
        table = self.builder.network.constants[operation.name].numpy()
        region = Region(f"bias of {self.name}", "residual", 0, early=True)
        for columns, pitch in self.pitch.items():
            rows = max(rows for rows, same in operation.regions if same == columns)
            keys = rows * columns
            pairs = table[distances(((rows, columns),), operation.window).numpy()].T
            for head, codes in enumerate(pairs):
                words = np.full((pitch, tiles_of(keys, width) * width), self.position.zero_point)
                words[:keys, :keys] = codes.reshape(keys, keys)
                found.append(words.reshape(pitch, -1, width).transpose(1, 0, 2).reshape(-1, width))
                self.biases[head, columns] = Place(region, region.words)
                region.words += len(found[-1])
        return Load(region, np.concatenate(found))

    def head(self, head: int, part: Part, parts: dict[str, Region], context: Region, slot: int
             ) -> tuple[list[Step], list[Step]]:
        """Give the scores and the contexts of a head's regions of a part.

        The statistics of all the part's tokens are kept, in one half of their memory or the other:
        so scores of the next part, or head, may come before contexts of this one.
        """
        made: tuple[list[Step], list[Step]] = [], []
        start, stride = 0, len(part.places)
        for shape in part.regions:
            keys, fields = shape[0] * shape[1], {"f_base": start, "probability_slot": slot}
            scores = Region(f"scores of head {head}, {part.first + start}", "scratch",
                            tiles_of(keys, self.builder.width) * self.pitch[shape[1]])
            made[0].extend(self.scores(head, shape, start, stride, parts, scores, fields))
            made[1].extend(self.context(head, shape, Place(parts["V"], start), stride, scores,
                                        Place(context, part.first + start), fields))
            start += keys
        return made

    def scores(self, head: int, shape: ops.Region, start: int, stride: int,
               parts: dict[str, Region], scores: Region, more: dict[str, int]) -> Iterator[Step]:
        """Q K^T and the position bias, a tile of keys a pass."""
        builder = self.builder
        tiles, keys = tiles_of(self.context_of.columns, builder.width), shape[0] * shape[1]
        tokens, width, columns = max(keys, SHORT), builder.width, builder.columns
        bias, pitch = self.biases[head, shape[1]], self.pitch[shape[1]]
        for first in range(0, keys, columns):
            count = min(columns, keys - first)
            fields = pass_fields(
                stationary=1, by_column=1, tokens=tokens, tiles=tiles, valid=count,
                a_stride=stride, w_stride=stride,
                statistics=STATISTICS["softmax"], statistics_first=int(first == 0),
                statistics_last=int(first + count == keys),
                destination=DESTINATIONS["scratch"],
                residual_zero_point=self.position.zero_point,
                softmax_multiplier=self.scale.multiplier, **self.query.operand_fields(),
                **requantization_fields(self.layer), **spread(count, pitch, width), **more)
            channels = tiles_of(count, width) * width
            word = first // width * pitch
            yield Step(self.name, f"head {head}, {keys} keys, {first}", fields,
                       partial(Vectors(self.layer).parameters, np.zeros(channels, np.int64)),
                       Place(parts["Q"], start), Place(parts["K"], start + first),
                       Place(scores, word), r=Place(bias.region, bias.offset + word))

    def context(self, head: int, shape: ops.Region, values: Place, stride: int, scores: Region,
                context: Place, more: dict[str, int]) -> Iterator[Step]:
        """P V, a tile of channels a pass; the context has all tokens, the values those of a part.

        Both are the places of the region's first token, of tile 0 and of all heads' channels.
        """
        builder, size, keys = self.builder, self.context_of.columns, shape[0] * shape[1]
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
                tiles=tiles, valid=keys - (tiles - 1) * width, a_stride=self.pitch[shape[1]],
                w_stride=width,
                destination=DESTINATIONS["scratch"],
                **probability_fields(self.scale, self.probability),
                **requantization_fields(self.after), **spread(len(part), all_tokens, width),
                **more)
            if fields["words"]:
                fields["w_pitch"] = stride
            tile = head * tiles_of(size, width) + words
            yield Step(self.context_of.name, f"head {head}, {keys} keys at {context.offset}",
                       fields, partial(Vectors(self.after).parameters, part), Place(scores),
                       Place(values.region, values.offset + words * stride),
                       Place(context.region, context.offset + tile * all_tokens))
