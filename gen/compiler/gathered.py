# SPDX-License-Identifier: Apache-2.0
"""What the passes of networks with windows have in common: gathered tokens, parts of a stage."""

__all__ = ["Codes", "Gathered", "Row", "Target", "copying", "identity"]

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from gen.compiler.modes import Mode, choose
from gen.compiler.steps import (
    Array,
    Load,
    Place,
    Region,
    Step,
    Vectors,
    pass_fields,
    requantization_fields,
    spread,
    take_matrix,
)
from gen.compiler.swin_order import consecutive
from golden.formats.formats import Shifted
from golden.machine.program import Columns
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.requant import Requantization
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, STATISTICS


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
        Of the pass that reads it.
    stride
        Words from tile to tile.
    fields
        Of a PASS: how its codes become operands, and whether they are gathered.
    norm
        Parameters of the LayerNorm on the way, if a pass has yet to bring them.
    first
        The word that a pass reads first.
    """

    region: Region
    channels: Array
    tokens: int
    stride: int
    fields: dict[str, int]
    norm: Columns | None = None
    first: int = 0


@dataclass(frozen=True, eq=False)
class Target:
    """Where results go: words of a token are `pitch` apart, the first one's first is `first`."""

    region: Region
    pitch: int
    first: int = 0


@dataclass(frozen=True, eq=False)
class Row:
    """Rows of a residual stream that passes make, whose statistics they gather.

    Attributes
    ----------
    after, before
        The stream with their sums, and the one that they are added to, in the same place.
    channels
        Of a row.
    first
        The number of the first row.
    begins, ends
        Whether rows begin and end with these passes.
    """

    after: Shifted
    channels: int
    first: int
    before: Shifted | None = None
    begins: bool = True
    ends: bool = True


class Gathered:
    """Passes of one network.

    Attributes
    ----------
    width, columns
        Of the array: rows and columns.
    loads
        What is loaded beside weights and the image.
    indices
        The tables, one behind the other.
    modes
        Of each layer's weights.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.config = network, network.config
        self.width, self.columns = self.config.rows, self.config.cols
        self.made = ops.made(network.operations)
        self.loads: list[Load] = []
        self.indices: list[int] = []
        self.modes: dict[str, Mode] = {}
        self.slots = 0
        self._known: dict[tuple[int, ...], int] = {}   # where a table stands

    def part(self, source: Codes, index: Array) -> Codes:
        """Return some tokens of a tensor, by a table if they don't follow each other."""
        normed = source.fields.get("operand") == OPERANDS["norm"]
        if consecutive(index):
            first = int(index[0])
            fields = source.fields | ({"f_base": first} if normed else {})
            return replace(source, fields=fields, tokens=len(index), first=source.first + first)
        key = tuple(index.tolist())
        if key not in self._known:
            self._known[key] = len(self.indices)
            self.indices += key
        return replace(source, tokens=len(index),
                       fields=source.fields | {"gathers": 1, "a_table": self._known[key]})

    def some(self, part: Codes, begin: int, end: int) -> Codes:
        """Return some of a part's tokens, by the same table."""
        moved = ("a_table",) if part.fields.get("gathers") else ("f_base",)
        fields = {name: value + begin * (name in moved) for name, value in part.fields.items()}
        first = part.first if part.fields.get("gathers") else part.first + begin
        return replace(part, tokens=end - begin, fields=fields, first=first)

    def slot(self) -> int:
        """Return the half of the norm parameters that was not taken last."""
        self.slots += 1
        return self.slots % 2

    def linear(self, name: str, weights: torch.Tensor, source: Codes, columns: Array,
               target: Target, layer: Requantization, *, row: Row | None = None,
               detail: str = "", mode: Mode | None = None) -> Iterator[Step]:
        """Make the passes of a product with weights, channel tile by channel tile.

        The first one brings the norm parameters, if there are some.
        """
        if mode is None:
            mode = self.modes[name] = self.modes.get(name) or choose(weights, source.fields,
                                                                     self.config)
        vectors = Vectors(layer, row.before.shift if row and row.before else 0,
                          row.after.shift if row else 0)
        tiles, norm = len(source.channels) // self.width, source.norm
        for number, first in enumerate(range(0, len(columns), mode.columns)):
            part = columns[first:first + mode.columns]
            fields = pass_fields(**(
                mode.fields(len(part)) | {
                    "tokens": source.tokens, "tiles": tiles, "a_stride": source.stride,
                    "destination": DESTINATIONS[target.region.bank]}
                | requantization_fields(layer, max(int(part[0]), 0))
                | spread(len(part), target.pitch, self.width) | source.fields))
            fields["has_norm"] = int(norm is not None)
            if row:
                fields |= {
                    "channels": row.channels, "statistics": STATISTICS["norm"],
                    "f_base": row.first, "statistics_first": int(row.begins and first == 0),
                    "statistics_last": int(row.ends and first + len(part) == len(columns))}
            if row and row.before:
                fields["residual_zero_point"] = row.before.zero_point
            place = Place(target.region, target.first + first // self.width * target.pitch)
            why, costs = mode.more(number, source.tokens, tiles)
            yield Step(name, detail, fields, partial(vectors.parameters, part),
                       Place(source.region, source.first), d=place,
                       r=place if row and row.before else None, norm=norm,
                       weights=partial(take_matrix, weights, source.channels, part, self.width),
                       encoding=layer.encoding, why=why, more=costs)
            norm = None

    def groups(self, source: Codes) -> list[tuple[int, int]]:
        """Return first and last channels of what a copy reads at once.

        Norm parameters of a half of their memory may be written again four passes after the last
        that uses them; so those of three passes at least are brought at once.
        """
        passes = -(-len(source.channels) // self.columns)
        several = np.array_split(np.arange(passes), max(1, passes // 3))
        return [(int(group[0]) * self.columns,
                 min((int(group[-1]) + 1) * self.columns, len(source.channels)))
                for group in several]

    def copied(self, name: str, source: Codes, first: int, target: Target, layer: Requantization,
               after: Shifted | None = None) -> Iterator[Step]:
        """Copy normalised tokens, the first to place `first`: a product that changes nothing."""
        groups, channels = self.groups(source), int(source.channels.max()) + 1
        for begin, end in groups:
            part, tile = source, begin // self.width
            if len(groups) > 1:
                part = replace(part, fields=part.fields | {"norm_slot": self.slot()})
            part = replace(
                part, channels=source.channels[begin:end],
                first=source.first + tile * source.stride, norm=source.norm and {
                    key: values[begin:end] for key, values in source.norm.items()})
            place = replace(target, first=target.first + first + tile * target.pitch)
            row = None if after is None else Row(after, channels, first, begins=begin == 0,
                                                 ends=end == len(source.channels))
            yield from self.linear(name, identity(channels), part, part.channels, place, layer,
                                   row=row, mode=Mode(self.config, 2))

    def further(self, source: Codes) -> Codes:
        """Return a tensor for copies behind the first, which has brought what all can use."""
        return replace(source, norm=None) if len(self.groups(source)) == 1 else source


def identity(channels: int) -> torch.Tensor:
    """Return the weights of a product that changes nothing."""
    return torch.eye(channels, dtype=torch.int64)


def copying(zero_point: int, bits: int = 8, lowest: int = 0) -> Requantization:
    """Return the requantization that makes codes of operands."""
    return Requantization(multiplier=1 << 14, shift=14, encoding=Encoding(
        bits=bits, zero_point=zero_point, lowest=lowest))
