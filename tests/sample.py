# SPDX-License-Identifier: Apache-2.0
"""Sets of parameters of which `make test` plays some, `make check` more, and `make regress` all."""

__all__ = ["later", "leading", "thinned", "thorough"]

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def thorough(*values: Any) -> Any:
    """Return a parameter set that `make check` runs, and `make test` does not."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def later(*values: Any) -> Any:
    """Return a parameter set that only `make regress` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def leading(count: int, values: Iterable[Any]) -> list[Any]:
    """Return the values, of which `make test` runs the first `count`, and `make check` all.

    A tuple has a value for each argument. What is marked stays as it is, and is not counted.
    """
    found, left = [], count
    for value in values:
        if not hasattr(value, "marks"):
            value = pytest.param(*(value if isinstance(value, tuple) else (value,)))
        if not value.marks:
            left -= 1
            value = value if left >= 0 else value._replace(marks=(pytest.mark.thorough,))
        found.append(value)
    return found


def thinned(*axes: Sequence[Any], of: int) -> list[Any]:
    """Return all combinations; one in `of` is no long regression, with every value of every axis.

    The combinations that stay are a diagonal: next to each other they differ in all values.
    """
    places = list(itertools.product(*(range(len(axis)) for axis in axes)))
    kept = {at for at in places if sum(at) % of == 0}
    for number, axis in enumerate(axes):
        assert {at[number] for at in kept} == set(range(len(axis))), "a value would be left out"
    return [pytest.param(*(axis[one] for axis, one in zip(axes, at, strict=True)),
                         id="-".join(str(axis[one]) for axis, one in zip(axes, at, strict=True)),
                         marks=() if at in kept else pytest.mark.slow) for at in places]
