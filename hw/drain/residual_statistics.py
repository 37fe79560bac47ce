# SPDX-License-Identifier: Apache-2.0
"""LayerNorm's statistics of a residual stream while it is written, pass by pass."""

__all__ = ["ResidualStatistics", "factor_write_layout"]

from amaranth.hdl import Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.drain.stream_number import base_member, in_stream
from hw.layernorm.pipelined_scale import PipelinedRowScale
from hw.layernorm.scale import factors_word
from hw.layernorm.sums import VARIANCE_STEPS, lane_sums, variance
from hw.lib.memories import TokenState
from hw.lib.stream import delay, layout
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.products import DrainProducts
from vitforge.spec.sizes import stream_bits, token_bits


def factor_write_layout(config: Config) -> data.StructLayout:
    """Return the signals that write a token's factors."""
    return data.StructLayout({"en": 1, "token": stream_bits(config),
                              "payload": layout(factors_word(config))})


class ResidualStatistics(wiring.Component):
    """S and Q of every token's row, and the factors that normalise it.

    ``x = (code - zero_point) << shift``, as `hw.layernorm` decodes it; S and Q of a row stay in a
    memory between its passes. With the row's last group they and C give V and the factors, in the
    arithmetic of `hw.layernorm.sums` and `hw.layernorm.pipelined_scale`, `latency` cycles after it.

    A token's groups of one pass come in consecutive cycles, and those of its next pass begin no
    earlier than 3 cycles after the last of this one. Tokens with factors come in order, from 0 (or
    `base`) on.

    Members
    -------
    valid : In(1)
        A group of a pass with norm statistics; the next inputs belong to it.
    codes, zero_point, token, channels : In
    begin, end : In(1)
        It is the token's first, or last, of this pass.
    first, last : In(1)
        The row begins, or ends, with this pass.
    final : In(1)
        It is the last one of its pass.
    shift : In(ArrayLayout(3, lanes))
        One cycle after the group.
    write : Out(factor_write_layout(config))
    base : In(stream_bits)
        With the group, where there are tables: the number that the pass's token 0 has in `write`.
    """

    def __init__(self, config: Config):
        self.config = config
        self.width = NormFormat(config)
        self._scale = PipelinedRowScale(config)
        self._products = DrainProducts.of(config)
        #: Cycles from a group to its sums: decoded, squared, added up.
        self._sums_at = 2 + self._products.squares + self.width.levels
        #: Cycles from a row's sums to its variance.
        self._variance_steps = VARIANCE_STEPS - 1 + self._products.variance
        self.latency = self._sums_at + 1 + self._variance_steps + self._scale.latency
        super().__init__({
            "valid": In(1), "codes": In(data.ArrayLayout(8, config.lanes)), "zero_point": In(8),
            "token": In(token_bits(config)), "channels": In(self.width.count_bits),
            "begin": In(1), "end": In(1), "first": In(1), "last": In(1), "final": In(1),
            "shift": In(data.ArrayLayout(3, config.lanes)),
            "write": Out(factor_write_layout(config)),
            **base_member(config),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = self.width

        elements = []
        for lane in range(self.config.lanes):
            mantissa = Signal(signed(9), name=f"mantissa_{lane}", reset_less=True)
            element = Signal(signed(self.config.norm_bits), name=f"element_{lane}")
            m.d.sync += mantissa.eq(self.codes[lane] - self.zero_point)
            # Fits norm_bits, by the program.
            m.d.comb += element.eq(mantissa << self.shift[lane])
            elements.append(element)
        total, squares = lane_sums(m, elements, advance=Const(1), config=self.config,
                                   registers=self._products.squares)

        # Every pass adds to what the passes before it have left.
        m.submodules.state = state = TokenState(width.sum_bits + width.square_bits,
                                                token_bits(self.config), self.config.max_tokens)
        state_layout = data.StructLayout({"total": signed(width.sum_bits),
                                          "squares": unsigned(width.square_bits)})
        kept = data.View(state_layout, state.state)
        running = data.View(state_layout, Signal(state_layout.size, name="running",
                                                 reset_less=True))
        added = data.View(state_layout, Signal(state_layout.size, name="added"))
        at = self._sums_at
        token = delay(m, self.token, advance=1, cycles=at - state.latency, name="token")
        valid = delay(m, self.valid, advance=1, cycles=at, name="valid", init=0)
        begin, end, first, last, final = (
            delay(m, getattr(self, name), advance=1, cycles=at, name=name)
            for name in ("begin", "end", "first", "last", "final"))
        for name, value in (("total", total), ("squares", squares)):
            # The row's bounds make every partial sum fit.
            m.d.comb += added[name].eq(
                Mux(begin, Mux(first, 0, kept[name]), running[name]) + value)
        m.d.sync += running.eq(added)
        m.d.comb += [
            state.read_token.eq(token),
            state.write.eq(delay(m, valid & end, advance=1, name="write", init=0)),
            state.write_token.eq(delay(m, token, advance=1, cycles=state.latency + 1,
                                       name="write_token")),
            state.write_state.eq(running),
        ]

        # All of this also happens to sums that nobody will look at.
        m.submodules.scale = scale = self._scale
        channels = delay(m, self.channels, advance=1, cycles=at + 1, name="channels")
        done = delay(m, valid & end & last, advance=1, cycles=1 + self._variance_steps,
                     name="done", init=0)
        m.d.comb += [
            scale.i.valid.eq(done),
            scale.i.payload.count.eq(delay(m, channels, advance=1, cycles=self._variance_steps,
                                           name="count")),
            scale.i.payload.total.eq(delay(m, running.total, advance=1, cycles=self._variance_steps,
                                           name="total")),
            scale.i.payload.variance.eq(variance(m, channels, running.total, running.squares,
                                                 advance=Const(1), config=self.config,
                                                 registers=self._products.variance)),
        ]
        # Factors come in the order of the tokens: counting them is cheaper than taking a number
        # along.
        ending = delay(m, final, advance=1, name="ending",
                       cycles=1 + self._variance_steps + scale.latency)
        number = Signal.like(self.token)
        with m.If(scale.o.valid):
            m.d.sync += number.eq(Mux(ending, 0, number + 1))
        m.d.comb += [
            self.write.en.eq(scale.o.valid),
            self.write.token.eq(in_stream(m, self, number, self.latency)),
            self.write.payload.eq(scale.o.payload),
        ]
        return m
