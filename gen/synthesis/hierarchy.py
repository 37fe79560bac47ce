# SPDX-License-Identifier: Apache-2.0
"""What each module of a design costs, from the flat netlist that is placed.

Modules are not kept apart in synthesis: what crosses from one to another would be optimised less.
But flat cells keep names that begin with the path of the module they come from, if only because
Yosys names what it makes after the wires around it. So a LUT on the border may be counted on either
side, and the sum is exact.
"""

__all__ = ["module_areas", "module_paths", "plain"]

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from gen.synthesis.area import Area, count


def module_paths(verilog: str, top: str) -> list[str]:
    """Return the path of every instance below `top`, as Amaranth names its modules."""
    return re.findall(rf"^module \\{re.escape(top)}\.(\S+) ", verilog, re.MULTILINE)


def plain(path: str) -> str:
    """Drop the numbers after $, which tell apart what has one name in a Verilog scope."""
    return re.sub(r"\$\d+", "", path)


def module_areas(verilog: str, top: str, target: str, netlist: str | Path, *,
                 depth: int | None = None) -> dict[str, Area]:
    """Return the area of every module with all that is in it, by its path, parents first.

    Parameters
    ----------
    verilog, top
        What the netlist was made from; the path of the top module is "".
    netlist
        The JSON file that Yosys wrote.
    depth
        Levels below the top module; all, if not given.
    """
    design: Any = json.loads(Path(netlist).read_text(encoding="utf-8"))
    paths = set(module_paths(verilog, top))
    totals: dict[str, Counter[str]] = {"": Counter(), **{plain(path): Counter() for path in paths}}
    for name, cell in design["modules"][top]["cells"].items():
        parts = name.split(".")
        totals[""][cell["type"]] += 1
        for length in range(1, len(parts)):
            path = ".".join(parts[:length])
            if path in paths:
                totals[plain(path)][cell["type"]] += 1
    return {path: count(target, cells) for path, cells in sorted(totals.items())
            if depth is None or not path or path.count(".") < depth}
