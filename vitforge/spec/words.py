# SPDX-License-Identifier: Apache-2.0
"""What travels on every stream port: the fields of a word, their widths and their order.

A word is packed first field in the low bits, and element 0 of a field in its lowest bits, which is
how Amaranth packs the same layout. `hw` makes its stream payloads from these words, `sim` and `gen`
pack and unpack with them, and the documentation of the ports is printed from them.
"""

__all__ = ["Field", "Word"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
            if column.size and (column.min() < low or column.max() > high):
                raise ValueError(f"{item.name} must lie in {low}..{high}, not "
                                 f"{column.min()}..{column.max()}")
            mask = (1 << item.bits) - 1
            for index, row in enumerate(column.reshape(len(words), item.count or 1).tolist()):
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
            count = item.count or 1
            column = np.empty((len(words), count), dtype=np.int64)
            for index, word in enumerate(words):
                for element in range(count):
                    value = word >> offset + element * item.bits & (1 << item.bits) - 1
                    if item.signed and value >> item.bits - 1:
                        value -= 1 << item.bits
                    column[index, element] = value
            result[item.name] = column[:, 0] if item.count is None else column
            offset += item.width
        return result
