# SPDX-License-Identifier: Apache-2.0
"""Accumulators behind the array: two banks, one collects a pass while the other is drained."""

__all__ = ["Accumulator"]

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.array.systolic import SystolicArray
from hw.lib.stream import delay, signature
from vitforge.spec.config import Config
from vitforge.spec.elements import Element
from vitforge.spec.instruction import MODES
from vitforge.spec.sizes import columns, doubled, paired


class Accumulator(wiring.Component):
    """Add the partial sums of a pass's tiles, token by token.

    ``data[token] = sum over the pass's tiles of sums[tile, token]``

    Rounding: none, and nothing saturates: the compiler proves that acc_bits hold every sum of a
    program.

    With pairs there are twice as many sums as the array has columns: of the lower weights, then of
    the upper ones. A single sum is in the segments of both, and belongs to the first half; the
    second is then anything. With quad a word has the sums of two tokens; even and odd tokens have
    memories of their own, and a word of one token is written into that of its own.

    Sums of tile 0 replace what a bank holds; those of later tiles are added to it, in four cycles
    (read, register, add, write), which the same token never undercuts: its next sums come `rows`
    >= 4 cycles later at the earliest. Passes alternate between the banks.

    Members
    -------
    passes : In(stream.Signature(12))
        Number of tiles of every pass, there before its first sums.
    sums : In(signature(SystolicArray.words(config)["o"]))
        Always ready.
    complete : Out(1)
        Pulses in the cycle after the last sum of a pass was written; it may be read from then on.
    read_enable, read_bank, read_token : In
        A bank that isn't collecting is read: `data` follows two cycles later.
    data : Out(columns x acc_bits)
    """

    def __init__(self, config: Config):
        self.config = config
        self.token_bits = max(1, (config.max_tokens - 1).bit_length())
        self._layout = data.ArrayLayout(signed(config.acc_bits), columns(config))
        super().__init__({
            "passes": In(stream.Signature(12)),
            "sums": In(signature(SystolicArray.words(config)["o"])),
            "complete": Out(1),
            "read_enable": In(1), "read_bank": In(1), "read_token": In(self.token_bits),
            "data": Out(self._layout),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        token = Signal(self.token_bits)
        tile = Signal(12)
        # Whether a tile is the first of its pass, and the last, if it isn't the first: the number
        # of tiles of a pass is there before its first sums, but how long before isn't known.
        first = Signal(init=1)
        last = Signal()
        bank = Signal()
        accept = Signal()
        final = Signal()
        m.d.comb += [
            self.sums.ready.eq(1),
            accept.eq(self.sums.valid),
            final.eq(accept & self.sums.payload.last
                     & Mux(first, self.passes.payload == 1, last)),
            self.passes.ready.eq(final),
        ]
        doubles = Signal()
        if doubled(self.config):
            m.d.comb += doubles.eq(self.sums.payload.mode == MODES["quad"])
        with m.If(accept):
            m.d.sync += token.eq(token + (1 if not doubled(self.config) else Mux(doubles, 2, 1)))
        with m.If(accept & self.sums.payload.last):
            m.d.sync += [token.eq(0), tile.eq(tile + 1), first.eq(0),
                         last.eq(tile == self.passes.payload - 2)]
        with m.If(final):
            m.d.sync += [tile.eq(0), first.eq(1), bank.eq(~bank)]

        def late(value: Signal, cycles: int, name: str, init: int | None = None) -> Signal:
            return delay(m, value, advance=1, cycles=cycles, name=name, init=init)

        partials: list[Any] = self._sums(m)
        fresh = late(first, 2, "fresh")
        write_bank = late(bank, 3, "write_bank")
        write_token = late(token, 3, "write_token")
        write = late(accept, 3, "write", init=0)
        # Memories are of all tokens, or of the even and of the odd ones.
        halves = len(partials)
        both = late(doubles, 3, "both") if halves > 1 else Const(0)
        m.d.comb += self.complete.eq(late(final, 4, "complete", init=0))

        chosen = late(self.read_bank, 2, "chosen")
        low = halves - 1      # bits of a token's number that choose its memory
        odd = late(self.read_token, 2, "chosen_token")[:low] if low else Const(0)
        results = []
        for index in range(2):
            drained = Signal(name=f"drained_{index}")
            found = []
            for half, partial in enumerate(partials):
                name = f"{index}_{half}" if low else f"{index}"
                memory: Memory = Memory(shape=columns(self.config) * self.config.acc_bits,
                                        depth=-(-self.config.max_tokens // halves), init=[],
                                        attrs={"no_rw_check": "1"})
                m.submodules[f"bank_{name}"] = memory
                read = memory.read_port()
                port = memory.write_port()
                result = Signal(self._layout, name=f"result_{name}", reset_less=True)
                total = Signal(self._layout, name=f"total_{name}", reset_less=True)
                mine: Value = write_bank == index
                if low:
                    mine = mine & (both | (write_token[0] == half))
                if not half:
                    m.d.comb += drained.eq(self.read_enable & (self.read_bank == index))
                m.d.comb += [
                    read.en.eq(1),
                    read.addr.eq(Mux(drained, self.read_token, token)[low:]),
                    port.addr.eq(write_token[low:]),
                    port.data.eq(total),
                    port.en.eq(write & mine),
                ]
                m.d.sync += result.eq(read.data)
                for column in range(columns(self.config)):
                    m.d.sync += total[column].eq(
                        Mux(fresh, 0, result[column]) + partial[column])
                found.append(result)
            results.append(Mux(odd, found[1], found[0]) if low else found[0])
        m.d.comb += self.data.eq(Mux(chosen, results[1], results[0]))
        return m

    def _sums(self, m: Module) -> list[Any]:
        """Return the sums of all channels two cycles late, of one token or of two."""
        if doubled(self.config):
            return self._four(m)
        if paired(self.config):
            return [self._fields(m)]
        return [data.View(self.sums.payload.shape()["sums"].shape,
                          delay(m, self.sums.payload.sums.as_value(), advance=1, cycles=2,
                                name="sums"))]

    def _four(self, m: Module) -> list[Any]:
        """Return the sums of both tokens, put together from four segments in the word's mode."""
        spacing, cols = Element(self.config).spacing, self.config.cols
        word = self.sums.payload
        modes = [[delay(m, word.mode == code, advance=1, name=f"{name}_{copy}", init=init)
                  for copy, init in enumerate((None, 0, 1))] for name, code in MODES.items()]
        tokens: list[Any] = []
        for token in range(2):
            sums: list[list[Value]] = [[], []]
            for column in range(cols):
                parts = [delay(m, word[f"segment_{place}"][column], advance=1,
                               name=f"segment_{token}_{place}_{column}") for place in range(4)]
                single, _, quad = (copies[column * 3 // cols] for copies in modes)
                low = [part[:spacing] for part in parts]
                # A field ends with a segment that has a sign.
                two = [Cat(low[2 * weight], parts[2 * weight + 1]).as_signed()
                       for weight in range(2)]
                whole = Cat(*low[:3], parts[3]).as_signed()
                for weight in range(2):
                    value = Mux(quad, parts[2 * weight + token],
                                two[weight] if weight else Mux(single, whole, two[0]))
                    sums[weight].append(delay(m, value, advance=1,
                                              name=f"sum_{token}_{weight}_{column}"))
            tokens.append(sums[0] + sums[1])
        return tokens

    def _fields(self, m: Module) -> list[Value]:
        """Return the sums of all channels two cycles late, put together from the two segments."""
        spacing, cols = Element(self.config).spacing, self.config.cols
        word = self.sums.payload
        low, high = ([delay(m, word[f"segment_{place}"][column], advance=1,
                            name=f"segment_{place}_{column}") for column in range(cols)]
                     for place in range(2))
        # Many bits wait for the mode: three copies, of other resets, so that they are not merged.
        single = [delay(m, word.mode == MODES["single"], advance=1, name=f"single_{copy}",
                        init=init) for copy, init in enumerate((None, 0, 1))]
        lower: list[Value] = []
        upper: list[Value] = []
        for column in range(cols):
            above = Mux(single[column * 3 // cols], high[column],
                        low[column][spacing:].as_signed())
            lower.append(delay(m, Cat(low[column][:spacing], above).as_signed(), advance=1,
                               name=f"lower_{column}"))
            upper.append(delay(m, high[column], advance=1, name=f"upper_{column}"))
        return lower + upper
