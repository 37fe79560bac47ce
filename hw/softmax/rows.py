# SPDX-License-Identifier: Apache-2.0
"""Row buffer of the log-softmax: words wait here until the statistics of their row are known."""

__all__ = ["RowBuffer"]

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import signature
from vitforge.spec.config import Config
from vitforge.spec.words import Field, Word


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


class RowBuffer(wiring.Component):
    """A ring of words with a queue of rows, so that rows of all lengths share one memory.

    A row may be read once its result has arrived; several rows may wait. There is room for the
    longest row being read while the next one is written and its statistics are on their way, and
    for as many one-word rows as the statistics hold: neither loses a cycle. `i.ready` is a function
    of pointers.

    Attributes
    ----------
    depth, rows
        Words, and rows, that fit; powers of two.

    Members
    -------
    i : In(signature(word))
        Words of the unit.
    available : Out(1)
        The oldest row may be read.
    parameters, result : Out
        Of the oldest row; only while `available`.
    last : Out(1)
        The next word is the row's last.
    take : In(1)
        Read the next word: it is in `scores` and `keep` from the next cycle until another is taken.
    again : In(1)
        Only if rows are read `twice`: words taken with it stay, and the row starts anew after its
        last. Words taken without it make room, and the last makes the next row the oldest.
    done, found : In
        A result has arrived, for the oldest row that has none.
    """

    def __init__(self, config: Config, word: Word, parameters: tuple[Field, ...],
                 result_bits: int, latency: int, twice: bool):
        self.config = config
        self.word = word
        self._twice = twice
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
        # A word is never read in the cycle in which its place is written, so synthesis need not
        # build what a block memory would do otherwise.
        words: Memory = Memory(shape=self.config.lanes * (self.config.score_bits + 1),
                               depth=self.depth, init=[], attrs={"no_rw_check": "1"})
        heads: Memory = Memory(
            shape=data.StructLayout({"parameters": self._parameters,
                                     "end": unsigned((self.depth - 1).bit_length())}),
            depth=self.rows, init=[])
        results: Memory = Memory(shape=len(self.result), depth=self.rows, init=[])
        m.submodules.words, m.submodules.heads, m.submodules.results = words, heads, results
        head = heads.read_port(domain="comb")
        result = results.read_port(domain="comb")
        word = words.read_port()

        # Pointers have one bit more than an address: equal is empty, that bit alone apart is full.
        write = Signal(range(2 * self.depth))
        read = Signal(range(2 * self.depth))
        newest = Signal(range(2 * self.rows))
        pending = Signal(range(2 * self.rows))
        oldest = Signal(range(2 * self.rows))
        freed = Signal(range(2 * self.depth)) if self._twice else read

        accept = Signal()
        free = Signal()
        finish = Signal()
        m.d.comb += [
            self.i.ready.eq((write ^ freed != self.depth) & (newest ^ oldest != self.rows)),
            accept.eq(self.i.valid & self.i.ready),
            self.available.eq(pending != oldest),
            self.last.eq(read[:-1] == head.data.end),
            free.eq(self.take & ~self.again),
            finish.eq(free & self.last),
        ]
        m.d.sync += [
            write.eq(write + accept),
            newest.eq(newest + (accept & self.i.p.last)),
            pending.eq(pending + self.done),
            oldest.eq(oldest + finish),
        ]
        with m.If(self.take):
            m.d.sync += read.eq(read + 1)
        if self._twice:
            m.d.sync += freed.eq(freed + free)
            # Nothing is freed in a first pass: its row still begins where the freed words end.
            with m.If(self.take & self.last & self.again):
                m.d.sync += read.eq(freed)

        # Every word writes its row's head, so the last one's stays.
        words_in, heads_in, results_in = (memory.write_port()
                                          for memory in (words, heads, results))
        m.d.comb += [
            words_in.en.eq(accept), words_in.addr.eq(write[:-1]),
            words_in.data.eq(self.i.p.scores.as_value() | self.i.p.keep.as_value() <<
                             len(self.scores)),
            heads_in.en.eq(accept), heads_in.addr.eq(newest[:-1]), heads_in.data.end.eq(write[:-1]),
            results_in.en.eq(self.done), results_in.addr.eq(pending[:-1]),
            results_in.data.eq(self.found),
            head.addr.eq(oldest[:-1]), result.addr.eq(oldest[:-1]),
            self.parameters.eq(head.data.parameters), self.result.eq(result.data),
            word.en.eq(self.take), word.addr.eq(read[:-1]),
            self.scores.eq(word.data[:len(self.scores)]),
            self.keep.eq(word.data[len(self.scores):]),
        ]
        for name in self._parameters.members:
            m.d.comb += heads_in.data.parameters[name].eq(self.i.p[name])
        return m
