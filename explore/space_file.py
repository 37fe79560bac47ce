# SPDX-License-Identifier: Apache-2.0
"""Spaces as TOML files, the ready ones by name: read, and refused where something is wrong.

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
``fit = true`` makes the memories as large as what a method makes of the network needs.
"""

__all__ = ["changed", "ready", "read"]

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from explore.objectives import columns
from explore.point import DESIGNS, MEASURES, OPTIONS, PARTS
from explore.space import DERIVED, FIELDS, Axis, Space, SpaceError, Study, known
from explore.widths import Greedy
from gen.compiler.options import NAMES
from vitforge.spec.config import ConfigError, load

SPACES = Path(__file__).parent / "spaces"


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


def changed(space: Space, given: Mapping[str, Sequence[str]], measure: Sequence[str]) -> Space:
    """Return a space whose studies all have other values, or other measurements, than they say.

    Parameters
    ----------
    given
        Values by parameter, as a command line has them; several are an axis.
    measure
        What is measured instead; nothing is what each study measures.

    Raises
    ------
    SpaceError
        If there is no such parameter, value or measurement.
    """
    axes = {name: _axis(name, [_typed(name, text) for text in texts])
            for name, texts in given.items()}
    studies = tuple(_changed(study, axes, measure) for study in space.studies)
    there = set().union(*(columns(study.design, study.measure) for study in studies))
    objectives = {name: way for name, way in space.objectives.items() if name in there}
    return dataclasses.replace(space, studies=studies, objectives=objectives)


def _changed(study: Study, axes: Mapping[str, Axis], measure: Sequence[str]) -> Study:
    one = {name: values[0] for name, values in axes.items() if len(values) == 1}
    several = {name: values for name, values in axes.items() if name not in one}
    if study.greedy and several:
        raise SpaceError(f"study {study.name!r} walks the widths of layers, and takes one value of "
                         f"{', '.join(several)}")
    if measure:
        study = dataclasses.replace(study, measure=_measures(
            {"measure": list(measure), "design": study.design}, study.network))
    return dataclasses.replace(
        study, base={**study.base, **{k: v for k, v in one.items() if k in FIELDS}},
        options={**study.options, **{k: v for k, v in one.items() if k in OPTIONS}},
        axes={**{k: v for k, v in study.axes.items() if k not in one}, **several},
        tie={k: v for k, v in study.tie.items() if k not in axes})


def _typed(name: str, text: str) -> int | str:
    """Return a value of a command line as the parameter's values are."""
    known("parameter", [name], (*FIELDS, *OPTIONS))
    whole = isinstance(OPTIONS[name][0][0], int) if name in OPTIONS else \
        "low" in FIELDS[name].metadata
    return int(text) if whole and text.isdecimal() else text


#: Keys of a study, and the type of each.
_KEYS: dict[str, type | tuple[type, ...]] = {
    "name": str, "design": str, "base": str, "measure": list, "set": dict, "axes": dict,
    "tie": dict, "limits": dict, "network": str, "seeds": list, "frequency": (int, float),
    "greedy": dict, "fit": bool}


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


def _study(given: dict[str, Any], space: str, number: int) -> Study:
    where = f"study {given.get('name', number)!r}"
    try:
        known("key", given, _KEYS)
        for name, value in given.items():
            if not isinstance(value, _KEYS[name]) or isinstance(value, bool) != (name == "fit"):
                raise SpaceError(f"{name} can't be {value!r}")
        if "design" not in given:
            raise SpaceError(f"design must be given: {', '.join(DESIGNS)}")
        known("design", [given["design"]], DESIGNS)
        return _checked(given, space, number)
    except (SpaceError, ConfigError) as error:
        raise SpaceError(f"{where}: {error}") from None


def _checked(given: dict[str, Any], space: str, number: int) -> Study:
    base: dict[str, int | str] = load(given.get("base", "edge16")).to_dict()
    fixed = given.get("set", {})
    known("parameter", fixed, (*FIELDS, *OPTIONS))
    for name, value in fixed.items():
        _value(name, value)
    axes = {name: _axis(name, value) for name, value in given.get("axes", {}).items()}
    tie = given.get("tie", {})
    known("parameter of tie", (*tie, *tie.values()), FIELDS)
    for name in tie:
        if name in axes or name in fixed:
            raise SpaceError(f"{name} is tied to {tie[name]}, and can't be set too")
    network = given.get("network", "")
    if network:
        known("network", [network], NAMES)
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
        greedy=_greedy(given, network, axes), fit=_fit(given, network, fixed | axes))


def _fit(given: dict[str, Any], network: str, chosen: Mapping[str, Any]) -> bool:
    if given.get("fit") and not (network and chosen.get("method")):
        raise SpaceError("fit needs a network and a method: memories are fitted to what the method "
                         "makes of the network")
    return bool(given.get("fit"))


def _greedy(given: dict[str, Any], network: str, axes: Mapping[str, Axis]) -> Greedy | None:
    if "greedy" not in given:
        return None
    known("key of greedy", given["greedy"], [item.name for item in dataclasses.fields(Greedy)])
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
    known("measure", measure, MEASURES)
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
    known("parameter", [name], (*FIELDS, *OPTIONS))
    if isinstance(given, dict):
        known(f"key of {name}", given, ("from", "to", "step"))
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
    known("limit", given, (*DERIVED, *integers))
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
