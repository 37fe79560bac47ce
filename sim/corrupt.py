# SPDX-License-Identifier: Apache-2.0
"""``python -m sim.corrupt``: many corrupted programs, on the golden machine and on the Verilog."""

__all__ = ["RESULTS", "main"]

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.markdown import table
from vitforge.base.progress import progress_bar
from vitforge.base.provenance import provenance
from vitforge.base.stamps import filling
from vitforge.spec.config import load
from vitforge.spec.option import add_config

#: What is found, and a line for every batch that is done.
RESULTS, KEPT = "corrupt.json", "batches.jsonl"
#: Programs of a batch: one simulation, one seed, one kind of memory.
BATCH = 100


def stalls(number: int) -> dict[str, int]:
    """Return how unpleasant the memory is for a batch: not at all, or more and more."""
    return {"stall": 32 * (number % 4), "jitter": (1 << number % 5) - 1}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.corrupt", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Change fields of a program, or flip bits of it, and compare what the golden\n"
                    "machine and the generated Verilog do with it: the kind of fault with its\n"
                    "instruction and address, or every byte of the output. A run that is stopped\n"
                    "goes on where it was.",
        epilog="example: python -m sim.corrupt --programs 500 --config tiny")
    add_config(parser, "tiny")
    parser.add_argument("--programs", type=int, default=2000, metavar="N",
                        help="rounded up to hundreds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S",
                        help="of the first hundred; the next have the next (default: 1)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/corrupt"), metavar="DIR",
                        help=f"{RESULTS}, and what is kept (default: %(default)s)")
    return parser


def _known(path: Path) -> dict[int, Any]:
    if not path.exists():
        return {}
    # The last line is half of one if the run was stopped while it was written.
    found = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
    return {item["seed"]: item for item in found}


def _run(args: argparse.Namespace) -> int:
    if args.programs < 1:
        raise ValueError(f"--programs must be at least 1, not {args.programs}")
    config = load(args.config)
    # Not at the top: --help should not wait for them.
    from gen.elaborate import generate
    from sim.accelerator.corrupt import differences, whole_program
    from sim.toolchain import find

    batches = -(-args.programs // BATCH)
    folder = args.output / config.name
    # Of another Verilog, or another program, nothing is known.
    with filling(folder, [generate("accelerator", config), whole_program(config)[0].hex()]):
        pass
    known, done = _known(folder / KEPT), []
    with (progress_bar(f"programs on {config.name}", batches * BATCH) as progress,
          (folder / KEPT).open("a", encoding="utf-8") as file):
        for number in range(batches):
            seed = args.seed + number
            if (item := known.get(seed)) is None:
                start = time.monotonic()
                wrong, seen = differences(BATCH, seed, config, brief=False, **stalls(seed))
                item = {"seed": seed, "different": wrong, "kinds": dict(seen),
                        "seconds": round(time.monotonic() - start, 1), "run": provenance()}
                file.write(json.dumps(item) + "\n")
                file.flush()
            done.append(item)
            progress((number + 1) * BATCH)
    kinds = sum((Counter(item["kinds"]) for item in done), Counter[str]())
    wrong = [line for item in done for line in item["different"]]
    found = {"config": config.name, "programs": batches * BATCH, "seed": args.seed,
             "different": wrong, "kinds": dict(kinds.most_common()),
             # Of what is known already, the commit that was run.
             "verilator": find().version_text, "run": done[-1]["run"],
             "seconds": round(sum(item["seconds"] for item in done), 1)}
    path = args.output / RESULTS
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[config.name] = found
    replace(path, lambda temporary: temporary.write_text(json.dumps(results, indent=1) + "\n",
                                                         encoding="utf-8"))
    print(table(("what came of it", "programs"), kinds.most_common()), end="")
    for line in wrong:
        print(f"different: {line}", file=sys.stderr)
    print(f"{batches * BATCH:,} corrupted programs on {config.name}: {len(wrong)} different")
    print(f"results: {path}")
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; exit code 1 if anything differs, 2 with one line for bad input."""
    return run_command(_run, _parser(), argv, "sim")


if __name__ == "__main__":
    sys.exit(main())
