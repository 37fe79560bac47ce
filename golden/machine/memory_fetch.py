# SPDX-License-Identifier: Apache-2.0
"""When the bursts of the program and of LOADs are asked for, and when they come."""

__all__ = ["CHOICE", "NEVER", "PAST", "Fetch"]

from collections import deque
from collections.abc import Mapping

from golden.machine.memory_load import Placement
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit

#: A cycle before all others, and one that never comes.
PAST, NEVER = -(1 << 40), 1 << 60
#: From a range that is taken to the choice of its first burst: the latency of `hw.bus.bursts`.
CHOICE = 3


class Fetch:
    """`hw.bus.reader` and a memory of fixed latency.

    A burst is chosen one cycle after the one before, after the beat whose place in the buffer it
    needs was taken, and after the `OUTSTANDING`-th burst before it ended. Its first beat comes
    `latency` cycles after its address, which is one cycle after the choice, or behind the beat
    before. Beats of the program follow each other and are offered two cycles later; those of a LOAD
    wait for the placer.

    Attributes
    ----------
    beats, wait
        See `golden.machine.memory.Memory`.
    asked, beat
        Beats of the program that have been asked for, and that have been taken.
    taken
        Cycles of these, of beat n at ``n & mask``.
    last
        Cycle of the last beat of all that are asked for.
    """

    def __init__(self, config: Config, latency: int, *, address: int, size: int):
        if latency < 1:
            raise ValueError(f"latency must be at least 1, not {latency}")
        self.config, self.latency = config, latency
        self.width = config.axi_bits // 8
        self.beats = self.wait = 0
        self.limit, self._depth = burst_limit(config), config.fetch_beats
        self.total = size // self.width
        #: Where the program begins in a longest burst.
        self._skew = address // self.width % self.limit
        self.asked = 0
        self.mask = max(self._depth, 64) - 1
        self.settle(0)
        # The range is taken in cycle 0.
        self._chosen = CHOICE - 1

    def settle(self, beat: int) -> None:
        """Let all that has been asked for be there, and so many beats be taken, long ago."""
        self.beat = beat
        self._chosen = self.last = PAST
        self._ends = deque([PAST] * OUTSTANDING, OUTSTANDING)
        #: First beats that have not been taken, and when they come.
        self._firsts: deque[tuple[int, int]] = deque()
        self.taken = [PAST] * (self.mask + 1)

    def _burst(self, chosen: int, beats: int) -> int:
        """Choose a burst; return the cycle of its first beat."""
        first = max(chosen + 1 + self.latency, self.last + 1)
        self.wait += first - max(chosen, self.last) - 1
        self.beats += beats
        self._chosen = chosen
        return first

    def next(self) -> int:
        """Return the cycle in which the next burst of the program is chosen.

        `NEVER` if beats must be taken before, or if there is none.
        """
        if self.asked == self.total:
            return NEVER
        cycle = max(self._chosen, self._ends[0])
        # There must be room for a longest burst: the beat that makes it must have been taken.
        needed = self.asked + self.limit - self._depth - 1
        if needed >= self.beat:
            return NEVER
        if needed >= 0:
            cycle = max(cycle, self.taken[needed & self.mask])
        return cycle + 1

    def fetch(self, chosen: int) -> None:
        """Choose the next burst of the program."""
        size = min(self.total - self.asked, self.limit - (self._skew + self.asked) % self.limit)
        first = self._burst(chosen, size)
        self.last = first + size - 1
        self._ends.append(self.last)
        self._firsts.append((self.asked, first))
        self.asked += size

    def take(self, cycle: int) -> int:
        """Take the next beat of the program in a cycle or later; return in which."""
        if self.beat == self.asked:
            chosen = self.next()
            if chosen == NEVER:
                raise ValueError("the program ends before its words")
            self.fetch(chosen)
        # Those behind the first of a burst are there in time: nothing takes two in a cycle.
        if self._firsts and self._firsts[0][0] == self.beat:
            cycle = max(cycle, self._firsts.popleft()[1] + 2)
        self.taken[self.beat & self.mask] = cycle
        self.beat += 1
        return cycle

    def edge(self) -> int:
        """Return the first of the beats from `beat` on that may have to be waited for."""
        return self._firsts[0][0] if self._firsts else self.asked

    def load(self, at: int, address: int, fields: Mapping[str, int]) -> int:
        """Return the cycle in which a LOAD that is taken in cycle `at` is done.

        All bursts of the program that go before it have been chosen.
        """
        self._chosen = max(self._chosen, at + CHOICE - 1)
        placement = Placement(self.config, fields)
        place, left = address // self.width, fields["bytes"] // self.width
        while left:
            size = min(left, self.limit - place % self.limit)
            first = cycle = self._burst(max(self._chosen, self._ends[0]) + 1, size)
            for _ in range(size):
                self.last = placement.beat(cycle)
                cycle = self.last + 1
            self.wait += cycle - first - size
            self._ends.append(self.last)
            left -= size
            place += size
        return placement.done()
