# SPDX-License-Identifier: Apache-2.0
"""Cycle model of `hw.layernorm`: its parts, each as what its handshake remembers."""

__all__ = ["LayerNormModel"]

from collections.abc import Iterable

from golden.units.stream import CycleModel, Flags, SkidModel
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat


class _Statistics:
    """`hw.layernorm.statistics.Statistics`: a pipeline of words, then of finished rows."""

    def __init__(self, config: Config) -> None:
        # True where the last word of a row is; other words leave nothing.
        self.stages = [False] * (NormFormat(config).levels + 6)

    @property
    def valid(self) -> bool:
        return self.stages[-1]

    def clock(self, last: bool, taken: bool) -> None:
        if taken or not self.valid:
            self.stages = [last, *self.stages[:-1]]


class _Scale:
    """`hw.layernorm.scale.RowScale`: the search, and the table with its result."""

    def __init__(self, config: Config) -> None:
        self.pairs = NormFormat(config).pairs
        self.step: int | None = None
        self.tail: int | None = None

    @property
    def moves(self) -> bool:
        return self.step == self.pairs and self.tail is None

    @property
    def ready(self) -> bool:
        return self.step is None or self.moves

    @property
    def valid(self) -> bool:
        return self.tail == 4

    def clock(self, load: bool, taken: bool) -> None:
        moves = self.moves
        if taken:
            self.tail = None
        elif self.tail is not None and self.tail < 4:
            self.tail += 1
        if moves:
            self.tail = 0
        if load:
            self.step = 0
        elif moves:
            self.step = None
        elif self.step is not None and self.step < self.pairs:
            self.step += 1


class _Ring:
    """`hw.layernorm.buffer.Ring`: the memory and its output register."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.stored = 0
        self.valid = False

    @property
    def ready(self) -> bool:
        return self.stored != self.depth

    def clock(self, write: bool, read: bool) -> None:
        fetch = self.stored > 0 and (read or not self.valid)
        self.valid = fetch or (self.valid and not read)
        self.stored += write - fetch


class LayerNormModel(CycleModel):
    """Handshake of `hw.layernorm.unit.LayerNorm` for rows of known lengths.

    Parameters
    ----------
    config
        The configuration.
    lengths
        Words of each row, in order; where rows end is the only thing about the data that matters.
    """

    sinks = ("i", "p")

    def __init__(self, config: Config, lengths: Iterable[int]) -> None:
        lasts = [word == length - 1 for length in lengths for word in range(length)]
        self.written = iter(lasts)
        self.read = iter(lasts)
        #: The decoded word in front of statistics and buffer: whether it is the row's last.
        self.decoded: bool | None = None
        self.statistics = _Statistics(config)
        self.scale = _Scale(config)
        self.buffer = _Ring(NormFormat(config).buffer_words)
        self.valid = [False] * 9
        self.first = [False] * 4
        self.within = self.taking = self.held = False
        self.skid = SkidModel()

    @property
    def _enters(self) -> bool:
        """Whether the decoded word moves on, and a new one may come."""
        gathers = not self.statistics.valid or self.scale.ready
        return gathers and self.buffer.ready

    @property
    def _normalizes(self) -> bool:
        """Whether the normalising pipeline advances."""
        return self.skid.ready and (self.held or not self.valid[6])

    @property
    def _takes(self) -> bool:
        """Whether the held parameters go with their elements."""
        return self.skid.ready and self.held and self.valid[6]

    def settle(self, valid: Flags, ready: Flags) -> tuple[Flags, Flags]:
        return ({"i": self._enters, "p": not self.held or self._takes}, {"o": self.skid.valid})

    def clock(self, valid: Flags, ready: Flags) -> None:
        enters, advance, takes = self._enters, self._normalizes, self._takes
        accept = (advance and self.buffer.valid
                  and (self.within or (self.scale.valid and not self.taking)))
        loads = self.statistics.valid and self.scale.ready
        factors_taken = advance and self.first[3]

        # The statistics may move while the buffer is full, and the other way round.
        writes = enters and self.decoded is not None
        self.statistics.clock(writes and bool(self.decoded), loads)
        self.scale.clock(loads, factors_taken)
        self.buffer.clock(writes, accept)
        if enters:
            self.decoded = next(self.written) if valid["i"] else None

        opens = accept and not self.within
        if accept:
            self.within = not next(self.read)
        if factors_taken:
            self.taking = False
        elif opens:
            self.taking = True
        self.skid.clock(advance and self.valid[-1], ready["o"])
        if advance:
            self.valid = [accept, *self.valid[:-1]]
            self.first = [opens, *self.first[:-1]]
        if not self.held or takes:
            self.held = valid["p"]
