# SPDX-License-Identifier: Apache-2.0
"""Integers of the operations that make passes together."""

__all__ = ["Attention", "Linear", "Normed", "carried", "probability_fields"]

from dataclasses import dataclass, replace

from torch import Tensor

from gen.compiler.steps import Region
from golden.formats.formats import Format, Uniform
from golden.machine.program import Columns
from golden.network.ops import Operation
from golden.units.requant import Requantization
from golden.units.softmax import LevelScale, PolynomialScale, ShiftScale


@dataclass(frozen=True, eq=False)
class Linear:
    """A product with weights of codes in the format `input`, and the requantization behind it."""

    input: Format
    weights: Tensor
    requantization: Requantization


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of one block, between its two linear layers: its products, and their results."""

    scores: Operation
    product: Operation
    query: Uniform
    score_codes: Requantization
    scale: ShiftScale | PolynomialScale
    probability: Format
    context: Requantization


@dataclass(frozen=True, eq=False)
class Normed:
    """Operands that a LayerNorm makes of the residual stream; `norm` until a pass carried it.

    `kept` is where that pass keeps their codes, for those behind it, if two of their tokens share
    multipliers.
    """

    slot: int
    fields: dict[str, int]
    parameters: Columns
    kept: Region | None = None


def carried(normed: Normed) -> Normed:
    """Return the same norm for the passes after the one that brought its parameters."""
    return replace(normed, fields=normed.fields | {"has_norm": 0})


def probability_fields(scale: ShiftScale | PolynomialScale, probability: Format) -> dict[str, int]:
    """Fields of a PASS that say how scores become operands."""
    assert isinstance(scale, ShiftScale)
    fields = {"softmax_multiplier": scale.multiplier, **probability.probability_fields()}
    if isinstance(scale, LevelScale):
        fields |= {"softmax_shift": scale.shift, "operand_m": scale.m}
    return fields
