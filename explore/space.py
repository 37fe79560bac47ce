# SPDX-License-Identifier: Apache-2.0
"""A space to explore: studies, each a base configuration and the axes that vary it."""

__all__ = ["DERIVED", "FIELDS", "Axis", "Space", "SpaceError", "Study", "known"]

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from explore.objectives import columns
from explore.pictures import Pictures
from explore.point import OPTIONS, Point
from explore.widths import Greedy
from vitforge.spec.config import Config

FIELDS = {item.name: item for item in dataclasses.fields(Config) if item.name != "name"}
#: What limits may bound beside fields: known before anything is measured.
DERIVED = {"macs": lambda v: v["rows"] * v["cols"],
           "scratch_bytes": lambda v: v["rows"] * (v["scratch_words"] + v["residual_words"]
                                                   + v["stationary_words"])}
Axis = tuple[Any, ...]


class SpaceError(ValueError):
    """A space that can't be explored; the message names the file, the study and the key."""


def known(what: str, names: Iterable[str], all_: Iterable[str]) -> None:
    """Refuse a name that is none of them.

    Raises
    ------
    SpaceError
        If there is one.
    """
    there = list(all_)
    for name in names:
        if name not in there:
            raise SpaceError(f"{what} {name!r} is unknown: give {', '.join(there)}")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One base with its axes; see the module for the keys."""

    space: str
    name: str
    design: str
    base: Mapping[str, int | str]
    axes: Mapping[str, Axis] = field(default_factory=dict)
    tie: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    measure: tuple[str, ...]
    network: str = ""
    seeds: tuple[int, ...] = (1, 2, 3)
    frequency: float = 150.0
    options: Mapping[str, Any] = field(default_factory=dict)
    greedy: Greedy | None = None
    #: What a greedy walk has found: widths by layer, each a point of every combination.
    walked: tuple[Mapping[str, int], ...] = ()
    #: `explore.pictures.Pictures` of what runs; empty is the shipped digits.
    pictures: Mapping[str, Any] = field(default_factory=dict)
    #: Whether memories are fitted to what a method makes of the network.
    fit: bool = False

    def columns(self) -> set[str]:
        """Return the columns with numbers of its rows."""
        return columns(self.design, self.measure)

    def size(self) -> int:
        """Return the number of combinations, before limits."""
        return math.prod(map(len, self.axes.values()))

    def point(self, chosen: Mapping[str, Any]) -> Point | None:
        """Return the point of one combination; None if it lies outside the limits."""
        values = dict(self.base) | {k: v for k, v in chosen.items() if k in FIELDS}
        values |= {name: values[other] for name, other in self.tie.items()}
        for name, (low, high) in self.limits.items():
            value = DERIVED[name](values) if name in DERIVED else values[name]
            if not low <= value <= high:
                return None
        options = {name: choices[0] for name, (choices, _) in OPTIONS.items()} | dict(self.options)
        options |= {k: v for k, v in chosen.items() if k in OPTIONS}
        return Point(space=self.space, study=self.name, design=self.design, values=values,
                     options=options, network=self.network, measure=self.measure,
                     seeds=self.seeds, frequency=self.frequency, pictures=self.pictures,
                     fit=self.fit)

    def shown(self, pictures: Pictures) -> "Study":
        """Return the study of another network, where a method decides and a network runs.

        Raises
        ------
        SpaceError
            If it walks widths of the digits' network.
        """
        if self.greedy:
            raise SpaceError(f"study {self.name!r} walks widths of {self.network} alone: name "
                             "others with --study")
        methods = self.axes.get("method", (self.options.get("method"),))
        if not self.network or not all(methods):
            return self
        return dataclasses.replace(self, network=pictures.network,
                                   pictures=dataclasses.asdict(pictures))

    def points(self) -> Iterator[Point]:
        """Return every combination within the limits, the first axis slowest."""
        for combination in itertools.product(*self.axes.values()):
            point = self.point(dict(zip(self.axes, combination, strict=True)))
            if point is not None:
                yield point
                yield from (dataclasses.replace(point, widths=widths) for widths in self.walked)


@dataclass(frozen=True, kw_only=True)
class Space:
    """A named list of studies."""

    name: str
    title: str
    studies: tuple[Study, ...]
    #: "min" or "max" by column, for a search; its trials (0: enumerate), seed, and MHz assumed.
    objectives: Mapping[str, str] = field(default_factory=dict)
    trials: int = 0
    seed: int = 1
    clock: float = 100.0

    def only(self, names: Sequence[str]) -> "Space":
        """Return the space with the named studies; none named is all.

        Raises
        ------
        SpaceError
            If it has no such study.
        """
        known("study", names, [study.name for study in self.studies])
        chosen = tuple(study for study in self.studies if not names or study.name in names)
        return dataclasses.replace(self, studies=chosen)

    def shown(self, pictures: Pictures) -> "Space":
        """Return the space of another network and its pictures.

        Raises
        ------
        SpaceError
            If no study has methods and a network, or one can't run another.
        """
        studies = tuple(study.shown(pictures) for study in self.studies)
        if not any(study.pictures for study in studies):
            raise SpaceError(f"{self.name}: no study lets a method decide for a network: pictures "
                             "change nothing")
        return dataclasses.replace(self, studies=studies)

    def searched(self) -> None:
        """Check that every study measures what a search needs.

        Raises
        ------
        SpaceError
            If there is no objective, or a study does not measure one.
        """
        if not self.objectives:
            raise SpaceError(f"{self.name}: a search needs objectives, as in "
                             "objectives = {drop = \"min\", fps = \"max\"}")
        for study in self.studies:
            for name in self.objectives:
                if name not in study.columns():
                    others = [item.name for item in self.studies
                              if self.objectives.keys() <= item.columns()]
                    raise SpaceError(f"{self.name}: study {study.name!r} can't be searched: it "
                                     f"does not measure {name}, an objective; with --study: "
                                     f"{', '.join(others) or 'none'}")

    def size(self) -> int:
        """Return the number of combinations, before limits."""
        return sum(study.size() for study in self.studies)

    def points(self) -> list[Point]:
        """Enumerate the space.

        Raises
        ------
        SpaceError
            If the limits leave nothing.
        """
        found = [point for study in self.studies for point in study.points()]
        if not found:
            limits = {f"{name} {low:g}..{high:g}" for study in self.studies
                      for name, (low, high) in study.limits.items()}
            raise SpaceError(f"{self.name}: the space is empty: none of its {self.size()} points "
                             f"is within the limits {', '.join(sorted(limits))}")
        return found
