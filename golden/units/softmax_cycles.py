# SPDX-License-Identifier: Apache-2.0
"""Cycle model of the log-softmax."""

__all__ = ["LogSoftmaxModel"]

from collections.abc import Iterable

from golden.units.stream import CycleModel, Flags, SkidModel
from vitforge.spec.config import Config


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


class LogSoftmaxModel(CycleModel):
    """Handshake of `hw.softmax.unit.LogSoftmax`.

    Words enter a ring while it has room and while fewer than `rows` rows are held. A row may be
    read from the `known`-th cycle after its last word on. Reading goes word by word while the
    skid lets the pipeline advance; the polynomial reads each row twice, with a pause between.

    Parameters
    ----------
    config
        Configuration of the unit.
    lengths
        Words of every row, in order.
    """

    def __init__(self, config: Config, lengths: Iterable[int]) -> None:
        levels = (config.lanes - 1).bit_length()
        self.twice = config.exponential == "iexp"
        if self.twice:
            self.statistics, self.pause = 2 + levels, levels
            stages = 9 + config.attention_bits
        else:
            self.statistics, self.pause = 10 + max(levels, 1) + levels, 0
            stages = 3 if config.attention == "log2" else 7
        words = -(-config.max_keys // config.lanes)
        self.depth = _power_of_two(words + self.statistics + 2)
        self.rows = _power_of_two(self.statistics + 2)

        self.lengths = list(lengths)
        self.entered = self.row_entering = 0
        self.read = self.row_read = 0
        self.coding = not self.twice
        self.hold = 0
        self.words_held = self.rows_held = self.rows_known = 0
        self.finding = [False] * self.statistics
        # The buffer's output register and the stages behind it: whether a word for the skid is
        # there.
        self.stages = [False] * (1 + stages)
        self.skid = SkidModel()

    def settle(self, valid: Flags, ready: Flags) -> tuple[Flags, Flags]:
        room = self.words_held != self.depth and self.rows_held != self.rows
        return {"i": room}, {"o": self.skid.valid}

    def clock(self, valid: Flags, ready: Flags) -> None:
        accept = valid["i"] and self.settle(valid, ready)[0]["i"]
        advance = self.skid.ready
        take = advance and self.rows_known > 0 and self.hold == 0
        free = take and self.coding
        if advance:
            if self.hold:
                self.hold -= 1
            self.stages.append(free)
            self.skid.clock(self.stages.pop(0), ready["o"])
        else:
            self.skid.clock(False, ready["o"])

        # Reading, with the counters as they were before this cycle.
        if take:
            self.read += 1
            if self.read == self.lengths[self.row_read]:
                self.read = 0
                if self.coding:
                    self.row_read += 1
                    self.rows_held -= 1
                    self.rows_known -= 1
                else:
                    self.hold = self.pause
                if self.twice:
                    self.coding = not self.coding
        self.words_held -= free

        # Entering.
        ends = False
        if accept:
            self.words_held += 1
            self.entered += 1
            ends = self.entered == self.lengths[self.row_entering]
            if ends:
                self.entered = 0
                self.row_entering += 1
                self.rows_held += 1
        self.finding.append(ends)
        self.rows_known += self.finding.pop(0)
