# SPDX-License-Identifier: Apache-2.0
"""First step of the drain: which token and group of channels is read next."""

__all__ = ["Issue"]

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.drain.walk import Walk, place_member
from hw.lib.layouts import layout, span_bits, start_layout
from hw.lib.stream import delay
from vitforge.spec.config import Config
from vitforge.spec.instruction import OPERATIONS
from vitforge.spec.sizes import ADDRESS_BITS, groups, short_tokens, tables, token_bits
from vitforge.spec.timing import revisit

#: What the way to the requantizer needs to know of a pass.
ISSUE_FIELDS = ("operation", "format", "zero_point", "bits", "m", "signed", "multiplier2",
                "lowest", "residual_zero_point")


class Issue(wiring.Component):
    """Count the groups of a pass, token by token, and of a token word by word, one a cycle.

    A start is accepted in the cycle of the last group before it, or while nothing is under way, and
    gives its first group in the next cycle. Two starts with statistics are at least `revisit`
    cycles apart: a token's state is written, and may be read, 3 cycles after its last group.

    Parameters
    ----------
    early
        Groups that may be left when a pass is released.

    Members
    -------
    start : In(stream.Signature(start_layout(config)))
        Passes, of at least one token.
    space : In(1)
        A start may be accepted.
    room : In(1)
        A group of a raw pass may be issued; the others never wait.
    valid : Out(1)
        A group is issued. The other outputs belong to it.
    token, group, address : Out
        `group` counts all of a token's, and `address` is ``d_base + word * d_pitch + token``, that
        of a residual; with ``offset`` in the place of ``d_base`` where there are tables.
    place : Out
        The group's number in its word.
    fields : Out(layout(ISSUE_FIELDS, slot=2, bank=1))
        One cycle after the group.
    raw : Out(1)
        The pass's operation; also without `valid`.
    adds : Out(1)
        A group of a pass with the operation residual is issued.
    last : Out(1)
        It is the last one of its pass.
    release : Out(1)
        It is the first one after which at most `early` are left; of a raw pass, and of one of less
        than `short_tokens` tokens, the last one.
    """

    def __init__(self, config: Config, early: int):
        if early < 0:
            raise ValueError(f"early must be at least 0, not {early}")
        self.config = config
        self.early = early
        #: Cycles between the starts of two passes with statistics, at least.
        self.revisit = revisit(config)
        super().__init__({
            "start": In(stream.Signature(start_layout(config))),
            "space": In(1), "room": In(1), **place_member(config),
            "valid": Out(1), "token": Out(token_bits(config)),
            "group": Out(range(groups(config))), "address": Out(ADDRESS_BITS),
            "fields": Out(layout(ISSUE_FIELDS, slot=2, bank=1)),
            "raw": Out(1), "adds": Out(1), "last": Out(1), "release": Out(1),
        })
        if not span_bits(config):
            self.place = self.group

    def elaborate(self, platform: object) -> Module:
        m = Module()
        start = self.start.payload
        walk = Walk(self.config, self.group)
        count = walk.count(start)
        base = start.offset[:ADDRESS_BITS] if tables(self.config) else start.d_base
        busy = Signal()
        begin = Signal()
        wait = Signal(range(self.revisit))
        remaining = Signal(range((1 << len(start.tokens)) * groups(self.config)), reset_less=True)
        adding = Signal()
        free = Signal()
        accept = Signal()
        short = Signal()
        whole = Signal()
        end = Signal()
        # Of what is under way only that something is needs a reset. Many bits wait for a start that
        # is accepted, and nobody needs them with the first group.
        opened = Signal()
        held: Value = delay(m, Cat(start[name] for name in self.fields.shape().members), advance=1,
                          name="held")
        m.d.sync += opened.eq(free)
        with m.If(opened):
            m.d.sync += self.fields.eq(held)
        group = Signal.like(self.group, reset_less=True)
        token = Signal.like(self.token, reset_less=True)
        last = Signal(reset_less=True)
        m.d.comb += [
            self.group.eq(group), self.token.eq(token), self.last.eq(last),
            self.valid.eq(busy & (~self.raw | self.room)),
            # The last group with the next start: there is no cycle between them.
            free.eq(~busy | (self.last & (~self.raw | self.room))),
            self.start.ready.eq(free & self.space
                                & ((wait == 0) | (start.statistics == 0))),
            accept.eq(self.start.valid & self.start.ready),
            self.adds.eq(busy & adding),
            whole.eq(self.raw | short),
            self.release.eq(self.valid & Mux(
                whole, self.last,
                (remaining == self.early) | (begin & (remaining < self.early)))),
            end.eq(walk.ends),
        ]
        if span_bits(self.config):
            m.d.comb += self.place.eq(walk.place)
        m.d.sync += wait.eq(Mux(accept & (start.statistics != 0), self.revisit - 1,
                                wait - (wait != 0)))
        with m.If(self.valid):
            m.d.sync += [
                begin.eq(0),
                remaining.eq(remaining - 1),
                last.eq(remaining == 1),
                group.eq(Mux(end, 0, group + 1)),
            ]
            following = walk.following(m, self.address)
            with m.If(end):
                m.d.sync += [token.eq(token + 1), self.address.eq(following)]
            walk.step(m, self.address, following)
        # Whether a start is accepted is known late, and what belongs to it counts only if it is.
        with m.If(free):
            m.d.sync += [
                begin.eq(1),
                busy.eq(accept),
                self.raw.eq(start.operation == OPERATIONS["raw"]),
                adding.eq(start.operation == OPERATIONS["residual"]),
                short.eq(start.tokens < short_tokens(self.config)),
                remaining.eq(count - 1),
                last.eq(count == 1),
                group.eq(0),
                token.eq(0),
                self.address.eq(base),
            ]
            walk.begin(m, start, base)
        return m
