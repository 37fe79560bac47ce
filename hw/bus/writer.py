# SPDX-License-Identifier: Apache-2.0
"""The AXI4 write master: results to the output buffer."""

__all__ = ["MemoryWriter"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi import ADDRESS_BITS, BEAT_ADDRESSES, constants, write_channels
from hw.bus.bursts import Bursts
from hw.bus.reader import error_layout, range_layout
from hw.lib.layouts import RAW_BITS, raw_layout
from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit


class MemoryWriter(wiring.Component):
    """Write a range as bursts, one burst at a time: address and beats, then the response.

    The address is offered until it is taken, and the beats as they are there, from the same cycle
    on; neither waits for the other, so a memory may take them in any order (IHI 0022, dependencies
    between channels).

    A word of `lanes` sums of 32 bits is a part of a beat, or a beat a part of it; sums are in
    memory in the order in which they come. A beat is offered from the cycle after its last sums
    were taken; what a last beat has beyond the range isn't written. The next command is taken when
    the range before it has been written and acknowledged.

    After `stop` no burst begins, and no word is taken. What is missing of the burst under way is
    sent without strobes, so that the memory gets what was announced, and keeps its bytes; an
    address that it has not taken yet stays offered.

    Members
    -------
    command : In(stream.Signature(range_layout()))
        Address, a multiple of 64, and bytes, a multiple of those of a word.
    data : In(stream.Signature(raw_layout(config)))
        The sums.
    stop : In(1)
        Held until reset.
    idle : Out(1)
        Nothing is announced that has not been acknowledged.
    error : Out(StructLayout)
        A burst was answered with SLVERR or DECERR one cycle ago.
    axi : Out(AW, W and B)
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "command": In(stream.Signature(range_layout())),
            "data": In(stream.Signature(raw_layout(config))),
            "stop": In(1), "idle": Out(1), "error": Out(error_layout()),
            "axi": Out(write_channels(config.axi_bits)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, axi = self.config.axi_bits, self.axi
        low = BEAT_ADDRESSES[bits]
        m.submodules.bursts = bursts = Bursts(ADDRESS_BITS - low, burst_limit(self.config))
        # Words to come, and whether there are any: 32 bits take long to look at.
        words_left = Signal(32)
        words_come = Signal()
        sending = Signal()
        full = self._beats(m, words_left, words_come, sending)

        # Beats of the burst, and those that are to come, less one: AW may be taken after them.
        length = Signal.like(bursts.o.payload.more)
        more = Signal.like(bursts.o.payload.more)
        address = Signal(ADDRESS_BITS)
        final = Signal()
        taken = Signal()
        command = self.command.payload
        m.d.comb += [
            *constants(axi, "w", bits),
            axi.awaddr.eq(address), axi.awlen.eq(length), axi.wlast.eq(more == 0),
            bursts.range.payload.address.eq(command.address[low:]),
            bursts.range.payload.beats.eq((command.bytes + (bits // 8 - 1)) >> low),
            taken.eq(axi.wvalid & axi.wready),
        ]
        m.d.sync += self.error.valid.eq(0)
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.FSM(name="state") as state:
            m.d.comb += sending.eq(state.ongoing("BEATS"))
            with m.State("IDLE"):
                m.d.comb += [self.idle.eq(1), self.command.ready.eq(~self.stop),
                             bursts.range.valid.eq(self.command.valid & ~self.stop)]
                words = command.bytes >> (self._word_bytes - 1).bit_length()
                # Whether there is a command is known late.
                m.d.sync += words_left.eq(words)
                with m.If(self.command.valid & ~self.stop):
                    m.d.sync += words_come.eq(words != 0)
                    m.next = "BURST"
            with m.State("BURST"):
                m.d.sync += [address.eq(Cat(Const(0, low), bursts.o.payload.address)),
                             length.eq(bursts.o.payload.more),
                             more.eq(bursts.o.payload.more), final.eq(bursts.last)]
                m.d.comb += bursts.o.ready.eq(~self.stop)
                with m.If(self.stop):
                    m.d.comb += self.idle.eq(1)
                with m.Elif(bursts.o.valid):
                    m.d.sync += axi.awvalid.eq(1)
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += axi.wvalid.eq(full | self.stop)
                with m.If(taken):
                    m.d.sync += more.eq(more - 1)
                    with m.If(axi.wlast):
                        m.next = "RESPONSE"
            with m.State("RESPONSE"):
                # It comes when both have been taken; AW may still be offered here.
                m.d.comb += axi.bready.eq(1)
                with m.If(axi.bvalid):
                    m.d.sync += [self.error.valid.eq(axi.bresp[1]),
                                 self.error.decode.eq(axi.bresp[0]),
                                 self.error.address.eq(address)]
                    m.next = "BURST"
                    with m.If(final):
                        m.next = "IDLE"
        return m

    @property
    def _word_bytes(self) -> int:
        return self.config.lanes * RAW_BITS // 8

    def _beats(self, m: Module, left: Signal, some: Signal, sending: Signal) -> Value:
        """Assemble beats of `left` words, or cut words into them: whether one is there.

        While `sending`, a beat that is there is offered.
        """
        axi, bits = self.axi, self.config.axi_bits
        word = self._word_bytes * 8
        parts = max(1, bits // word)
        beat = Signal(max(bits, word), reset_less=True)
        # Words in the beat; or beats that are left of the word.
        level = Signal(range(max(parts, word // bits) + 1))
        full = Signal()
        taken = Signal()
        push = Signal()
        m.d.comb += [taken.eq(axi.wvalid & axi.wready), push.eq(self.data.valid & self.data.ready)]
        with m.If(push):
            m.d.sync += [left.eq(left - 1), some.eq(left != 1)]
        value = self.data.payload.as_value()
        open_ = some & ~self.stop
        strobes: Value
        if bits >= word:
            # A word after the last of a beat is taken with the beat, into its first place.
            last = (level == parts) | (~some & (level != 0))
            m.d.comb += [full.eq(last),
                         self.data.ready.eq(open_ & (~last | sending & axi.wready))]
            place = Mux(last, 0, level)
            with m.If(push):
                m.d.sync += [beat.word_select(place, word).eq(value), level.eq(place + 1)]
            with m.Elif(taken):
                m.d.sync += level.eq(0)
            strobes = Cat((level > part).replicate(word // 8) for part in range(parts))
        else:
            m.d.comb += [full.eq(level != 0),
                         self.data.ready.eq(open_ & ((level == 0)
                                                     | (level == 1) & sending & axi.wready))]
            with m.If(push):
                m.d.sync += [beat.eq(value), level.eq(word // bits)]
            with m.Elif(taken & (level != 0)):
                m.d.sync += [beat.eq(beat >> bits), level.eq(level - 1)]
            strobes = Const(-1, bits // 8)
        m.d.comb += [axi.wdata.eq(beat[:bits]),
                     axi.wstrb.eq(Mux(full, strobes, 0))]
        return full
