# SPDX-License-Identifier: Apache-2.0
"""``python -m sim.coverage``: what the benches of the units touch of the generated Verilog.

Verilator counts how often a line or a branch of it ran, and how often each bit of a signal rose and
fell, while a unit's bench is replayed. Bits of signals that have a name in Python are
apart from those of the nets that Yosys made between them, which are as wide as an operator's
operands and often have constant bits. A point that was never reached is listed, with the reason if
`WAIVED` has one; what is waived still counts as not covered.
"""

__all__ = ["KINDS", "Point", "main", "measure", "points", "reason"]

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.units import UNITS
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.markdown import table
from vitforge.base.progress import progress_bars
from vitforge.base.provenance import provenance
from vitforge.spec.config import Config, load
from vitforge.spec.option import add_config

RESULTS = "coverage.json"
#: Kinds of points, in the order of the table. The first three are Verilator's.
KINDS = ("line", "branch", "toggle", "net")
#: Pattern of ``unit module signal-or-place`` to why it can't be reached.
WAIVED: Mapping[str, str] = {
    r"^\w+ [\w.]+ (memory|words|heads|results|seconds|fourths)\[\d+\]\[\d+\]:":
        "places of a memory are alike, and others had this bit",
    r"^(layernorm|requant) [\w.]+ (port|write)__en(\$\d+)?:1->0": "constant 1",
    r"^layernorm layernorm\.statistics \w*square(_\d)?\[1\]:": "bit 1 of a square is 0",
    r"^layernorm layernorm\.statistics (running_count\[6\]|running_squares\[28\]):":
        "a whole row of 64 has it, after which the sums are 0",
    r"^layernorm layernorm\.statistics (digit_0\[23\]|digit_17\[18\]):":
        "at most 64 times 17 bits, and at most 64 times 2**11",
    r"^systolic systolic rest_\d+_1\[[23]\]:": "a shift has 4 bits: what is above 2 of them has 2",
    r"^requant requant\.scale_\d above_groups\[[23]\]:": "no product is so wide",
    r"^requant requant\.scale_\d chosen_0\[0\]:": "the bit below the product's first: 0",
    r"^requant requant\.scale_\d double\[0\]:": "the sum of two ones has no bit 0",
    r"^requant requant\.operate_\d total\[0\]:": "a bit twice: the sum has no bit 0",
    r"^requant requant\.(scale_\d (low|high)_digit|encode_\d shifted)_b_1\[0\]:":
        "2**(16 - f), and f is at most 15",
    r"^requant requant\.scale_\d high_digit_product_[12]\[0\]:": "a product of an even number",
    r"^requant requant\.scale_\d high_digit_product_[12]\[31\]:":
        "15 bits, shifted by 16 at most",
    r"^requant requant\.scale_\d low_digit_product_[12]\[16\]:":
        "16 bits, shifted by 16 at most, from bit 16 on",
    r"^softmax softmax\.rows again:": "constant but with the polynomial, which reads rows twice",
}
_POINT = re.compile(r"^C '(.*)' (\d+)$", re.MULTILINE)
#: A character of a name that C++ doesn't take.
_CODED = re.compile(r"__0([0-9A-Fa-f]{2})")
#: A register that every block reads so that it runs at time 0 (`gen.convert`): nothing of the
#: design.
_EVENT = "if (\\$start "


@dataclass(frozen=True)
class Point:
    """Something that a simulation can reach.

    Attributes
    ----------
    kind
        One of `KINDS`.
    module
        Of the generated Verilog.
    place
        Of a signal its bit and direction, ``count[3]:0->1``; else the line of Verilog, and what of
        it was not reached.
    """

    kind: str
    module: str
    place: str


def points(text: str, modules: Sequence[str], verilog: str) -> dict[Point, int]:
    """Read Verilator's file: how often each point of some modules was reached, in any instance."""
    lines = verilog.splitlines()
    found: dict[Point, int] = {}
    for item, count in _POINT.findall(text):
        fields = dict(part.split("\x02", 1) for part in item.split("\x01")[1:])
        kind, _, module = fields["page"].partition("/")
        kind = kind.removeprefix("v_")
        if module not in modules or kind not in KINDS[:3]:
            continue
        if kind == "toggle":
            place = _CODED.sub(lambda code: chr(int(code[1], 16)), fields["o"])
            if place.startswith("$start"):
                continue
            kind = "net" if place.startswith("$") else kind
        else:
            line = lines[int(fields["l"]) - 1].strip()
            if line.startswith(_EVENT):
                continue
            place = f"{fields['l']}:{fields['n']} {line} {fields['o']}"
        point = Point(kind, module, place)
        found[point] = found.get(point, 0) + int(count)
    return found


def reason(unit: str, point: Point) -> str | None:
    """Return why a point can't be reached, if that is known."""
    text = f"{unit} {point.module} {point.place}"
    return next((why for pattern, why in WAIVED.items() if re.search(pattern, text)), None)


def measure(unit: str, config: Config, folder: Path, seed: int) -> dict[str, Any]:
    """Replay a unit's bench and return what was covered, for JSON.

    Raises
    ------
    SimulationError
        If the Verilog doesn't build, or differs from the golden model.
    """
    from gen.elaborate import elaborate
    from sim.cases.image import all_cases
    from sim.lines import layout, write
    from sim.replay import program, replay
    from sim.run import SimulationError
    from sim.toolchain import find

    start = time.monotonic()
    design = elaborate(unit, config)
    fields, tools = layout(design), find()
    built = program(tools, unit, design.verilog, fields, folder / "model",
                    ["--coverage-line", "--coverage-toggle", "--coverage-max-width", "4096"])
    write(folder, design, all_cases(unit, config, seed), resets=True)
    try:
        played = replay(built, folder, "+verilator+coverage+file+coverage.dat")
    finally:
        (folder / "trace.hex").unlink()
    if played.failed:
        raise SimulationError(f"{unit} of {config.name} differs from the golden model")
    modules = re.findall(r"^module \\?(\S+?)\s*\(", design.verilog, re.MULTILINE)
    found = points((folder / "coverage.dat").read_text(encoding="utf-8"), modules, design.verilog)
    missing = [{"kind": point.kind, "module": point.module, "place": point.place,
                "waived": reason(unit, point)} for point, count in found.items() if not count]
    return {"unit": unit, "config": config.name, "seed": seed, "cycles": played.cycles,
            "words": played.words, "verilator": tools.version_text, "run": provenance(),
            "seconds": round(time.monotonic() - start, 1),
            **{kind: {"points": sum(point.kind == kind for point in found),
                      "covered": sum(point.kind == kind and count > 0
                                     for point, count in found.items())} for kind in KINDS},
            "missing": missing}


def _share(part: Mapping[str, int]) -> str:
    return (f"{part['covered']:,} of {part['points']:,}, "
            f"{100 * part['covered'] / part['points']:.2f} %" if part["points"] else "none")


def _run(args: argparse.Namespace) -> int:
    for unit in args.units:
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
    config = load(args.config)
    units = args.units or list(UNITS)
    path = args.output / RESULTS
    import sim.replay  # noqa: F401  # what is missing is missed before anything is written
    args.output.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = []
    with progress_bars() as bars:
        bar = bars.add(f"units of {config.name}", len(units))
        for unit in units:
            folder = args.output / f"{unit}-{config.name}"
            folder.mkdir(exist_ok=True)
            found = measure(unit, config, folder, args.seed)
            results[f"{unit} {config.name}"] = found
            replace(path, lambda temporary: temporary.write_text(
                json.dumps(results, indent=1) + "\n", encoding="utf-8"))
            for item in found["missing"]:
                if item["waived"] is None:
                    bars.say(f"not covered: {unit} {item['kind']} {item['module']} {item['place']}")
            waived = sum(item["waived"] is not None for item in found["missing"])
            rows.append((unit, config.name, *(_share(found[kind]) for kind in KINDS), waived,
                         len(found["missing"]) - waived))
            bar.advance()
    print(table(("unit", "configuration", *KINDS, "not covered, with a reason", "without"), rows),
          end="")
    print(f"results: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.coverage", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Replay the benches of units and count which lines and branches of the\n"
                    "generated Verilog ran, and which bits of its signals rose and fell.",
        epilog="example: python -m sim.coverage requant --config tiny\n\n"
               f"units: {', '.join(UNITS)}")
    parser.add_argument("units", nargs="*", metavar="UNIT", help="default: all")
    add_config(parser, "tiny")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="seed of the random stimuli (default: 1)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/coverage"), metavar="DIR",
                        help=f"{RESULTS}, and the models (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit code 2 with one line for bad input."""
    return run_command(_run, _parser(), argv, "sim")


if __name__ == "__main__":
    sys.exit(main())
