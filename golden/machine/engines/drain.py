# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.drain.drain`: what a pass makes of its sums, and when, cycle by cycle.

What is written are the codes of `golden.units.requant`, 8 bits each, or sums of 32 bits; with the
last group of a row's tokens the factors of `golden.units.layernorm` or the offset of
`golden.units.softmax`, as `hw.operand.path` wants them.
"""

__all__ = ["DrainModel", "DrainPass", "norm_results", "requantized", "softmax_results"]

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from golden.machine.places import result_addresses, result_halves
from golden.units.encoding import Encoding
from golden.units.layernorm import reciprocal_root
from golden.units.requant import Requantization, requantize
from golden.units.softmax import ShiftScale, row_offset, statistics
from vitforge.spec.config import Config
from vitforge.spec.instruction import OPERATIONS, STATISTICS
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.pass_fields import pass_words
from vitforge.spec.sizes import ADDRESS_BITS, doubled, short_tokens, tables, word_groups
from vitforge.spec.softmax_widths import ShiftWidths
from vitforge.spec.timing import WRITTEN, Timing, norm_statistics, softmax_statistics

#: Passes between their start and their last codes, and sums between their issue and their way out.
UNDER_WAY = ROOM = 16
#: From the issue of a group of sums to its offer.
OFFERED = 6
#: From a read to its data.
READ = 2


def requantized(fields: Mapping[str, int], parameters: Mapping[str, Tensor], acc: Tensor,
                encoding: Encoding, encode_shift: Tensor | int, residual: Tensor | None,
                config: Config) -> Tensor:
    """Return the codes ``[T, C]`` of sums ``acc``, by the fields of a PASS that has codes.

    A residual ``[T, C]`` are codes, of which the zero point is taken, shifted by channel.
    """
    operation = next(name for name, code in OPERATIONS.items() if code == fields["operation"])
    if residual is not None:
        residual = residual - fields["residual_zero_point"] << parameters["residual_shift"]
    layer = Requantization(
        bias=parameters["bias"], multiplier=parameters["multiplier"], shift=parameters["shift"],
        operation=operation, encoding=encoding, encode_shift=encode_shift,
        multiplier2=fields["multiplier2"] if operation in ("gelu", "residual") else 0)
    return requantize(acc, layer, config, residual)


def norm_results(x: Tensor, config: Config) -> list[dict[str, int]]:
    """Return the factors of every row of ``x[T, C]``, field by field of a factor write."""
    channels = x.shape[-1]
    total, squares = x.sum(-1), (x * x).sum(-1)
    root, up = reciprocal_root(channels * squares - total * total, config)
    step = NormFormat(config).coarse_step
    return [{"count": channels << int(up[t]) % step, "total": int(total[t]) << int(up[t]) % step,
             "coarse": int(up[t]) // step, "root": int(root[t])} for t in range(len(x))]


def softmax_results(scores: Tensor, multiplier: int, config: Config) -> list[int]:
    """Return the offset of every row of signed ``scores[T, K]``, with the half of log2 codes."""
    widths = ShiftWidths(config)
    reference, total = statistics(scores, torch.ones_like(scores, dtype=torch.bool),
                                  ShiftScale(multiplier), config)
    half = 1 << widths.fraction - 1
    offsets = row_offset(reference, total, widths) + half & (1 << widths.offset) - 1
    return [int(value) for value in offsets]


@dataclass(frozen=True, kw_only=True)
class DrainPass:
    """A pass with its data and what must come of it.

    Attributes
    ----------
    fields
        Of `hw.lib.layouts.start_layout`, without the parameter slot.
    parameters
        Of a channel each, ``[C]``: `rows` for each word of a token.
    acc
        The accumulators ``[tokens, columns]``, of which the pass has the first C.
    residual
        Words ``[tokens, words, rows]`` of the bank, for the operation residual.
    codes, sums
        What is written, or what goes to memory: one of them is None.
    results
        What the last pass of a row writes for each token, field by field.
    """

    fields: dict[str, int]
    parameters: dict[str, Tensor]
    acc: Tensor
    residual: Tensor | None = None
    codes: Tensor | None = None
    sums: Tensor | None = None
    results: Sequence[Mapping[str, int]] = field(default_factory=list)


class DrainModel:
    """The drain on every cycle: `settle` says what it shows, `clock` ends the cycle.

    With G groups of `lanes` channels a token, a pass that starts in cycle s issues group g of token
    t in cycle ``s + 1 + t*G + g``, or later while `ROOM` sums of raw passes are on their way. All
    else follows an issue at a fixed distance. Starts follow without a gap, but for those with
    statistics, which are `Timing.revisit` cycles apart, and for `UNDER_WAY` passes.

    Parameters
    ----------
    config
    early
        Issues that may be left when `release` comes.

    Attributes
    ----------
    counts
        What has happened, so that a test can say that it did.
    finishing
        The last group of a pass is issued in this cycle.
    """

    def __init__(self, config: Config, early: int):
        self.config, self.early = config, early
        self.groups = word_groups(config)
        self.counts: Counter[str] = Counter()
        self.cycle = 0
        self.finishing = False
        self._timing = Timing.of(config)
        self._current: DrainPass | None = None
        self._addresses = self._halves = np.zeros((0, 0), np.int64)   # of its results
        self._index = 0
        self._events: dict[int, dict[str, dict[str, int]]] = defaultdict(dict)
        self._data: dict[int, dict[str, list[int]]] = defaultdict(dict)
        #: Sums on their way out, and the cycles from which they are offered.
        self._sums: deque[tuple[int, list[int]]] = deque()
        self._ends: list[int] = []      # cycles from which a pass's place is free again
        self._statistics = -100         # the last start with some

    @property
    def busy(self) -> bool:
        """Whether something is still to be issued, or to follow from an issue."""
        return self._current is not None or bool(self._events)

    def settle(self, offered: DrainPass | None) -> dict[str, int]:
        """Return the outputs of a cycle by their paths: enables, and what comes with them."""
        wanted = self._events.get(self.cycle, {})
        outputs: dict[str, int] = {}
        for port in ("accumulator", "residual", "write", "factor_write", "probability_write"):
            outputs[f"{port}.en"] = port in wanted
            outputs |= {f"{port}.{name}": value for name, value in wanted.get(port, {}).items()}
        for port in ("release", "complete"):
            outputs[port] = port in wanted
        outputs["raw.valid"] = self._offers
        if self._offers:
            outputs |= {f"raw.payload.{n}": value for n, value in enumerate(self._sums[0][1])}
        if offered is not None:
            outputs["start.ready"] = self._ready(offered)
        return outputs

    def data(self) -> dict[str, list[int]]:
        """Return what the banks answer in this cycle: ``accumulator_data``, ``residual_data``."""
        return self._data.get(self.cycle, {})

    def clock(self, offered: DrainPass | None, accept: bool) -> None:
        """End a cycle in which this pass was offered, and sums were wanted or not."""
        cycle, starts = self.cycle, offered is not None and self._ready(offered)
        self._count(offered)
        if accept and self._offers:
            self._sums.popleft()
        if self.finishing:
            self._ends.append(cycle + WRITTEN)
            self._current = None
        if starts and offered is not None:
            self.counts["without a gap"] += self.finishing
            self._current, self._index = offered, 0
            fields = {"d_pitch": 0, "pack": 0} | offered.fields
            self._addresses = result_addresses(fields, self.config) % (1 << ADDRESS_BITS)
            self._halves = result_halves(fields, self.config)
            if offered.fields["statistics"]:
                self._statistics = cycle
        self._events.pop(cycle, None)
        self._data.pop(cycle, None)
        self.cycle += 1
        self._begin()

    @property
    def _offers(self) -> bool:
        return bool(self._sums) and self._sums[0][0] <= self.cycle

    @property
    def _places(self) -> int:
        """Passes between their start and their last codes."""
        return sum(end > self.cycle for end in self._ends) + (self._current is not None)

    def _waits(self, offered: DrainPass) -> bool:
        """Whether a pass has statistics, and comes too early behind another that has."""
        return (offered.fields["statistics"] != 0
                and self.cycle < self._statistics + self._timing.revisit)

    def _ready(self, offered: DrainPass) -> bool:
        free = self._current is None or self.finishing
        return free and self._places < UNDER_WAY and not self._waits(offered)

    def _count(self, offered: DrainPass | None) -> None:
        if offered is not None:
            free = self._current is None or self.finishing
            self.counts["wait for statistics"] += free and self._waits(offered)
            self.counts["wait for space"] += self._places == UNDER_WAY

    def _begin(self) -> None:
        """Issue a group, if there is one and, for sums, room."""
        item, self.finishing = self._current, False
        if item is None:
            return
        if item.sums is not None and len(self._sums) == ROOM:
            self.counts["wait for raw"] += 1
            return
        self._issue(item)
        self._index += 1
        self.finishing = self._index == self._all(item)

    def _of_token(self, item: DrainPass) -> int:
        """Return the groups of a token."""
        return self.groups * pass_words(item.fields, self.config)

    def _all(self, item: DrainPass) -> int:
        """Return the groups of a pass."""
        return item.fields["tokens"] * self._of_token(item)

    def _expect(self, cycle: int, port: str, **value: int) -> None:
        self._events[cycle][port] = value
        self.counts[port] += 1

    def _issue(self, item: DrainPass) -> None:
        """Note what follows from a group's issue."""
        config, fields, cycle = self.config, item.fields, self.cycle
        token, group = divmod(self._index, self._of_token(item))
        word, place = divmod(group, self.groups)
        address = int(self._addresses[token, word])
        channels = slice(group * config.lanes, (group + 1) * config.lanes)
        if item.residual is not None and place == 0:
            source = address
            if tables(config):   # a place of its own
                source = (address - fields["d_base"] + fields["offset"]) % (1 << ADDRESS_BITS)
            self._expect(cycle, "residual", address=source)
            self._data[cycle + READ]["residual_data"] = item.residual[token, word].tolist()
        self._expect(cycle + 1, "accumulator", bank=fields["bank"], token=token)
        self._data[cycle + 1 + READ]["accumulator_data"] = item.acc[token].tolist()
        if item.codes is not None:
            codes, halves = item.codes[token, channels].tolist() * self.groups, {}
            if doubled(config):
                halves = {"halves": 3}
            if fields.get("pack"):
                codes = [(code & 15) * 17 for code in codes]
                halves = {"halves": 1 << int(self._halves[token, word])}
            self._expect(cycle + WRITTEN, "write", destination=fields["destination"],
                         address=address, mask=1 << place, **halves,
                         data=sum(code << 8 * n for n, code in enumerate(codes)))
        if item.sums is not None:
            self._sums.append((cycle + OFFERED, item.sums[token, channels].tolist()))
        if item.results and group == self._of_token(item) - 1:
            self._gather(item, token)
        self._end(item)

    def _gather(self, item: DrainPass, token: int) -> None:
        """Note a token's statistics, with its last group."""
        found, at = item.results[token], self.cycle + WRITTEN
        token += item.fields.get("f_base", 0)
        if item.fields["statistics"] == STATISTICS["norm"]:
            self._expect(at + norm_statistics(self.config), "factor_write", token=token,
                         **{f"payload.{name}": value for name, value in found.items()})
        else:
            self._expect(at + softmax_statistics(self.config), "probability_write", token=token,
                         **found)

    def _end(self, item: DrainPass) -> None:
        """Note the pulses: accumulators that are released, a pass that is complete."""
        left = self._all(item) - 1 - self._index
        if item.sums is not None or item.fields["tokens"] < short_tokens(self.config):
            release = left == 0
        else:
            release = left == self.early or (self._index == 0 and left < self.early)
        if release:
            self._expect(self.cycle, "release")
            self.counts["early release"] += left > 0
        if left == 0:
            self._expect(self.cycle + self._timing.landed, "complete")
