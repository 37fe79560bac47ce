# SPDX-License-Identifier: Apache-2.0
"""What flows through a graph while it is read: tensors whose elements have numbers.

Every element that some operator computes has a number of its own. What only moves elements
(reshaping, transposing, slicing, rolling, cutting into windows or heads) is done to their numbers,
so that it does not matter how an exporter says it: two tensors are the same if their numbers are.
"""

__all__ = ["LARGEST", "PROBES", "NotUnderstoodError", "Node", "View"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Reals = NDArray[Any]

#: Elements of the largest tensor that is looked at: a file can claim any.
LARGEST = 1 << 27
#: A function of one number is known by its values here.
PROBES = np.linspace(-6.0, 6.0, 97)


class NotUnderstoodError(ValueError):
    """A graph that is none of the known networks; the message says where, and what was expected."""


class View:
    """Numbers of a tensor's elements, row by row.

    Parameters
    ----------
    shape
        Of the tensor, with a batch of one image.
    numbers
        Of all elements; or the first one, if they follow each other.
    """

    def __init__(self, shape: Sequence[int], numbers: Ints | int) -> None:
        self.shape = tuple(int(size) for size in shape)
        self._numbers = numbers
        if prod(self.shape) > LARGEST:
            raise NotUnderstoodError(f"a tensor of shape {list(self.shape)} is too large")

    @property
    def start(self) -> int | None:
        """The first number, if the others follow; else None."""
        return self._numbers if isinstance(self._numbers, int) else None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def ids(self) -> Ints:
        """The numbers, in the tensor's shape."""
        if isinstance(self._numbers, int):
            return np.arange(self._numbers, self._numbers + self.size).reshape(self.shape)
        return self._numbers.reshape(self.shape)

    def reshaped(self, shape: Sequence[int]) -> "View":
        """Return the same elements in another shape."""
        assert prod(shape) == self.size
        return View(shape, self._numbers)

    def same(self, other: "View") -> bool:
        """Whether it has the same elements in the same order, in whatever shape."""
        if self.size != other.size:
            return False
        if self.start is not None and other.start is not None:
            return self.start == other.start
        return bool(np.array_equal(self.ids.reshape(-1), other.ids.reshape(-1)))


@dataclass(eq=False)
class Node:
    """Something that computes: one or more operators of the file.

    Attributes
    ----------
    kind
        "image", "constant", "convolution", "linear", "norm", "product", "softmax", "add" (of two
        tensors), "shifted" (by a constant), "mean", or "function" (of each element).
    operator, name
        What the file calls the operator, and where it is.
    sources
        What it reads.
    shape, start
        Of its result; its elements' numbers follow each other.
    data
        Its constants, by name.
    absorbed
        Whether the next operator made another node of it, with a bias, say.
    """

    kind: str
    operator: str
    name: str
    sources: tuple[View, ...]
    shape: tuple[int, ...]
    start: int
    data: dict[str, Any] = field(default_factory=dict)
    absorbed: bool = False

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def view(self) -> View:
        """Its whole result."""
        return View(self.shape, self.start)
