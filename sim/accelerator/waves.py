# SPDX-License-Identifier: Apache-2.0
"""Waves of a whole accelerator that can be read: what GTKWave shows at first, engine by engine.

Amaranth gives the fields of every structure wires of their own, whose names have dots. `annotated`
adds one without for each field that is shown, ``drains__payload__operation``, and where a pass is
issued it gives fields that are codes the names of their values (in FST; VCD can't have any).
"""

__all__ = ["annotated", "state"]

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sim.waves import BITS, DIVIDER, HEX, NAMES, UNSIGNED, ZOOM
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, OPERATIONS, STATISTICS

#: In `sim/accelerator_top.v`, and the module that issues passes.
_TOP, _SEQUENCER = "accelerator_top", "accelerator.core.sequencer"
#: Fields of a pass that are codes, with the names of their values.
_CODES: dict[str, Mapping[str, int]] = {
    "requests__payload.operand": OPERANDS, "requests__payload.operand_format": FORMATS,
    "drains__payload.operation": OPERATIONS, "drains__payload.destination": DESTINATIONS,
    "drains__payload.format": FORMATS, "drains__payload.statistics": STATISTICS,
}
#: What is shown: a title, a module of the Verilog, and what the names of its wires begin with.
_SHOWN: tuple[tuple[str, str, Sequence[str]], ...] = (
    ("run: what waits, and what is wrong", "accelerator", ("interrupt", "events.", "fault.")),
    ("instruction", _SEQUENCER, ("instruction", "state_state", "tile", "idle")),
    ("pass: operands", _SEQUENCER, ("requests__",)),
    ("pass: weights", _SEQUENCER, ("weights_of__",)),
    ("pass: results", _SEQUENCER, ("drains__",)),
    ("array: weights, operands, sums", "accelerator.core.array", ("w__", "a__", "o__")),
    ("drain: into the requantizer", "accelerator.core.drain.requantizer", ("i__",)),
    ("scratch", "accelerator.core.scratch", ("read", "write", "overflow")),
    ("memory, read: addresses, data", "accelerator", ("m_axi_ar", "m_axi_r")),
    ("memory, written: addresses, data, responses", "accelerator",
     ("m_axi_aw", "m_axi_w", "m_axi_b")),
    ("host: registers", "accelerator", ("s_axi_",)),
)
_WIRE = re.compile(r"^  (?:wire|reg) (?:\[(\d+):0\] )?(?:\\(\S+) |([a-z]\w*)) ?(?:;| =)",
                   re.MULTILINE)


def _module(verilog: str, name: str) -> tuple[int, int]:
    """Return where a module begins and its last line does.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = re.search(rf"^module (?:\\{re.escape(name)} |{re.escape(name)}\s*\()", verilog,
                      re.MULTILINE)
    if found is None:
        raise ValueError(f"there is no module {name}")
    return found.start(), verilog.index("\nendmodule", found.start()) + 1


def _named(wire: str) -> str:
    """Return the name of a field's wire without a dot, which viewers take for a level."""
    return wire.replace(".", "__")


def _wires(verilog: str, module: str) -> list[tuple[str, int]]:
    """Return the wires that Python named, with their widths: fields, but no elements of arrays."""
    begin, end = _module(verilog, module)
    found = {escaped or plain: int(high or 0) + 1
             for high, escaped, plain in _WIRE.findall(verilog[begin:end])}
    structures = {name.rpartition(".")[0] for name in found}
    return sorted((name, bits) for name, bits in found.items()
                  if "$" not in name and "[" not in name and name not in structures)


def _fields(verilog: str, module: str) -> str:
    """Return wires of a module: its fields, of which codes have their values by name."""
    lines = []
    for name, bits in _wires(verilog, module):
        if "." not in name:
            continue
        kind, value = f"[{bits - 1}:0] " * (bits > 1), f"\\{name} "
        if codes := _CODES.get(name) if module == _SEQUENCER else None:
            values = ", ".join(
                f"{_named(name)}_{re.sub(r'[^a-z0-9_]', '_', value)} = {bits}'d{code}"
                for value, code in codes.items())
            kind, value = f"{_named(name)}_t ", f"{_named(name)}_t'({value})"
            lines.append(f"  typedef enum logic [{bits - 1}:0] {{{values}}} {kind};")
        lines.append(f"  wire {kind}{_named(name)} = {value};")
    return "".join(f"{line}\n" for line in lines)


def annotated(verilog: str) -> str:
    """Return the accelerator's Verilog with wires for all fields of what is shown."""
    for module in dict.fromkeys(module for _, module, _ in _SHOWN):
        _, end = _module(verilog, module)
        verilog = verilog[:end] + _fields(verilog, module) + verilog[end:]
    return verilog


def _lines(wires: Iterable[tuple[str, int]], scope: str) -> Iterator[str]:
    for name, bits in wires:
        yield NAMES if name in _CODES else BITS if bits == 1 else HEX if bits > 16 else UNSIGNED
        yield f"{scope}.{_named(name)}" + f"[{bits - 1}:0]" * (bits > 1)


def state(verilog: str, waves: Path) -> str:
    """Return a save file for GTKWave: a group for each engine, fields of words by name.

    Parameters
    ----------
    verilog
        The accelerator's, not `annotated` itself.
    waves
        The file of waves, beside which the save file lies.
    """
    lines = [f'[dumpfile] "{waves.name}"', "[timestart] 0", ZOOM, "[sst_expanded] 1", BITS,
             f"{_TOP}.clk", f"{_TOP}.rst"]
    for title, module, begins in _SHOWN:
        scope = f"{_TOP}.dut{module.removeprefix('accelerator')}"
        wires = _wires(verilog, module)
        lines += [DIVIDER, f"-{title}"]
        for first in begins:
            lines += _lines((wire for wire in wires if wire[0].startswith(first)), scope)
    return "\n".join(lines) + "\n"
