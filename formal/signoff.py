# SPDX-License-Identifier: Apache-2.0
"""``python -m formal.signoff``: the page of sign-off figures, from what the runs wrote themselves.

Proofs (`formal`), mutants (`formal.mutants`), coverage (`sim.coverage`), corrupted programs
(`sim.corrupt`) and random networks (`sim.soak`) write JSON. With ``--runs`` what counts of it is
copied beside the page; the page is made of these copies alone, so that everybody can make it again.
What was not run is called so.
"""

__all__ = ["KEPT", "PAGE", "main", "page"]

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from formal.options import CONFIGS, NAMES, PROPERTY, Verdict, good
from hw.units import UNITS
from sim.coverage import KINDS, Point, reason
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.markdown import table

ROOT = Path(__file__).parents[1]
PAGE, KEPT = ROOT / "docs" / "signoff.md", ROOT / "docs" / "signoff"
#: What is kept, and where the runs leave it.
RUNS = ("formal", "mutants", "coverage", "corrupt", "soak")
#: What other projects say of themselves, written by hand.
OTHERS = "others.json"
_NOT = "not run"
#: Of a memory.
_PLACE = re.compile(r"\[\d+\]$")
_BIT = re.compile(r"^(.*?)\[(\d+)\](?::\S+)?$")


def _shrunk(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the page needs of a run."""
    if name == "formal":
        counts = {config: {design: _counted([Verdict(**item) for item in items])
                           for design, items in found[config].items()}
                  for config in CONFIGS if config in found}
        bad = [f"{item['name'][2:]} of {design} of {config}: {item['status']}"
               for config in counts for design, items in found[config].items()
               for item in items if not good(Verdict(**item))]
        return {"run": found["run"], "proved": counts, "bad": bad}
    if name == "coverage":
        return {key: {**item, "missing": _signals(item["unit"], item["missing"])}
                for key, item in found.items()}
    return found


def _counted(found: Sequence[Verdict]) -> list[int]:
    """Count properties proved, all, situations reached, all."""
    properties = [item for item in found if item.name.startswith(PROPERTY)]
    situations = [item for item in found if item not in properties]
    return [sum(map(good, properties)), len(properties), sum(map(good, situations)),
            len(situations)]


def _signals(unit: str, missing: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the bits of a signal that were not toggled: one entry each, with how many points.

    Places of a memory that has a reason are one. Reasons are those of today.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for item in missing:
        why = reason(unit, Point(item["kind"], item["module"], item["place"]))
        bit = _BIT.match(item["place"])
        place = item["place"].partition(":0->")[0]
        if item["kind"] in ("toggle", "net") and bit:
            place = _PLACE.sub("", bit[1]) if why else bit[1]
        entry = found.setdefault((item["kind"], item["module"], place, str(why)), {
            "kind": item["kind"], "module": item["module"], "place": place, "points": 0,
            "waived": why})
        entry["points"] += 1
    return list(found.values())


def _percent(part: int, whole: int) -> str:
    """Return a share, cut and not rounded, so that 100 % is all of it."""
    return f"{part * 10000 // whole / 100:.2f} %" if whole else "none"


def _units(data: Mapping[str, Any]) -> str:
    rows = []
    for unit in UNITS:
        proved = [part[unit] for part in data["formal"].get("proved", {}).values() if unit in part]
        configs = dict.fromkeys(item["config"] for name in ("coverage", "mutants")
                                for item in data[name].values() if item["unit"] == unit)
        for config in configs:
            covered = data["coverage"].get(f"{unit} {config}")
            mutants = data["mutants"].get(f"{unit} {config}")
            rows.append((
                unit, config,
                f"{sum(item[0] for item in proved)} of {sum(item[1] for item in proved)}"
                if proved else _NOT, *_killed(mutants), *_covered(covered)))
    return table(("unit", "configuration", "properties proved, in all configurations",
                  "mutants killed of those that differ", "mutants proved equal", "lines",
                  "branches", "toggles of signals", "of nets", "cycles compared, all equal",
                  "output words"), rows)


def _killed(found: Mapping[str, Any] | None) -> tuple[object, ...]:
    if found is None:
        return _NOT, ""
    differ = found["mutants"] - found["equivalent"]
    return (f"{found['killed']} of {differ}, {_percent(found['killed'], differ)}",
            found["equivalent"])


def _covered(found: Mapping[str, Any] | None) -> tuple[object, ...]:
    if found is None:
        return (_NOT, *[""] * (len(KINDS) + 1))
    shares = (_percent(found[kind]["covered"], found[kind]["points"])
              for kind in KINDS)
    return *shares, f"{found['cycles']:,}", f"{found['words']:,}"


def _machine(data: Mapping[str, Any]) -> str:
    counts = data["formal"].get("proved", {})
    designs = {design for part in counts.values() for design in part}
    totals = [sum(item[place] for part in counts.values() for item in part.values())
              for place in range(4)]
    proofs = (f"Proofs: {totals[0]} of {totals[1]} properties of {len(designs)} designs hold in "
              f"every run of any length, in {len(counts)} of {len(CONFIGS)} configurations; "
              f"{totals[2]} of {totals[3]} situations, which show that they are not proofs of "
              "nothing, come true."
              + _unproved(counts)
              + "".join(f" Open: {item}." for item in data["formal"].get("bad", [])))
    lines = [proofs if counts else "Proofs were not run.", ""]
    for item in data["corrupt"].values():
        kinds = ", ".join(f"{name} {count:,}" for name, count in item["kinds"].items())
        corrupted = (f"Corrupted programs on `{item['config']}`: {item['programs']:,}; golden "
                     f"machine and Verilog disagree of {len(item['different'])}. What they came "
                     f"to: {kinds}.")
        lines += [corrupted, ""]
    if not data["corrupt"]:
        lines += ["Corrupted programs were not run.", ""]
    if soak := data["soak"]:
        lines += [(f"Random networks: {soak['seeds']:,} on {soak['machines']:,} machines that were "
                   f"drawn too, {soak['stalled']:,} of them on a memory that stalls; "
                   f"{soak['cycles']:,} cycles; golden machine and Verilog disagree of "
                   f"{len(soak['wrong'])}."), ""]
    else:
        lines += ["Random networks were not run.", ""]
    return "\n".join(lines)


def _unproved(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence of the designs whose proofs were not run, if there are any."""
    left = {config: [design for design in NAMES if design not in counts.get(config, {})]
            for config in CONFIGS}
    listed = "; ".join(f"of `{config}` {', '.join(designs) if len(designs) < len(NAMES) else 'all'}"
                       for config, designs in left.items() if designs)
    return f" Not run, and open: {listed}." if listed else ""


def _living(data: Mapping[str, Any]) -> str:
    rows = [(item["unit"], f"`{mutant['what']}`", mutant["found"], mutant["why"] or "open")
            for item in data["mutants"].values() for mutant in item["survivors"]]
    return table(("unit", "mutant", "proof", "why"), rows) if rows else "None.\n"


def _uncovered(data: Mapping[str, Any]) -> str:
    rows = [(item["unit"], missing["kind"], f"`{missing['module']}` `{missing['place']}`",
             missing["points"], missing["waived"] or "open")
            for item in data["coverage"].values() for missing in item["missing"]
            if missing["kind"] != "net"]
    return table(("unit", "kind", "where", "points", "why"), rows) if rows else "Nothing.\n"


def _runs(data: Mapping[str, Any]) -> str:
    def row(what: str, item: Mapping[str, Any], seeds: str, tools: str) -> tuple[object, ...]:
        run = item["run"]
        return what, run["date"], f"`{run['commit']}`", seeds, tools, item.get("seconds", "")

    rows: list[tuple[object, ...]] = []
    if formal := data["formal"].get("run"):
        tools = f"Yosys {formal['yosys']}, {formal['abc']}"
        rows.append(("proofs", formal["date"], f"`{formal['commit']}`", "none", tools,
                     formal["seconds"]))
    rows += [row(f"mutants of {item['unit']}", item,
                 f"mutants {item['seed']}, bench {item['bench_seed']}",
                 f"Yosys {item['yosys']}, Verilator {item['verilator']}")
             for item in data["mutants"].values()]
    rows += [row(f"coverage of {item['unit']}", item, f"bench {item['seed']}",
                 f"Verilator {item['verilator']}") for item in data["coverage"].values()]
    rows += [row(f"corrupted programs on `{item['config']}`", item,
                 f"from {item['seed']}", f"Verilator {item['verilator']}")
             for item in data["corrupt"].values()]
    if soak := data["soak"]:
        rows.append(row("random networks", soak, f"from {soak['first']}",
                        f"Verilator {soak['verilator']}"))
    return table(("run", "date", "commit", "seeds", "tools", "seconds"), rows)


def page(folder: Path = KEPT) -> str:
    """Return the page that the files of a folder make."""
    data = {name: json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            for name in RUNS for path in [folder / f"{name}.json"]}
    published = json.loads((folder / OTHERS).read_text(encoding="utf-8"))
    names = ("who", "code coverage", "proofs", "mutants", "regression")
    others = table((*names, "source"), [(*(item[name] for name in names),
                                         f"[read]({item['source']})") for item in published])
    return f"""\
# Sign-off

`python -m formal.signoff` makes this page of the files in `docs/signoff`, which the runs wrote;
`make signoff` runs them all first. No number here was typed, but for those of others. How proofs
work is in [formal.md](formal.md), what is compared on every cycle in
[measurements.md](measurements.md#equality).

## The units

{_units(data)}
A *mutant* is a unit with one bit of one gate changed (Yosys' `mutate`): inverted, stuck, or
inverted where another bit says so. The unit's bench is replayed on it, and runs that a reset ends
in their middle, and the first difference kills it. What lives is proved to be the unit, for runs of
any length, or listed below.
Coverage is Verilator's, of the same bench on the same generated Verilog. A toggle is a bit's way
up or down; *nets* are what Yosys made between signals that have a name in Python; they are as wide
as an operator's operands, often with constant bits, and not listed.

## The machine

{_machine(data)}
## Mutants that live

{_living(data)}
## What was not covered

{_uncovered(data)}
## The runs

{_runs(data)}
Seconds are of the clock, on a machine with other work, and of the last run: what an earlier one
had proved or judged, of the same Verilog, is not in them. A `+` behind a commit says that files
were changed since.

## What others publish

{others}"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m formal.signoff", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make docs/signoff.md of the files in docs/signoff.",
        epilog="example: python -m formal.signoff --runs build")
    parser.add_argument("--runs", type=Path, metavar="DIR",
                        help="where runs have left their files: DIR/formal/formal.json, "
                             "DIR/mutants/mutants.json and so on; these are copied first")
    parser.add_argument("-o", "--output", type=Path, default=PAGE, metavar="FILE",
                        help="the page; its files are in a folder of its name")
    return parser


def _write(path: Path, text: str) -> None:
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _run(args: argparse.Namespace) -> int:
    folder = args.output.with_suffix("")
    for name in RUNS if args.runs else ():
        path = args.runs / name / f"{name}.json"
        if not path.exists():
            print(f"not run: {path}", file=sys.stderr)
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        _write(folder / f"{name}.json", json.dumps(_shrunk(name, found), indent=1) + "\n")
    _write(args.output, page(folder))
    print(f"the page: {args.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page; exit code 2 with one line for bad input."""
    return run_command(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
