# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.unpacker`: how words lie in the program, and what comes of them.

When they come is in `golden.machine.memory_words`.
"""

__all__ = ["pack", "words"]

from collections.abc import Iterable, Sequence

from vitforge.spec.instruction import LINE
from vitforge.spec.packing import ELEMENT

#: A block: the width of its elements, 2 to 8 bits, and its words, `cols` signed elements each.
Block = tuple[int, Sequence[Sequence[int]]]


def pack(block: Block) -> tuple[bytes, int]:
    """Return a block as it lies in the program, and how many of its bytes have a meaning.

    Elements are two's complement, element 0 in the low bits; a word is padded to whole bytes, words
    follow each other, and a block is padded to `LINE` bytes.
    """
    bits, rows = block
    packed = b"".join(
        sum((element & (1 << bits) - 1) << index * bits for index, element in enumerate(row))
        .to_bytes(-(-len(row) * bits // 8), "little") for row in rows)
    return packed + b"\0" * (-len(packed) % LINE), len(packed)


def words(blocks: Iterable[Block]) -> list[int]:
    """Return what comes of blocks: their words in order, each element extended to `ELEMENT` bits.

    A word a cycle at most; latency ``1 + places`` cycles (`vitforge.spec.packing.Packing`), one
    more if a beat is several chunks.
    """
    mask = (1 << ELEMENT) - 1
    return [sum((element & mask) << ELEMENT * index for index, element in enumerate(row))
            for _, rows in blocks for row in rows]
