# SPDX-License-Identifier: Apache-2.0
"""A space to explore, from a TOML file: studies, each a base configuration with axes.

::

    title = "What the softmax costs"

    [[study]]
    name = "exponential"
    design = "softmax"              # a unit, "accelerator", or "network"
    base = "edge8"                  # a preset or a .toml file
    measure = ["exact", "ecp5", "cycles"]
    set = {lanes = 4}               # fields that differ from the base
    [study.axes]                    # every combination is a point
    exponential = ["shift", "iexp"]
    exp_fraction_bits = {from = 6, to = 12, step = 2}

Keys that every study shares may stand at the top. ``tie = {cols = "rows"}`` gives a field another's
value; ``limits = {macs = [0, 156]}`` leaves out what lies outside. For a search: ``objectives =
{drop = "min", fps = "max"}``, ``trials``, ``seed``. ``clock`` is the MHz of what is not placed.
"""

__all__ = ["Axis", "Space", "SpaceError", "Study", "ready", "read"]

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from explore.objectives import columns
from explore.point import DESIGNS, MEASURES, OPTIONS, PARTS, Point
from explore.widths import Greedy
from gen.compiler.options import NAMES
from vitforge.spec.config import Config, ConfigError, load

SPACES = Path(__file__).parent / "spaces"
FIELDS = {item.name: item for item in dataclasses.fields(Config) if item.name != "name"}
#: What limits may bound beside fields: known before anything is measured.
DERIVED = {"macs": lambda v: v["rows"] * v["cols"],
           "scratch_bytes": lambda v: v["rows"] * (v["scratch_words"] + v["residual_words"]
                                                   + v["stationary_words"])}
Axis = tuple[Any, ...]


class SpaceError(ValueError):
    """A space that can't be explored; the message names the file, the study and the key."""


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
                     seeds=self.seeds, frequency=self.frequency)

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
        _known("study", names, [study.name for study in self.studies])
        chosen = tuple(study for study in self.studies if not names or study.name in names)
        return dataclasses.replace(self, studies=chosen)

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


def ready() -> list[str]:
    """Names that `read` takes beside a path."""
    return sorted(path.stem for path in SPACES.glob("*.toml"))


def read(source: str | Path) -> Space:
    """Read a ready space by name, or a TOML file by path.

    Raises
    ------
    SpaceError
        If there is no such space, or something in it is unknown, empty or contradictory.
    """
    path = SPACES / f"{source}.toml" if str(source) in ready() else Path(source)
    if path.suffix != ".toml":
        raise SpaceError(f"no space {str(source)!r}: give one of {', '.join(ready())}, or a .toml "
                         "file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpaceError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path} is not TOML: {error}") from None
    try:
        return _space(values, path.stem)
    except (SpaceError, ConfigError) as error:
        raise SpaceError(f"{path}: {error}") from None


#: Keys of a study, and the type of each.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str, "design": str, "base": str, "measure": list, "set": dict, "axes": dict,
    "tie": dict, "limits": dict, "network": str, "seeds": list, "frequency": (int, float),
    "greedy": dict}


def _space(values: dict[str, Any], stem: str) -> Space:
    values = dict(values)
    title, studies = values.pop("title", stem), values.pop("study", [])
    search = {name: values.pop(name) for name in ("objectives", "trials", "seed", "clock")
              if name in values}
    if not isinstance(title, str):
        raise SpaceError(f"title must be a string, not {title!r}")
    objectives = search.get("objectives", {})
    if not isinstance(objectives, dict) or not set(objectives.values()) <= {"min", "max"}:
        raise SpaceError(f"objectives must be min or max by column, not {objectives!r}")
    for name in ("trials", "seed", "clock"):
        value = search.get(name, 1)
        if not isinstance(value, (int, float) if name == "clock" else int) or value <= 0:
            raise SpaceError(f"{name} must be a positive number, not {value!r}")
    if not isinstance(studies, list) or not studies:
        raise SpaceError("a space needs at least one [[study]]")
    made = tuple(_study({**values, **study}, stem, number)
                 for number, study in enumerate(studies, 1))
    names = [study.name for study in made]
    for name in names:
        if names.count(name) > 1:
            raise SpaceError(f"two studies are named {name!r}")
    known = sorted(set().union(*(study.columns() for study in made)))
    for name in objectives:
        if name not in known:
            raise SpaceError(f"objective {name!r} is measured by no study: give {', '.join(known)}")
    return Space(name=stem, title=title, studies=made, **search)


def _known(what: str, names: Any, known: Any) -> None:
    for name in names:
        if name not in known:
            raise SpaceError(f"{what} {name!r} is unknown: give {', '.join(known)}")


def _study(given: dict[str, Any], space: str, number: int) -> Study:
    where = f"study {given.get('name', number)!r}"
    try:
        _known("key", given, _KEYS)
        for name, value in given.items():
            if not isinstance(value, _KEYS[name]) or isinstance(value, bool):
                raise SpaceError(f"{name} can't be {value!r}")
        if "design" not in given:
            raise SpaceError(f"design must be given: {', '.join(DESIGNS)}")
        _known("design", [given["design"]], DESIGNS)
        return _checked(given, space, number)
    except (SpaceError, ConfigError) as error:
        raise SpaceError(f"{where}: {error}") from None


def _checked(given: dict[str, Any], space: str, number: int) -> Study:
    base: dict[str, int | str] = load(given.get("base", "edge16")).to_dict()
    fixed = given.get("set", {})
    _known("parameter", fixed, (*FIELDS, *OPTIONS))
    for name, value in fixed.items():
        _value(name, value)
    axes = {name: _axis(name, value) for name, value in given.get("axes", {}).items()}
    tie = given.get("tie", {})
    _known("parameter of tie", (*tie, *tie.values()), FIELDS)
    for name in tie:
        if name in axes or name in fixed:
            raise SpaceError(f"{name} is tied to {tie[name]}, and can't be set too")
    network = given.get("network", "")
    if network:
        _known("network", [network], NAMES)
    measure = _measures(given, network)
    seeds = given.get("seeds", [1, 2, 3])
    if "place" in measure and (len(seeds) < 1 or len(set(seeds)) != len(seeds)
                               or not all(isinstance(seed, int) for seed in seeds)):
        raise SpaceError(f"seeds must be different integers, at least one, not {seeds}")
    if given.get("frequency", 150) <= 0:
        raise SpaceError(f"frequency must be positive, not {given['frequency']}")
    return Study(
        space=space, name=given.get("name", f"study {number}"), design=given["design"],
        base=base | {k: v for k, v in fixed.items() if k in FIELDS}, axes=axes, tie=tie,
        limits=_limits(given.get("limits", {})), measure=measure, network=network,
        seeds=tuple(seeds), frequency=float(given.get("frequency", 150)),
        options={k: v for k, v in fixed.items() if k in OPTIONS},
        greedy=_greedy(given, network, axes))


def _greedy(given: dict[str, Any], network: str, axes: Mapping[str, Axis]) -> Greedy | None:
    if "greedy" not in given:
        return None
    _known("key of greedy", given["greedy"], [item.name for item in dataclasses.fields(Greedy)])
    if given["design"] != "network" or network != "mnist" or axes:
        raise SpaceError('greedy needs design = "network", network = "mnist" and no axes')
    values = given["greedy"]
    if "bits" in values and isinstance(values["bits"], list):
        values = values | {"bits": tuple(values["bits"])}
    try:
        return Greedy(**values)
    except (ValueError, TypeError) as error:
        raise SpaceError(f"greedy: {error}") from None


def _measures(given: dict[str, Any], network: str) -> tuple[str, ...]:
    measure, design = given.get("measure", []), given["design"]
    if not measure:
        raise SpaceError(f"measure must list at least one of {', '.join(MEASURES)}")
    _known("measure", measure, MEASURES)
    if design == "network":
        for name in ("exact", "ecp5", "ecp5-lut", "xilinx", "gates", "place"):
            if name in measure:
                raise SpaceError(f"{name} can't be measured of a network alone")
    if design in ("network", "accelerator"):
        for name in ("cycles", "energy"):
            if name in measure and not network:
                raise SpaceError(f"{name} needs a network: {', '.join(NAMES)}")
    elif design in PARTS and "cycles" in measure:
        raise SpaceError(f"{design} is no unit, and has no cycles of its own")
    elif "energy" in measure:
        raise SpaceError(f"energy is of a network's inference, not of {design}")
    return tuple(name for name in MEASURES if name in measure)


def _value(name: str, value: Any) -> None:
    """Refuse what no configuration can have."""
    if name in OPTIONS:
        choices = OPTIONS[name][0]
        if isinstance(value, bool) or value not in choices:
            raise SpaceError(f"{name} must be one of {', '.join(map(str, choices))}, "
                             f"not {value!r}")
    else:
        meta = FIELDS[name].metadata
        whole = isinstance(value, int) and not isinstance(value, bool)
        if "choices" in meta and value not in meta["choices"]:
            raise SpaceError(f"{name} must be one of {', '.join(meta['choices'])}, not {value!r}")
        if "low" in meta and not (whole and meta["low"] <= value <= meta["high"]):
            raise SpaceError(f"{name} must be an integer between {meta['low']} and "
                             f"{meta['high']}, not {value!r}")


def _axis(name: str, given: Any) -> Axis:
    _known("parameter", [name], (*FIELDS, *OPTIONS))
    if isinstance(given, dict):
        _known(f"key of {name}", given, ("from", "to", "step"))
        low: Any = given.get("from")
        high: Any = given.get("to")
        step: Any = given.get("step", 1)
        for value in (low, high, step):
            if not isinstance(value, int):
                raise SpaceError(f"{name} must have integers from and to, not {given}")
        if low > high or step < 1:
            raise SpaceError(f"{name} is empty: from {low} to {high} in steps of {step}")
        values: list[Any] = list(range(low, high + 1, step))
    else:
        values = given if isinstance(given, list) else [given]
    if not values:
        raise SpaceError(f"{name} is empty")
    for value in values:
        _value(name, value)
    if len(set(values)) != len(values):
        raise SpaceError(f"{name} has a value twice: {values}")
    return tuple(values)


def _limits(given: dict[str, Any]) -> dict[str, tuple[float, float]]:
    integers = [name for name, item in FIELDS.items() if "low" in item.metadata]
    _known("limit", given, (*DERIVED, *integers))
    found = {}
    for name, pair in given.items():
        if not isinstance(pair, list) or len(pair) != 2 \
                or not all(isinstance(value, (int, float)) for value in pair):
            raise SpaceError(f"limits of {name} must be [least, greatest], not {pair!r}")
        if pair[0] > pair[1]:
            raise SpaceError(f"limits of {name} contradict each other: at least {pair[0]} and at "
                             f"most {pair[1]}")
        found[name] = (pair[0], pair[1])
    return found
