# SPDX-License-Identifier: Apache-2.0
"""The way of the weights into the shadow registers of the systolic array, by row or by column."""

__all__ = ["WeightLoader"]

import functools
import operator

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay, signature
from vitforge.spec.config import Config
from vitforge.spec.words import Word


class WeightLoader(wiring.Component):
    """Deliver a tile of weights along the same diagonal wave as the activations.

    Let N be the longer and M the shorter side of the array. There is one bus along each of the N
    long-side lines (the columns, if ``cols >= rows``), and a PE has a place i on its bus, of M, and
    a bus j, of N. Element j of a word is delayed by j cycles. So a word that was accepted at t and
    lies across the buses (one element for each) has element j at its bus at ``t + j``, while the
    one word that lies along bus j has element i at hand at ``t + i``: a multiplexer of M inputs a
    bus serialises it. PE (i, j) takes its weight at ``t + lag + j`` or ``t + lag + i``, never
    sooner than the swap of the tile before passes it and never later than that of its own,
    because:

    - a tile's swap, accepted at s, passes PE (i, j) in cycle ``s + lag + i + j``; word k of the
      next tile is accepted at ``s + k`` or later, and captured k places along the other axis, at
      ``s + k + lag + j`` (k = i) or ``s + k + lag + i`` (k = j): not before that swap, which reads
      the old weight in that very cycle;
    - the last word is accepted before the cycle s' of the next swap, and word k at least one cycle
      before word k + 1, so its capture is over by ``s' - 1 + lag + j`` or ``+ i``: before that swap
      passes;
    - no bus is needed twice: words across take bus j at ``t + j``, each for its own t; a word
      along bus j takes it from ``t`` to ``t + M - 1``, and the next tile's first word follows at
      least ``N - j`` cycles later, to reach bus j at ``t + N`` at the earliest, N >= M. That is
      why the buses go along the longer side.

    The elements of a word may come `late` cycles after it was accepted, if all that follows does:
    of K words a tile, K = N or M, word k is accepted by ``s' - K + k``, and captured by
    ``s' - K + k + late + lag + j`` or ``+ i``, before its swap passes at ``s' + lag + k + j`` or
    ``+ i`` as long as ``late < K``. Nothing waits for that.

    Cycles are those in which the array advances.

    Members
    -------
    w : In(signature(word))
        Weight words, whose `weights` come `late` cycles after all else of them. Ready while a tile
        is incomplete and in the cycle of a swap.
    advance : In(1)
        Whether the array moves in this cycle.
    swap : In(1)
        The complete tile is taken over by an activation word that is accepted in this cycle.
    complete : Out(1)
        The last word of a tile has been accepted, and no swap has taken it.
    completes : Out(1)
        What `complete` will be in the next cycle.
    buses : Out(ArrayLayout(signed(bits), N))
        The weight, as wide as an element of a word, on each bus, `lag` cycles (0 or 1) after its
        multiplexer.
    captures : Out(ArrayLayout(1, N * M))
        Whether PE (i, j) takes ``buses[j]`` in this cycle, at index ``j * M + i``; only with
        `advance`.
    packed : Out(N)
        Only if words have `packed`: that of the first word of a tile, j cycles later (and `lag`)
        for bus j. The tile's elements come there at ``t_first + j`` or later, and are past at
        ``t_last + j``, before the next tile's change.
    """

    def __init__(self, config: Config, word: Word, lag: int, late: int = 0):
        if late >= max(1, min(config.rows, config.cols)):
            raise ValueError(f"late must be less than the words of a tile, not {late}")
        self.config = config
        self.lag = lag
        self.late = late
        self.bits = next(item.bits for item in word.fields if item.name == "weights")
        self.tagged = any(item.name == "packed" for item in word.fields)
        self.long = max(config.rows, config.cols)
        self.short = min(config.rows, config.cols)
        super().__init__({
            "w": In(signature(word)),
            "advance": In(1),
            "swap": In(1),
            "complete": Out(1),
            "completes": Out(1),
            "buses": Out(data.ArrayLayout(signed(self.bits), self.long)),
            "captures": Out(data.ArrayLayout(unsigned(1), self.long * self.short)),
            **({"packed": Out(self.long)} if self.tagged else {}),
        })

    def _chain(self, m: Module, token: Value, cycles: int, name: str) -> list[Value]:
        """Return `token` of a word 0 to `cycles` cycles after its weights."""
        chain = [token]
        for index in range(self.late + cycles):
            chain.append(delay(m, chain[-1], advance=self.advance, init=0,
                               name=f"{name}_{index}"))
        return chain[self.late:]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words_across, words_along = self.short, self.long
        across_by_column = self.config.rows > self.config.cols

        # One hot: the number of the next word in its tile.
        place = Signal(self.long, init=1)
        held = Signal()
        by_column = Signal()
        across = Signal()
        final = Signal()
        accept = Signal()
        m.d.comb += [
            self.w.ready.eq(self.advance & (~self.complete | self.swap)),
            accept.eq(self.w.valid & self.w.ready),
            by_column.eq(Mux(place[0], self.w.payload.by_column, held)),
            across.eq(by_column if across_by_column else ~by_column),
            final.eq(Mux(across, place[words_across - 1], place[words_along - 1])),
        ]
        with m.If(accept):
            m.d.sync += [
                held.eq(by_column),
                place.eq(Mux(final, 1, place << 1)),
            ]
        m.d.comb += self.completes.eq(accept & final | self.complete & ~self.swap)
        m.d.sync += self.complete.eq(self.completes)

        if self.tagged:
            kept = Signal()
            packed = Signal()
            m.d.comb += packed.eq(Mux(accept & place[0], self.w.payload.packed, kept))
            m.d.sync += kept.eq(packed)
            tags = self._chain(m, packed, self.long - 1 + self.lag, "packed")
            m.d.comb += self.packed.eq(Cat(tags[self.lag:]))

        lanes = [delay(m, self.w.payload.weights[j], advance=self.advance, cycles=j,
                       name=f"lane_{j}") for j in range(self.long)]
        across_tokens = [self._chain(m, accept & across & place[i], self.long - 1 + self.lag,
                                     f"across_{i}") for i in range(self.short)]
        along_tokens = [self._chain(m, accept & ~across & place[j], self.short - 1 + self.lag,
                                    f"along_{j}") for j in range(self.long)]
        across_any = self._chain(m, accept & across, self.long - 1, "across")

        for j in range(self.long):
            # A word across puts lane j on the bus, a word along it lanes 0 to M - 1 in turn; nobody
            # else does. AND and OR map to fewer LUTs than a multiplexer with a binary select.
            users = {i: along_tokens[j][i] for i in range(self.short)}
            users[j] = across_any[j] | users.get(j, 0)
            value = Signal(self.bits, name=f"value_{j}")
            m.d.comb += value.eq(functools.reduce(operator.or_, (
                lanes[i] & token.replicate(self.bits).as_signed()
                for i, token in users.items())))
            m.d.comb += self.buses[j].eq(
                delay(m, value, advance=self.advance, cycles=self.lag, name=f"bus_{j}"))
            for i in range(self.short):
                m.d.comb += self.captures[j * self.short + i].eq(
                    self.advance
                    & (across_tokens[i][self.lag + j] | along_tokens[j][self.lag + i]))
        return m
