# SPDX-License-Identifier: Apache-2.0
"""The passes of attention, from the layer of Q, K and V to the context, head by head.

Q, K and V of a later head are made between a head's scores and its use of them. How far ahead that
is, and whether the last heads' scores are made ahead too, is a `Style`: more of both costs more
words of the scratchpad.
"""

__all__ = ["Heads", "STYLES", "Style"]

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from gen.compiler.layers import Attention, Linear, Normed, carried, probability_fields
from gen.compiler.linear import Passes
from gen.compiler.steps import (
    Array,
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
from golden.network.integers import Network
from golden.units.softmax import ShiftScale
from vitforge.spec.instruction import DESTINATIONS, MODES, OPERANDS, STATISTICS
from vitforge.spec.sizes import columns, weight_words


@dataclass(frozen=True)
class Style:
    """How passes of different heads overlap.

    Attributes
    ----------
    ahead
        Heads whose Q, K and V are made before they are needed.
    fill
        Whether the scores of the next head come before a head's context where no Q, K and V are
        left to make.
    """

    ahead: int
    fill: bool


#: From the fastest to the one that needs least.
STYLES = (Style(2, True), Style(2, False), Style(1, False), Style(0, False))


@dataclass(frozen=True)
class _Stored:
    """How Q, K or V of a head lies in its bank: tiles, or words of a token, `stride` words apart.

    `fields` say that its codes share bytes, if they do.
    """

    bank: str
    tiles: int
    stride: int
    fields: dict[str, int]


class Heads(Passes):
    """Passes of attention."""

    def __init__(self, network: Network, style: Style) -> None:
        super().__init__(network)
        self.style = style
        self.head_tiles = tiles_of(self.spec.head_dim, self.width)

    def head(self, part: int, head: int) -> Array:
        """Channels of Q, K or V (part 0, 1, 2; or 0 for the context) of one head."""
        return padded(part * self.spec.dim + head * self.spec.head_dim, self.spec.head_dim,
                      self.width)

    def stored(self, projection: ops.Operation) -> dict[str, _Stored]:
        """Say how Q, K and V lie in their banks."""
        tokens, halves, cols = self.spec.tokens, self.halves, self.columns
        query, key, value = projection.writes
        # Keys and values are read in whole tiles of tokens, keys as many as the array has columns.
        whole = tiles_of(tokens, cols) * cols
        found = {"Q": _Stored("scratch", self.head_tiles, tokens, {}),
                 "K": _Stored("stationary", self.head_tiles, whole, {}),
                 "V": _Stored("stationary", self.head_tiles, whole, {})}
        if self.packs(query):
            found["Q"] = _Stored("scratch", self.head_tiles, self.pairs,
                                 halves.projection(query, "tokens"))
        if key in halves.stationary:
            found["K"] = _Stored("stationary", self.head_tiles, tiles_of(tokens, 2 * cols) * cols,
                                 halves.projection(key, "keys"))
        if value in halves.stationary:
            words = weight_words(self.config)
            found["V"] = _Stored("stationary", tiles_of(self.head_tiles, 2 * words) * words,
                                 tiles_of(tokens, self.width) * self.width,
                                 halves.projection(value, "values"))
        return found

    def heads(self, projection: ops.Operation, qkv: Linear, attention: Attention, normed: Normed,
              context: Region, pack: int) -> Iterator[Step]:
        """Attention of all heads, interleaved."""
        spec, product = self.spec, ops.summed(projection, self.made)
        stored = self.stored(projection)
        parts = [{part: self.region(f"{part} {head}", stored[part].bank, stored[part].tiles,
                                    stored[part].stride) for part in "KVQ"}
                 for head in range(spec.heads)]
        scores = [self.region(f"scores {head}", "scratch", tiles_of(spec.tokens, self.width))
                  for head in range(spec.heads)]
        made = scored = 0

        def project(head: int) -> Iterator[Step]:
            for number, part in ((1, "K"), (2, "V"), (0, "Q")):
                first = not head and part == "K"
                yield from self.linear(
                    product, qkv, self.dim, self.head(number, head), self.stream,
                    parts[head][part], normed=normed if first else carried(normed),
                    detail=f"{part} {head}", stride=stored[part].stride, more=stored[part].fields)

        def score(head: int) -> Iterator[Step]:
            yield from self.scores(attention, head, parts[head], scores[head], stored["K"])

        for head in range(spec.heads):
            while made < min(spec.heads, head + max(1, self.style.ahead)):
                yield from project(made)
                made += 1
            if scored == head:
                yield from score(head)
                scored += 1
            if self.style.ahead and made < spec.heads:
                yield from project(made)
                made += 1
            elif self.style.fill and scored < spec.heads and made > scored:
                yield from score(scored)
                scored += 1
            yield from self.context(attention, head, parts[head], scores[head], context,
                                    stored["V"], pack)

    def rate(self, packed: bool, product: ops.Operation) -> tuple[str, str]:
        """Return the mode of a product of stationary weights, and why others' isn't its own."""
        if not packed:
            return "single", ""
        why = self.halves.why_not(product)
        return ("pair", f"{why}, so one token at a time") if why else ("quad", "")

    def scores(self, layer: Attention, head: int, parts: dict[str, Region], scores: Region,
               keys: _Stored) -> Iterator[Step]:
        """Q K^T, a tile of keys a pass, with the statistics of softmax."""
        spec, packed = self.spec, bool(keys.fields)
        assert isinstance(layer.scale, ShiftScale)
        mode, why = self.rate(packed, layer.scores)
        operand = self.halves.query(layer.scores.reads[0]) if mode == "quad" \
            else layer.query.operand_fields()
        most = columns(self.config) if packed else self.columns
        for first in range(0, spec.tokens, most):
            count = min(most, spec.tokens - first)
            fields = pass_fields(
                stationary=1, by_column=1, tokens=spec.tokens, tiles=self.head_tiles, valid=count,
                a_stride=self.pairs if mode == "quad" else spec.tokens, w_stride=keys.stride,
                mode=MODES[mode], probability_slot=head % 2,
                statistics=STATISTICS["softmax"], statistics_first=int(first == 0),
                statistics_last=int(first + count == spec.tokens),
                destination=DESTINATIONS["scratch"],
                softmax_multiplier=layer.scale.multiplier, **operand,
                **requantization_fields(layer.score_codes),
                **spread(count, spec.tokens, self.width))
            channels = tiles_of(count, self.width) * self.width
            yield Step(layer.scores.name, f"head {head}, keys {first}", fields,
                       partial(Vectors(layer.score_codes).parameters, np.zeros(channels, np.int64)),
                       Place(parts["Q"]), Place(parts["K"], first >> packed),
                       Place(scores, first // self.width * spec.tokens), why=why,
                       more=spec.tokens // 2 * self.head_tiles if why else 0)

    def context(self, layer: Attention, head: int, parts: dict[str, Region], scores: Region,
                context: Region, values: _Stored, pack: int) -> Iterator[Step]:
        """P V, a tile of channels a pass; scores become probabilities on their way.

        If two tokens share multipliers, in the first pass of a head, which keeps their codes.
        """
        spec, config, packed = self.spec, self.config, bool(values.fields)
        tiles = tiles_of(spec.tokens, config.rows)
        mode, why = self.rate(packed, layer.product)
        passes = list(self.parts(self.head(0, head),
                                 columns(config) if packed else self.columns))
        softmax = {"operand": OPERANDS["softmax"], "a_stride": spec.tokens, **probability_fields(
            layer.scale, layer.probability), "mode": MODES["pair" if packed else "single"],
            "valid": spec.tokens - (tiles - 1) * config.rows}
        kept = None
        if mode == "quad" and len(passes) > 1:
            kept = self.region(f"probabilities {head}", "scratch", tiles, self.pairs, early=True)
        stride = self.pairs if pack else spec.tokens
        for number, (first, part) in enumerate(passes):
            again = kept is not None and number > 0
            fields = pass_fields(
                stationary=1, tokens=spec.tokens, tiles=tiles, w_stride=config.rows,
                probability_slot=head % 2, destination=DESTINATIONS["scratch"], pack=pack,
                **requantization_fields(layer.context),
                **spread(len(part), stride, self.width)) | softmax
            if again:
                fields |= {"operand": OPERANDS["plain"], "operand_zero_point": 0,
                           "operand_bits": layer.probability.bits, "a_stride": self.pairs,
                           "mode": MODES["quad"]}
            if min(fields["words"] + 1, weight_words(config)) > 1:
                fields["w_pitch"] = values.stride
            if kept is not None and not again:
                fields["keep"] = 1
            yield Step(layer.product.name, f"head {head}", fields,
                       partial(Vectors(layer.context).parameters, part),
                       Place(kept if kept is not None and again else scores),
                       Place(parts["V"], (first >> packed) * values.stride),
                       Place(context, (head * self.head_tiles + first) * stride),
                       Place(kept) if kept is not None and not again else None, why=why,
                       more=spec.tokens // 2 * tiles if why else 0)
