# SPDX-License-Identifier: Apache-2.0
"""The passes behind the last block of a ViT: what is classified, and the classes.

One token's norm is read by the classifier's passes as it is. Two tokens' codes are copied to
scratch, word by word beside each other, and are one row there. The mean of the patches is P V with
operands of 1, of the stream's own codes, whose shifts are in those of the requantization.
"""

__all__ = ["Classified", "refusal"]

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from gen.compiler.attention import Heads, Style
from gen.compiler.gathered import copying, identity
from gen.compiler.layers import Normed, carried
from gen.compiler.modes import Mode, choose
from gen.compiler.steps import (
    Array,
    Load,
    Place,
    Region,
    Step,
    Vectors,
    padded,
    pass_fields,
    requantization_fields,
    spread,
    take_matrix,
    tiles_of,
)
from golden.formats.formats import Uniform
from golden.machine.program import output_bytes
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.requant import Requantization
from vitforge.spec.formats import CODE_BITS, MIDDLE
from vitforge.spec.instruction import DESTINATIONS, LINE, OPERATIONS, STATISTICS

_T = TypeVar("_T")
#: Raw results have no code; one field must still say so.
_RAW = Encoding()


def refusal(operation: ops.Operation, why: str) -> ValueError:
    """Make what is raised for an order of operations that has no passes."""
    return ValueError(f"the compiler has no passes for {operation.name}: {why}")


class Classified(Heads):
    """Passes behind the last block.

    Attributes
    ----------
    normed
        What a LayerNorm makes of the stream, by name.
    rows
        Of codes that lie beside each other: channels in the order of their words, and the place.
    held
        The tensor that is in the bank of the stream.
    """

    def __init__(self, network: Network, style: Style) -> None:
        super().__init__(network, style)
        self.normed: dict[str, Normed] = {}
        self.rows: dict[str, tuple[Array, Region]] = {}
        self.held = ""
        self.pooled = Region("", "stationary", 0)

    def operands(self, known: Mapping[str, _T], product: ops.Operation) -> _T:
        """Return where a product's operands are; those of a stream must come out of a norm."""
        if product.reads[0] not in known:
            raise refusal(product, f"it can't read {product.reads[0]} there")
        return known[product.reads[0]]

    def copies(self, name: str, tokens: int, target: Region, pitch: int, codes: Uniform,
               fields: dict[str, int], normed: Normed | None = None) -> Iterator[Step]:
        """Copy tokens of the stream, or their norm: word w of token n to ``w * pitch + n``."""
        mode, weights = Mode(self.config, 2), identity(self.spec.dim)
        layer = copying(int(codes.zero_point), codes.bits)
        for first, part in self.parts(self.dim, mode.columns):
            given = pass_fields(**(
                mode.fields(len(part)) | {
                    "tokens": tokens, "tiles": len(self.dim) // self.width,
                    "a_stride": self.spec.tokens, "destination": DESTINATIONS[target.bank]}
                | requantization_fields(layer) | spread(len(part), pitch, self.width)
                | fields | (normed.fields if normed else {})))
            yield Step(name, "", given, partial(Vectors(layer).parameters, part),
                       Place(self.stream),
                       d=Place(target, first * pitch),
                       norm=normed.parameters if normed and given["has_norm"] else None,
                       weights=partial(take_matrix, weights, self.dim, part, self.width))
            normed = normed and carried(normed)

    def beside(self, operation: ops.Beside) -> Iterator[Step]:
        """Put the codes of a norm's tokens beside each other: a row, its words by turns."""
        (read,), (name,) = operation.reads, operation.writes
        norm = self.made[read]
        tokens = self.made[norm.reads[0]]
        found = self.network.formats[read]
        if not isinstance(tokens, ops.Tokens) or not isinstance(found, Uniform):
            raise refusal(operation, "only a norm's tokens can be beside each other")
        count, dim = len(tokens.source), self.spec.dim
        region = Region(name, "scratch", len(self.dim) // self.width * count)
        turns = np.stack([np.where(self.dim < 0, -1, self.dim + dim * token).reshape(
            -1, self.width) for token in range(count)], axis=1)
        self.rows[name] = turns.reshape(-1), region
        return self.copies(operation.name, count, region, count, found, {},
                           self.operands(self.normed, operation))

    def pool(self, operation: ops.Pool) -> Iterator[Step]:
        """Copy the stream's codes to the stationary bank, whose codes are around the middle."""
        tokens = self.made[operation.reads[0]]
        if not isinstance(tokens, ops.Tokens) or tokens.reads[0] != self.held:
            raise refusal(operation, "only patches of the stream have a mean")
        stream = self.network.stream(self.held)
        codes = Uniform(scale=1.0, bits=stream.bits, zero_point=stream.zero_point)
        pitch = tiles_of(self.spec.tokens, self.width) * self.width   # read in whole tiles
        self.pooled = Region(operation.name, "stationary", len(self.dim) // self.width * pitch)
        return self.copies(operation.name, self.spec.tokens, self.pooled, pitch, codes,
                           {"from_residual": 1, **codes.operand_fields()})

    def mean(self, operation: ops.Requantize) -> Iterator[Step]:
        """Add the patches up, and begin a stream of one token with their mean.

        Golden sums are of operands ``(code - zero) << shift``, those of the array of codes less the
        middle: the bias makes up for the zero point, and a shift by s less for the channel's s. So
        the rounding is the same while a bit is left to shift.
        """
        pool, (name,) = self.made[operation.reads[0]], operation.writes
        assert isinstance(pool, ops.Pool)
        before = self.network.stream(self.made[pool.reads[0]].reads[0])
        after, layer = self.network.stream(name), self.network.requantizations[operation.name]
        down = torch.as_tensor(layer.shift) - before.shift
        if int(down.min()) < 1:
            raise refusal(operation, "no bit is left to round the mean at")
        layer = replace(layer, shift=down, bias=pool.tokens * (MIDDLE - before.zero_point))
        tiles, first = tiles_of(self.spec.tokens, self.width), self.spec.first
        ones = np.zeros(tiles * self.width, np.int64)
        ones[first:first + pool.tokens] = 1
        source = Region("ones", "scratch", tiles, early=True)
        loads: tuple[Load, ...] = (Load(source, ones.reshape(-1, self.width)),)
        self.stream = Region(name, "residual", len(self.dim) // self.width)
        self.held = name
        pitch = tiles * self.width
        for number, part in self.parts(self.dim, self.columns):
            fields = pass_fields(
                stationary=1, tokens=1, tiles=tiles, a_stride=1, operand_bits=CODE_BITS,
                w_stride=self.width, destination=DESTINATIONS["residual"],
                channels=self.spec.dim, statistics=STATISTICS["norm"],
                statistics_first=int(number == 0),
                statistics_last=int(number * self.width + len(part) == len(self.dim)),
                **requantization_fields(layer), **spread(len(part), 1, self.width))
            if fields["words"]:
                fields["w_pitch"] = pitch
            yield Step(operation.name, "", fields,
                       partial(Vectors(layer, after=after.shift).parameters, part), Place(source),
                       Place(self.pooled, number * pitch), Place(self.stream, number), loads=loads)
            loads = ()

    def classify(self, operation: ops.Logits) -> Iterator[Step]:
        """Make the head's, for one row alone: accumulators go to memory as they are."""
        product = ops.summed(operation, self.made)
        read = self.made[product.reads[0]]
        if isinstance(read, ops.Beside):
            normed, (rows, source), stride = None, self.rows[product.reads[0]], 1
            operand = self.network.formats[product.reads[0]].operand_fields()
        else:
            normed, rows, source = self.operands(self.normed, product), self.dim, self.stream
            before, operand = self.made[read.reads[0]], normed.fields
            if isinstance(before, ops.Tokens) and len(before.source) == 1:
                stride = self.spec.tokens
            elif isinstance(before, ops.Requantize) and isinstance(
                    self.made[before.reads[0]], ops.Pool):
                stride = 1
            else:
                raise refusal(operation, "logits are of one token")
        yield from self.classes(operation, product, rows, Place(source), stride, operand, normed)

    def classes(self, operation: ops.Logits, product: ops.Operation, rows: Array, source: Place,
                stride: int, operand: Mapping[str, int], normed: Normed | None) -> Iterator[Step]:
        """Make the passes of the classes."""
        weights = self.network.weights[product.name]
        spec, mode = self.spec, choose(weights, operand, self.config, quad="one token")
        if mode.pair and self.config.cols * 4 % LINE:
            mode = replace(mode, pair=0, why="fewer columns than logits in a line")
        mode = replace(mode, alone="")   # there is no other token
        raw = Requantization(bias=self.network.biases[operation.name], encoding=_RAW)
        line = output_bytes(1, self.config)
        channels, tiles = padded(0, spec.classes, self.width), len(rows) // self.config.rows
        for number, (first, part) in enumerate(self.parts(channels, mode.columns)):
            fields = pass_fields(
                **mode.fields(len(part)), tokens=1, tiles=tiles,
                a_stride=stride, destination=DESTINATIONS["memory"],
                offset=first * self.width // self.columns * line,
                **spread(len(part), 0, self.width)) | dict(normed.fields if normed else operand)
            fields |= {"operation": OPERATIONS["raw"], "bits": CODE_BITS}
            why, costs = mode.more(number, self.config.rows, tiles)
            yield Step(product.name, "", fields, partial(Vectors(raw).parameters, part), source,
                       norm=normed.parameters if normed and fields["has_norm"] else None,
                       weights=partial(take_matrix, weights, rows, part, self.config.rows),
                       why=why, more=costs)
            normed = normed and carried(normed)
