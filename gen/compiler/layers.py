# SPDX-License-Identifier: Apache-2.0
"""Integers of the operations that make passes together."""

__all__ = ["Attention", "Linear", "Normed", "carried", "probability_fields"]

from dataclasses import dataclass

from torch import Tensor

from golden.formats.formats import Format, Uniform
from golden.machine.program import Columns
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
    """Attention of one block, between its two linear layers, with the names of its products."""

    scores_name: str
    context_name: str
    query: Uniform
    scores: Requantization
    scale: ShiftScale | PolynomialScale
    probability: Format
    context: Requantization


@dataclass(frozen=True, eq=False)
class Normed:
    """Operands that a LayerNorm makes of the residual stream; `norm` until a pass carried it."""

    slot: int
    fields: dict[str, int]
    parameters: Columns


def carried(normed: Normed) -> Normed:
    """Return the same norm for the passes after the one that brought its parameters."""
    return Normed(normed.slot, normed.fields | {"has_norm": 0}, normed.parameters)


def probability_fields(scale: ShiftScale | PolynomialScale, probability: Format) -> dict[str, int]:
    """Fields of a PASS that say how scores become operands."""
    assert isinstance(scale, ShiftScale)
    fields = {"softmax_multiplier": scale.multiplier, **probability.probability_fields()}
    if isinstance(scale, LevelScale):
        fields |= {"softmax_shift": scale.shift, "operand_m": scale.m}
    return fields
