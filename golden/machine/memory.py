# SPDX-License-Identifier: Apache-2.0
"""When the words of a program and the data of a LOAD come from memory, cycle by cycle.

The way from the memory to the sequencer is one queue after another, and each passes its items on in
order. So the cycle of every item is a maximum over cycles of items before it, and a model is a few
such maxima for every burst (`golden.machine.memory_fetch`), chunk and word
(`golden.machine.memory_words`).

Most of the time even that isn't needed. While the array computes, the buffer fills up and all comes
to rest; what the weights of the next tile do then depends on where in the program they begin, but
not on when. So this is found once, for all tiles that begin at such a place.

All cycles count from the one in which the reader takes the program's range, which is the first
one after the reset.
"""

__all__ = ["Memory"]

from collections.abc import Mapping
from typing import NamedTuple

from golden.machine.memory_fetch import CHOICE, NEVER, Fetch
from golden.machine.memory_words import WordStream
from vitforge.spec.config import Config

#: Words from which on it pays to look for what has been found before.
_MANY = 4
#: Beats of a program without end.
_ENDLESS = 1 << 60


class _Place(NamedTuple):
    """Where a program is, if everything is at rest, and the counters up to there."""

    passed: int
    place: int
    left: int
    asked: int
    beats: int
    wait: int


class Memory:
    """Memory, reader, unpacker and placer, as those who take words and give LOADs see them.

    Calls are in the order of the program: `begin`, then all words of the block, then the next
    block, or a `load` behind a block that fills its last line (that of an instruction does).

    Parameters
    ----------
    config
    latency
        Cycles from an address to its first beat, at least 1; the rest of the memory's rule is in
        `sim/memory.v`.
    address, size
        Of the program, in bytes.
    input_address
        Of the input buffer.
    """

    def __init__(self, config: Config, latency: int, *, address: int, size: int,
                 input_address: int = 0):
        self.input_address = input_address
        self._fetch = Fetch(config, latency, address=address, size=size)
        self._stream = WordStream(config, self._fetch)
        #: After so many chunks, bursts and lines are at the same places again.
        self._period = max(self._fetch.limit * self._stream.ratio, self._stream.line)
        self._known: dict[tuple[tuple[int, int], int, int, int], tuple[int, int, _Place]] = {}
        #: A run of words that was only looked up: where and when it began, and when all rests.
        self._skipped: tuple[_Place, int, int] | None = None
        self._rest = NEVER

    @property
    def beats(self) -> int:
        """Beats that have been asked for, of the program and of LOADs; all, after `finish`."""
        return self._fetch.beats

    @property
    def wait(self) -> int:
        """Cycles in which one of `beats` is waited for and none comes: the counter MEMORY_WAIT."""
        return self._fetch.wait

    def begin(self, bits: int, words: int, span: int = 1) -> None:
        """Begin a block of `words` words of ``span * rows`` elements of `bits` bits."""
        self._wake()
        self._stream.begin(bits, words, span)

    def word(self, ready_at: int) -> int:
        """Return the cycle in which the next word is taken, if it may be from `ready_at` on."""
        return self.run(ready_at, 1)[1]

    def run(self, ready_at: int, words: int) -> tuple[int, int]:
        """Return the cycles of the first and the last of `words` words of the block.

        They are taken as they come, from `ready_at` on.
        """
        stream = self._stream
        if _MANY <= words < stream.left and not stream.fresh:
            if self._skipped is None:
                self._rest = self._fetch.last       # at the earliest: most don't come that far
                if self._rest <= ready_at:
                    stream.ahead(ready_at)
                    self._rest = stream.settled()
            if self._rest <= ready_at:
                last = self._skip(ready_at, words)
                if last >= 0:
                    return ready_at, last
        self._wake()
        return stream.run(ready_at, words)

    def load(self, at: int, fields: Mapping[str, int]) -> int:
        """Return the cycle of the placer's `done` for a LOAD that is issued in cycle `at`.

        One whose data is not in the program.

        Raises
        ------
        ValueError
            If its loops have more pieces than its data, which is a fault.
        """
        self._wake()
        stream = self._stream
        assert not stream.left
        stream.align()
        # What is chosen before the LOAD's first burst can be.
        stream.ahead(at + CHOICE - 1)
        return self._fetch.load(at, self.input_address + fields["offset"], fields)

    def finish(self, cycle: int) -> None:
        """Let the reader go on until the end of the run, without another word."""
        self._wake()
        self._stream.align()
        self._stream.ahead(cycle)

    # -- words that come from rest

    def _now(self) -> _Place:
        stream, fetch = self._stream, self._fetch
        return _Place(stream.passed, stream.place, stream.left, fetch.asked, fetch.beats,
                      fetch.wait)

    def _go(self, place: _Place) -> None:
        stream, fetch = self._stream, self._fetch
        stream.passed, stream.place, stream.left, fetch.asked, fetch.beats, fetch.wait = place

    def _skip(self, ready_at: int, words: int) -> int:
        """Look up a run that begins at rest; return its last cycle, or -1."""
        stream = self._stream
        key = (stream.kind, words, stream.place, stream.passed % self._period)
        if key not in self._known:
            self._known[key] = self._explore(words)
        last, rest, change = self._known[key]
        here = self._now()
        if here.asked + change.asked > self._fetch.total:
            return -1
        self._go(_Place(here.passed + change.passed, change.place, here.left - words,
                        here.asked + change.asked, here.beats + change.asked,
                        here.wait + change.wait))
        self._skipped = here, ready_at, words
        self._rest = ready_at + rest
        return ready_at + last

    def _explore(self, words: int) -> tuple[int, int, _Place]:
        """Run from rest in cycle 0; return the last word's cycle, that of rest, and the change."""
        stream, fetch = self._stream, self._fetch
        here, total = self._now(), fetch.total
        fetch.total = _ENDLESS
        stream.settle()
        _, last = stream.run(0, words)
        stream.ahead(NEVER - 1)
        rest = stream.settled()
        there = self._now()
        fetch.total = total
        self._go(here)
        stream.settle()
        return last, rest, _Place(there.passed - here.passed, there.place, 0,
                                  there.asked - here.asked, 0, there.wait - here.wait)

    def _wake(self) -> None:
        """Do what was only looked up: it may matter again when things happened."""
        if self._skipped is not None:
            (place, ready_at, words), self._skipped = self._skipped, None
            self._go(place)
            self._stream.settle()
            self._stream.run(ready_at, words)
