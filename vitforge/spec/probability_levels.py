# SPDX-License-Identifier: Apache-2.0
"""Probabilities as uniform, two-scale, log-sqrt2 or table codes: one small table of a distance.

What the read path of the scores knows is the distance ``-log2 p``. A log2 code is its rounding; any
other code is a function of it, and a function of few bits is a memory. With a constant added to
the distance for the format's scale::

    i = floor(128 * (-log2 p + shift / 128))        mantissa = entry[max(i, 0)], 0 beyond the table

- *uniform* (b bits) and *two-scale* (b - 1 bits beside the region): an entry is ``full * 2**-d``
  rounded, with ``full = 2**bits - 1/2``, so that the distance 0 is where codes saturate.
- *two-scale*: a negative i means that the value doesn't fit the low region; then m octaves are
  added to it, so both regions read the same entries.
- *log-sqrt2* (RepQ-ViT, arXiv 2212.08254): ``2**(-c/2)`` as two-scale codes of 8 bits. Half of the
  codes c lie in each region, m octaves; an entry is ``127 * 2**(-c/2)`` rounded for the c of a
  region, whose boundaries are a quarter of an octave before the levels.
- *table*: an entry is the level that is nearest to ``255 * 2**-d``. There are two tables of tangent
  levels, of which m selects one; a tangent has a slope for each end.

Plain Python, so that `hw` and `golden` read the same entries.
"""

__all__ = ["FRACTION", "KINDS", "SHIFT_BITS", "SLOPES", "TOP", "Levels",
           "root_integers", "tangent_integers"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

from vitforge.spec.config import Config

#: Fraction bits of a distance in the index of the table, and of the shift.
FRACTION = 7
#: Signed width of the shift: 16 octaves either way.
SHIFT_BITS = 12
#: Integer of a table's highest level.
TOP = 255
#: Mantissa of the code 0 of log-sqrt2.
_ROOT_TOP = 127
#: Slopes of the two tangent tables, at 0 and at the highest level. On the blocks of DeiT-Tiny and
#: of the networks for digits and CIFAR-10, in 3 and 4 bits, the better of the two has 1.10 times
#: the squared error of the best of all slopes (geometric mean; 1.9 times at worst).
SLOPES = ((1.28, 0.1), (1.38, 0.5))


def tangent_integers(bits: int, slopes: tuple[float, float]) -> tuple[int, ...]:
    """Return the levels of a tangent quantizer in steps of ``1 / TOP``, ascending.

    After TanQ of DopQ-ViT (arXiv 2408.03291), a reconstruction: codes that are even behind a
    tangent, so dense at both ends, as dense as the slope of each says.
    """
    last, (low, high) = (1 << bits) - 1, slopes
    places = (code / last * math.tan(high) - (1 - code / last) * math.tan(low)
              for code in range(last + 1))
    return tuple(math.floor(TOP * (math.atan(place) + low) / (low + high) + 0.5)
                 for place in places)


def root_integers(m: int) -> tuple[int, ...]:
    """Return the mantissas of a region of m octaves of log-sqrt2 codes, descending from 127."""
    return tuple(math.floor(_ROOT_TOP * 2.0 ** (-code / 2) + 0.5) for code in range(2 * m))


@dataclass(frozen=True)
class _Kind:
    """What is particular of a kind of codes.

    Attributes
    ----------
    bits
        Unsigned width of a mantissa, of that of a code.
    full
        Value at the distance 0 in steps of the mantissa, of the width of a mantissa.
    octaves
        Octaves of a table, of both widths: from there on an entry is 0.
    entry
        Mantissa, of the value in steps of the mantissa, the distance, the width of a code and the
        number of the table.
    regions
        Whether a word has a region above the mantissa.
    tables
        Tables in the memory, a power of two.
    """

    bits: Callable[[int], int]
    entry: Callable[[float, float, int, int], int]
    full: Callable[[int], float] = lambda bits: (1 << bits) - 0.5
    # full * 2**-(bits+1) < 1/2 rounds to 0.
    octaves: Callable[[int, int], int] = lambda bits, width: bits + 1
    regions: bool = False
    tables: int = 1


def _rounded(value: float, distance: float, width: int, number: int) -> int:
    return math.floor(value + 0.5)


def _root(value: float, distance: float, width: int, number: int) -> int:
    return root_integers(_root_octaves(width))[int(2 * distance)]


def _root_octaves(width: int) -> int:
    """Return the octaves of a region of log-sqrt2 codes: there are two codes in each."""
    return 1 << width - 2


def _nearest(value: float, distance: float, width: int, number: int) -> int:
    levels = tangent_integers(width, SLOPES[number])
    return max((high for low, high in pairwise(levels) if low + high <= 2 * value), default=0)


_KINDS = {
    "uniform": _Kind(bits=lambda width: width, entry=_rounded),
    "two-scale": _Kind(bits=lambda width: width - 1, entry=_rounded, regions=True),
    "log-sqrt2": _Kind(
        bits=lambda width: _ROOT_TOP.bit_length(), entry=_root, regions=True,
        full=lambda bits: _ROOT_TOP * 2**0.25, octaves=lambda bits, width: _root_octaves(width)),
    # The least level of a tangent table but 0 is 2 or more: 255 * 2**-8 < 1 is nearer to 0.
    "table": _Kind(
        bits=lambda width: TOP.bit_length(), entry=_nearest, full=lambda bits: float(TOP),
        octaves=lambda bits, width: bits, tables=len(SLOPES)),
}
#: Values of `Config.attention` that take this way.
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class Levels:
    """The table of a configuration, and its widths.

    Raises
    ------
    ValueError
        If the configuration's attention isn't one of `KINDS`.
    """

    config: Config

    def __post_init__(self) -> None:
        if self.config.attention not in KINDS:
            raise ValueError(f"attention must be one of {', '.join(KINDS)}, "
                             f"not {self.config.attention}")

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.config.attention

    @property
    def width(self) -> int:
        """Width of a code."""
        return self.config.attention_bits

    @property
    def bits(self) -> int:
        """Unsigned width of a mantissa."""
        return _KINDS[self.kind].bits(self.width)

    @property
    def regions(self) -> bool:
        """Whether a word has a region above the mantissa."""
        return _KINDS[self.kind].regions

    @property
    def full(self) -> float:
        """Value at the distance 0, in steps of the mantissa."""
        return _KINDS[self.kind].full(self.bits)

    @property
    def tables(self) -> int:
        """Tables in the memory; a power of two."""
        return _KINDS[self.kind].tables

    @cached_property
    def octaves_bits(self) -> int:
        """log2 of the octaves of a table."""
        return (_KINDS[self.kind].octaves(self.bits, self.width) - 1).bit_length()

    @cached_property
    def index_bits(self) -> int:
        """Unsigned width of the index in one table."""
        return self.octaves_bits + FRACTION

    def values(self, number: int) -> tuple[int, ...]:
        """Levels of a table of tangent levels, ascending."""
        return tangent_integers(self.width, SLOPES[number])

    @cached_property
    def entries(self) -> tuple[int, ...]:
        """All tables, one behind the other; entry i is right in the middle of its distances."""
        return _entries(self.kind, self.width, 1 << self.index_bits)


@cache
def _entries(kind: str, width: int, size: int) -> tuple[int, ...]:
    """Return the tables of a kind of codes: a machine asks for them with every pass."""
    found = _KINDS[kind]
    full, distances = found.full(found.bits(width)), [(index + 0.5) / (1 << FRACTION)
                                                      for index in range(size)]
    return tuple(found.entry(full * 2.0**-distance, distance, width, number)
                 for number in range(found.tables) for distance in distances)
