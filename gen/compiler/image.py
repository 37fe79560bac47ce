# SPDX-License-Identifier: Apache-2.0
"""How an image becomes patch words: the order of a patch's values, and the LOAD that makes it.

The image lies in memory in raster order, channel by channel. The placer cuts it into pieces, each a
part of one patch row, and its loops walk over the raster: part of the patch row, patch column,
pixel row in the patch, patch row, channel. Within a patch the loops part, pixel row and channel
are digits of a mixed radix, and a digit must not step across a word's end unevenly; where it
would, the rest of the word stays unused (its weights are zero).
"""

__all__ = ["Patches", "inline_load"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from golden.float.vit import VitSpec
from golden.machine.program import lines
from golden.network.topology import Spec
from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS

Array = npt.NDArray[np.int64]


def _largest_power(value: int) -> int:
    return value & -value


@dataclass(frozen=True)
class Loop:
    """`count` steps of `step` pieces each."""

    count: int
    step: int


@dataclass(frozen=True)
class Patches:
    """Order of a patch's values in its words, for one image size and configuration.

    Raises
    ------
    ValueError
        If no piece of at least `lanes` values tiles a patch row.
    """

    spec: Spec
    config: Config

    @property
    def first(self) -> int:
        """Place of the first patch among the tokens."""
        assert isinstance(self.spec, VitSpec)
        return self.spec.first

    def __post_init__(self) -> None:
        if self.piece < self.config.lanes:
            raise ValueError(f"patch_size must be a multiple of lanes ({self.config.lanes}), "
                             f"not {self.spec.patch_size}")

    @cached_property
    def piece(self) -> int:
        """Values of a piece: the largest power of two that divides a patch row and a word."""
        return min(_largest_power(self.spec.patch_size), self.config.rows)

    @cached_property
    def _digits(self) -> tuple[tuple[Loop, ...], tuple[Loop, ...], tuple[Loop, ...], int]:
        """Loops of part, pixel row and channel, in pieces of one patch, and its pieces."""
        word = self.config.rows // self.piece
        stride = 1
        digits: list[tuple[Loop, ...]] = []
        for count in (self.spec.patch_size // self.piece, self.spec.patch_size,
                      self.spec.in_channels):
            room = max(1, word // stride)
            if stride >= word or (count <= room and room % count == 0):
                digits.append((Loop(count, stride),))
                stride *= count
            elif count <= room:
                digits.append((Loop(count, stride),))
                stride = word
            elif count % room == 0:
                digits.append((Loop(room, stride), Loop(count // room, word)))
                stride *= count
            else:
                digits.append((Loop(count, word),))
                stride = word * count
        part, row, channel = digits
        return part, row, channel, stride

    @cached_property
    def tiles(self) -> int:
        """Words of a patch."""
        return -(-self._digits[3] * self.piece // self.config.rows)

    @cached_property
    def order(self) -> Array:
        """Index ``(channel * size + row) * size + column`` of every place, -1 where none is."""
        part, row, channel, _ = self._digits
        places = np.zeros(1, np.int64)
        for loop in (*part, *row, *channel):   # from the innermost: the first index runs fastest
            places = (np.arange(loop.count)[:, None] * loop.step + places).reshape(-1)
        order = np.full(self.tiles * self.config.rows, -1, np.int64)
        elements = places[:, None] * self.piece + np.arange(self.piece)
        order[elements.reshape(-1)] = np.arange(elements.size)
        return order

    @property
    def bytes(self) -> int:
        """Size of the input buffer."""
        return lines(self.spec.in_channels * self.spec.image_size**2)

    def load(self, base: int) -> dict[str, int]:
        """Fields of the LOAD that scatters an image over tiles of `tokens` words from `base`.

        The class token and registers, if there are any, get no values.
        """
        part, row, channel, _ = self._digits
        word = self.config.rows // self.piece
        across = self.spec.image_size // self.spec.patch_size

        def placed(loops: tuple[Loop, ...]) -> list[Loop]:
            """Turn steps over pieces of a patch into steps over the bank."""
            return [Loop(loop.count, loop.step // word * self.spec.tokens * word
                         if loop.step >= word else loop.step) for loop in loops]

        nest = [*placed(part), Loop(across, word), *placed(row), Loop(across, across * word),
                *placed(channel)]
        return _fields(nest, piece=self.piece, base=(base + self.first) * word, size=self.bytes)


@dataclass(frozen=True)
class _Grid:
    """The shape of an image that is cut."""

    image_size: int
    patch_size: int
    in_channels: int
    tokens: int


class Blocks(Patches):
    """Patches without a class token; such as are less than `lanes` wide come in blocks of them.

    A word of the scratchpad's bank of activations is written `lanes` values at a time. So a block
    of patches is placed as if it were one patch, and the embedding makes the patches of a block one
    after the other, each with weights of 0 for the others' pixels. Where no word has pixels of two
    rows of patches, all words of one row come before those of the next, so that a pass leaves the
    others' out.

    Attributes
    ----------
    count
        Blocks of an image.
    blocks
        For each patch of a block, and each place of a block's words, the index of the value in its
        patch, -1 for those of others.
    tokens
        The patches, counted row by row over the image: the first of every block, the second, ...
    """

    def __init__(self, spec: Spec, config: Config) -> None:
        side, size = spec.image_size // spec.patch_size, 1
        while side % (2 * size) == 0 and min(
                _largest_power(spec.patch_size * size), config.rows) < config.lanes:
            size *= 2
        grid = _Grid(spec.image_size, spec.patch_size * size, spec.in_channels,
                     (side // size) ** 2)
        super().__init__(grid, config)   # type: ignore[arg-type]
        object.__setattr__(self, "small", spec.patch_size)
        object.__setattr__(self, "size", size)

    small: int
    size: int

    @property
    def count(self) -> int:
        return self.spec.tokens

    @property
    def first(self) -> int:
        return 0

    @cached_property
    def _digits(self) -> tuple[tuple[Loop, ...], tuple[Loop, ...], tuple[Loop, ...], int]:
        part, row, channel, stride = super()._digits
        (*inner, last), (first, *more) = row, channel
        count = last.count // self.size
        if (self.size == 1 or last.count % self.size or last.step % (self.config.rows // self.piece)
                or more or first.step != last.step * last.count
                or sum(loop.count > 1 for loop in (*part, *row, first)) + 3 > LOOPS):
            return part, row, channel, stride
        apart = last.step * count
        return (part, (*inner, Loop(count, last.step), Loop(self.size, apart * first.count)),
                (Loop(first.count, apart),), stride)

    @cached_property
    def blocks(self) -> list[Array]:
        whole, small = self.spec.patch_size, self.small
        channel, rest = np.divmod(self.order, whole * whole)
        row, column = np.divmod(rest, whole)
        found = []
        for down in range(self.size):
            for right in range(self.size):
                inside = (self.order >= 0) & (row // small == down) & (column // small == right)
                index = (channel * small + row % small) * small + column % small
                found.append(np.where(inside, index, -1))
        return found

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        across = self.spec.image_size // self.small
        blocks = across // self.size
        return tuple((y * self.size + down) * across + x * self.size + right
                     for down in range(self.size) for right in range(self.size)
                     for y in range(blocks) for x in range(blocks))


def inline_load(base: int, words: int, config: Config) -> dict[str, int]:
    """Fields of the LOAD that brings `words` words for a bank from `base` on."""
    return _fields([], piece=config.rows, base=base, size=words * config.rows) | {"inline": 1}


def _fields(nest: list[Loop], *, piece: int, base: int, size: int) -> dict[str, int]:
    nest = [loop for loop in nest if loop.count > 1]
    if len(nest) > LOOPS:
        raise ValueError(f"a LOAD must have at most {LOOPS} loops, not {len(nest)}")
    fields = {"inline": 0, "destination": 0, "piece": piece.bit_length() - 1, "offset": 0,
              "bytes": size, "base": base}
    gone = 0
    for number in range(LOOPS):
        loop = nest[number] if number < len(nest) else Loop(1, 0)
        fields |= {f"count_{number}": loop.count,
                   f"delta_{number}": loop.step - gone if loop.count > 1 else 0}
        gone += (loop.count - 1) * loop.step
    return fields
