# SPDX-License-Identifier: Apache-2.0
"""Places of a program's regions in the banks of the scratchpad, by first fit over their lives."""

__all__ = ["DoesNotFitError", "allocate", "bank_words", "lives"]

from collections.abc import Iterable, Sequence

from gen.compiler.steps import Region, Step
from vitforge.spec.config import Config


class DoesNotFitError(ValueError):
    """A bank that is too small; the message names it, with the bytes that are needed and there."""


def bank_words(bank: str, config: Config) -> int:
    """Return the words of a bank of the scratchpad."""
    return {"scratch": config.scratch_words, "residual": config.residual_words,
            "stationary": config.stationary_words}[bank]


def lives(steps: Sequence[Step], loaded: Iterable[Region]) -> list[Region]:
    """Set `first` and `last` of all regions, and return them in the order of their first pass.

    What is loaded is there before the first pass.
    """
    regions: dict[Region, None] = dict.fromkeys(loaded)
    for region in regions:
        region.first = region.last = -1
    for index, step in enumerate(steps):
        for region in step.regions:
            if region not in regions:
                regions[region] = None
                region.first = index - region.early
            region.last = index
    return list(regions)


def allocate(regions: Sequence[Region], config: Config) -> dict[str, int]:
    """Give every region its place, and return the words that each bank needs.

    The regions come in the order of their first pass.

    Two regions may share words unless one is written before the other has been read for the last
    time. The pass that reads a region last may write another in its place: its results come
    after all its operands.

    Raises
    ------
    DoesNotFitError
        If a bank is too small.
    """
    needed = {"scratch": 0, "residual": 0, "stationary": 0}
    placed: list[Region] = []
    for region in regions:
        rivals = sorted((other.base, other.base + other.words) for other in placed
                        if other.bank == region.bank
                        and region.first < other.last and other.first < region.last)
        base = 0
        for start, end in rivals:
            if base + region.words <= start:
                break
            base = end   # all rivals are needed when this region begins, so they lie apart
        region.base = base
        placed.append(region)
        needed[region.bank] = max(needed[region.bank], base + region.words)
    for bank, words in needed.items():
        there = bank_words(bank, config)
        if words > there:
            raise DoesNotFitError(
                f"{bank}_words: this network needs {words * config.rows:,} bytes in the bank "
                f"{bank} ({words:,} words), configuration {config.name} has "
                f"{there * config.rows:,} ({there:,} words)")
    return needed
