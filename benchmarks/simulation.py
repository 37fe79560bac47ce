# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.simulation``: how fast each unit's bench builds and runs.

Speeds are those of the machine at hand; what carries over is the ratio to the requantizer, which is
measured in the same run.
"""

__all__ = ["main"]

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hw.units import UNITS
from vitforge.base.cli import run_command
from vitforge.base.progress import progress_bar
from vitforge.spec.config import load
from vitforge.spec.option import add_config

if TYPE_CHECKING:
    from sim.run import Result

YARDSTICK = "requant"


def _measure(args: argparse.Namespace) -> int:
    # Not at the top: --help should not wait for them.
    from rich.console import Console
    from rich.table import Table

    from sim.run import regress

    config = load(args.config)
    results: dict[str, list[Result]] = {unit: [] for unit in UNITS}
    with progress_bar(f"benches of {config.name}", args.runs * len(UNITS)) as update:
        for done in range(args.runs * len(UNITS)):
            unit = list(UNITS)[done % len(UNITS)]
            results[unit].append(regress(unit, config, directory=args.output))
            update(done + 1)
    table = Table(title=f"Verilator benches of {config.name}, median of {args.runs} runs")
    for column in ("unit", "first build s", "cycles", "cycles/s", "ratio"):
        table.add_column(column, justify="left" if column == "unit" else "right")
    speed = {unit: statistics.median(run.cycles_per_second for run in runs)
             for unit, runs in results.items()}
    for unit, runs in results.items():
        table.add_row(unit, f"{runs[0].build_seconds:.1f}", f"{runs[0].cycles:,}",
                      f"{speed[unit]:,.0f}", f"{speed[unit] / speed[YARDSTICK]:.2f}")
    Console().print(table)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Time the build and the run of every unit's bench.",
        epilog="example: python -m benchmarks.simulation --config edge8 --runs 3")
    add_config(parser, "edge8")
    parser.add_argument("--runs", type=int, default=3, metavar="N",
                        help="runs of each bench (default: 3)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/benchmarks"),
                        metavar="DIR", help="where models go (default: build/benchmarks)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 for bad input."""
    return run_command(_measure, _parser(), argv, "sim")


if __name__ == "__main__":
    sys.exit(main())
