# SPDX-License-Identifier: Apache-2.0
"""LOAD's scatter: pieces of a buffer to their places in a bank."""

__all__ = ["Placer", "bank_write_layout"]

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi import BEAT_ADDRESSES
from hw.lib.chunks import Join, Split
from hw.lib.layouts import COUNT_BITS, DELTA_BITS, PLACE_BITS, placement_layout
from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS
from vitforge.spec.limits import Part, check
from vitforge.spec.sizes import ADDRESS_BITS


def bank_write_layout(config: Config) -> data.StructLayout:
    """Return a write to a bank: of a word of `rows` codes those groups of `lanes` in the mask."""
    return data.StructLayout({
        "en": 1, "destination": 2, "address": ADDRESS_BITS, "data": config.rows * 8,
        "mask": config.rows // config.lanes})


class _Loops(wiring.Component):
    """Differences from each place to the next, as fast as they are taken.

    Down-counters with a flag for "at the end", so that which loop steps is a question about six
    flip-flops. The difference that is offered, and the number of the loop behind it, come from
    registers: the choice of a step is made two steps ahead.

    Members
    -------
    load : In(1)
        Begin with the loops of `command`; the first difference is offered `latency` cycles later.
    command : In(placement_layout())
        Must not change until the last difference has been taken.
    step : In(1)
        Take the difference.
    delta : Out(signed)
    end : Out(1)
        There is no difference any more: the place that it would lead to doesn't exist.
    """

    latency = 4

    def __init__(self) -> None:
        super().__init__({"load": In(1), "command": In(placement_layout()), "step": In(1),
                          "delta": Out(signed(DELTA_BITS)), "end": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = [self.command[f"count_{loop}"] for loop in range(LOOPS)]
        deltas = [self.command[f"delta_{loop}"] for loop in range(LOOPS)]
        left = [Signal(COUNT_BITS, name=f"left_{loop}", reset_less=True) for loop in range(LOOPS)]
        single = Signal(LOOPS, reset_less=True)     # loops of one round, which never step
        last = Signal(LOOPS, reset_less=True)       # loops that are in their last round
        chosen = Signal(LOOPS, reset_less=True)     # one-hot: who steps next but one
        none = Signal(reset_less=True)
        priming = Signal(2)
        begin = Signal()

        with m.If(self.load):
            m.d.sync += [begin.eq(1), *(single[loop].eq(counts[loop] == 1)
                                        for loop in range(LOOPS))]
        with m.Else():
            m.d.sync += begin.eq(0)
        m.d.sync += priming.eq(Cat(begin, priming))
        with m.If(self.step | priming.any()):
            before: Value | int = 1
            for loop in range(LOOPS):
                steps = Signal(name=f"steps_{loop}")
                restarts = Signal(name=f"restarts_{loop}")
                m.d.comb += [steps.eq(before & ~last[loop]), restarts.eq(before & last[loop])]
                with m.If(steps):
                    m.d.sync += [left[loop].eq(left[loop] - 1), last[loop].eq(left[loop] == 2)]
                with m.If(restarts):
                    m.d.sync += [left[loop].eq(counts[loop]), last[loop].eq(single[loop])]
                m.d.sync += chosen[loop].eq(steps)
                before = restarts
            delta: Value | int = 0
            for loop in range(LOOPS):
                delta = delta | Mux(chosen[loop], deltas[loop].as_unsigned(), 0)
            m.d.sync += [none.eq(last.all()), self.end.eq(none), self.delta.eq(delta)]
        # Never with a step; what comes last decides, and a step is known late.
        with m.If(begin):
            m.d.sync += [last.eq(single), *(left[loop].eq(counts[loop]) for loop in range(LOOPS))]
        return m


class Placer(wiring.Component):
    """Write the pieces of a buffer to a bank, one a cycle.

    A piece has ``2**piece`` bytes, from `lanes` to `rows`; beats are cut from the low bytes on.
    Place p is in word ``p >> log2(rows) - piece``, at the position that the rest says. The first
    piece goes to place `base`; the place of the next one is `delta` of the outermost loop that
    steps away, modulo 2**28. What comes after the end of the loops is dropped.

    A command that is taken in cycle c takes beats from c+2 on. Beats become chunks of `rows` bytes,
    and a chunk moves to a register of its own, from which a piece is cut a cycle, from c+5 on; it
    is written one cycle later. The next chunk comes with the last piece of the one before. A beat
    that is a chunk may be cut from the cycle after it was taken, one that is less or more a cycle
    later. `done` comes one cycle after the last piece has been cut and the last beat has
    been taken, so with the last write or later, and a new command is taken from the next cycle on.

    Parameters
    ----------
    config
        `rows` and `lanes` must be powers of two.

    Members
    -------
    command : In(stream.Signature(placement_layout()))
    data : In(stream.Signature(axi_bits))
        All beats of the LOAD: `bytes` in all, a multiple of 64.
    write : Out(bank_write_layout)
    done : Out(1)
        Pulse: all pieces are written, all beats taken.
    overrun : Out(1)
        Pulse instead of `done`: the beats ended before the loops.
    """

    def __init__(self, config: Config):
        check(config, Part.PLACER)
        self.config = config
        super().__init__({
            "command": In(stream.Signature(placement_layout())),
            "data": In(stream.Signature(config.axi_bits)),
            "write": Out(bank_write_layout(config)),
            "done": Out(1), "overrun": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        command = Signal(placement_layout(), reset_less=True)
        m.submodules.loops = loops = _Loops()
        m.d.comb += loops.command.eq(command)

        # Beats that are left, less one; and that there is none.
        low = BEAT_ADDRESSES[config.axi_bits]
        left = Signal(32 - low, reset_less=True)
        over = Signal(init=1)
        # Of the state, what much waits for: a chunk is cut, or what comes is dropped.
        cuts = Signal()
        flush = Signal(init=1)
        source, empty = self._chunks(m, ~over, flush)
        with m.If(self.data.valid & self.data.ready):
            m.d.sync += [left.eq(left - 1), over.eq(left == 0)]

        chunk = Signal(config.rows * 8, reset_less=True)
        full = Signal()
        cut = Signal()
        uncut = Signal()            # there is more of the chunk behind the piece: a register
        m.d.comb += [cut.eq(cuts & full), source.ready.eq(flush | ~full | (cuts & ~uncut))]
        with m.If(source.ready):
            m.d.sync += [chunk.eq(source.payload), full.eq(source.valid)]

        setup = Signal(loops.latency)
        m.d.sync += setup.eq(setup << 1)
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += self.command.ready.eq(1)
                m.d.sync += [command.eq(self.command.payload), setup.eq(self.command.valid),
                             flush.eq(~self.command.valid)]
                with m.If(self.command.valid):
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.comb += loops.load.eq(setup[0])
                with m.If(setup[0]):
                    m.d.sync += [left.eq(command.bytes[low:] - 1), over.eq(0)]
                with m.If(setup[-1]):
                    m.d.sync += cuts.eq(1)
                    m.next = "CUT"
            with m.State("CUT"):
                with m.If(full & loops.end):
                    m.d.sync += [cuts.eq(0), flush.eq(1)]
                    m.next = "DROP"
                with m.Elif(~full & over & empty):
                    m.d.comb += self.overrun.eq(1)
                    m.d.sync += [cuts.eq(0), flush.eq(1)]
                    m.next = "IDLE"
            with m.State("DROP"):
                with m.If(over):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"

        place = Signal(PLACE_BITS, reset_less=True)
        m.d.comb += loops.step.eq(cut)
        with m.If(loops.load):
            m.d.sync += place.eq(command.base)
        with m.Elif(cut):
            m.d.sync += place.eq(place + loops.delta)
        m.d.sync += [self.write.en.eq(cut), self.write.destination.eq(command.destination)]
        self._write(m, command.piece, place, chunk, cut, uncut, flush, loops.load)
        return m

    def _chunks(self, m: Module, wanted: Value, flush: Value) -> tuple[Any, Value]:
        """Return the stream of chunks, and whether none is under way."""
        axi, word = self.config.axi_bits, self.config.rows * 8
        m.submodules.split = split = Split(axi, min(axi, word))
        m.submodules.join = join = Join(min(axi, word), word)
        m.d.comb += [
            split.i.valid.eq(self.data.valid & wanted), split.i.payload.eq(self.data.payload),
            self.data.ready.eq(split.i.ready & wanted), split.drop.eq(flush),
        ]
        wiring.connect(m, split.o, join.i)
        return join.o, split.empty & join.empty

    def _write(self, m: Module, piece: Value, place: Value, chunk: Value, cut: Value,
               uncut: Signal, flush: Value, begin: Value) -> None:
        """Cut a piece, and put it in every position of the word; the mask says which counts."""
        rows, lanes, write = self.config.rows, self.config.lanes, self.write
        groups = rows // lanes
        smallest, largest = (lanes - 1).bit_length(), (rows - 1).bit_length()
        places = range(max(2, groups))          # no signal is without a bit
        first = Signal(places)                  # group of the chunk with which the piece begins
        size = Signal(range(groups + 1))        # groups of a piece
        following = Signal(range(2 * groups))
        m.d.comb += following.eq(first + size)
        with m.If(begin):
            m.d.sync += uncut.eq(size < groups)
        with m.Elif(cut):
            m.d.sync += uncut.eq(following[:-1] + size < groups)
        with m.If(flush):
            m.d.sync += first.eq(0)
        with m.Elif(cut):
            m.d.sync += first.eq(following if groups > 1 else 0)

        with m.Switch(piece):
            for log in range(smallest, largest + 1):
                # Bits of the place that say where in its word a piece lies.
                bits = largest - log
                with m.Case(log):
                    m.d.comb += size.eq(1 << log - smallest)
                    m.d.sync += [
                        write.address.eq(place >> bits),
                        write.mask.eq(Cat(place[:bits] == group >> log - smallest
                                          for group in range(groups)) if bits else -1),
                    ]
        data: Value = write.data
        for group in range(groups):
            # `first` is a multiple of the size.
            source = Signal(places, name=f"source_{group}")
            m.d.comb += source.eq(first | (group & (size - 1)[:source.shape().width]))
            m.d.sync += data.word_select(group, lanes * 8).eq(
                Array(chunk[place:place + lanes * 8]
                      for place in range(0, len(chunk), lanes * 8))[source])
