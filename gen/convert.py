# SPDX-License-Identifier: Apache-2.0
"""From an Amaranth design to Verilog that every tool takes: simulators old and new, and synthesis.

Amaranth writes Verilog with the Yosys that it brings. Three things are done to its text:

- A simulator runs an ``always @*`` when something changes that it reads. Yosys lets most of them
  read a register that is declared with a value: in Verilog-2005 the declaration is a change, so
  they run at time 0. In SystemVerilog it is none: a block whose inputs keep their first values
  would never run, and its outputs stay unknown. Here all of them read the register, and it changes
  by a nonblocking assignment. That happens after every process has begun, in either language and
  in whatever order a simulator begins them.
- A memory of zeros is cleared in loops, not word by word: a scratchpad of 40,960 words makes 2.4
  megabytes of text otherwise, and most of the time that Amaranth and Yosys need. A loop has at most
  `LOOP` iterations, as synthesis tools refuse long ones (Synplify from 2,000, Quartus 5,000).
- The warnings of Verilator that such text gives are switched off in it, each with its reason, from
  ``sim/waivers.vlt``.
"""

__all__ = ["LOOP", "WAIVERS", "ZEROS", "convert", "netlist", "pragmas", "zeros"]

import copy
import gc
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

#: The warnings that generated Verilog may give, with the reasons; any other stops a build.
WAIVERS = Path(__file__).parents[1] / "sim" / "waivers.vlt"
#: Most iterations of one loop.
LOOP = 1024

_EVENT = re.compile(r"^(  reg \\\$start ) = 0;\n", re.MULTILINE)
#: The name that it has from Yosys, and other such names: of the line that made them.
_YOSYS_EVENT = re.compile(r"\\\$auto\$verilog_backend\S+ ")
_YOSYS_NAME = re.compile(r"\\\$auto\$\S+ ")
#: A block that reads no such register.
_BARE = re.compile(r"^  always @\*\n    (.*;)\n", re.MULTILINE)
#: A memory with contents for its first word alone.
_MEMORY = re.compile(r"^(  reg \[(\d+):0\] (\S+) *\[(\d+):0\];\n)"
                     r"  initial begin\n    \3 *\[0\] = .*;\n  end\n", re.MULTILINE)
#: What `zeros` writes: the `name` of the memory, and its `depth`.
ZEROS = re.compile(r"^  initial begin : .*\n    integer .*\n(?:    for .* < (?P<depth>\d+); .*\n"
                   r"      (?P<name>\S+ ?)\[\\\$word \] = \d+'d0;\n)+  end\n", re.MULTILINE)


def convert(component: Any, name: str, ports: Sequence[Any] | None = None) -> str:
    """Return the Verilog of a component; `name` is its top module, and begins all other names.

    The text depends on the component, the name and the versions of Amaranth and of its Yosys alone:
    the Yosys that comes with Amaranth is used even where the system has another.
    """
    from amaranth.back import verilog

    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    with _zeros_left_out(), _no_collection():
        text = verilog.convert(component, name=name, ports=ports, emit_src=False,
                               strip_internal_attrs=True)
    text = "".join(map(_started, re.split(r"^(?=module )", text, flags=re.MULTILINE)))
    text = _MEMORY.sub(lambda found: found[1] + zeros(found[3], int(found[2]) + 1,
                                                      int(found[4]) + 1), text)
    head, body = text.split("\n", 1)
    return f"{head}\n{pragmas()}{body.rstrip()}\n/* verilator lint_restore */\n"


def netlist(component: Any, name: str) -> str:
    """Return a component for Yosys, as RTLIL, in which everything says its line of Python.

    It is what `convert` makes Verilog of, with attributes ``src``: files of the project by their
    place in it, ``hw/requant/unit.py:127``, others as they are.
    """
    from amaranth.back import rtlil  # type: ignore[attr-defined]  # no stub

    with _no_collection():
        text: str = rtlil.convert(component, name=name)
    return text.replace(f"{Path(__file__).parents[1]}{os.sep}", "")


def _started(module: str) -> str:
    """Have a module run all its blocks at time 0."""
    module = _YOSYS_EVENT.sub(lambda _: "\\$start ", module)
    module = _YOSYS_NAME.sub(lambda name: name[0].replace(":", "."), module)
    if not _EVENT.search(module):
        if not _BARE.search(module):
            return module
        module = module.replace(");\n", ");\n  reg \\$start  = 0;\n", 1)
    module = _BARE.sub(lambda block: "  always @* begin\n    if (\\$start ) begin end\n"
                                     f"    {block[1]}\n  end\n", module)
    return _EVENT.sub(lambda found: f"{found[0]}  initial \\$start <= 1;\n", module)


@contextmanager
def _zeros_left_out() -> Iterator[None]:
    """Have Amaranth write only the first word of a memory of zeros.

    It makes a Python object for each bit of each word, and nothing public prevents that. Every
    memory of Amaranth has contents for all its words, so one with a single word is of zeros.
    """
    from amaranth.back import rtlil  # type: ignore[attr-defined]  # no stub

    emit = rtlil.ModuleEmitter.emit_memory

    def emit_first(self: Any, index: int, cell: Any) -> None:
        if not any(cell.init):
            cell = copy.copy(cell)
            cell.init, cell.depth = [0], 1
        emit(self, index, cell)

    with mock.patch.object(rtlil.ModuleEmitter, "emit_memory", emit_first):
        yield


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage: a netlist is millions of small objects, and none is given up early."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def zeros(name: str, width: int, depth: int) -> str:
    """Return the Verilog that clears `depth` words of `width` bits of the memory `name`."""
    block = f"\\zeros${name.removeprefix(chr(92))} "
    word = "\\$word "   # an escaped name ends with a space; no signal has it
    if name.startswith("\\"):
        name += " "
    loops = ""
    for low in range(0, depth, LOOP):
        high = min(low + LOOP, depth)
        loops += (f"    for ({word}= {low}; {word}< {high}; {word}= {word}+ 1)\n"
                  f"      {name}[{word}] = {width}'d0;\n")
    return f"  initial begin : {block}\n    integer {word};\n{loops}  end\n"


def pragmas() -> str:
    """Return the waivers as comments for Verilator, each with its reason."""
    lines = ["/* verilator lint_save */"]
    for line in WAIVERS.read_text(encoding="utf-8").splitlines()[2:]:
        found = re.match(r"lint_off -rule (\w+)", line)
        pragma = f"/* verilator lint_off {found[1]} */" if found else line
        if pragma not in lines and pragma != "`verilator_config":
            lines.append(pragma)
    return "".join(f"{line}\n" for line in lines)
