# SPDX-License-Identifier: Apache-2.0
"""One pass of a program before it has addresses: fields, blocks, and the regions it touches."""

__all__ = ["Load", "Place", "Region", "Schedule", "Step", "Vectors", "minimal_bits", "padded",
           "pass_fields", "requantization_fields", "split", "spread", "take", "take_matrix",
           "tiles_of"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen.compiler.image import Patches
from golden.machine.program import Columns, Instruction
from golden.units.encoding import Encoding
from golden.units.requant import Requantization
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import LATE_NEVER, OPERATIONS, PASS

Array = npt.NDArray[np.int64]
#: Fields of a PASS with nothing in them.
_FIELDS = {item.name: 0 for item in PASS.fields
           if item.name != "opcode" and not item.name.startswith("reserved")
           } | {"late": LATE_NEVER}


@dataclass(eq=False)
class Region:
    """Words of a bank that hold one tensor from the pass that writes it to the last that reads it.

    `first` and `last` are these passes, `base` its place; the allocation fills them in. An `early`
    one is written while its first pass still reads its operands, or loaded before it.
    """

    name: str
    bank: str
    words: int
    first: int = -1
    last: int = -1
    base: int = -1
    early: bool = False


@dataclass(frozen=True)
class Place:
    """A word of a region."""

    region: Region
    offset: int = 0

    @property
    def address(self) -> int:
        """Word address in the bank, once the region has its place."""
        return self.region.base + self.offset


@dataclass(eq=False)
class Step:
    """A pass; `a`, `w`, `d` and `k` say where operands, weights, results and kept operands are.

    `r` says where a residual is, if it has an address of its own.

    `encoding` is that of its result, for the formats with thresholds. `why` says what is too wide
    for more products of a multiplier where the array has them, and `more` how many words of
    operands that costs. `loads` come before it, when all passes before have landed. `parameters`
    and `weights` make them when they are wanted: an order of passes that doesn't fit needs none.
    """

    layer: str
    detail: str
    fields: dict[str, int]
    parameters: Callable[[], Columns]
    a: Place
    w: Place | None = None
    d: Place | None = None
    k: Place | None = None
    r: Place | None = None
    norm: Columns | None = None
    weights: Callable[[], npt.NDArray[np.int8]] | None = None
    encoding: Encoding = field(default_factory=Encoding)
    why: str = ""
    more: int = 0
    loads: tuple["Load", ...] = ()
    regions: list[Region] = field(init=False)

    def __post_init__(self) -> None:
        places = (self.a, self.w, self.d, self.k, self.r)
        self.regions = [place.region for place in places if place]
        self.regions += [load.region for load in self.loads]

    def instruction(self) -> Instruction:
        """Return the instruction with the addresses of the regions."""
        places = {"a_base": self.a, "w_base": self.w, "d_base": self.d, "offset": self.k or self.r}
        fields = self.fields | {name: place.address for name, place in places.items() if place}
        weights = self.weights() if self.weights else None
        return Instruction("PASS", fields, self.norm, self.parameters(), weights)


@dataclass(frozen=True, eq=False)
class Load:
    """Words ``[words, rows]`` that the program brings, `offset` in.

    They come before its first pass, or a later one.
    """

    region: Region
    words: Array
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Schedule:
    """Steps in their order, the image, what else is loaded, and the table of tokens."""

    steps: tuple[Step, ...]
    order: Patches
    patches: Region
    loads: tuple[Load, ...]
    indices: tuple[int, ...] = ()

    @property
    def loaded(self) -> tuple[Region, ...]:
        """Regions that are there before the first pass."""
        return (self.patches, *(load.region for load in self.loads))


def pass_fields(**given: int) -> dict[str, int]:
    """Return all fields of a PASS: zero but for those given, and never late."""
    found = _FIELDS | given
    if len(found) > len(_FIELDS):
        raise ValueError(f"no fields {sorted(set(given) - _FIELDS.keys())} in a PASS")
    return found


def tiles_of(channels: int, width: int) -> int:
    """Tiles of `width` that hold `channels`."""
    return -(-channels // width)


def spread(channels: int, pitch: int, width: int) -> dict[str, int]:
    """Fields of a PASS that makes so many channels, whose words are `pitch` words apart."""
    words = tiles_of(channels, width)
    return {"words": words - 1, "d_pitch": pitch if words > 1 else 0}


def padded(start: int, count: int, width: int) -> Array:
    """Return indices ``start..start+count-1``, filled up with -1 to whole tiles of `width`."""
    indices = np.full(tiles_of(count, width) * width, -1, np.int64)
    indices[:count] = np.arange(start, start + count)
    return indices


def flat(values: Tensor | int) -> Array:
    """Return the elements of a vector, or one value that is for all, as `take` takes them."""
    return torch.as_tensor(values).reshape(-1).numpy().astype(np.int64)


def take(values: Tensor | Array | int, indices: Array, fill: int = 0) -> Array:
    """Pick elements of a vector; `fill` where the index is -1. A single value is one for all."""
    array = values if isinstance(values, np.ndarray) else flat(values)
    if array.size == 1:
        return np.full(len(indices), array[0])
    return np.where(indices < 0, fill, array[np.maximum(indices, 0)])


def take_matrix(weights: Tensor, rows: Array, columns: Array, height: int) -> npt.NDArray[np.int8]:
    """Pick ``[K, N]`` weights as int8 ``[tiles, height, N]``; zero where an index is -1."""
    # The few columns first: a layer has many passes, and all of its weights are many.
    matrix = weights.numpy()[:, np.maximum(columns, 0)][np.maximum(rows, 0)]
    matrix = matrix * ((rows >= 0)[:, None] & (columns >= 0))
    return matrix.astype(np.int8).reshape(-1, height, len(columns))


class Vectors:
    """Parameters of a layer's output channels, a pass at a time."""

    def __init__(self, layer: Requantization, before: Tensor | int = 0,
                 after: Tensor | int = 0) -> None:
        self._all = {"bias": flat(layer.bias), "multiplier": flat(layer.multiplier),
                     "shift": flat(layer.shift), "encode_shift": flat(layer.encode_shift),
                     "residual_shift": flat(before), "statistics_shift": flat(after)}

    def parameters(self, columns: Array) -> Columns:
        """`PARAMETER` of some channels; those of padding give the code of zero."""
        return {name: take(values, columns) for name, values in self._all.items()}


def split(indices: Array, width: int) -> Sequence[Array]:
    """Cut channel indices into those of each pass."""
    return np.split(indices, range(width, len(indices), width))


def encoding_of(layer: Requantization, column: int) -> Encoding:
    """Return the encoding of an output channel."""
    if not layer.parts:
        return layer.encoding
    channels = torch.as_tensor(layer.multiplier).numel()
    return layer.parts[column * len(layer.parts) // channels]


def requantization_fields(layer: Requantization, column: int = 0) -> dict[str, int]:
    """Fields of a PASS that the drain needs, whose first channel is `column`."""
    encoding = encoding_of(layer, column)
    return {"format": FORMATS[encoding.kind], "zero_point": encoding.zero_point,
            "bits": encoding.bits, "m": encoding.m, "signed": int(encoding.signed),
            "lowest": encoding.lowest,
            "operation": OPERATIONS[layer.operation], "multiplier2": layer.multiplier2}


def minimal_bits(weights: Tensor, config: Config) -> int:
    """Narrowest width that holds a layer's weights, 2 to `weight_bits`."""
    low, high = weights.aminmax()
    top = max(int(high), -int(low) - 1)
    return min(max(2, top.bit_length() + 1), config.weight_bits)
