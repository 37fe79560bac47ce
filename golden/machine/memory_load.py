# SPDX-License-Identifier: Apache-2.0
"""When the placer takes the beats of a LOAD, and when it is done."""

__all__ = ["Placement"]

import math
from collections.abc import Mapping

from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS


class Placement:
    """One LOAD in `hw.bus.placer`, which cuts beats to chunks of a word, and these to pieces.

    A piece is cut a cycle, so a chunk is taken with the last piece of the one before. After the
    last piece of all, what is left of the data is dropped as it comes.

    Parameters
    ----------
    config
    fields
        Of the instruction.

    Raises
    ------
    ValueError
        If the loops have more pieces than the data.
    """

    def __init__(self, config: Config, fields: Mapping[str, int]):
        self._pieces = math.prod(fields[f"count_{loop}"] for loop in range(LOOPS))
        if self._pieces << fields["piece"] > fields["bytes"]:
            raise ValueError(f"a LOAD of {fields['bytes']} bytes has {self._pieces} pieces of "
                             f"{1 << fields['piece']}")
        width = config.axi_bits // 8
        self._of_chunk = config.rows >> fields["piece"]
        self._chunks = max(1, width // config.rows)     # of a beat
        self._beats = max(1, config.rows // width)      # of a chunk
        self._latency = int(width != config.rows)       # of what makes one of the other
        self._missing = self._beats                     # beats of the chunk that is put together
        self._next = 0                                  # the next beat may be taken from then on
        self._room = 0                                  # the next chunk may be cut from then on
        self._dropping = -1                             # everything may be taken from then on
        self._last = 0

    def beat(self, offered: int) -> int:
        """Return the cycle in which the next beat is taken, offered from a cycle on."""
        taken = self._last = max(offered, self._next)
        self._missing -= 1
        if not self._missing:
            self._missing = self._beats
            chunk = taken + self._latency
            for _ in range(self._chunks):
                chunk = max(chunk, self._room)
                self._next = chunk
                if self._pieces:
                    pieces = min(self._pieces, self._of_chunk)
                    self._pieces -= pieces
                    self._room = chunk + pieces
                    if not self._pieces:
                        self._dropping = chunk + pieces + 1
                        self._room += pieces < self._of_chunk
                else:
                    chunk += 1
            if self._latency == 0:
                self._next = self._room
            if not self._pieces:
                self._next = min(self._next, self._dropping)
        return taken

    def done(self) -> int:
        """Return the cycle of `done`, after the last beat."""
        return max(self._dropping, self._last + 1)
