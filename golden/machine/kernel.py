# SPDX-License-Identifier: Apache-2.0
"""A small discrete-event kernel: processes that wait for cycles and for events, in exact order.

A process is a generator. It yields a cycle to sleep until then, or an `Event` to sleep until that
fires. All that a process sees was caused in the past or in the same cycle, so nothing depends on
the order in which processes are written, as long as two things hold: what becomes visible in a
cycle is fired for that cycle, and processes of one cycle that read what others of it write have a
later `rank`.
"""

__all__ = ["Count", "Event", "Kernel", "Process"]

import heapq
from collections.abc import Generator
from typing import Any

#: What a process is made from.
Process = Generator["int | Event", None, None]


class Event:
    """Something that processes wait for; it may fire many times.

    `cycle` is the last cycle it was fired for, -1 before.
    """

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.cycle = -1
        self._waiting: list[tuple[int, Process]] = []

    def wait(self, rank: int, process: Process) -> None:
        """Resume `process` when the event fires."""
        self._waiting.append((rank, process))

    def fire(self, cycle: int) -> None:
        """Resume all who wait, in `cycle`, which isn't in the past."""
        self.cycle = cycle
        for rank, process in self._waiting:
            self.kernel.schedule(cycle, rank, process)
        self._waiting.clear()


class Kernel:
    """Runs processes in the order of (cycle, rank, time of scheduling)."""

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, int, Process]] = []
        self._count = 0

    def schedule(self, cycle: int, rank: int, process: Process) -> None:
        """Resume a process in a cycle."""
        self._count += 1
        heapq.heappush(self._heap, (max(cycle, self.now), rank, self._count, process))

    def run(self) -> None:
        """Run until nobody waits for a cycle any more."""
        heap = self._heap
        while heap:
            self.now, rank, _, process = heapq.heappop(heap)
            wanted: Any = next(process, None)
            if isinstance(wanted, Event):
                wanted.wait(rank, process)
            elif wanted is not None:
                self.schedule(wanted, rank, process)


class Count:
    """A counter whose n-th increment is visible from a known cycle on."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.visible: list[int] = []
        self.changed = Event(kernel)

    def add(self, cycle: int) -> None:
        """Count once more; the engines see it in `cycle`."""
        self.visible.append(cycle)
        self.changed.fire(cycle)

    def reach(self, count: int) -> Process:
        """Sleep until at least `count` are visible."""
        while len(self.visible) < count:
            yield self.changed
        if count > 0 and self.kernel.now < self.visible[count - 1]:
            yield self.visible[count - 1]
