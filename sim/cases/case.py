# SPDX-License-Identifier: Apache-2.0
"""One run of a unit from reset: what goes in, what must come out, and on which cycles."""

__all__ = ["Case"]

from dataclasses import dataclass, field

from golden.units.stream import CycleModel


@dataclass
class Case:
    """Stimulus and expectation of one run.

    Attributes
    ----------
    name
        Shown when the case fails.
    words
        For every sink the words to put, in order, packed as `vitforge.spec.words.Word.pack` does.
    expected
        For every source the words that must come, in order; the golden function's results.
    model
        A fresh cycle model of the unit for this run.
    static
        Values of the inputs that are no streams, held for the whole run.
    """

    name: str
    words: dict[str, list[int]]
    expected: dict[str, list[int]]
    model: CycleModel
    static: dict[str, int] = field(default_factory=dict)
