# SPDX-License-Identifier: Apache-2.0
"""Behind the requantizer: which pass, token and group a word of codes belongs to."""

__all__ = ["TRACK_FIELDS", "Track"]

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.drain.walk import Walk, place_member
from hw.lib.layouts import first_token, layout, packing, span_bits, track_layout
from vitforge.spec.config import Config
from vitforge.spec.instruction import OPERATIONS, PACKS
from vitforge.spec.sizes import ADDRESS_BITS, doubled, groups, token_bits

#: What is done with codes.
TRACK_FIELDS = ("destination", "operation", "valid", "channels", "probability_slot", "statistics",
                "statistics_first", "statistics_last", "softmax_multiplier", "zero_point")


class Track(wiring.Component):
    """Count words of codes as `hw.drain.issue.Issue` counted their groups.

    So nothing but the end of a pass travels through the requantizer beside the accumulators. One
    register: all outputs come one cycle after their word.

    Members
    -------
    passes : In(stream.Signature(track_layout(config, TRACK_FIELDS)))
        The passes in order, each there before its first word; taken with its last one.
    valid, last : In(1)
        A word, and whether it is its pass's last.
    codes : In(lanes * 8)
    o_valid, o_last, o_codes : Out
        The same, later.
    writes : Out(1)
        The word is valid and not of a raw pass.
    token, group, address : Out
    place : Out
        The group's number in its word.
    ends : Out(1)
        The group is its token's last.
    halves : Out(2)
        Only where codes may be packed: the halves of its bytes that the group takes.
    fields : Out(layout((*TRACK_FIELDS, *first_token(config))))
    """

    def __init__(self, config: Config):
        self.config = config
        self._names = (*TRACK_FIELDS, *first_token(config), *packing(config, "pack"))
        super().__init__({
            "passes": In(stream.Signature(track_layout(config, TRACK_FIELDS))),
            "valid": In(1), "last": In(1), "codes": In(data.ArrayLayout(8, config.lanes)),
            "o_valid": Out(1), "writes": Out(1), "o_last": Out(1),
            "o_codes": Out(data.ArrayLayout(8, config.lanes)),
            "token": Out(token_bits(config)), "group": Out(range(groups(config))),
            "address": Out(ADDRESS_BITS), "fields": Out(layout(self._names)),
            **({"halves": Out(2)} if doubled(config) else {}),
            **place_member(config), **({"ends": Out(1)} if span_bits(config) else {}),
        })
        if not span_bits(config):
            self.place, self.ends = self.group, self.group == groups(config) - 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        walk = Walk(self.config, self.group)
        if doubled(self.config):
            walk = Walk(self.config, self.group, self.token, self.fields.pack)
            half = walk.half()
            m.d.comb += self.halves.eq(Mux(self.fields.pack == PACKS["none"], 3, Cat(~half, half)))
        if span_bits(self.config):
            m.d.comb += [self.place.eq(walk.place), self.ends.eq(walk.ends)]
        begin = Signal(init=1)
        end = Signal()
        m.d.comb += [
            self.passes.ready.eq(self.valid & self.last),
            end.eq(walk.ends),
        ]
        raw = self.passes.payload.operation == OPERATIONS["raw"]
        m.d.sync += [self.o_valid.eq(self.valid), self.writes.eq(self.valid & ~raw),
                     self.o_last.eq(self.valid & self.last),
                     self.o_codes.eq(self.codes)]
        with m.If(self.valid):
            m.d.sync += [
                begin.eq(self.last),
                self.group.eq(Mux(begin | end, 0, self.group + 1)),
                *(self.fields[name].eq(self.passes.payload[name]) for name in self._names),
            ]
            following = walk.following(m, self.address)
            with m.If(begin):
                m.d.sync += [self.token.eq(0), self.address.eq(self.passes.payload.d_base)]
            with m.Elif(end):
                m.d.sync += [self.token.eq(self.token + 1), self.address.eq(following)]
            if span_bits(self.config):
                with m.If(begin):
                    walk.begin(m, self.passes.payload, self.passes.payload.d_base)
                with m.Else():
                    walk.step(m, self.address, following)
        return m
