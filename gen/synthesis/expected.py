# SPDX-License-Identifier: Apache-2.0
"""What a design will need of an ECP5, read in its Verilog: before minutes of synthesis."""

__all__ = ["memories", "multipliers"]

import re
from collections.abc import Sequence

#: Every product but those by constants, which become adders.
_PRODUCT = re.compile(r" \* (?!\d+'h)")
#: A memory: the highest bit, the name and the last word.
_MEMORY = re.compile(r"^  reg \[(\d+):0\] (\S+) *\[(\d+):0\];$", re.MULTILINE)
#: Bits and words of a block memory, in each of its widths.
_BLOCKS = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
#: Bits of a block memory's byte: what is written alone takes whole bytes.
_BYTE = 9
#: What Yosys weighs (``techlibs/lattice``, ``memory_libmap``): a block memory, 16 words of 4 bits
#: in LUTs, and an input more of the multiplexer that every bit has behind several of either.
_BLOCK, _LUTS, _INPUT = 128, 4, 0.5


def multipliers(verilog: str) -> int:
    """Return the products in a design's Verilog, each a multiplier of its own (18x18 at most)."""
    return sum(len(_PRODUCT.findall(line)) for line in verilog.splitlines())


def memories(verilog: str) -> int:
    """Return the block memories that Yosys makes of a design with one read port a memory.

    As many as it has made of the accelerators' memories: 26 of `tiny`, 53 of `edge8`, 156, 184 and
    202 of `ecp5-85k-w8`, `-w4` and `-w4a4`.
    """
    return sum(_blocks(*_shape(module, *found)) for module in verilog.split("\nmodule ")
               for found in _MEMORY.findall(module))


def _shape(module: str, high: str, name: str, last: str) -> tuple[list[int], int]:
    """Return a memory's parts that are written alone, in bits, and its words."""
    write = re.compile(rf"^ +{re.escape(name)} *\[.*\]\[(\d+)(?::(\d+))?\] <= ", re.MULTILINE)
    parts = [int(top) - int(low or top) + 1 for top, low in write.findall(module)]
    return parts or [int(high) + 1], int(last) + 1


def _blocks(parts: Sequence[int], words: int) -> int:
    """Return the block memories of the cheapest shape; 0 where that is of LUTs."""
    def pieces(width: int) -> int:
        return sum(-(-part // width) for part in parts)

    def weight(each: int, count: int, rows: int) -> float:
        return each * count * rows + _INPUT * sum(parts) * (rows - 1)

    shapes = [(weight(_LUTS, pieces(4), -(-words // 16)), 0)]
    for wide, deep in _BLOCKS:
        count = -(-pieces(_BYTE) * _BYTE // wide) if wide >= _BYTE else pieces(wide)
        rows = -(-words // deep)
        shapes.append((weight(_BLOCK, count, rows), count * rows))
    return min(shapes)[1]
