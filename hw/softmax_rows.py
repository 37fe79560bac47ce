# SPDX-License-Identifier: Apache-2.0
"""Row buffer of the log-softmax: words wait here until the statistics of their row are known."""

__all__ = ["RowBuffer"]

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.stream import signature
from hw.words import Field, Word


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


class RowBuffer(wiring.Component):
    """A ring of words with a queue of rows, so that rows of all lengths share one memory.

    A row may be read once its result has arrived; several rows may wait. There is room for the
    longest row being read while the next one is written and its statistics are on their way, and
    for as many one-word rows as the statistics hold: neither loses a cycle. `i.ready` is a function
    of two counters.

    Attributes
    ----------
    depth, rows
        Words, and rows, that fit; powers of two.

    Members
    -------
    i : :py:`In(signature(word))`
        Words of the unit.
    available : :py:`Out(1)`
        The oldest row may be read.
    parameters, result : :py:`Out`
        Of the oldest row; only while `available`.
    last : :py:`Out(1)`
        The next word is the row's last.
    take : :py:`In(1)`
        Read the next word: it is in `scores` and `keep` from the next cycle until another is taken.
    again : :py:`In(1)`
        Words taken with it stay, and the row starts anew after its last. Words taken without it
        make room, and the last makes the next row the oldest.
    done, found : :py:`In`
        A result has arrived, for the oldest row that has none.
    """

    def __init__(self, config: Config, word: Word, parameters: tuple[Field, ...],
                 result_bits: int, latency: int):
        self.config = config
        self.word = word
        words = -(-config.max_keys // config.lanes)
        # A row's credit is held from its last word until the word is taken, latency + 2 cycles
        # later at the earliest.
        self.rows = _power_of_two(latency + 2)
        self.depth = _power_of_two(words + latency + 2)
        self._parameters = data.StructLayout({item.name: unsigned(item.bits)
                                              for item in parameters})
        super().__init__({
            "i": In(signature(word)),
            "available": Out(1), "parameters": Out(self._parameters), "result": Out(result_bits),
            "last": Out(1), "scores": Out(config.lanes * config.score_bits),
            "keep": Out(config.lanes),
            "take": In(1), "again": In(1), "done": In(1), "found": In(result_bits),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = Memory(
            shape=self.config.lanes * (self.config.score_bits + 1), depth=self.depth, init=[])
        m.submodules.heads = heads = Memory(
            shape=data.StructLayout({"parameters": self._parameters,
                                     "end": unsigned((self.depth - 1).bit_length())}),
            depth=self.rows, init=[])
        m.submodules.results = results = Memory(shape=len(self.result), depth=self.rows, init=[])
        head = heads.read_port(domain="comb")
        result = results.read_port(domain="comb")
        word = words.read_port()

        used = Signal(range(self.depth + 1))
        rows = Signal(range(self.rows + 1))
        ready = Signal(range(self.rows + 1))
        write = Signal(range(self.depth))
        read = Signal(range(self.depth))
        start = Signal(range(self.depth))
        newest = Signal(range(self.rows))
        oldest = Signal(range(self.rows))
        pending = Signal(range(self.rows))

        accept = Signal()
        free = Signal()
        finish = Signal()
        m.d.comb += [
            self.i.ready.eq((used != self.depth) & (rows != self.rows)),
            accept.eq(self.i.valid & self.i.ready),
            self.available.eq(ready != 0),
            self.last.eq(read == head.data.end),
            free.eq(self.take & ~self.again),
            finish.eq(free & self.last),
        ]
        m.d.sync += [
            used.eq(used + accept - free),
            rows.eq(rows + (accept & self.i.p.last) - finish),
            ready.eq(ready + self.done - finish),
            write.eq(write + accept),
            newest.eq(newest + (accept & self.i.p.last)),
            oldest.eq(oldest + finish),
            pending.eq(pending + self.done),
        ]
        with m.If(finish):
            m.d.sync += start.eq(read + 1)
        with m.If(self.take & self.last & self.again):
            m.d.sync += read.eq(start)
        with m.Elif(self.take):
            m.d.sync += read.eq(read + 1)

        # Every word writes its row's head, so the last one's stays.
        words_in, heads_in, results_in = (memory.write_port()
                                          for memory in (words, heads, results))
        m.d.comb += [
            words_in.en.eq(accept), words_in.addr.eq(write),
            words_in.data.eq(self.i.p.scores.as_value() | self.i.p.keep.as_value() <<
                             len(self.scores)),
            heads_in.en.eq(accept), heads_in.addr.eq(newest), heads_in.data.end.eq(write),
            results_in.en.eq(self.done), results_in.addr.eq(pending),
            results_in.data.eq(self.found),
            head.addr.eq(oldest), result.addr.eq(oldest),
            self.parameters.eq(head.data.parameters), self.result.eq(result.data),
            word.en.eq(self.take), word.addr.eq(read),
            self.scores.eq(word.data[:len(self.scores)]),
            self.keep.eq(word.data[len(self.scores):]),
        ]
        for name in self._parameters.members:
            m.d.comb += heads_in.data.parameters[name].eq(self.i.p[name])
        return m
