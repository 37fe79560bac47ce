# SPDX-License-Identifier: Apache-2.0
"""Waves that can be read: the fields of every stream as signals, and what a viewer shows at first.

A unit whose waves are recorded has an instance ``stream_NAME`` for each of its streams, which only
names the fields of the payload. So every viewer of FST or VCD shows them, with their signs, and
fields that are codes by the names of their values.
"""

__all__ = ["BITS", "DIVIDER", "HEX", "NAMES", "UNSIGNED", "ZOOM", "annotated", "fst", "state"]

import functools
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gen.elaborate import Design
from sim.toolchain import Toolchain
from vitforge.spec.words import Field, Word

#: Of lines in GTKWave: hexadecimal, decimal with a sign or without, bits, names of an enumeration.
HEX, SIGNED, UNSIGNED, BITS, NAMES = "@22", "@420", "@24", "@28", "@100000028"
DIVIDER = "@200"
#: The first view: about a hundred cycles of 10 ns.
ZOOM = "*-18.0 0"


@functools.cache
def _packs(cxx: Path) -> bool:
    program = ("#include <lz4.h>\n#include <zlib.h>\n"
               "int main() { return LZ4_compressBound(1) + compressBound(1) == 0; }\n")
    done = subprocess.run([cxx, "-x", "c++", "-", "-o", os.devnull, "-llz4", "-lz"],
                          input=program, text=True, capture_output=True, check=False)
    return done.returncode == 0


def fst(tools: Toolchain) -> bool:
    """Whether models can write FST: with the headers and libraries that pack it."""
    return _packs(tools.cxx)


def _elements(item: Field) -> Iterator[tuple[str, int]]:
    """Yield the name and the offset of every element."""
    if item.count is None:
        yield item.name, 0
    else:
        yield from ((f"{item.name}_{index}", index * item.bits) for index in range(item.count))


def _observer(top: str, name: str, word: Word) -> str:
    """Return the module that names the fields of a stream."""
    lines, offset = [], 0
    for item in word.fields:
        kind = "wire signed" if item.signed else "wire"
        if item.values:
            values = ", ".join(f"{item.name}_{re.sub(r'[^a-z0-9_]', '_', value)} = {index}"
                               for index, value in enumerate(item.values))
            lines.append(f"  typedef enum logic [{item.bits - 1}:0] {{{values}}} {item.name}_t;")
            kind = f"wire {item.name}_t"
        size = "" if item.values else f" [{item.bits - 1}:0]"
        for element, low in _elements(item):
            bits = f"payload[{offset + low + item.bits - 1}:{offset + low}]"
            value = f"{item.name}_t'({bits})" if item.values else bits
            # Escaped: a field may be called "signed".
            lines.append(f"  {kind}{size} \\{element} = {value};")
        offset += item.width
    body = "\n".join(lines)
    return f"""\
module {top}_stream_{name} (input valid, input ready, input [{word.bits - 1}:0] payload);
{body}
endmodule
"""


def annotated(design: Design) -> str:
    """Return the Verilog of a unit with the fields of its streams named inside it."""
    begin = re.search(rf"^module \\?{re.escape(design.top)}\s*\(", design.verilog, re.MULTILINE)
    if begin is None:
        raise ValueError(f"there is no module {design.top}")
    end = design.verilog.index("endmodule", begin.start())
    instances = "".join(
        f"  {design.top}_stream_{name} stream_{name} (.valid({name}__valid), "
        f".ready({name}__ready), .payload({name}__payload));\n" for name in design.streams)
    observers = "".join(_observer(design.top, name, word)
                        for name, word in design.streams.items())
    return design.verilog[:end] + instances + design.verilog[end:] + "\n" + observers


def state(design: Design, scope: str, waves: Path) -> str:
    """Return a save file for GTKWave: clock, reset, and every stream with its fields.

    Parameters
    ----------
    scope
        Path of the unit in the file, with dots.
    waves
        The file of waves, beside which the save file lies.
    """
    lines = [f'[dumpfile] "{waves.name}"', "[timestart] 0", ZOOM, "[sst_expanded] 1", BITS,
             f"{scope}.clk", f"{scope}.rst"]
    for name, word in design.streams.items():
        inside = f"{scope}.stream_{name}"
        lines += [DIVIDER, f"-{name}", BITS, f"{inside}.valid", f"{inside}.ready"]
        for item in word.fields:
            lines.append(NAMES if item.values else BITS if item.bits == 1
                         else SIGNED if item.signed else UNSIGNED)
            bits = "" if item.bits == 1 else f"[{item.bits - 1}:0]"
            lines += [f"{inside}.{element}{bits}" for element, _ in _elements(item)]
    for name, _, width in design.ports:
        if width is not None:
            lines += [HEX, f"{scope}.{name}" + (f"[{width - 1}:0]" if width > 1 else "")]
    return "\n".join(lines) + "\n"
