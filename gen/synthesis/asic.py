# SPDX-License-Identifier: Apache-2.0
"""What a unit costs in the cells of a library: area by a Liberty file, memories as bits."""

__all__ = ["CellArea", "Library", "cell_area", "read_liberty"]

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from gen.synthesis.netlist import CACHE, TOOL, write_source
from gen.synthesis.yowasp import cached, run, version

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_LIBRARY = re.compile(r"\s*library\s*\(\s*\"?([^)\"]+?)\"?\s*\)\s*\{")
#: What has braces or hides them, and the groups that a library must have.
_TOKEN = re.compile(r"\"[^\"]*\"|\b(cell|ff|ff_bank)\s*\([^()]*\)\s*\{|[{}]")


@dataclass(frozen=True)
class Library:
    """A cell library.

    Attributes
    ----------
    name
        Of the library.
    text
        The file.
    """

    name: str
    text: str


def read_liberty(path: str | Path) -> Library:
    """Read a Liberty file, as far as to know that it is one.

    Raises
    ------
    OSError
        If it can't be read.
    ValueError
        If it is no Liberty file, or has no flip-flop; one line that names the file, and what is
        missing.
    """
    try:
        whole = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no Liberty file: it is not text") from None
    text = _COMMENT.sub(" ", whole)
    library = _LIBRARY.match(text)
    if library is None:
        raise ValueError(f"{path} is no Liberty file: it does not begin with library (NAME) {{")
    depth, groups = 1, set()
    for token in _TOKEN.finditer(text, library.end()):
        groups.add(token[1])
        depth += (token[0][-1] == "{") - (token[0] == "}")
        if not depth:
            break
    if depth:
        raise ValueError(f"{path} is no whole Liberty file: {depth} groups are not closed")
    if "cell" not in groups:
        raise ValueError(f"{path} has no cell")
    if not groups & {"ff", "ff_bank"}:
        raise ValueError(f"{path} has no flip-flop: no cell with a group ff (...)")
    return Library(library[1], whole)


@dataclass(frozen=True, kw_only=True)
class CellArea:
    """Cells of one design.

    Attributes
    ----------
    library
        Name of the cell library.
    area, sequential
        Of all cells, and of flip-flops among them, in the library's unit, which is mostly a square
        micrometre; without memories.
    cells
        How many.
    memory_bits
        In memories, which stay what they are: they are not in the area.
    """

    library: str
    area: float
    sequential: float
    cells: int
    memory_bits: int

    def to_dict(self) -> dict[str, float | int | str]:
        """All fields as plain values, with the target."""
        return {"target": "asic", **asdict(self)}


def _script(top: str) -> str:
    return "; ".join([
        "read_verilog top.v", f"hierarchy -check -top {top}", "proc", "check -assert", "flatten",
        "opt_clean", "tee -q -o memories.json stat -json",
        f"synth -flatten -top {top} -run begin:fine", "opt -fast -full", "opt -undriven -fine",
        "techmap", "opt -fast", "dfflibmap -liberty cells.lib",
        "abc -liberty cells.lib", "opt_clean", "tee -q -o stat.json stat -json -liberty cells.lib",
        # With the directions of the cells' pins.
        "read_liberty -lib -ignore_miss_func cells.lib", "check -assert"])


def cell_area(verilog: str, top: str, library: Library, *, cache: str | Path = CACHE) -> CellArea:
    """Map a design to the cells of a library, as ABC does where no clock rate is wanted.

    Raises
    ------
    ToolchainError
        If Yosys is not installed.
    SynthesisError
        If the design has an error, or the library lacks what it needs.
    """
    script = _script(top)

    def fill(folder: Path) -> None:
        write_source(folder, verilog)
        cells = folder / "cells.lib"
        cells.write_text(library.text, encoding="utf-8")
        run(TOOL, ["-q", "-p", script], folder)
        cells.unlink()

    folder = cached(cache, [version(TOOL), script, library.text, verilog], fill)
    stat, memories = (json.loads((folder / name).read_text(encoding="utf-8"))["design"]
                      for name in ("stat.json", "memories.json"))
    cells = sum(count for kind, count in stat["num_cells_by_type"].items()
                if kind not in ("$mem_v2", "$scopeinfo"))
    # What is zero isn't said.
    area, sequential = (round(stat.get(name, 0.0), 3) for name in ("area", "sequential_area"))
    return CellArea(library=library.name, area=area, sequential=sequential,
                    cells=cells, memory_bits=memories["num_memory_bits"])
