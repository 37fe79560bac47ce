# SPDX-License-Identifier: Apache-2.0
"""The passes of a layer with weights, and what those of all products have in common."""

__all__ = ["Passes"]

from collections.abc import Iterator, Mapping
from functools import partial

from gen.compiler.halves import Halves, folded
from gen.compiler.layers import Linear, Normed, carried
from gen.compiler.modes import Mode, choose
from gen.compiler.steps import (
    Array,
    Place,
    Region,
    Step,
    Vectors,
    padded,
    pass_fields,
    requantization_fields,
    split,
    spread,
    take_matrix,
)
from golden.float.vit import VitSpec
from golden.formats.formats import Shifted
from golden.network import ops
from golden.network.integers import Network
from vitforge.spec.instruction import DESTINATIONS, PACKS, STATISTICS
from vitforge.spec.sizes import tables


class Passes:
    """Passes of one network.

    Attributes
    ----------
    dim, stream
        Channels of the residual stream, and where it is.
    pairs
        Words that two tokens to a byte take in place of one for each.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        assert isinstance(network.spec, VitSpec)
        self.spec, self.config = network.spec, network.config
        # Regions are words of the scratchpad; a pass makes several of a token, if it can.
        self.width = self.config.rows
        self.columns = self.config.cols
        self.pairs = -(-self.spec.tokens // 2)
        self.dim = padded(0, self.spec.dim, self.width)
        self.stream = self.region("residual stream", "residual", len(self.dim) // self.width)
        self.made = ops.made(network.operations)
        self.halves = Halves(network)
        self.modes: dict[str, Mode] = {}   # of each layer's weights
        self._readers = {item.reads[0]: item for item in network.operations
                         if isinstance(item, ops.Product | ops.Scores)}

    def packs(self, name: str) -> bool:
        """Whether a tensor's codes share bytes: two tokens of its reader share multipliers."""
        return name in self._readers and not self.halves.why_not(self._readers[name])

    def region(self, name: str, bank: str, tiles: int, stride: int | None = None, *,
               early: bool = False) -> Region:
        return Region(name, bank, tiles * (stride or self.spec.tokens), early=early)

    def parts(self, columns: Array, most: int) -> Iterator[tuple[int, Array]]:
        """Cut channels into those of each pass, `most` if there are; with their first word."""
        for number, part in enumerate(split(columns, most)):
            yield number * most // self.width, part

    def mode(self, product: ops.Operation, operand: dict[str, int]) -> Mode:
        """Choose the mode of a layer, once."""
        if product.name not in self.modes:
            self.modes[product.name] = choose(self.network.weights[product.name], operand,
                                              self.config, quad=self.halves.why_not(product))
        return self.modes[product.name]

    def linear(self, product: ops.Operation, layer: Linear, rows: Array, columns: Array,
               source: Region, target: Region, *, before: Shifted | None = None,
               after: Shifted | None = None, normed: Normed | None = None, detail: str = "",
               stride: int | None = None, more: Mapping[str, int] | None = None,
               mode: Mode | None = None) -> Iterator[Step]:
        """Make the passes of a linear layer; with `after` it makes the stream.

        Parameters
        ----------
        before
            The stream that it adds to.
        stride
            Words from word to word of a token in the target, if not as many as tokens.
        more
            Other fields.
        mode
            None chooses it.
        """
        requantization = layer.requantization
        mode = mode or self.mode(product, layer.input.operand_fields()
                                 | (normed.fields if normed else {}))
        shifts = [item.shift if item else 0 for item in (before, after)]
        plain = Vectors(requantization, *shifts)
        shared = Vectors(folded(requantization, layer.weights, layer.input), *shifts) \
            if mode.quad else plain
        kept = normed.kept if normed else None
        stride, tiles = stride or self.spec.tokens, len(rows) // self.width
        for number, (first, part) in enumerate(self.parts(columns, mode.columns)):
            # Of a norm the first pass is of one token, and keeps its codes for the others.
            keeps = mode.quad and normed is not None and bool(normed.fields["has_norm"])
            shares = mode.quad and not keeps
            operand = self.halves.operand(product.reads[0]) if shares \
                else layer.input.operand_fields() | (normed.fields if normed else {})
            fields = pass_fields(
                **mode.fields(len(part), alone=keeps), keep=int(keeps), tokens=self.spec.tokens,
                tiles=tiles, a_stride=self.pairs if shares else self.spec.tokens,
                destination=DESTINATIONS[target.bank],
                **requantization_fields(requantization, int(part[0]))
                | spread(len(part), stride, self.width) | dict(more or {})) | operand
            if before:
                fields["residual_zero_point"] = before.zero_point
            if after:
                fields |= {
                    "channels": self.spec.dim,
                    "statistics": STATISTICS["norm"], "statistics_first": int(first == 0),
                    "statistics_last": int(first * self.width + len(part) == len(columns))}
            # Both words of packed values have one place.
            place = first // 2 if fields["pack"] == PACKS["values"] else first
            why, costs = mode.more(number, self.spec.tokens, tiles)
            yield Step(product.name, detail, fields,
                       partial((shared if shares else plain).parameters, part),
                       Place(kept if shares and kept else source),
                       d=Place(target, place * stride), k=Place(kept) if keeps and kept else None,
                       r=Place(target, first * stride) if before and tables(self.config) else None,
                       norm=normed.parameters if normed and fields["has_norm"] else None,
                       weights=partial(take_matrix, layer.weights, rows, part, self.width),
                       encoding=requantization.encoding, why=why, more=costs)
            if normed:
                normed = carried(normed)
