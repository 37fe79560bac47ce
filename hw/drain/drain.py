# SPDX-License-Identifier: Apache-2.0
"""The drain: from finished accumulators to codes in the scratchpad, with their statistics."""

__all__ = ["Drain"]

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, ValueLike, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.drain.issue import Issue
from hw.drain.parameters import ParameterMemory, parameter_write_layout
from hw.drain.raw import RawOutput
from hw.drain.residual import Residual
from hw.drain.residual_statistics import ResidualStatistics, factor_write_layout
from hw.drain.score_statistics import ScoreStatistics, probability_write_layout
from hw.drain.track import TRACK_FIELDS, Track
from hw.lib.layouts import raw_layout, start_layout, track_layout
from hw.lib.memories import MemoryDelay
from hw.lib.queue import Queue
from hw.lib.stream import delay
from hw.requant.unit import Requantizer
from vitforge.spec.config import Config
from vitforge.spec.instruction import PACKS, STATISTICS
from vitforge.spec.limits import Part, check
from vitforge.spec.requant_fields import THRESHOLDS
from vitforge.spec.sizes import (
    ADDRESS_BITS,
    columns,
    doubled,
    groups,
    tables,
    token_bits,
    word_groups,
)

#: Passes between their start and their last codes, at most.
UNDER_WAY = 16


class Drain(wiring.Component):
    """Requantize a bank of accumulators, `lanes` channels a cycle, token by token.

    With G groups of `lanes` channels a token, a pass of T tokens that is accepted in cycle s issues
    group g of token t in cycle ``n = s + 1 + t*G + g``; only groups of raw passes may be later,
    while `raw` has no room. All else follows n at a fixed distance::

        n                         residual read, with the first group of a word
        n + 1                     accumulator read
        n + write_latency         write of the codes
        n + factor_latency        factors of the token, with g = G - 1
        n + probability_latency   softmax result of the token, with g = G - 1
        n + latency               complete, with the pass's last group

    A start is accepted while nothing is left to issue, or with the last issue before it: passes
    follow each other without a gap, but for two rules. Two starts with statistics are at least
    `revisit` cycles apart (`vitforge.spec.timing`), so that a token's state is there when its row
    goes on. And at most `UNDER_WAY` passes are between their start and their last codes, which
    passes of three groups or more never reach.

    A residual must be in its bank when it is read: no write is waited for. A parameter slot is read
    until 3 cycles after the last issue.

    Parameters
    ----------
    config
        With 1, 2 or 4 times as many columns as rows, `lanes` that divide the rows, and the
        shift-based softmax.
    early
        Issues that may be left when `release` comes.

    Members
    -------
    start : In(stream.Signature(start_layout(config)))
        A pass whose bank is complete, with its parameter slot and its bank.
    thresholds : In
        Of the formats that have some; see `hw.requant`.
    accumulator : Out(StructLayout({en, bank, token}))
        In every cycle with a group of the token.
    accumulator_data : In(ArrayLayout(signed(acc_bits), columns))
        Two cycles after a read, and only then.
    parameter_write : In(parameter_write_layout(config))
        A part of a slot.
    residual : Out(StructLayout({en, address}))
        Once for each word of a token, of passes with the operation residual.
    residual_data : In(rows * 8)
        Two cycles after a read, and only then.
    write : Out(StructLayout({en, destination, address, mask, data}))
        The codes, repeated in every group of the word; `mask` has the bit of theirs. Not for raw
        passes. Where codes may be packed, `halves` has the bits of the halves of each byte that are
        theirs, and the low 4 bits of a packed code are in both.
    raw : Out(stream.Signature(raw_layout(config)))
        ``acc + bias`` of raw passes, in the order of the groups.
    factor_write : Out(factor_write_layout(config))
    probability_write : Out(probability_write_layout(config))
    release : Out(1)
        Pulses with the first issue after which at most `early` are left; of a raw pass, and of one
        of less than `short_tokens` tokens, with its last one. A read follows one cycle after its
        issue.
    complete : Out(1)
        Pulses when all that a pass writes may be read, and a raw pass's sums are offered.
    """

    def __init__(self, config: Config, early: int = 0):
        check(config, Part.DRAIN)
        self.config = config
        self.early = early
        self._issue = Issue(config, early)
        self._norm = ResidualStatistics(config)
        self._softmax = ScoreStatistics(config)
        self.revisit = self._issue.revisit
        #: Cycles from an issue to its accumulators in the requantizer.
        self._fed_at = 4
        self.write_latency = self._fed_at + Requantizer.latency + 1
        self.factor_latency = self.write_latency + self._norm.latency
        self.probability_latency = self.write_latency + self._softmax.latency
        # What is written in one cycle may be read in the next.
        self.latency = 1 + max(self.factor_latency, self.probability_latency)
        self._accumulators = data.ArrayLayout(signed(config.acc_bits), columns(config))
        super().__init__({
            "start": In(stream.Signature(start_layout(config))),
            "thresholds": In(data.ArrayLayout(signed(config.value_bits + 1), THRESHOLDS)),
            "accumulator": Out(data.StructLayout({
                "en": 1, "bank": 1, "token": token_bits(config)})),
            "accumulator_data": In(self._accumulators),
            "parameter_write": In(parameter_write_layout(config)),
            "residual": Out(data.StructLayout({"en": 1, "address": ADDRESS_BITS})),
            "residual_data": In(config.rows * 8),
            "write": Out(data.StructLayout({
                "en": 1, "destination": 2, "address": ADDRESS_BITS, "mask": word_groups(config),
                "data": config.rows * 8, **({"halves": 2} if doubled(config) else {})})),
            "raw": Out(stream.Signature(raw_layout(config))),
            "factor_write": Out(factor_write_layout(config)),
            "probability_write": Out(probability_write_layout(config)),
            "release": Out(1), "complete": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        m.submodules.issue = issue = self._issue
        m.submodules.passes = passes = Queue(track_layout(config, TRACK_FIELDS), UNDER_WAY)
        m.submodules.parameters = parameters = ParameterMemory(config)
        m.submodules.residual = residual = Residual(config)
        m.submodules.raw_output = raw_output = RawOutput(config)
        m.submodules.requantizer = requantizer = Requantizer(config, flowing=True)
        wiring.connect(m, wiring.flipped(self.raw), raw_output.o)

        def late(value: ValueLike, cycles: int, name: str, init: int | None = None) -> Signal:
            return delay(m, value, advance=1, cycles=cycles, name=name, init=init)

        fields = issue.fields       # a cycle behind their group
        begin = Signal()
        m.d.comb += [
            issue.start.valid.eq(self.start.valid),
            issue.start.payload.eq(self.start.payload),
            self.start.ready.eq(issue.start.ready),
            issue.space.eq(passes.i.ready),
            passes.i.valid.eq(self.start.valid & self.start.ready),
            *(passes.i.payload[name].eq(self.start.payload[name])
              for name in passes.i.payload.shape().members),
            issue.room.eq(raw_output.room),
            self.release.eq(issue.release),
            raw_output.issue.eq(issue.valid & issue.raw),
            begin.eq(issue.place == 0),
            self.residual.en.eq(issue.adds & begin),
            self.residual.address.eq(issue.address),
            self.accumulator.en.eq(late(issue.valid, 1, "read", 0)),
            self.accumulator.bank.eq(fields.bank),
            self.accumulator.token.eq(late(issue.token, 1, "token")),
            parameters.write.eq(self.parameter_write),
        ]

        # Accumulators, parameters and residual of a group meet at the requantizer. A parameter
        # that the residual needs is used one register earlier than the others.
        group = late(issue.group, 3, "group")
        chosen = Signal(data.ArrayLayout(signed(config.acc_bits), config.lanes), reset_less=True)
        found = Signal.like(parameters.data, reset_less=True)
        words = Array(self.accumulator_data.as_value().word_select(
            number, config.lanes * config.acc_bits) for number in range(groups(config)))
        m.d.sync += [chosen.eq(words[group]), found.eq(parameters.data)]
        m.d.comb += [
            parameters.slot.eq(late(fields.slot, 2, "slot")),
            parameters.group.eq(group),
            residual.load.eq(late(begin, 2, "begin")),
            residual.codes.eq(self.residual_data),
            residual.zero_point.eq(late(fields.residual_zero_point, 1, "residual_zero_point")),
            *(residual.shift[lane].eq(parameters.data[lane].residual_shift)
              for lane in range(config.lanes)),
        ]

        word = requantizer.i.payload
        fed = late(issue.valid, self._fed_at, "fed", 0)
        m.d.comb += [
            requantizer.thresholds.eq(self.thresholds),
            requantizer.i.valid.eq(fed),
            word.acc.eq(chosen),
            word.residual.eq(residual.operands),
            word.last.eq(late(issue.last, self._fed_at, "last")),
            *(word[name].eq(late(fields[name], self._fed_at - 1, name))
              for name in ("operation", "multiplier2", "format", "zero_point", "bits", "m",
                           "signed", "lowest")),
            *(word[name][lane].eq(found[lane][name]) for lane in range(config.lanes)
              for name in ("bias", "multiplier", "shift", "encode_shift")),
            raw_output.valid.eq(late(issue.valid & issue.raw, self._fed_at, "fed_raw", 0)),
            raw_output.acc.eq(chosen),
            *(raw_output.bias[lane].eq(found[lane].bias) for lane in range(config.lanes)),
        ]
        self._deliver(m, passes, requantizer, found)
        return m

    def _deliver(self, m: Module, passes: Queue, requantizer: Requantizer, found: Any) -> None:
        """Write the codes and gather the statistics."""
        config = self.config
        m.submodules.track = track = Track(config)
        m.submodules.norm = norm = self._norm
        m.submodules.softmax = softmax = self._softmax
        wiring.connect(m, passes.o, track.passes)

        # The slot may be written again by the time the codes come.
        m.submodules.shifts = shifts = MemoryDelay(3 * config.lanes, Requantizer.latency + 2)
        m.d.comb += [shifts.i.word_select(lane, 3).eq(found[lane].statistics_shift)
                     for lane in range(config.lanes)]

        fields = track.fields
        codes = track.o_codes.as_value()
        if doubled(config):
            m.d.comb += self.write.halves.eq(track.halves)
            codes = Cat(Cat(code[:4], Mux(fields.pack == PACKS["none"], code[4:], code[:4]))
                        for code in (track.o_codes[lane] for lane in range(config.lanes)))
        end = Signal()
        m.d.comb += [
            track.valid.eq(requantizer.o.valid),
            track.last.eq(requantizer.o.payload.last),
            track.codes.eq(requantizer.o.payload.codes),
            end.eq(track.ends),
            self.write.en.eq(track.writes),
            self.write.destination.eq(fields.destination),
            self.write.address.eq(track.address),
            self.write.mask.eq(1 << track.place),
            self.write.data.eq(codes.replicate(word_groups(config))),
            norm.zero_point.eq(fields.zero_point),
            norm.channels.eq(fields.channels),
            norm.shift.eq(shifts.o),
            softmax.group.eq(track.group),
            softmax.keys.eq(fields.valid),
            softmax.multiplier.eq(fields.softmax_multiplier),
            softmax.slot.eq(fields.probability_slot),
            self.factor_write.eq(norm.write),
            self.probability_write.eq(softmax.write),
            self.complete.eq(delay(m, track.o_last, advance=1, name="complete", init=0,
                                   cycles=self.latency - self.write_latency)),
        ]
        gathers: dict[str, Any] = {"norm": norm, "softmax": softmax}
        for name, gather in gathers.items():
            m.d.comb += [
                gather.valid.eq(track.writes & (fields.statistics == STATISTICS[name])),
                gather.codes.eq(track.o_codes),
                gather.token.eq(track.token),
                gather.begin.eq(track.group == 0),
                gather.end.eq(end),
                gather.first.eq(fields.statistics_first),
                gather.last.eq(fields.statistics_last),
                gather.final.eq(track.o_last),
                *([gather.base.eq(fields.f_base)] if tables(config) else []),
            ]
