# SPDX-License-Identifier: Apache-2.0
"""Plain codes and softmax as special cases of LayerNorm's arithmetic: widths and constants.

A lane of `hw.layernorm.lane` computes, for an element x::

    d = x*count - total          n = (d << shifts[coarse]) * root >> rsqrt_bits - 1
    y = (n*gamma >> fraction) + offset >> 8

- *norm*: all factors are the token's and the channel's, as they come.
- *plain*: powers of two that cancel, no total, no offset: ``y = x``.
- *softmax*: with L the multiplier and o the row's ``reference + log2(sum) + 1/2`` with F fraction
  bits, the code is ``floor((o - floor(x*L / 2**s)) / 2**F)``, ``s + F = 16``. An integer less the
  floor of a number is the floor of the difference plus the largest fraction, so the code is::

      floor((o*2**s + 2**s - 1 - x*L) / 2**16) = -1 - floor((x*L - (o + 1)*2**s) / 2**16)

  That is ``count = L`` and ``total = (o + 1) << s``. The way from d to y multiplies by ``-2**-16``
  and takes one off: floors of floors are floors, in whatever steps.
- *softmax* with other codes than log2 (`vitforge.spec.probability_levels`): ``total = (o << s) +
  (shift << 9)``, and the inverted index of the table is ``n = d >> 9``; what follows gives 0.

So the three modes share all multipliers and all registers of a lane.
"""

__all__ = ["CODE_BITS", "LOG2_BITS", "PLACES", "Constants", "OperandFormat"]

from dataclasses import dataclass, replace
from functools import cached_property

from hw.layernorm.lane import LaneWidths
from hw.layernorm.scale import factors_word
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import FRACTION, GAMMA_BITS, NormFormat
from vitforge.spec.limits import Part, check
from vitforge.spec.probability_levels import FRACTION as LEVEL_FRACTION
from vitforge.spec.probability_levels import KINDS
from vitforge.spec.softmax_widths import ShiftWidths

#: Width of a code in the scratchpad.
CODE_BITS = 8
#: A code less a zero point is signed and one bit wider.
CENTRED_BITS = CODE_BITS + 1
#: Binary places that a softmax code is away from ``score * multiplier``.
PLACES = 16
#: ``|score * L| < 2**24``, ``|o| < 2**9`` and ``|shift| < 2**4``, so
#: ``|d| < 2**25 + 2**24 + 2**20``.
DISTANCE_BITS = 27
#: Widest log2 codes that are all powers of two, but for the highest.
LOG2_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Constants:
    """What a mode puts in the place of the factors that it doesn't have."""

    count: int = 0
    total: int = 0
    coarse: int
    gamma: int
    offset: int


@dataclass(frozen=True)
class OperandFormat:
    """Widths of the lanes of the operand path, and its constants.

    Raises
    ------
    ValueError
        If the configuration asks for what the operand path doesn't do; the message names the
        field.
    """

    config: Config

    def __post_init__(self) -> None:
        check(self.config, Part.OPERAND)

    @cached_property
    def norm(self) -> NormFormat:
        """LayerNorm's own widths."""
        return NormFormat(self.config)

    @cached_property
    def softmax(self) -> ShiftWidths:
        """Softmax's own widths."""
        return ShiftWidths(self.config)

    @property
    def log2_bits(self) -> int:
        """Width of the log2 codes that are powers of two.

        Of 5 bits the codes beyond 15 are 0, for lack of room in an operand.
        """
        return min(self.config.attention_bits, LOG2_BITS)

    @property
    def levels(self) -> bool:
        """Whether probabilities have other codes than log2."""
        return self.config.attention in KINDS

    @cached_property
    def surplus(self) -> int:
        """Fraction bits of ``score * L`` beyond those of an exponent (s), at least 2."""
        return self.softmax.multiplier_fraction - self.softmax.fraction

    @cached_property
    def tiles(self) -> int:
        """Tiles of norm parameters in a slot."""
        return -(-self.config.max_channels // self.config.rows)

    @cached_property
    def lane(self) -> LaneWidths:
        """Widths of a lane, at least those of `LaneWidths.of`."""
        widths, scaled = LaneWidths.of(self.config), self._scaled
        return replace(
            widths, element=max(widths.element, CENTRED_BITS), scaled=scaled,
            difference=max(widths.difference, DISTANCE_BITS),
            shifts=widths.shifts if self._down(widths.shifts) is not None
            else (*widths.shifts, -max(DISTANCE_BITS - scaled, FRACTION)))

    @cached_property
    def _scaled(self) -> int:
        """Width of a distance after its shift.

        11 bits are left after a shift by 16, and a plain code takes less; and a table's fraction.
        """
        return max(LaneWidths.of(self.config).scaled,
                   DISTANCE_BITS - PLACES + (LEVEL_FRACTION if self.levels else 0))

    def _down(self, shifts: tuple[int, ...]) -> int | None:
        """Find a right shift that makes a distance fit and loses none of the code's bits."""
        low = max(DISTANCE_BITS - self._scaled, FRACTION)
        high = min(PLACES, GAMMA_BITS - 1 + FRACTION - self.norm.element_fraction)
        if self.levels:
            high = PLACES - LEVEL_FRACTION
        return next((index for index, up in enumerate(shifts) if low <= -up <= high), None)

    @cached_property
    def plain(self) -> Constants:
        """Factors that leave an element as it is.

        Scaled by ``2**(fraction-8)``, it is multiplied by a gamma of ``2**16``. `count` makes up
        for the shift, and fits 17 bits.
        """
        up = self.lane.fraction - FRACTION
        coarse = next(index for index, shift in enumerate(self.lane.shifts) if up - shift <= 16)
        return Constants(count=1 << up - self.lane.shifts[coarse], coarse=coarse,
                         gamma=1 << GAMMA_BITS - 2, offset=0)

    @cached_property
    def distance(self) -> Constants:
        """Factors that make softmax's code of a distance; `count` and `total` are the row's."""
        coarse = self._down(self.lane.shifts)
        assert coarse is not None, "the lane has a shift that fits"
        if self.levels:
            return Constants(coarse=coarse, gamma=0, offset=0)
        # The code's units are 2**(16 - down) units of the scaled distance, and 2**8 of the sum.
        step = 1 << -self.lane.shifts[coarse] - (PLACES - FRACTION)
        return Constants(coarse=coarse, gamma=-step << self.lane.fraction, offset=-step)

    @cached_property
    def level_drop(self) -> int:
        """Low bits of a scaled distance below the fraction of a table's index."""
        return PLACES - LEVEL_FRACTION + self.lane.shifts[self.distance.coarse]

    @cached_property
    def count_bits(self) -> int:
        """Unsigned width of `count` in any mode."""
        return max(self._factor("count"), self.softmax.multiplier, self.plain.count.bit_length())

    @cached_property
    def total_bits(self) -> int:
        """Signed width of `total` in any mode."""
        return max(self._factor("total"), DISTANCE_BITS)

    def _factor(self, name: str) -> int:
        return next(item.bits for item in factors_word(self.config).fields if item.name == name)
