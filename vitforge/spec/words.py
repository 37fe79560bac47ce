# SPDX-License-Identifier: Apache-2.0
"""What travels on every stream port: the fields of a word, their widths and their order.

A word is packed first field in the low bits, and element 0 of a field in its lowest bits, which is
how Amaranth packs the same layout. `hw` makes its stream payloads from these words, `sim` and `gen`
pack and unpack with them, and the documentation of the ports is printed from them.
"""

__all__ = ["Field", "Word"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Field:
    """`count` elements of `bits` bits; ``count=None`` is a scalar.

    `text` says what it is, and `values`, if it is a code, what each value is called, from 0 on.
    """

    name: str
    bits: int
    signed: bool = False
    count: int | None = None
    text: str = ""
    values: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Bits that the whole field takes."""
        return self.bits * (1 if self.count is None else self.count)


@dataclass(frozen=True)
class Word:
    """The payload of one stream."""

    fields: tuple[Field, ...]

    @property
    def bits(self) -> int:
        """Width of the payload."""
        return sum(item.width for item in self.fields)

    def pack(self, values: Mapping[str, npt.ArrayLike]) -> list[int]:
        """Pack columns of values into words.

        Parameters
        ----------
        values
            For every field an integer array ``[words]`` (scalar fields) or ``[words, count]``.

        Returns
        -------
        list of int
            One unsigned integer of `bits` bits a word.

        Raises
        ------
        ValueError
            If a field is missing or unknown, a shape is wrong, or a value does not fit.
        """
        if set(values) != {item.name for item in self.fields}:
            raise ValueError(f"fields must be {[item.name for item in self.fields]}, "
                             f"not {list(values)}")
        words: list[int] | None = None
        offset = 0
        for item in self.fields:
            column = np.asarray(values[item.name])
            if words is None:
                words = [0] * len(column)
            shape = (len(words),) if item.count is None else (len(words), item.count)
            if column.shape != shape or column.dtype.kind not in "iub":
                raise ValueError(f"{item.name} must be integers of shape {shape}, not "
                                 f"{column.dtype} of shape {column.shape}")
            low = -(1 << item.bits - 1) if item.signed else 0
            high = (1 << item.bits - item.signed) - 1
            # Lists, as most words are packed alone: NumPy's functions take longer for so few.
            rows = column.reshape(len(words), item.count or 1).tolist()
            if rows and (min(map(min, rows)) < low or max(map(max, rows)) > high):
                raise ValueError(f"{item.name} must lie in {low}..{high}, not "
                                 f"{column.min()}..{column.max()}")
            mask = (1 << item.bits) - 1
            for index, row in enumerate(rows):
                packed = 0
                for element in reversed(row):
                    packed = packed << item.bits | int(element) & mask
                words[index] |= packed << offset
            offset += item.width
        return words or []

    def unpack(self, words: Sequence[int]) -> dict[str, npt.NDArray[np.int64]]:
        """Invert `pack`: ``[words]`` for scalar fields, ``[words, count]`` for the others."""
        result = {}
        offset = 0
        for item in self.fields:
            places = range(offset, offset + item.width, item.bits)
            mask, sign = (1 << item.bits) - 1, item.signed << item.bits - 1
            values = [[(value := word >> place & mask) - ((value & sign) << 1) for place in places]
                      for word in words]
            column = np.array(values, np.int64).reshape(len(words), len(places))
            result[item.name] = column[:, 0] if item.count is None else column
            offset += item.width
        return result

    def scalars(self, word: int) -> dict[str, int]:
        """Return the fields of one word, all of them scalars: `unpack` without arrays."""
        return {name: (value := word >> place & mask) - ((value & sign) << 1)
                for name, place, mask, sign in self._places}

    @cached_property
    def _places(self) -> tuple[tuple[str, int, int, int], ...]:
        """Name, first bit, mask, and sign bit of every field."""
        found, offset = [], 0
        for item in self.fields:
            assert item.count is None
            found.append((item.name, offset, (1 << item.bits) - 1, item.signed << item.bits - 1))
            offset += item.bits
        return tuple(found)
