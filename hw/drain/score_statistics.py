# SPDX-License-Identifier: Apache-2.0
"""Softmax statistics of attention scores while they are written, pass by pass."""

__all__ = ["ScoreStatistics", "probability_write_layout"]

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.drain.stream_number import base_member, in_stream
from hw.lib.memories import TokenState
from hw.lib.stream import delay
from hw.softmax.statistics import SoftmaxStatistics
from vitforge.spec.config import Config
from vitforge.spec.formats import MIDDLE
from vitforge.spec.sizes import groups, token_bits
from vitforge.spec.softmax_widths import ShiftWidths


def probability_write_layout(config: Config) -> data.StructLayout:
    """Return the signals that write what a token's row of scores leaves."""
    return data.StructLayout({"en": 1, "slot": 1, "token": token_bits(config),
                              "offset": ShiftWidths(config).offset})


class ScoreStatistics(wiring.Component):
    """Reference and sum of every token's row of scores, and the logarithm that normalises it.

    A score is a code minus 128. Keys from `keys` on don't count. A row's reference and sum stay in
    two memories between its passes, in the arithmetic of `hw.softmax.statistics`, whose result is
    written `latency` cycles after the row's last group.

    A token's groups of one pass come in consecutive cycles, and those of its next pass begin no
    earlier than 3 cycles after the last of this one. Tokens with results come in order, from 0 (or
    `base`) on.

    Members
    -------
    valid : In(1)
        A group of a pass with softmax statistics; the other inputs belong to it.
    codes, token, group, multiplier, slot : In
    keys : In(8)
        Keys of this pass, all or the first of its columns.
    begin, end : In(1)
        It is the token's first, or last, of this pass.
    first, last : In(1)
        The row begins, or ends, with this pass.
    final : In(1)
        It is the last one of its pass.
    write : Out(probability_write_layout(config))
        `offset` is the result of `SoftmaxStatistics`, with the half of log2 codes.
    base : In(stream_bits)
        As of `hw.drain.residual_statistics.ResidualStatistics`.
    """

    def __init__(self, config: Config):
        self.config = config
        self.widths = ShiftWidths(config)
        self._statistics = SoftmaxStatistics(config, resume=True)
        #: One register, which takes the comparison of the keys.
        self.latency = 1 + self._statistics.latency
        super().__init__({
            "valid": In(1), "codes": In(data.ArrayLayout(8, config.lanes)),
            "token": In(token_bits(config)), "group": In(range(groups(config))),
            "multiplier": In(self.widths.multiplier), "slot": In(1), "keys": In(8),
            "begin": In(1), "end": In(1), "first": In(1), "last": In(1), "final": In(1),
            "write": Out(probability_write_layout(config)), **base_member(config),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self.config.lanes
        m.submodules.statistics = statistics = self._statistics

        def late(name: str, cycles: int = 1, init: int | None = None) -> Signal:
            return delay(m, getattr(self, name), advance=1, cycles=cycles, name=name, init=init)

        word = statistics.i.payload
        keep = Cat(self.group * lanes + lane < self.keys for lane in range(lanes))
        m.d.comb += [
            statistics.i.valid.eq(late("valid", init=0)),
            word.multiplier.eq(late("multiplier")),
            word.keep.eq(delay(m, keep, advance=1, name="keep")),
            word.last.eq(delay(m, self.end & self.last, advance=1, name="ends")),
            word.begin.eq(late("begin")),
            word.first.eq(late("first")),
        ]
        for lane in range(lanes):
            code = delay(m, self.codes[lane], advance=1, name=f"code_{lane}")
            m.d.comb += word.scores[lane].eq(code ^ MIDDLE)

        # Every loop has a memory of its own, in its own time: so a row may go on as soon as after
        # the shorter of the loops' latencies.
        for name, at in (("reference", statistics.reference_at), ("sum", statistics.sum_at)):
            shape = getattr(statistics, name).shape()
            state = TokenState(shape.width, token_bits(self.config), self.config.max_tokens)
            m.submodules[name] = state
            token = delay(m, self.token, advance=1, cycles=1 + at - state.latency,
                          name=f"{name}_token")
            write = delay(m, self.valid & self.end, advance=1, cycles=2 + at, name=f"{name}_write",
                          init=0)
            m.d.comb += [
                state.read_token.eq(token),
                getattr(statistics, f"{name}_state").eq(state.state),
                state.write.eq(write),
                state.write_token.eq(delay(m, token, advance=1, cycles=state.latency + 1,
                                           name=f"{name}_write_token")),
                state.write_state.eq(getattr(statistics, name)),
            ]

        # Results come in the order of the tokens: counting them is cheaper than taking a number
        # along.
        ending = late("final", self.latency)
        number = Signal.like(self.token)
        with m.If(statistics.o.valid):
            m.d.sync += number.eq(Mux(ending, 0, number + 1))
        m.d.comb += [
            self.write.en.eq(statistics.o.valid),
            self.write.slot.eq(late("slot", self.latency)),
            self.write.token.eq(in_stream(m, self, number, self.latency)),
            self.write.offset.eq(statistics.o.payload),
        ]
        return m
