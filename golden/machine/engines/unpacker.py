# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.unpacker`: how words lie in the program, what comes of them, and when.

This is the engine alone, cycle by cycle, under any stalls; `golden.machine.memory_words` has the
cycles of a whole program, by a rule that costs less.
"""

__all__ = ["UnpackerModel", "pack", "words"]

from collections.abc import Iterable, Sequence

from vitforge.spec.config import Config
from vitforge.spec.instruction import LINE
from vitforge.spec.packing import Packing

#: A block: the width of its elements, 2 to 8 bits, and its words, of as many signed elements each.
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
    """Return the words that come of blocks, in order, as they are stored.

    Of what the unpacker offers beyond a word's elements nothing is said.
    """
    return [sum((element & (1 << bits) - 1) << bits * index for index, element in enumerate(row))
            for bits, rows in blocks for row in rows]


class UnpackerModel:
    """The unpacker's handshake on every cycle, whatever the bytes are.

    A beat is cut into chunks, which come down through `places` registers where there is room. A
    word is copied to the window when its chunks are there, with the word before it at the earliest;
    the chunks that have no more use are passed, one a cycle. Latency ``1 + places`` cycles, one
    more if a beat is several chunks; initiation interval 1, but for a cycle behind the first and
    behind the last word of a block.

    Attributes
    ----------
    valid
        A word is offered in this cycle.
    """

    def __init__(self, config: Config):
        self._packing = packing = Packing(config)
        self._ratio = config.axi_bits // 8 // (packing.chunk * packing.unit)
        self._cut = 0                               # chunks of a beat that has been taken
        self._full = [False] * packing.places       # registers, the low one first
        self._place = self._skip = self._line = 0   # units and chunks to the next word; in the line
        self._fresh, self._aligning = True, False   # a word opens a block; bytes are left of one
        self.valid = False

    def _decide(self, ready: bool, bits: int, align: bool, span: int
                ) -> tuple[bool, bool, bool, int]:
        """Whether a word is loaded, whether its place is known, whether a chunk is dropped.

        Last the chunks that have no more use.
        """
        packing, taken = self._packing, self.valid and ready
        end = self._place + packing.units.get((bits, span), 0)
        # The first word waits for as much as the largest has.
        wanted = packing.largest if self._fresh else end
        there = all(full or wanted <= index * packing.chunk
                    for index, full in enumerate(self._full))
        aligned = not self._aligning or self._place == self._line == 0
        load = self._skip == 0 and aligned and there and (
            not (self._fresh or align) if taken else not self.valid)
        step = load or self._fresh if taken else load and not self._fresh
        drop = self._skip == 0 and not aligned and self._full[0]
        return load, step, drop, end // packing.chunk if step else self._skip

    def ready(self, ready: bool, bits: int, align: bool, span: int = 1) -> bool:
        """Return whether a beat is taken, given the consumer's ready, the width and the end.

        Words have ``span * rows`` elements.
        """
        _, _, drop, passed = self._decide(ready, bits, align, span)
        moves = drop or passed > 0 or not all(self._full)
        if self._ratio == 1:
            return moves
        return self._cut == 0 or (moves and self._cut == 1)

    def clock(self, valid: bool, ready: bool, bits: int, align: bool, span: int = 1) -> None:
        """End a cycle with these inputs."""
        packing, taken = self._packing, self.valid and ready
        takes = self.ready(ready, bits, align, span)
        load, step, drop, passed = self._decide(ready, bits, align, span)
        shift = drop or passed > 0
        moves = shift or not all(self._full)
        incoming = valid if self._ratio == 1 else self._cut > 0
        if takes:
            self._cut = self._ratio if valid else 0
        elif moves:
            self._cut -= 1
        # All above the lowest that is free come down, or all.
        low = 0 if shift else self._full.index(False) if moves else packing.places
        self._full = [*self._full[:low], *self._full[low + 1:], incoming][:packing.places]
        self._skip = passed - (shift and not drop)
        self._line = (self._line + shift) % packing.line
        if step:
            self._place = (self._place + packing.units[bits, span]) % packing.chunk
        elif drop:
            self._place = 0
        if load:
            self._aligning = False
        if taken:
            self._fresh = align
            self._aligning = self._aligning or align
        self.valid = load or (self.valid and not taken)
