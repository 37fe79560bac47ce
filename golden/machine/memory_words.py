# SPDX-License-Identifier: Apache-2.0
"""When the unpacker takes beats, and when it offers words."""

__all__ = ["WordStream"]

from golden.machine.memory_fetch import NEVER, PAST, Fetch
from vitforge.spec.config import Config
from vitforge.spec.packing import Packing


class WordStream:
    """`hw.bus.unpacker` behind a `Fetch`.

    A chunk enters when the one `places` before it has been passed. A word is copied to the window
    when its last chunk has come down to where it is looked for, and when the word before it is
    taken; that passes the chunks that have no more use. Only the first word of a block does so when
    it is taken itself.

    Attributes
    ----------
    ratio
        Chunks of a beat.
    places, line
        See `vitforge.spec.packing.Packing`.
    passed
        Chunks that have been passed, by words up to the one in the window.
    place
        Units of the chunk behind them that have been used up as well.
    kind, left
        Width of the block's elements and how many times `rows` of them a word has; and the block's
        words that have not been taken.
    fresh
        The next word opens a block.
    """

    def __init__(self, config: Config, fetch: Fetch):
        packing = Packing(config)
        self.fetch = fetch
        self.ratio = fetch.width // (packing.chunk * packing.unit)
        self.places, self.line = packing.places, packing.line
        self._opening = -(-packing.largest // packing.chunk)
        #: By kind and place: chunks that a word lies in, those it uses up, the place behind it.
        self._tables = {kind: [(-(-(place + units) // packing.chunk),
                                *divmod(place + units, packing.chunk))
                               for place in range(packing.chunk)]
                        for kind, units in packing.units.items()}
        self.passed = self.place = self.left = 0
        self.kind, self.fresh = (8, 1), True
        self._mask = fetch.mask
        self._reset(0)
        self._free = 0

    def _reset(self, entered: int) -> None:
        """Let so many chunks have entered, long ago."""
        self._entered = self._edge = entered
        # Cycles by chunk, at ``chunk & mask``. A beat that is one chunk is taken as that enters.
        self._enters = self.fetch.taken if self.ratio == 1 else [PAST] * (self._mask + 1)
        self._leaves = [PAST] * (self._mask + 1)
        self._entry = PAST              # of the last chunk, or of a beat that was taken behind it
        self._gone = PAST               # the cycle after the last chunk was passed
        self._free = PAST               # the window may be loaded from then on
        self._offered = PAST            # the next word is there

    def settle(self) -> None:
        """Let everything be where it gets without a word being taken, and that long ago."""
        entered = self.passed + self.places
        self.fetch.settle(entered if self.ratio == 1 else entered // self.ratio + 1)
        self._reset(entered)
        self._edge = self.fetch.asked if self.ratio == 1 else -(-entered // self.ratio) * self.ratio

    def settled(self) -> int:
        """Return the cycle from which on it has been like that; `NEVER` after the last burst.

        All bursts have been chosen that don't wait for words.
        """
        if self.fetch.next() != NEVER or self.fetch.asked == self.fetch.total:
            return NEVER
        return max(self._offered, self._entry + self.places, self._gone, self.fetch.last + 2)

    def begin(self, bits: int, words: int, span: int = 1) -> None:
        """Begin a block."""
        assert not self.left and words > 0
        self.align()
        self.kind, self.left = (bits, span), words
        # The first word waits for as much as the largest has.
        end = self.passed + self._opening
        self._enter(end)
        self._offered = 1 + max(self._free, self._gone, self._enters[end - 1 & self._mask]
                                + self.places - self._opening + 1)

    def run(self, ready_at: int, words: int) -> tuple[int, int]:
        """Return the cycles of the first and the last of some words of the block.

        They are taken as they come, from `ready_at` on.
        """
        assert 0 < words <= self.left
        self.left -= words
        first = last = max(ready_at, self._offered)
        self._free = first
        if self.fresh:
            _, chunks, self.place = self._tables[self.kind][0]
            self._pass(first, chunks)
            self._free += 1
            self.fresh = False
        if words > 1:
            last = self._free = self._copy(words - 1, ready_at)
        if self.left:
            self._copy(1, PAST)
        else:
            self.fresh = True
            self._free = last + 1
        return first, last

    def _copy(self, words: int, ready_at: int) -> int:
        """Copy words to the window; return when the last is taken, all from `ready_at` on."""
        # All that a word needs in local names: this is where the time goes.
        table, places, mask = self._tables[self.kind], self.places, self._mask
        enters, leaves = self._enters, self._leaves
        entered, edge, entry = self._entered, self._edge, self._entry
        place, passed, gone, taken = self.place, self.passed, self._gone, self._free
        offered = 0
        for _ in range(words):
            reach, chunks, place = table[place]
            last = passed + reach - 1
            while entered <= last:
                if entered == edge:
                    self._entered, self._entry = entered, entry
                    self._beat()
                    edge, entry = self._edge, self._entry
                entry += 1
                left = leaves[entered - places & mask]
                if entry < left:
                    entry = left
                enters[entered & mask] = entry
                entered += 1
            load = enters[last & mask] + places - reach + 1
            if load < taken:
                load = taken
            if load < gone:
                load = gone
            taken = offered = load + 1
            if chunks:
                for chunk in range(passed, passed + chunks):
                    leaves[chunk & mask] = load
                    load += 1
                passed += chunks
                gone = load
            if taken < ready_at:
                taken = ready_at
        self._entered, self._entry = entered, entry
        self.place, self.passed, self._gone, self._offered = place, passed, gone, offered
        return taken

    def _pass(self, cycle: int, chunks: int) -> None:
        """Pass chunks, one a cycle."""
        for _ in range(chunks):
            self._leaves[self.passed & self._mask] = cycle
            self.passed += 1
            cycle += 1
            self._gone = cycle

    def _beat(self) -> None:
        """Let the next beat be taken, unless it has been, at the edge between two of them."""
        fetch = self.fetch
        if self.ratio == 1:
            # Those of a burst follow each other, so only its first one is an edge.
            fetch.beat = self._entered
            self._entry = fetch.take(self._entry + 1) - 1
            self._edge = fetch.edge()
        else:
            # It goes to a register of its own as the last chunk of the one before leaves that.
            if self._entered == fetch.beat * self.ratio:
                self._entry = fetch.take(self._entry)
            self._edge = self._entered + self.ratio

    def _enter(self, end: int) -> None:
        """Let chunks enter, so many in all, if they haven't."""
        for chunk in range(self._entered, end):
            if chunk == self._edge:
                self._beat()
            self._entry = max(self._entry + 1, self._leaves[chunk - self.places & self._mask])
            self._enters[chunk & self._mask] = self._entry
            self._entered = chunk + 1

    def align(self) -> None:
        """Drop what is left of the last line of a block."""
        while self.place or self.passed % self.line:
            self._enter(self.passed + 1)
            self._pass(max(self._free, self._gone,
                           self._enters[self.passed & self._mask] + self.places), 1)
            self.place = 0

    def ahead(self, cycle: int) -> None:
        """Let all bursts be chosen that are up to a cycle, if no more words are taken."""
        fetch, ratio = self.fetch, self.ratio
        while True:
            self._enter(min(self.passed + self.places, fetch.asked * ratio))
            if ratio == 1:
                fetch.beat = self._entered
            elif self._entered == fetch.beat * ratio and fetch.beat < fetch.asked:
                self._entry = fetch.take(self._entry)
            chosen = fetch.next()
            if chosen > cycle:
                return
            fetch.fetch(chosen)
