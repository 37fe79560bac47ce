# SPDX-License-Identifier: Apache-2.0
"""The AXI4 read master: the program ahead of its use, and what LOAD asks for."""

__all__ = ["MemoryReader", "error_layout", "range_layout"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi import ADDRESS_BITS, BEAT_ADDRESSES, constants, read_channels
from hw.bus.bursts import Bursts
from hw.bus.fetch_buffer import FetchBuffer
from hw.lib.queue import Queue
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit


def range_layout() -> data.StructLayout:
    """Return a range of memory: its first byte, and how many bytes it has."""
    return data.StructLayout({"address": ADDRESS_BITS, "bytes": 32})


def error_layout() -> data.StructLayout:
    """Return an error: a pulse, whether nobody had the address, and the address of the burst."""
    return data.StructLayout({"valid": 1, "decode": 1, "address": ADDRESS_BITS})


class MemoryReader(wiring.Component):
    """Read bursts for the program and for LOAD, in the order in which they are asked for.

    Bursts begin at multiples of `vitforge.spec.packing.burst_limit` beats except the first of a
    range, so they cross no page. A range that is taken in cycle c has its first burst chosen in
    cycle c+3 or later, and then one a cycle; a burst that is chosen in cycle d has `arvalid` from
    d+1. A burst of the program is chosen if `fetch_beats` less all beats asked for and not yet
    taken from `words` leave room for a longest burst, and if no burst of LOAD is to be chosen. A
    beat of the program that comes in cycle r is offered in r+2, a beat of LOAD in r itself.

    Program beats never stall R. Beats of LOAD do, by `data.ready`.

    Members
    -------
    start : In(stream.Signature(range_layout()))
        The program; a second one is taken when all of the first has been asked for.
    load : In(stream.Signature(range_layout()))
        Address and length of a LOAD; goes before the program from the next burst on. Both
        are multiples of 64 bytes.
    words : Out(stream.Signature(axi_bits))
        The program's beats.
    data : Out(stream.Signature(axi_bits))
        The beats of LOAD.
    stop : In(1)
        No new burst; what is still to come is taken and thrown away. Held until reset.
    idle : Out(1)
        Nothing is asked for that has not come. With `stop`, the time to reset.
    exhausted : Out(1)
        All of the program has come.
    waiting : Out(1)
        Beats are to come, and none comes in this cycle.
    error : Out(StructLayout)
        A beat came with SLVERR or DECERR one cycle ago. The beat is delivered all the same.
    axi : Out(AR and R)
        `arvalid` stays until it is taken, `stop` or not.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "start": In(stream.Signature(range_layout())),
            "load": In(stream.Signature(range_layout())),
            "words": Out(stream.Signature(config.axi_bits)),
            "data": Out(stream.Signature(config.axi_bits)),
            "stop": In(1), "idle": Out(1), "exhausted": Out(1), "waiting": Out(1),
            "error": Out(error_layout()),
            "axi": Out(read_channels(config.axi_bits)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, limit = self.config.axi_bits, burst_limit(self.config)
        low = BEAT_ADDRESSES[bits]
        address_bits = ADDRESS_BITS - low
        axi = self.axi
        m.d.comb += constants(axi, "r", bits)

        m.submodules.program = program = Bursts(address_bits, limit)
        m.submodules.loads = loads = Bursts(address_bits, limit)
        for bursts, command in ((program, self.start), (loads, self.load)):
            m.d.comb += [
                bursts.range.valid.eq(command.valid), command.ready.eq(bursts.range.ready),
                bursts.range.payload.address.eq(command.payload.address[low:]),
                bursts.range.payload.beats.eq(command.payload.bytes[low:]),
            ]

        # Whose beats come next, and from which burst.
        m.submodules.queue = queue = Queue(
            data.StructLayout({"load": 1, "address": address_bits}), OUTSTANDING)
        self._choose(m, program, loads, queue)
        beat = self._deliver(m, queue)
        begun = Signal()
        with m.If(self.start.valid & self.start.ready):
            m.d.sync += begun.eq(1)
        m.d.sync += [
            self.exhausted.eq(begun & program.range.ready & ~queue.o.valid),
            self.error.valid.eq(beat & axi.rresp[1]),
            self.error.decode.eq(axi.rresp[0]),
            self.error.address.eq(Cat(Const(0, low), queue.o.payload.address)),
        ]
        return m

    def _choose(self, m: Module, program: Bursts, loads: Bursts, queue: Queue) -> None:
        """Ask for the next burst, of LOAD or of the program, and note whose it is."""
        axi, limit, depth = self.axi, burst_limit(self.config), self.config.fetch_beats
        low = BEAT_ADDRESSES[self.config.axi_bits]
        # Places of the buffer that nobody has asked a beat for: `room`, and one more if a beat was
        # taken in the last cycle. Who takes it says so late in the cycle. And whether these are
        # enough for the longest burst, by the bits that say so: `limit` is a power of two.
        room = Signal(range(depth + 1), init=depth)
        left = Signal.like(room)
        freed = Signal()
        enough = Signal(init=1)
        free = Signal()
        places = limit.bit_length() - 1
        choose_program = Signal()
        choose_load = Signal()
        chosen = Signal.like(program.o.payload)
        m.d.comb += [
            free.eq((~axi.arvalid | axi.arready) & queue.i.ready & ~self.stop),
            loads.o.ready.eq(free),
            program.o.ready.eq(free & ~loads.o.valid & enough),
            choose_load.eq(loads.o.valid & loads.o.ready),
            choose_program.eq(program.o.valid & program.o.ready),
            chosen.eq(Mux(loads.o.valid, loads.o.payload, program.o.payload)),
            queue.i.valid.eq(choose_load | choose_program),
            queue.i.payload.load.eq(loads.o.valid),
            queue.i.payload.address.eq(chosen.address),
        ]
        with m.If(free):
            m.d.sync += [
                axi.arvalid.eq(queue.i.valid), axi.arlen.eq(chosen.more),
                axi.araddr.eq(Cat(Const(0, low), chosen.address)),
            ]
        with m.Elif(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        taken = self.words.valid & self.words.ready
        # A choice takes the places of a longest burst. A shorter one gives back what it leaves a
        # cycle later: it's the first or the last of its range, and `fetch_beats` is at least two
        # longest bursts, so no other burst ever waits for these.
        spare = Signal(range(limit))
        m.d.comb += left.eq(room + freed + spare - Mux(choose_program, limit, 0))
        m.d.sync += [
            freed.eq(taken), room.eq(left),
            spare.eq(Mux(choose_program, limit - 1 - program.o.payload.more, 0)),
            enough.eq(left[places:].any() | (left[:places].all() & taken)),
        ]

    def _deliver(self, m: Module, queue: Queue) -> Signal:
        """Hand beats to whom they belong; return whether one is taken."""
        axi = self.axi
        m.submodules.buffer = buffer = FetchBuffer(
            self.config.axi_bits, self.config.fetch_beats)
        beat = Signal()
        coming = queue.o.payload.load
        m.d.comb += [
            axi.rready.eq(queue.o.valid & (~coming | self.data.ready | self.stop)),
            beat.eq(axi.rvalid & axi.rready),
            queue.o.ready.eq(beat & axi.rlast),
            # Beats of the program are always taken.
            buffer.i.valid.eq(axi.rvalid & queue.o.valid & ~coming), buffer.i.payload.eq(axi.rdata),
            self.words.valid.eq(buffer.o.valid), self.words.payload.eq(buffer.o.payload),
            buffer.o.ready.eq(self.words.ready),
            self.data.valid.eq(axi.rvalid & queue.o.valid & coming & ~self.stop),
            self.data.payload.eq(axi.rdata),
            self.idle.eq(~queue.o.valid),
            self.waiting.eq(queue.o.valid & ~beat),
        ]
        return beat
