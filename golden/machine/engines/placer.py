# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.placer`: LOAD's scatter, by its definition and cycle by cycle."""

__all__ = ["PlacerModel", "places", "scatter"]

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS
from vitforge.spec.sizes import ADDRESS_BITS

#: Places that the loops reach: they wrap around.
PLACES = 1 << 28
#: Words of a bank that an address reaches: they do, too.
_WORDS = 1 << ADDRESS_BITS
#: Cycles between taking a command and cutting its first piece, at the earliest.
SETUP = 4


def places(command: Mapping[str, int]) -> Iterator[int]:
    """Yield the places of all pieces: nested loops, loop 0 the innermost.

    The first is `base`; from one to the next it is `delta` of the outermost loop that steps, modulo
    `PLACES`.
    """
    place, counters = command["base"], [0] * LOOPS
    while True:
        yield place % PLACES
        for loop in range(LOOPS):
            if counters[loop] + 1 < command[f"count_{loop}"]:
                counters[loop] += 1
                place += command[f"delta_{loop}"]
                break
            counters[loop] = 0
        else:
            return


def scatter(command: Mapping[str, int], stream: bytes, config: Config) -> dict[int, int]:
    """Return what the bank's bytes become: the address of a byte to the byte.

    Pieces of ``2**piece`` bytes follow each other in the stream, and what is behind the last loop
    is dropped. Where two lie in one place, the later one counts.
    """
    size = 1 << command["piece"]
    bank = {}
    for index, place in enumerate(itertools.islice(places(command), len(stream) // size)):
        for byte in range(size):
            bank[(place * size + byte) % (config.rows * _WORDS)] = stream[index * size + byte]
    return bank


class _Split:
    """`hw.lib.chunks.Split` of beats of `ratio` chunks."""

    def __init__(self, ratio: int):
        self.ratio = ratio
        self.chunks: list[bytes] = []

    def ready(self, taken: bool, drop: bool) -> bool:
        if self.ratio == 1:
            return taken
        return not self.chunks or (taken and (len(self.chunks) == 1 or drop))

    def offer(self, beat: bytes | None) -> bytes | None:
        return beat if self.ratio == 1 else self.chunks[0] if self.chunks else None

    def clock(self, beat: bytes | None, taken: bool, drop: bool) -> None:
        if self.ratio == 1:
            return
        if self.ready(taken, drop):
            self.chunks = []
            if beat is not None:
                size = len(beat) // self.ratio
                self.chunks = [beat[at:at + size] for at in range(0, len(beat), size)]
        elif taken:
            self.chunks.pop(0)


class _Join:
    """`hw.lib.chunks.Join` of words of `ratio` chunks."""

    def __init__(self, ratio: int):
        self.ratio = ratio
        self.parts: list[bytes] = []

    @property
    def full(self) -> bool:
        return len(self.parts) == self.ratio

    def ready(self, taken: bool) -> bool:
        return taken if self.ratio == 1 else not self.full or taken

    def offer(self, chunk: bytes | None) -> bytes | None:
        return chunk if self.ratio == 1 else b"".join(self.parts) if self.full else None

    def clock(self, chunk: bytes | None, taken: bool) -> None:
        if self.ratio > 1:
            if self.full and taken:
                self.parts = []
            if chunk is not None and not self.full:
                self.parts.append(chunk)


class PlacerModel:
    """The placer on every cycle: `settle` says what it shows, `clock` ends the cycle.

    A command that is taken in cycle c takes beats of `axi_bits` bits from c+2 on. They become
    chunks of `rows` bytes; from c + 1 + `SETUP` on one piece a cycle is cut from the chunk, and
    written a cycle later. The pulse `done` comes one cycle after the last piece was cut and the
    last beat taken; `overrun` when nothing is left to cut before the loops end.

    Parameters
    ----------
    config
        `rows` and `lanes` are powers of two; a piece has `lanes` to `rows` bytes.
    """

    def __init__(self, config: Config):
        self.config = config
        width = config.axi_bits // 8
        self._split = _Split(max(1, width // config.rows))
        self._join = _Join(max(1, config.rows // width))
        self._state, self._setup = "IDLE", 0
        self._command: Mapping[str, int] = {}
        self._left = 0                          # beats to come
        self._chunk = b""
        self._pieces = 0
        self._places: Iterator[int] = iter(())
        self._written: tuple[int, bytes] | None = None

    @property
    def _cut(self) -> bool:
        return self._state == "CUT" and bool(self._chunk)

    def _wants(self) -> tuple[bool, bool, bool]:
        """Whether a chunk may come, and whether split and join give theirs away."""
        flush = self._state in ("IDLE", "DROP")
        # The next comes with the last piece of the one before.
        last = self._cut and len(self._chunk) == 1 << self._command["piece"]
        chunk = flush or not self._chunk or last
        return flush, chunk, self._join.ready(chunk)

    def settle(self) -> dict[str, Any]:
        """Return the outputs by their paths; of a write that is none, the enable alone."""
        flush, _, part = self._wants()
        over = not self._left
        empty = not self._split.chunks and not self._join.parts
        outputs: dict[str, Any] = {
            "command.ready": self._state == "IDLE",
            "data.ready": not over and self._split.ready(part, flush),
            "write.en": self._written is not None,
            "done": self._state == "DROP" and over,
            "overrun": self._state == "CUT" and not self._chunk and over and empty,
        }
        if self._written is not None:
            place, piece = self._written
            size, rows, lanes = len(piece), self.config.rows, self.config.lanes
            at = place * size % rows
            outputs |= {
                "write.destination": self._command["destination"],
                "write.address": place * size // rows % _WORDS,
                "write.mask": (1 << size // lanes) - 1 << at // lanes,
                # The piece is in every place of the word; the mask says which of them counts.
                "write.data": int.from_bytes(piece * (rows // size), "little"),
            }
        return outputs

    def clock(self, command: Mapping[str, int] | None, beat: bytes | None) -> None:
        """End a cycle in which this command, and this beat, was offered."""
        outputs = self.settle()
        flush, wants, part = self._wants()
        offered = beat if self._left else None
        if outputs["data.ready"] and offered is not None:
            self._left -= 1
        chunk = self._split.offer(offered)
        word = self._join.offer(chunk)
        self._split.clock(offered, part, flush)
        self._join.clock(chunk, wants)
        self._step(outputs, command, word, wants)

    def _step(self, outputs: dict[str, Any], command: Mapping[str, int] | None,
              word: bytes | None, wants: bool) -> None:
        """Cut a piece, take the next chunk, go to the next state."""
        cut, self._written = self._cut, None
        if cut:
            size = 1 << self._command["piece"]
            self._written = next(self._places), self._chunk[:size]
            self._chunk = self._chunk[size:]
            self._pieces -= 1
        if wants:
            self._chunk = word or b""
        if self._state == "IDLE":
            if command is not None:
                self._command, self._state, self._setup = dict(command), "SETUP", 0
                self._places = places(self._command)
                self._pieces = math.prod(command[f"count_{loop}"] for loop in range(LOOPS))
        elif self._state == "SETUP":
            if not self._setup:
                self._left = self._command["bytes"] * 8 // self.config.axi_bits
            self._setup += 1
            if self._setup == SETUP:
                self._state = "CUT"
        elif self._state == "CUT":
            if cut and not self._pieces:
                self._state = "DROP"
            elif outputs["overrun"]:
                self._state = "IDLE"
        elif outputs["done"]:
            self._state = "IDLE"
