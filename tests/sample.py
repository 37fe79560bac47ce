# SPDX-License-Identifier: Apache-2.0
"""Sets of parameters of which `make test` plays some, `make check` more, and `make regress` all."""

__all__ = ["later", "thinned", "thorough"]

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def thorough(*values: Any) -> Any:
    """Return a parameter set that `make check` runs, and `make test` does not."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def later(*values: Any) -> Any:
    """Return a parameter set that only `make regress` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


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
