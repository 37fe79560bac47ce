# SPDX-License-Identifier: Apache-2.0
"""The passes behind the last norm of a network with windows: mean of the tokens, classes."""

__all__ = ["Pooled"]

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from gen.compiler.gathered import Codes, Gathered, Target, copying
from gen.compiler.modes import choose
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
from gen.compiler.swin_order import cut
from golden.machine.program import output_bytes
from golden.network import ops
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.requant import Requantization
from vitforge.spec.instruction import DESTINATIONS, OPERATIONS
from vitforge.spec.sizes import SHORT


class Pooled(Gathered):
    """Passes of the mean and of the head; `codes` are tensors by name."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.codes: dict[str, Codes] = {}

    def pool(self, operation: ops.Pool) -> Iterator[Step]:
        """Copy the normalised tokens to the stationary bank, where codes are around the middle."""
        source, (read,) = self.codes[operation.reads[0]], operation.reads
        made = self.network.uniform(read)
        # Read in whole tiles of tokens.
        pitch, tiles = tiles_of(operation.tokens, self.width) * self.width, len(source.channels)
        self.pooled = Region(read, "stationary", tiles // self.width * pitch)
        copies: list[Step] = []
        for first, count in cut(operation.tokens, self.config.max_tokens):
            part = self.part(source, np.arange(first, first + count))
            copies += self.copied(operation.name, part, first, Target(self.pooled, pitch),
                                  copying(made.zero_point, made.bits))
            source = self.further(source)
        yield from copies
        # Stationary weights are those of the third pass before at the latest.
        last = copies[-1]
        nothing = Region("nothing", "scratch", pitch * tiles_of(self.columns, self.width))
        for _ in range(len(copies), 3):
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
        rows = Region("ones", "scratch", tiles * SHORT, early=True)
        loads: tuple[Load, ...] = (Load(rows, ones.reshape(-1, self.width)),)
        columns = padded(0, count, self.width)
        target = Region(name, "scratch", len(columns) // self.width * SHORT)
        self.codes[name] = Codes(target, columns, 1, SHORT,
                                 self.network.formats[name].operand_fields())
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
            yield Step(name, "", fields, partial(Vectors(layer).parameters, part), Place(rows),
                       Place(self.pooled, words * pitch), Place(target, words * SHORT),
                       loads=loads)
            loads = ()

    def logits(self, operation: ops.Logits) -> Iterator[Step]:
        """Make the passes of the classes, whose sums leave as they are."""
        product = ops.summed(operation, self.made)
        assert isinstance(product, ops.Product)
        weights, source = self.network.weights[product.name], self.codes[product.reads[0]]
        raw = Requantization(bias=self.network.biases[operation.name], encoding=Encoding())
        line = output_bytes(1, self.config)
        columns = padded(0, product.columns, self.width)
        mode = replace(choose(weights, source.fields, self.config), pair=0)
        sums = Target(Region("logits", "memory", 0), 1)
        for step in self.linear(product.name, weights, source, columns, sums, raw, mode=mode):
            assert step.d is not None
            step.fields |= {"operation": OPERATIONS["raw"], "bits": 8, "d_pitch": 0,
                            "offset": step.d.offset * self.width // self.columns * line}
            step.d = None
            yield Step(step.layer, "", step.fields, step.parameters, step.a, weights=step.weights,
                       why=step.why, more=step.more)
