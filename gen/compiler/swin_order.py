# SPDX-License-Identifier: Apache-2.0
"""In what order the tokens of a Swin lie, and which of them go through a layer at once.

The residual stream of a stage has first the tokens that patch merging puts at the upper left of a
square of four, then those at the lower left, the upper right and the lower right; each of these
quarters has them in the order of the next stage. So four tokens that are merged lie a quarter
apart, and merging moves nothing: a word of the merged token is ``tile * quarter`` words behind the
first. Where patches are so small that an image comes in blocks of them, each patch of a block is
such a quarter, or a quarter of one.

A stage may have more tokens than a pass, `max_tokens`; then it goes part by part. Parts of the
stream follow its order; parts of the attention are whole regions, and gather their tokens.
"""

__all__ = ["Order", "Part", "Patch", "consecutive", "cut", "nested", "where"]

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gen.compiler.image import Blocks
from gen.compiler.steps import Array
from golden.float.swin import SwinSpec
from golden.network import ops
from golden.network.regions import windowed
from vitforge.spec.config import Config
from vitforge.spec.sizes import SHORT


def where(order: Array) -> Array:
    """Return the place of each number in an order of all of them."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def consecutive(index: Array) -> bool:
    """Whether each number is one more than the one before."""
    return bool((np.diff(index) == 1).all())


def nested(side: int, levels: int) -> Array:
    """Return the tokens of a square, counted row by row, quarter after quarter.

    The quarters of 2x2 tokens, and so on `levels` times.
    """
    if not levels:
        return np.arange(side * side)
    y, x = np.divmod(nested(side // 2, levels - 1), side // 2)
    return np.concatenate([(2 * y + row) * side + 2 * x + column
                           for column in (0, 1) for row in (0, 1)])


def cut(tokens: int, most: int) -> list[tuple[int, int]]:
    """Cut tokens into as few parts as can be, about equal: the first token and the number."""
    number = -(-tokens // most)
    ends = [tokens * part // number for part in range(number + 1)]
    return [(first, end - first) for first, end in itertools.pairwise(ends)]


@dataclass(frozen=True, eq=False)
class Part:
    """Regions whose tokens go through attention at once.

    Attributes
    ----------
    first
        Of all tokens in the order of the regions, the first of these.
    regions
        Their rows and columns.
    places
        Where the tokens lie in the stream.
    """

    first: int
    regions: tuple[ops.Region, ...]
    places: Array


@dataclass(frozen=True, eq=False)
class Patch:
    """Some blocks' patch that has the same place in all of them.

    Attributes
    ----------
    values
        For each place of the words that have values of it, the index in the patch or -1.
    tile
        The first of these words.
    first
        The first token's place in the stream.
    blocks
        The blocks, row by row, in the order of the stream.
    """

    values: Array
    tile: int
    first: int
    blocks: Array


class Order:
    """Orders and parts of all stages.

    Attributes
    ----------
    image
        The blocks of patches that an image comes in.
    orders
        By the number of tokens of a stage, these in the order of the stream, counted row by row.
    most
        Tokens of a pass.
    """

    def __init__(self, spec: SwinSpec, config: Config) -> None:
        self.image, self.most = Blocks(spec, config), config.max_tokens
        levels = max(len(spec.stages), self.image.size.bit_length()) - 1
        self.spec = spec
        self.orders = {stage.size**2: nested(stage.size, levels - number)
                       for number, stage in enumerate(spec.stages)}

    def embedding(self) -> list[Patch]:
        """Return the parts of the patch embedding, in the order of the stream."""
        image, places = self.image, where(self.orders[self.spec.patches])
        found = []
        for number, values in enumerate(image.blocks):
            lies = places[np.array(image.tokens[number * image.count:(number + 1) * image.count])]
            blocks, first = lies.argsort(), int(lies.min())
            words = values.reshape(image.tiles, -1)
            used = np.flatnonzero((words >= 0).any(1))
            tile, end = int(used[0]), int(used[-1]) + 1
            inside = words[tile:end].reshape(-1)
            found += [Patch(inside, tile, first + begin, blocks[begin:begin + count])
                      for begin, count in cut(image.count, self.most)]
        return sorted(found, key=lambda patch: patch.first)

    def attention(self, source: Sequence[int], regions: Sequence[ops.Region]) -> list[Part]:
        """Return the parts of an attention, whose tokens row by row `source` has region by region.

        Regions follow each other while there is room, and until a part has its share.
        """
        lies = where(self.orders[len(source)])[np.array(source)]
        share = len(source) / -(-len(source) // self.most)
        found: list[Part] = []
        first = end = 0
        inside: list[ops.Region] = []
        for rows, columns in regions:
            wanted = max(rows * columns, SHORT)   # of which a pass has at least so many
            if inside and (end - first + wanted > self.most or end - first >= share):
                found.append(Part(first, tuple(inside), lies[first:end]))
                first, inside = end, []
            inside.append((rows, columns))
            end += rows * columns
        return [*found, Part(first, tuple(inside), lies[first:end])]

    def back(self, source: Sequence[int]) -> list[tuple[int, Array]]:
        """Return the parts of the stream: the first token's place, and theirs among the regions."""
        places = where(np.array(source))[self.orders[len(source)]]
        return [(first, places[first:first + count])
                for first, count in cut(len(source), self.most)]

    def stream(self, tokens: int, merged: bool = False) -> list[list[tuple[int, int]]]:
        """Return the parts of a stage's stream: the first token and the number.

        Where tokens are merged, those of four corners are in a list, whose sums of rows go on.
        """
        if not merged:
            return [[part] for part in cut(tokens, self.most)]
        quarter = tokens // 4
        return [[(corner * quarter + first, count) for corner in range(4)]
                for first, count in cut(quarter, self.most)]

    def table_tokens(self) -> int:
        """Return how many indices all tables have; one at least, for a machine with tables."""
        wanted = [patch.blocks for patch in self.embedding()]
        for stage in self.spec.stages:
            for shift in {stage.shift(block) for block in range(stage.depth)}:
                source, regions = windowed(stage.size, stage.window, shift)
                wanted += [part.places for part in self.attention(source, regions)]
                wanted += [places for _, places in self.back(source)]
        distinct = {tuple(index.tolist()) for index in wanted if not consecutive(index)}
        return max(1, sum(map(len, distinct)))
