# SPDX-License-Identifier: Apache-2.0
"""Passes of a network whose tokens are gathered by tables: what all of them have in common."""

__all__ = ["Codes", "Gathered", "copying", "identity", "where"]

from collections.abc import Iterator
from dataclasses import dataclass

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
from golden.formats.formats import Shifted
from golden.machine.program import Columns
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.requant import Requantization
from vitforge.spec.instruction import DESTINATIONS, STATISTICS


def where(order: tuple[int, ...]) -> Array:
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
        self._known: dict[tuple[int, ...], int] = {}   # where a table stands

    def gather(self, index: Array) -> dict[str, int]:
        """Return the fields of a pass that gathers these tokens; none if they are in order."""
        if bool((index == np.arange(len(index))).all()):
            return {}
        key = tuple(index.tolist())
        if key not in self._known:
            self._known[key] = len(self.indices)
            self.indices += key
        return {"gathers": 1, "a_table": self._known[key]}

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
                | spread(len(part), pitch, self.width) | source.fields | more))
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


def identity(channels: int) -> torch.Tensor:
    """Return the weights of a product that changes nothing."""
    return torch.eye(channels, dtype=torch.int64)


def copying(zero_point: int, bits: int = 8, lowest: int = 0) -> Requantization:
    """Return the requantization that makes codes of operands."""
    return Requantization(multiplier=1 << 14, shift=14, encoding=Encoding(
        bits=bits, zero_point=zero_point, lowest=lowest))
