# SPDX-License-Identifier: Apache-2.0
"""When the words of a program and the data of a LOAD come from memory, cycle by cycle.

The way from the memory to the sequencer is one queue after another, and each passes its items on in
order. So the cycle of every item is a maximum over cycles of items before it, and a model is a few
such maxima for every burst, chunk and word, asked for when a word is:

- A burst is chosen one cycle after the one before, after the beat whose place in the buffer it
  needs was taken, after the `OUTSTANDING`-th burst before it ended; its first beat comes `latency`
  cycles after its address, or behind the beat before. Within a burst the beats of a program follow
  each other, so only the first beat of a burst can make a chunk wait.
- A chunk enters the unpacker when the one `places` before it has left.
- A word is copied when its last chunk has come down to where it is looked for, and when the word
  before it is taken; that passes the chunks that it used up.

All cycles count from the one in which the reader takes the program's range, which is the first
one after the reset.
"""

__all__ = ["Memory"]

from collections import deque
from collections.abc import Mapping

from golden.memory_load import Placement
from hw.bursts import Bursts
from hw.config import Config
from hw.packing import OUTSTANDING, Packing, burst_limit

#: A cycle before all others.
PAST = -(1 << 40)
#: A cycle that never comes.
NEVER = 1 << 60


class Memory:
    """Memory, `hw.memory_reader`, `hw.unpacker` and `hw.placer`; what comes behind asks it.

    Calls are in the order of the program: `begin`, then all words of the block, then the next
    block, or a `load`.

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

    Attributes
    ----------
    beats
        All that have been asked for, of the program and of LOADs.
    wait
        Cycles in which beats were to come and none came, up to the last of `beats`; exact for a
        run after `finish`.
    """

    def __init__(self, config: Config, latency: int, *, address: int, size: int,
                 input_address: int = 0):
        if latency < 1:
            raise ValueError(f"latency must be at least 1, not {latency}")
        self.config, self.latency, self.input_address = config, latency, input_address
        width = config.axi_bits // 8
        self.width = width
        self.beats = self.wait = 0
        # Bus: cycle of the last choice, of the last beat, and of the last beats of old bursts.
        self._chosen = Bursts.latency - 1
        self._last = PAST
        self._ends: deque[int] = deque([PAST] * OUTSTANDING, OUTSTANDING)
        # Program: beats in all, asked for, and first beats of bursts that have not been taken.
        self._limit, self._depth = burst_limit(config), config.fetch_beats
        self._total = size // width
        self._asked = 0
        self._skew = address // width % self._limit
        self._beat = 0
        self._firsts: deque[tuple[int, int]] = deque()
        self._taken = [PAST] * self._depth        # by beat, modulo the depth

        # Unpacker: chunks that have entered, that have been passed, and when.
        packing = Packing(config)
        self._ratio = width // (packing.chunk * packing.unit)
        self._places, self._line = packing.places, packing.line
        self._tables = {bits: [(-(-(place + units) // packing.chunk),
                                *divmod(place + units, packing.chunk))
                               for place in range(packing.chunk)]
                        for bits, units in packing.units.items()}
        self._opening = -(-packing.largest // packing.chunk)
        self._entered = self._passed = 0
        self._enters = [PAST] * 64
        self._leaves = [PAST] * 64
        self._mask = 63
        self._entry = PAST                          # of the last chunk
        self._gone = PAST                           # cycle after the last chunk was passed
        self._place = 0
        self._table = self._tables[8]
        self._left = 0                              # words of the block
        self._fresh = True
        self._free = 0                              # the window may be loaded from then on

    # -- what the sequencer does

    def begin(self, bits: int, words: int) -> None:
        """Begin a block of `words` words of elements of `bits` bits."""
        assert not self._left and words > 0
        self._align()
        self._table, self._left = self._tables[bits], words

    def word(self, ready_at: int) -> int:
        """Return the cycle in which the next word is taken, if it may be from `ready_at` on."""
        return self.run(ready_at, 1)[1]

    def run(self, ready_at: int, words: int) -> tuple[int, int]:
        """Return the cycles of the first and the last of `words` words.

        They are taken as they come, from `ready_at` on.
        """
        self._left -= words
        assert self._left >= 0
        table, places, mask = self._table, self._places, self._mask
        enters, leaves = self._enters, self._leaves
        place, passed, gone, free = self._place, self._passed, self._gone, self._free
        first = -1
        for _ in range(words):
            reach, chunks, following = table[place]
            if self._fresh:
                # It waits for the widest of words, and passes none until it is taken.
                reach = self._opening
            last = passed + reach - 1
            if last >= self._entered:
                self._enter(last + 1)
            load = max(free, enters[last & mask] + places - reach + 1, gone)
            taken = max(ready_at, load + 1)
            free = taken
            if self._fresh:
                load = taken
                free = taken + 1
                self._fresh = False
            for chunk in range(chunks):
                leaves[passed + chunk & mask] = load + chunk
            if chunks:
                passed += chunks
                gone = load + chunks
                self._passed = passed
            place = following
            if first < 0:
                first = taken
        self._place, self._gone, self._free = place, gone, free
        if not self._left:
            self._fresh = True
            self._free = taken + 1
        return first, taken

    def load(self, at: int, fields: Mapping[str, int]) -> int:
        """Return the cycle in which a LOAD is done that reader and placer are given in `at`.

        One whose data is not in the program.
        """
        assert not self._left
        self._align()
        # Its bursts go before those of the program that aren't chosen by then.
        begin = at + Bursts.latency - 1
        self._ahead(begin)
        self._chosen = max(self._chosen, begin)
        placement = Placement(self.config, fields)
        at = (self.input_address + fields["offset"]) // self.width
        left = fields["bytes"] // self.width
        while left:
            size = min(left, self._limit - at % self._limit)
            cycle = self._burst(max(self._chosen, self._ends[0]) + 1, size)
            self.wait -= size
            first = cycle
            for _ in range(size):
                self._last = placement.beat(cycle)
                cycle = self._last + 1
            self.wait += cycle - first
            self._ends.append(self._last)
            left -= size
            at += size
        return placement.done()

    def finish(self, cycle: int) -> None:
        """Let the reader go on until the end of the run, in which no word is taken any more."""
        self._align()
        self._ahead(cycle)

    # -- reader

    def _burst(self, chosen: int, beats: int) -> int:
        """Choose a burst of `beats` beats; return the cycle of its first one."""
        self._chosen = chosen
        waits = max(chosen, self._last) + 1
        first = max(chosen + 1 + self.latency, self._last + 1)
        self.wait += first - waits
        self.beats += beats
        return first

    def _next(self) -> int:
        """Return the cycle in which the next burst of the program is chosen.

        `NEVER` if words must be taken before, or if there is none.
        """
        if self._asked == self._total:
            return NEVER
        cycle = max(self._chosen, self._ends[0])
        needed = self._asked + self._limit - self._depth - 1    # this beat must have been taken
        if needed >= self._beat:
            return NEVER
        if needed >= 0:
            cycle = max(cycle, self._taken[needed % self._depth])
        return cycle + 1

    def _fetch(self, chosen: int) -> None:
        """Choose the next burst of the program."""
        size = min(self._total - self._asked,
                   self._limit - (self._skew + self._asked) % self._limit)
        first = self._burst(chosen, size)
        self._last = first + size - 1
        self._ends.append(self._last)
        self._firsts.append((self._asked, first))
        self._asked += size

    def _ahead(self, cycle: int) -> None:
        """Choose all bursts of the program that are chosen up to a cycle without new words."""
        while True:
            # Chunks enter where the ones before them have been passed.
            last = min(self._passed + self._places, self._asked * self._ratio)
            if last > self._entered:
                self._enter(last)
            # A beat that waits for that has been taken already.
            if self._ratio > 1 and self._entered == self._beat * self._ratio \
                    and self._beat < self._asked:
                self._take(self._entry)
            chosen = self._next()
            if chosen > cycle:
                return
            self._fetch(chosen)

    def _take(self, cycle: int) -> int:
        """Let the unpacker take the next beat in a cycle or later; return which."""
        if self._beat == self._asked:
            chosen = self._next()
            if chosen == NEVER:
                raise ValueError("the program ends before its words")
            self._fetch(chosen)
        if self._firsts and self._firsts[0][0] == self._beat:
            # It is offered two cycles after it came; so are all of its burst, one a cycle.
            cycle = max(cycle, self._firsts.popleft()[1] + 2)
        self._taken[self._beat % self._depth] = cycle
        self._beat += 1
        return cycle

    # -- unpacker

    def _enter(self, end: int) -> None:
        """Let chunks enter, so many in all."""
        ratio, places, mask = self._ratio, self._places, self._mask
        for chunk in range(self._entered, end):
            left = self._leaves[chunk - places & mask]
            if ratio == 1:
                cycle = self._take(max(self._entry + 1, left))
            else:
                # A beat moves to a register of its own, in the cycle in which the one before
                # leaves that with its last chunk.
                if chunk == self._beat * ratio:
                    self._entry = self._take(self._entry)
                cycle = max(self._entry + 1, left)
            self._enters[chunk & mask] = self._entry = cycle
        self._entered = end

    def _align(self) -> None:
        """Drop what is left of the last line of a block."""
        while self._place or self._passed % self._line:
            if self._passed == self._entered:
                self._enter(self._passed + 1)
            cycle = max(self._free, self._enters[self._passed & self._mask] + self._places,
                        self._gone)
            self._leaves[self._passed & self._mask] = cycle
            self._gone = cycle + 1
            self._passed += 1
            self._place = 0
