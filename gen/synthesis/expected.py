# SPDX-License-Identifier: Apache-2.0
"""What a design will need of an ECP5, read in its Verilog: before minutes of synthesis."""

__all__ = ["memories", "multipliers"]

import re

#: Every product but those by constants, which become adders.
_PRODUCT = re.compile(r" \* (?!\d+'h)")
#: A memory: the highest bit and the last word.
_MEMORY = re.compile(r"^  reg \[(\d+):0\] \S+ *\[(\d+):0\];$", re.MULTILINE)
#: Bits and words of a block memory, in each of its widths.
_BLOCKS = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
#: What Yosys weighs (``techlibs/lattice``): a block memory, and 16 words of 4 bits in LUTs. Behind
#: more than one of the latter each bit has a multiplexer, which weighs about 1 an input more.
_BLOCK, _LUTS = 128, 4


def multipliers(verilog: str) -> int:
    """Return the products in a design's Verilog, each a multiplier of its own (18x18 at most)."""
    return sum(len(_PRODUCT.findall(line)) for line in verilog.splitlines())


def memories(verilog: str) -> int:
    """Return the block memories for a design's large memories, if each word is in one place.

    Yosys takes a few more where single bytes of words are written or there are two read ports, and
    a few less where it then prefers LUTs: 26 of 26 for `tiny`, 53 of 51 for `edge8`, 156 of 163 for
    `ecp5-85k-w8`.
    """
    found = 0
    for high, last in _MEMORY.findall(verilog):
        bits, words = int(high) + 1, int(last) + 1
        blocks = min(-(-bits // wide) * -(-words // deep) for wide, deep in _BLOCKS)
        rows = -(-words // 16)
        if _LUTS * rows * -(-bits // 4) + bits * (rows - 1) > _BLOCK * blocks:
            found += blocks
    return found
