# SPDX-License-Identifier: Apache-2.0
"""``python -m sim accelerator``: a network from memory to logits on the generated Verilog."""

__all__ = ["add_parser"]

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gen.compiler.options import add_model
from vitforge.base.cli import replace_folder
from vitforge.base.progress import progress_bar
from vitforge.spec.register_map import COUNTERS
from vitforge.spec.timing import LATENCY

if TYPE_CHECKING:
    from rich.table import Table

    from sim.accelerator.check import Check

_EXAMPLE = "example: python -m sim accelerator mnist --config edge8 --count 20"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of ``python -m sim``."""
    parser = commands.add_parser(
        "accelerator", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EXAMPLE,
        description="Run a network on the accelerator's generated Verilog under Verilator, and\n"
                    "compare every byte that it writes and every counter with the golden model.")
    add_model(parser, default="mnist")
    parser.add_argument("--count", type=int, default=1, metavar="N",
                        help="inputs, one after the other (default: 1)")
    parser.add_argument("--latency", type=int, default=LATENCY, metavar="CYCLES",
                        help=f"of the memory (default: {LATENCY})")
    parser.add_argument("--stall", type=int, default=0, metavar="N",
                        help="stall every channel of the bus at random, N cycles of 256; then "
                             "cycles are not compared (default: 0)")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="of the stalls (default: 1)")
    parser.add_argument("--netlist", choices=("mapped", "packed"),
                        help="instead of the Verilog its netlist for an ECP5 runs: mapped, as "
                             "Yosys makes it, or packed, as it is placed, with registers in "
                             "multipliers and block memories")
    parser.add_argument("--waves", action="store_true",
                        help="record every signal (FST, or VCD without liblz4-dev and "
                             "zlib1g-dev)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/sim"), metavar="DIR",
                        help="where models, logs and waves go, and the timeline (default: "
                             "build/sim)")
    parser.set_defaults(run=_simulate)


def _table(found: "Check", stalled: bool) -> "Table":
    from rich.table import Table

    first, exact = found.counters[0], found.predicted
    table = Table("counter", title="first run, simulated and predicted")
    for name in ("simulated", "predicted", "of all cycles"):
        table.add_column(name, justify="right")
    for name in COUNTERS:
        share = "" if name == "instructions" else f"{first[name] / first['cycles']:.2%}"
        table.add_row(name, f"{first[name]:,}", "" if stalled else f"{getattr(exact, name):,}",
                      share)
    return table


def _simulate(args: argparse.Namespace) -> int:
    if not 0 <= args.stall < 256:
        raise ValueError(f"stall must be 0 to 255, not {args.stall}")
    if args.latency < 2:
        raise ValueError(f"latency must be at least 2 cycles, not {args.latency}")
    # Not at the top: --help should not wait for them.
    from rich.console import Console

    from gen.compiler import arguments as program_arguments
    from gen.compiler.timeline import draw
    from gen.synthesis.mapped import mapped_verilog
    from gen.synthesis.yowasp import SynthesisError
    from sim.accelerator.check import check
    from sim.accelerator.model import Netlist
    from sim.run import SimulationError

    config = program_arguments.configuration(args)
    network = program_arguments.network(args, config)
    images = program_arguments.pictures(args, network.spec, args.count)
    try:
        with progress_bar(f"{args.model} on {config.name}, percent", 100) as update:
            found = check(network, images, latency=args.latency, stall=args.stall, seed=args.seed,
                          waves=args.waves, directory=args.output, progress=update,
                          netlist=args.netlist and Netlist(args.netlist, functools.partial(
                              mapped_verilog, top="accelerator", stage=args.netlist)))
    except (SimulationError, SynthesisError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    exact = found.predicted
    console = Console()
    console.print(f"{args.model} on {config.name}: {len(images)} runs, classes "
                  f"{' '.join(map(str, found.logits.argmax(1).tolist()))}", soft_wrap=True)
    console.print(_table(found, bool(args.stall)))
    cycles = found.counters[0]["cycles"]
    products = network.products
    console.print(f"{products:,} products / {cycles:,} cycles / {config.rows * config.cols} = "
                  f"{products / cycles / config.rows / config.cols:.2%} of the array; "
                  f"{exact.read_bytes + exact.written_bytes:,} bytes on the bus", soft_wrap=True)
    console.print("all bytes" + ("" if args.stall else " and all counters") + " of all runs equal "
                  f"the golden model's; build {found.build_seconds:.1f} s, run "
                  f"{found.run_seconds:.1f} s, {found.cycles / found.run_seconds:,.0f} cycles/s",
                  soft_wrap=True)
    target = args.output / f"timeline-{Path(args.model).name}-{config.name}"
    with replace_folder(target) as folder:
        (folder / "timeline.svg").write_text(draw(exact, found.compiled), encoding="utf-8")
    console.print(f"timeline: {target / 'timeline.svg'}", soft_wrap=True)
    if args.waves:
        run = max(found.directory.glob("run-*"), key=lambda folder: folder.stat().st_mtime)
        for file in sorted(run.glob("dump.*")):
            console.print(f"waves: {file}", soft_wrap=True)
    return 0
