# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.writer`: what memory becomes.

Its bursts are those of `golden.machine.engines.reader`; when they come is in
`golden.machine.memory_write`.
"""

__all__ = ["packed", "placed"]

from collections.abc import Iterable, Sequence

#: Bytes of a sum.
SUM = 4


def packed(words: Iterable[Sequence[int]]) -> bytes:
    """Return the bytes of words of `lanes` sums, 32 bits each, in the order in which they come."""
    return b"".join(value.to_bytes(SUM, "little", signed=True) for word in words for value in word)


def placed(before: bytes | bytearray, ranges: Iterable[tuple[int, bytes]]) -> bytearray:
    """Return what memory becomes with all ranges (address, bytes) in their places.

    Nothing beside them is written: what a last beat has beyond its range has no strobes. A beat is
    offered from the cycle after its last sums were taken.
    """
    data = bytearray(before)
    for address, part in ranges:
        data[address:address + len(part)] = part
    return data
