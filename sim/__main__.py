# SPDX-License-Identifier: Apache-2.0
"""Command line of the simulations: ``python -m sim UNIT``."""

__all__ = ["main"]

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hw.units import UNITS
from sim.accelerator.command import add_parser
from vitforge.base.cli import run_command
from vitforge.base.progress import progress_bar
from vitforge.spec.config import load
from vitforge.spec.option import add_config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare the generated Verilog of a unit, or of the whole accelerator, with\n"
                    "the golden model, on every cycle, under Verilator.",
        epilog="example: python -m sim softmax --config tiny --waves")
    commands = parser.add_subparsers(metavar="UNIT", required=True,
                                     help=f"{', '.join(UNITS)}, or accelerator for the whole")
    add_parser(commands)
    for unit in UNITS:
        _add_unit(commands.add_parser(
            unit, description=f"Compare the generated Verilog of {unit} with the golden model.",
            epilog=f"example: python -m sim {unit} --config tiny --waves"), unit)
    return parser


def _add_unit(parser: argparse.ArgumentParser, unit: str) -> None:
    add_config(parser, "edge16")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="seed of the random stimuli (default: 1)")
    parser.add_argument("--fast", action="store_true",
                        help="a module in Verilog compares the same cycles, many times as fast, "
                             "and cocotb only starts it and judges")
    parser.add_argument("--waves", action="store_true",
                        help="record every signal, with a save file for GTKWave (FST, or VCD "
                             "without liblz4-dev and zlib1g-dev)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/sim"), metavar="DIR",
                        help="where models, logs and waves go (default: build/sim)")
    parser.set_defaults(run=_simulate, unit=unit)


def _simulate(args: argparse.Namespace) -> int:
    # Not at the top: --help should not wait for them.
    from sim.cases.trace import PATTERNS
    from sim.run import SimulationError, regress

    config = load(args.config)
    with progress_bar(f"{args.unit} of {config.name}", len(PATTERNS)) as update:
        try:
            result = regress(args.unit, config, seed=args.seed, fast=args.fast, waves=args.waves,
                             directory=args.output, progress=update)
        except SimulationError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    print(f"{result.unit} of {result.config}: {result.cases} cases, {result.image_cases} of them "
          f"of a real image, under {result.patterns} handshake patterns")
    print(f"compared {result.cycles:,} cycles and {result.words:,} output words: 0 mismatches")
    print(f"build {result.build_seconds:.1f} s, run {result.run_seconds:.1f} s, "
          f"{result.cycles_per_second:,.0f} cycles/s")
    print(f"log: {result.directory / 'run.log'}")
    if result.waves:
        print(f"waves: {result.waves} (gtkwave {result.waves.with_suffix('.gtkw')})")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one regression; exit code 0 if all is equal, 1 on a mismatch, 2 on bad input."""
    return run_command(lambda args: int(args.run(args)), _parser(), argv, "sim")


if __name__ == "__main__":
    sys.exit(main())
