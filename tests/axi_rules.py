# SPDX-License-Identifier: Apache-2.0
"""The rules of AXI4 for a master's bus, one cycle at a time, and a count of what passed."""

__all__ = ["CHANNELS", "BrokenRule", "Rules", "Seen"]

from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

CHANNELS = ("ar", "r", "aw", "w", "b")


class BrokenRule(AssertionError):
    """What the master, or the memory, must not do; the message says in which cycle."""


class Seen(NamedTuple):
    """A channel in a cycle.

    AR and AW carry (address, length, size, burst), W (data, strobes, last), R (data, response,
    last) and B (response,).
    """

    valid: bool
    ready: bool
    payload: tuple[int, ...] = ()

    @property
    def taken(self) -> bool:
        """It passes at the end of the cycle."""
        return self.valid and self.ready

    @property
    def held(self) -> bool:
        """It must still be there in the next cycle."""
        return self.valid and not self.ready


class Rules:
    """What is offered stays, bursts are legal and end with WLAST, no channel waits for another.

    Parameters
    ----------
    width
        Bytes of a beat.
    limit
        Beats of the longest burst that the master may ask for.
    patience
        Cycles for which one of AW and W may be held by the memory and the other one missing: the
        master's own reasons are over by then.

    Attributes
    ----------
    transfers
        By channel.
    orders
        Bursts written, by when their address was taken: ``before the data`` (no beat was offered
        yet), ``before a beat``, ``with the first beat``, ``among the beats``, ``with the last
        beat``, ``after the last beat``.
    cycles
    """

    def __init__(self, width: int, limit: int, patience: int = 64):
        self.width, self.limit, self.patience = width, limit, patience
        self.transfers: Counter[str] = Counter()
        self.orders: Counter[str] = Counter()
        self.cycles = 0
        self._held: dict[str, tuple[int, ...]] = {}
        #: Lengths of bursts: asked for and not read; announced, sent and not yet matched.
        self._reads: deque[int] = deque()
        self._addresses: deque[tuple[int, bool, int]] = deque()
        self._bursts: deque[tuple[int, int, int]] = deque()
        #: The beats under way: number, cycle of the first. And whether the next one was offered.
        self._beats = self._first = self._read_beats = 0
        self._offered = False
        self._unanswered = 0
        self._waits: Counter[str] = Counter()

    @property
    def pending(self) -> bool:
        """Something was offered, or taken and not answered."""
        return bool(self._held or self._reads or self._addresses or self._bursts or self._beats
                    or self._unanswered)

    def cycle(self, channels: Mapping[str, Seen]) -> None:
        """Look at one cycle."""
        for name, seen in channels.items():
            before = self._held.pop(name, None)
            if before is not None:
                self._rule(seen.valid, f"{name.upper()}VALID fell before it was taken")
                self._rule(seen.payload == before, f"{name.upper()} changed before it was taken")
            if seen.held:
                self._held[name] = seen.payload
            self.transfers[name] += seen.taken
        for name in ("ar", "aw"):
            if channels[name].valid:
                self._legal(name, channels[name].payload)
        self._read(channels["ar"], channels["r"])
        # Answers are for what was complete before this cycle.
        if channels["b"].valid:
            self._rule(self._unanswered > 0, "BVALID before address and last beat were taken")
        self._unanswered -= channels["b"].taken
        self._dependence(channels["aw"], channels["w"])
        self._write(channels["aw"], channels["w"])
        self.cycles += 1

    def _rule(self, kept: bool, text: str) -> None:
        if not kept:
            raise BrokenRule(f"cycle {self.cycles}: {text}")

    def _legal(self, name: str, payload: tuple[int, ...]) -> None:
        address, length, size, burst = payload
        last = address + (length + 1) * self.width - 1
        self._rule(burst == 1 and 1 << size == self.width and address % self.width == 0,
                   f"{name.upper()} is no incrementing burst of aligned, whole beats")
        self._rule(length < self.limit, f"{name.upper()} of {length + 1} beats")
        self._rule(address >> 12 == last >> 12, f"{name.upper()} crosses 4 KiB at {address:#x}")

    def _read(self, ar: Seen, r: Seen) -> None:
        if r.valid:
            self._rule(bool(self._reads), "RVALID for nothing")
            self._rule(r.payload[2] == (self._read_beats + 1 == self._reads[0]),
                       "RLAST with another than the last beat, or not with that")
        if r.taken:
            self._read_beats += 1
            if r.payload[2]:
                self._reads.popleft()
                self._read_beats = 0
        if ar.taken:
            self._reads.append(ar.payload[1] + 1)

    def _dependence(self, aw: Seen, w: Seen) -> None:
        """One channel is held, the other has its part to give, and doesn't, for too long."""
        ahead = len(self._addresses) - len(self._bursts)
        missing = {"WVALID waits for AWREADY": aw.held and not w.valid and ahead == 0,
                   "AWVALID waits for WREADY": w.held and not aw.valid and ahead <= 0}
        for text, waits in missing.items():
            self._waits[text] = self._waits[text] + 1 if waits else 0
            self._rule(self._waits[text] <= self.patience, text)

    def _write(self, aw: Seen, w: Seen) -> None:
        self._offered |= w.valid
        ahead = len(self._addresses) - len(self._bursts)
        if aw.taken:
            # Whether a beat of this burst has been offered, as far as anybody can know.
            self._addresses.append((aw.payload[1] + 1, self._offered or ahead < 0, self.cycles))
        if w.taken:
            if not self._beats:
                self._first = self.cycles
            self._beats += 1
            if len(self._addresses) > len(self._bursts):
                self._rule(self._beats <= self._addresses[len(self._bursts)][0],
                           "a beat more than announced")
            self._offered = False
            if w.payload[2]:
                self._bursts.append((self._beats, self._first, self.cycles))
                self._beats = 0
        if self._beats:
            self._offered = True
        while self._addresses and self._bursts:
            (announced, offered, at), (sent, first, last) = (
                self._addresses.popleft(), self._bursts.popleft())
            self._rule(sent == announced,
                       f"WLAST with beat {sent} of {announced}")
            self._unanswered += 1
            self.orders["before the data" if at < first and not offered else
                        "before a beat" if at < first else
                        "with the first beat" if at == first else
                        "among the beats" if at < last else
                        "with the last beat" if at == last else "after the last beat"] += 1
