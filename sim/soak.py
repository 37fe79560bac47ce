# SPDX-License-Identifier: Apache-2.0
"""``python -m sim.soak``: random machines, networks and memories, as long as you like."""

__all__ = ["RESULTS", "main"]

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import progress_bar
from vitforge.base.provenance import provenance

#: What is found, and a line for every seed that is done.
RESULTS, KEPT = "soak.json", "seeds.jsonl"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.soak", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Draw machines, networks and memories, a seed each, and run them: the Verilog\n"
                    "must write every byte that the golden machine writes, and on a memory that\n"
                    "is never late in as many cycles as the model says, by every counter. What\n"
                    "was run of this commit is not run again.",
        epilog="example: python -m sim.soak --seeds 100")
    parser.add_argument("--seeds", type=int, default=100, metavar="N",
                        help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="S",
                        help="the first seed (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/soak"), metavar="DIR",
                        help=f"{RESULTS}, {KEPT} and the models (default: %(default)s)")
    return parser


def known(path: Path, commit: str) -> dict[int, Any]:
    """Return the lines of a file by seed: those of a commit, and whole ones."""
    if not path.exists():
        return {}
    # The last line is half of one if the run was stopped while it was written.
    found = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
    return {item["seed"]: item for item in found if item["run"]["commit"] == commit}


def _run(args: argparse.Namespace) -> int:
    for name, least in (("seeds", 1), ("first", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} must be at least {least}, not {getattr(args, name)}")
    # Not at the top: --help should not wait for them.
    from sim.accelerator.soak import ran
    from sim.toolchain import find

    tools, run = find(), provenance()
    args.output.mkdir(parents=True, exist_ok=True)
    lines = args.output / KEPT
    before, done = known(lines, run["commit"]), []
    with (progress_bar("seeds", args.seeds) as progress,
          lines.open("a", encoding="utf-8") as file):
        for seed in range(args.first, args.first + args.seeds):
            if (item := before.get(seed)) is None:
                start = time.monotonic()
                item = ran(seed, args.output / "models") | {
                    "run": run, "seconds": round(time.monotonic() - start, 1)}
                file.write(json.dumps(item) + "\n")
                file.flush()
            if item["wrong"]:
                print(f"seed {seed}: {item['wrong']}", file=sys.stderr)
            done.append(item)
            progress(len(done))
    wrong = [item["seed"] for item in done if item["wrong"]]
    found = {"seeds": args.seeds, "first": args.first, "wrong": wrong,
             "machines": len({item["config"] for item in done}),
             "cycles": sum(item["cycles"] for item in done),
             "stalled": sum(item["stall"] > 0 for item in done),
             "verilator": tools.version_text, "run": run,
             "seconds": round(sum(item["seconds"] for item in done), 1)}
    path = args.output / RESULTS
    replace(path, lambda temporary: temporary.write_text(json.dumps(found, indent=1) + "\n",
                                                         encoding="utf-8"))
    print(f"{args.seeds:,} networks on {found['machines']:,} machines, {found['cycles']:,} "
          f"cycles: {len(wrong)} different")
    print(f"results: {path}")
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; exit code 1 if anything differs, 2 with one line for bad input."""
    return run_command(_run, _parser(), argv, "sim")


if __name__ == "__main__":
    sys.exit(main())
