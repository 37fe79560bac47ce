# SPDX-License-Identifier: Apache-2.0
"""What every number format knows, and every format of attention; `golden.formats.formats` has them.

Every format knows four things: `quantize` (real to code), `decode` (code to mantissa and left
shift), `dequantize` (code to real) and its `scale`, with
``dequantize(code) == operand(code) * scale`` exactly, where ``operand = mantissa << shift``.
It says in words what it is, and to the accelerator how its codes become operands.
"""

__all__ = ["LEAST", "Probability", "Format", "peaks", "real", "rounded"]

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from vitforge.spec.probability_levels import Levels

#: Least value that a probability's largest is taken for.
LEAST = 1e-6


def rounded(x: Tensor) -> Tensor:
    """Round to integers, half up."""
    return (x + 0.5).floor().to(torch.int64)


def real(x: Tensor) -> Tensor:
    """Return real values in double precision; TypeError for integers."""
    if not x.is_floating_point():
        raise TypeError(f"x must be real values, not {x.dtype}")
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite")
    return x.double()


def _positive(scale: Tensor | float) -> None:
    values = torch.as_tensor(scale, dtype=torch.float64)
    if not bool(((values > 0) & values.isfinite()).all()):
        raise ValueError(f"scale must be positive and finite, not {scale}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Format(ABC):
    """A code of `bits` bits with a real step.

    Attributes
    ----------
    scale
        Real value of an operand of 1: a number, or per channel, broadcast against the codes.
    bits
        Width of a code.
    """

    #: Its name: of attention codes, that of `vitforge.spec.formats.ATTENTION`.
    kind: ClassVar[str]

    scale: Tensor | float
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, not {self.bits}")
        _positive(self.scale)

    @abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """Return the int64 codes of real values; TypeError for integers."""

    @abstractmethod
    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mantissa, shift), both int64 and of the shape of `code`."""

    def operand(self, code: Tensor) -> Tensor:
        """Return the integer operand ``mantissa << shift``."""
        mantissa, shift = self.decode(code)
        return mantissa << shift

    def dequantize(self, code: Tensor) -> Tensor:
        """Return float64 ``operand * scale``."""
        return self.operand(code).double() * self.scale

    @property
    def code_bits(self) -> int:
        """Width by which one speaks of the format."""
        return self.bits

    @property
    def step(self) -> str:
        """The scale, in words."""
        many = isinstance(self.scale, Tensor) and self.scale.numel() > 1
        return ", a step for each channel" if many else f", step {float(self.scale):.4g}"

    @property
    def details(self) -> str:
        """What there is to say beside kind, width and scale."""
        return ""

    def words(self) -> str:
        """Say what the format is."""
        return f"{self.kind} {self.code_bits} bits{self.step}{self.details}"

    def operand_fields(self) -> dict[str, int]:
        """Fields of a PASS that say how codes in a bank become operands.

        Raises
        ------
        ValueError
            If the hardware has no such operands.
        """
        raise ValueError(f"operands must be uniform, two-scale or log2 codes, not {self}")

    def probability_fields(self) -> dict[str, int]:
        """Fields of a PASS that say how what the operand path makes of scores becomes operands."""
        return self.operand_fields()


class Probability(Format):
    """A format that a core may have for attention, of `vitforge.spec.probability_levels`.

    A core's formats of a kind differ in their scale and in `m`, the number of the table or the
    shift between the regions.
    """

    @classmethod
    @abstractmethod
    def of_levels(cls, scale: float, m: int, levels: Levels) -> Self:
        """Return the format of a core."""

    @abstractmethod
    def level(self, levels: Levels) -> int:
        """Return `m` of the core's format that differs in nothing but its scale.

        Raises
        ------
        ValueError
            If the core has none.
        """

    @classmethod
    @abstractmethod
    def candidates(cls, seen: Tensor, levels: Levels) -> Iterator[Self]:
        """Make those that calibration tries for probabilities, float64 ``[N]``."""


def peaks(seen: Tensor) -> Iterator[float]:
    """Return quantiles of probabilities, to be tried as the largest value.

    The few values beyond cost less than what the others gain.
    """
    ordered = seen.sort().values
    for share in (1.0, 0.99999, 0.9999, 0.999, 0.99):
        yield max(float(ordered[round((len(ordered) - 1) * share)]), LEAST)
