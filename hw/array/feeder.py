# SPDX-License-Identifier: Apache-2.0
"""Array side of a pass: which word of the scratchpad is wanted when, and when it has to wait."""

__all__ = ["Feeder"]

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.array.token_table import TokenTable, table_write_layout
from hw.lib.layouts import layout, mode_bits, packing, request_layout
from vitforge.spec.config import Config
from vitforge.spec.instruction import MODES
from vitforge.spec.pass_fields import OPERAND_FIELDS
from vitforge.spec.sizes import ADDRESS_BITS, doubled, stream_bits, tables


class Feeder(wiring.Component):
    """Walk over the tiles and tokens of every pass, one word a step of `advance`.

    The first word of a tile waits

    - of tile 0, until the accumulators are free: at most one pass that has begun isn't released;
    - of tile 0, until at most two passes that have begun haven't landed;
    - from tile `late` on, until at most `pending` of the passes before this one haven't landed.

    Where there are tables, the word of a token of a pass that gathers is that of the token which
    the table has in its place. The index of the next word is read while this one is issued, so it
    costs no cycle.

    A pass follows another without a gap. A word that is issued in cycle n is in `request` from
    cycle n + 1 on (steps of `advance`). In a pass of quad a word is of two tokens.

    Members
    -------
    passes : In(stream.Signature(request_layout(config)))
    advance : In(1)
        The operand path takes a step.
    released, landed : In(1)
        Pulses of the drain: a pass's accumulators may be written, all that it wrote is there. None
        comes before the pass's last word was issued.
    request : Out(StructLayout)
        The word that is wanted, with `valid`; held while `advance` is low.
    waiting : Out(1)
        A word isn't issued because of the drain.
    table_write, overflow
        Of the table, if there is one (`hw.array.token_table.TokenTable`).
    operand : Out(2)
        What that word would be, of `vitforge.spec.instruction.OPERANDS`.
    keeps : Out(StructLayout({en, address}))
        Only where operands may be kept: pulses with the first word of a pass that does, for which
        it has waited for all passes before, so nothing of another pass is on its way to be kept.
    """

    def __init__(self, config: Config):
        self.config = config
        self.tile_bits = 12
        request = layout(OPERAND_FIELDS, valid=1, token=stream_bits(config),
                         tile=self.tile_bits, address=ADDRESS_BITS, from_residual=1, last=1,
                         blank=1, valid_rows=8, **mode_bits(config),
                         **dict.fromkeys(packing(config, "keep"), 1))
        super().__init__({
            "passes": In(stream.Signature(request_layout(config))),
            "advance": In(1), "released": In(1), "landed": In(1),
            "request": Out(request), "waiting": Out(1), "operand": Out(2),
            **({"keeps": Out(data.StructLayout({"en": 1, "address": ADDRESS_BITS}))}
               if doubled(config) else {}),
            **({"table_write": In(table_write_layout(config)), "overflow": Out(1)}
               if tables(config) else {}),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        active = Signal()
        current: Any = Signal(request_layout(self.config), reset_less=True)
        token = Signal(len(current.tokens))
        tile = Signal(self.tile_bits)
        address = Signal(ADDRESS_BITS, reset_less=True)
        next_base = Signal(ADDRESS_BITS, reset_less=True)
        last_token = Signal.like(token, reset_less=True)
        last_tile = Signal.like(tile, reset_less=True)
        until_late = Signal(self.tile_bits, reset_less=True)    # tiles before the late ones
        first_token = Signal()          # of a tile
        first_tile = Signal()           # of a pass
        final_token = Signal()
        final_tile = Signal()
        late = Signal()

        closes = Signal()               # the word is its pass's last
        issue = Signal()
        move = Signal()
        load = Signal()
        gate = self._gate(m, load, active, first_tile, late, current)
        m.d.comb += [
            issue.eq(active & (~first_token | gate)),
            self.waiting.eq(active & ~issue),
            self.operand.eq(current.operand),
            move.eq(issue & self.advance),
            load.eq(~active | (move & closes)),
            self.passes.ready.eq(load),
        ]

        coming = self.passes.payload
        words = self._words(m, coming)
        if doubled(self.config):
            m.d.comb += self.keeps.eq(Cat(move & first_token & first_tile & current.keep,
                                          current.offset[:ADDRESS_BITS]))
        with m.If(load):
            m.d.sync += [
                active.eq(self.passes.valid), current.eq(coming), token.eq(0), tile.eq(0),
                first_token.eq(1), first_tile.eq(1),
                final_token.eq(words == 1), final_tile.eq(coming.tiles == 1),
                closes.eq((words == 1) & (coming.tiles == 1)),
                address.eq(coming.a_base), next_base.eq(coming.a_base + coming.a_stride),
                late.eq(coming.late == 0), until_late.eq(coming.late),
                last_token.eq(words - 1), last_tile.eq(coming.tiles - 1),
            ]
        with m.Elif(move & final_token):
            m.d.sync += [
                token.eq(0), first_token.eq(1), tile.eq(tile + 1), first_tile.eq(0),
                final_token.eq(last_token == 0), final_tile.eq(tile + 1 == last_tile),
                closes.eq((last_token == 0) & (tile + 1 == last_tile)),
                until_late.eq(until_late - 1), late.eq(late | (until_late == 1)),
                address.eq(next_base), next_base.eq(next_base + current.a_stride),
            ]
        # Of a pass that gathers, `address` stays that of the tile.
        further = ~current.gathers if tables(self.config) else 1
        with m.Elif(move):
            m.d.sync += [token.eq(token + 1), first_token.eq(0), address.eq(address + further),
                         final_token.eq(token + 1 == last_token),
                         closes.eq((token + 1 == last_token) & final_tile)]

        wanted: Value = address
        number: Value = token
        if tables(self.config):
            index = self._index(m, load, move, final_token, coming, current)
            wanted = address + Mux(current.gathers, index, 0)
            number = current.f_base + Mux(current.gathers, index, token)
        self._request(m, current, valid=issue, token=number, tile=tile, address=wanted,
                      from_residual=current.from_residual, last=final_token,
                      blank=current.blank_first & first_token,
                      valid_rows=Mux(final_tile, current.valid, self.config.rows))
        return m

    def _gate(self, m: Module, load: Value, active: Value, first_tile: Value, late: Value,
              current: Any) -> Value:
        """Return whether the first word of a tile may go.

        The passes before this one are counted: when the next is loaded, this one is among them,
        for by then it has begun. What they allow is known a cycle before.
        """
        unreleased = Signal(3)
        unlanded = Signal(3)
        first = Signal()        # the first word of the pass may go
        later = Signal()        # that of a late tile
        coming = self.passes.payload

        def allowed(others: Value | int, late: Value, pending: Value) -> tuple[Value, Value]:
            left = unlanded + others - self.landed
            later = left <= pending
            return ((unreleased + others - self.released <= 1) & Mux(late, later, left <= 2),
                    later)

        same, following = (allowed(*pass_) for pass_ in (
            (0, late, current.pending), (active, coming.late == 0, coming.pending)))
        m.d.sync += [
            unreleased.eq(unreleased + (load & active) - self.released),
            unlanded.eq(unlanded + (load & active) - self.landed),
            *(register.eq(Mux(load, next_, same_)) for register, next_, same_ in zip(
                (first, later), following, same, strict=True)),
        ]
        return Mux(first_tile, first, ~late | later)

    def _words(self, m: Module, coming: Any) -> Value:
        """Return the words of a tile of the pass that comes: of a token each, or of two."""
        tokens: Value = coming.tokens
        if not doubled(self.config):
            return tokens
        words = Signal.like(tokens)
        m.d.comb += words.eq(Mux(coming.mode == MODES["quad"], tokens + 1 >> 1, tokens))
        return words

    def _request(self, m: Module, current: Any, **parts: Value) -> None:
        """Ask for a word, with what the operand path must know of its pass."""
        request: data.View = self.request
        names = (*OPERAND_FIELDS, *mode_bits(self.config), *packing(self.config, "keep"))
        with m.If(self.advance):
            m.d.sync += [*(request[name].eq(value) for name, value in parts.items()),
                         *(request[name].eq(current[name]) for name in names)]

    def _index(self, m: Module, load: Signal, move: Signal, final_token: Signal, coming: Any,
               current: Any) -> Value:
        """Read the table a token ahead; return the index of the token that is issued now."""
        m.submodules.table = table = TokenTable(self.config)
        following = Signal.like(table.place, reset_less=True)
        m.d.comb += [
            table.write.eq(self.table_write), self.overflow.eq(table.overflow),
            table.read.eq(load | move),
            table.place.eq(Mux(load, coming.a_table,
                               Mux(final_token, current.a_table, following))),
        ]
        with m.If(table.read):
            m.d.sync += following.eq(table.place + 1)
        return table.index
