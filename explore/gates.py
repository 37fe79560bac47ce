# SPDX-License-Identifier: Apache-2.0
"""Technology-independent size of a design: gates, flip-flops and memory bits, from Yosys.

Multipliers become gates, memories stay memories. A gate is one of two inputs, an inverter or a
multiplexer of two; they are added up in equivalents of a NAND of two inputs by the transistors of
their static CMOS forms (NAND 4, so NOT 1/2, AND and OR 3/2, XOR and MUX 5/2).
"""

__all__ = ["gates"]

import json
from pathlib import Path

from gen.synthesis.netlist import TOOL, write_source
from gen.synthesis.yowasp import SynthesisError, cached, run, version

#: Transistors of a static CMOS gate.
TRANSISTORS = {"NOT": 2, "NAND": 4, "NOR": 4, "AND": 6, "OR": 6, "ANDNOT": 6, "ORNOT": 6,
               "XOR": 10, "XNOR": 10, "MUX": 10, "NMUX": 10, "AOI3": 6, "OAI3": 6, "AOI4": 8,
               "OAI4": 8}
#: Of its NAND.
NAND = 4


def _script(top: str) -> str:
    return "; ".join([
        "read_verilog top.v", f"hierarchy -check -top {top}", "proc", "check -assert", "flatten",
        "opt_clean", "tee -q -o memories.json stat -json",
        f"synth -flatten -top {top} -run begin:fine", "opt -fast -full", "opt -undriven -fine",
        "techmap", "opt -fast", "abc -g simple", "opt_clean", "check -assert",
        "tee -q -o stat.json stat -json"])


def gates(verilog: str, top: str, *, cache: str | Path) -> dict[str, int]:
    """Return ``gates`` (NAND equivalents, flip-flops left out), ``ff`` and ``memory_bits``.

    Raises
    ------
    ToolchainError
        If Yosys is not installed.
    SynthesisError
        If the design has an error.
    """
    script = _script(top)

    def fill(folder: Path) -> None:
        write_source(folder, verilog)
        run(TOOL, ["-q", "-p", script], folder)

    folder = cached(cache, [version(TOOL), script, verilog], fill)
    stat, memories = (json.loads((folder / name).read_text(encoding="utf-8"))["design"]
                      for name in ("stat.json", "memories.json"))
    transistors = flipflops = 0
    for cell, count in stat["num_cells_by_type"].items():
        kind = cell.strip("$_").split("_")[0]
        if kind in TRANSISTORS:
            transistors += TRANSISTORS[kind] * count
        elif "DFF" in kind:
            flipflops += count
        elif cell not in ("$mem_v2", "$scopeinfo"):
            raise SynthesisError(f"the netlist has {cell}, which is no gate")
    return {"gates": round(transistors / NAND), "ff": flipflops,
            "memory_bits": memories["num_memory_bits"]}
