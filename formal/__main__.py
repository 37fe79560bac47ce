# SPDX-License-Identifier: Apache-2.0
"""``python -m formal``: prove what the designs promise, without bound, in several configurations."""

__all__ = ["CONFIGS", "main"]

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from formal.checker import PROPERTY
from formal.designs import DESIGNS
from formal.prove import LIMIT, Verdict, prove
from vitforge.base import markdown
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import progress_bars
from vitforge.spec.config import Config, load

OUTPUT = Path("build/formal")
RESULTS = "formal.json"
#: Presets, and machines that differ from them in what the proofs depend on.
CONFIGS = {config.name: config for config in (
    load("tiny"), load("edge8"),
    Config(name="wide-bus", rows=4, cols=8, lanes=4, max_keys=8, max_channels=8, max_tokens=16,
           axi_bits=128, burst_beats=4, fetch_beats=16, modes="single+pair"),
    Config(name="one-lane", rows=2, cols=2, lanes=1, max_keys=16, max_channels=16, max_tokens=16,
           axi_bits=64, burst_beats=16, fetch_beats=32, exponential="iexp"))}


def good(verdict: Verdict) -> bool:
    """Whether a property holds, or a situation comes true."""
    return verdict.status == ("proved" if verdict.name.startswith(PROPERTY) else "disproved")


def _summary(results: dict[str, dict[str, list[Verdict]]]) -> str:
    """Return a table: of each design and configuration, how many of its properties are proved."""
    def cell(found: list[Verdict] | None) -> str:
        if found is None:
            return ""
        properties = [item for item in found if item.name.startswith(PROPERTY)]
        return f"{sum(map(good, properties))} of {len(properties)}"
    names = list(results)
    rows = [(design, *(cell(results[name].get(design)) for name in names))
            for design in dict.fromkeys(design for found in results.values() for design in found)]
    return markdown.table(("design", *names), rows)


def _prove(args: argparse.Namespace) -> int:
    for what, given, known in (("design", args.designs, DESIGNS), ("--config", args.config,
                                                                   CONFIGS)):
        for name in given or ():
            if name not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, not {name!r}")
    if args.limit < 1:
        raise ValueError(f"--limit must be at least 1, not {args.limit}")
    designs, configs = args.designs or list(DESIGNS), args.config or list(CONFIGS)
    start = time.monotonic()
    results: dict[str, dict[str, list[Verdict]]] = {name: {} for name in configs}
    bad: list[str] = []
    args.output.mkdir(parents=True, exist_ok=True)
    with progress_bars() as bars:
        bar = bars.add("designs", len(designs) * len(configs))
        for config in configs:
            for design in designs:
                folder = args.output / f"{design}-{config}"
                found = prove(DESIGNS[design](CONFIGS[config]), folder, limit=args.limit)
                results[config][design] = found
                for item in found:
                    if not good(item):
                        bad.append(f"{design} of {config}: {item.name[2:]} is {item.status}"
                                   + (f" in cycle {item.frame}" if item.frame >= 0 else ""))
                        bars.say(bad[-1])
                bar.advance()
    plain = {config: {design: [vars(item) for item in found] for design, found in part.items()}
             for config, part in results.items()}
    replace(args.output / RESULTS,
            lambda path: path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8"))
    verdicts = [item for part in results.values() for found in part.values() for item in found]
    properties = [item for item in verdicts if item.name.startswith(PROPERTY)]
    print(_summary(results), end="")
    print(f"{sum(map(good, properties))} of {len(properties)} properties proved without bound, "
          f"{sum(map(good, verdicts)) - sum(map(good, properties))} of "
          f"{len(verdicts) - len(properties)} situations reached; "
          f"{time.monotonic() - start:.0f} s")
    print(f"results: {args.output / RESULTS}")
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m formal", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Prove the promises of the generated Verilog without bound, with Yosys and\n"
                    "ABC (Debian's berkeley-abc). What is proved already is not proved again.",
        epilog="example: python -m formal skid writer --config tiny\n\n"
               f"designs: {', '.join(DESIGNS)}\nconfigurations: {', '.join(CONFIGS)}")
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help="default: all")
    parser.add_argument("--config", action="append", metavar="C",
                        help="only this configuration; repeatable")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="SECONDS",
                        help="for each property, until it is undecided (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT, metavar="DIR",
                        help=f"{RESULTS} and the files of each proof (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Prove; exit code 1 if something is not proved, 2 with one line for bad input."""
    return run_command(_prove, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
