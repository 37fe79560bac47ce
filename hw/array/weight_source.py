# SPDX-License-Identifier: Apache-2.0
"""Weight side of a pass: tiles for the array from the stream, or out of the stationary bank."""

__all__ = ["WeightSource"]

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.array.bank import Bank
from hw.array.systolic import SystolicArray
from hw.lib.layouts import layout
from hw.lib.stream import signature
from vitforge.spec.config import Config
from vitforge.spec.formats import MIDDLE
from vitforge.spec.pass_fields import WEIGHT_FIELDS
from vitforge.spec.sizes import ADDRESS_BITS


class WeightSource(wiring.Component):
    """Hand the weights of every pass to the array, `rows` words a tile.

    ``weight = element`` of the stream, ``code - 128`` of the stationary bank.

    Rounding: none.

    The words of a stationary pass wait until at most two passes before it haven't landed. They
    are read one a cycle, into a pipeline of three registers (address, and the bank's two) that
    stands still while the array doesn't take its last one. A pass from the stream begins when
    that pipeline is empty. Keys and values are codes with the zero point 128, whose difference is
    the code with its top bit inverted.

    Members
    -------
    passes : In(stream.Signature(layout(WEIGHT_FIELDS)))
    words : In(stream.Signature(cols * 8))
        Weights of the stream's passes.
    landed : In(1)
        Pulse of the drain.
    read_enable, read, read_address : Out; data : In
        Read port of the stationary bank.
    w : Out(signature(SystolicArray.words(config)["w"]))
    w_takes : In(1)
        What ``w.ready`` will be in the next cycle.
    """

    def __init__(self, config: Config):
        self.config = config
        self.word = SystolicArray.words(config)["w"]
        super().__init__({
            "passes": In(stream.Signature(layout(WEIGHT_FIELDS))),
            "words": In(stream.Signature(config.cols * 8)),
            "landed": In(1),
            "read_enable": Out(1), "read": Out(1), "read_address": Out(ADDRESS_BITS),
            "data": In(config.rows * 8),
            "w": Out(signature(self.word)), "w_takes": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = self.config.rows
        active = Signal()
        current = Signal(layout(WEIGHT_FIELDS), reset_less=True)
        place = Signal(range(rows))
        tile = Signal(len(current.tiles))
        address = Signal(ADDRESS_BITS, reset_less=True)
        next_base = Signal(ADDRESS_BITS, reset_less=True)
        unlanded = Signal(3)

        advance = Signal()
        issue = Signal()
        take = Signal()
        final = Signal()
        load = Signal()
        pipeline = Signal(1 + Bank.latency)
        columns = Signal(1 + Bank.latency)
        # A pass from the stream is under way, and the pipeline is empty; and the array takes a word
        # too. Registers, because all that is in front of `words` waits for them.
        streams = Signal()
        streaming = Signal()
        flows = Signal()
        # A tile takes several words, so its number may be looked at a cycle late.
        final_tile = Signal()
        end = Signal()
        bank = Cat(self.data.bit_select(index * 8, 8) ^ MIDDLE for index in range(rows))
        m.d.comb += [
            advance.eq(~pipeline[-1] | self.w.ready),
            issue.eq(active & current.stationary & (unlanded <= 2)),
            self.words.ready.eq(flows),
            take.eq(issue & advance | self.words.valid & self.words.ready),
            end.eq(place == rows - 1),
            final.eq(take & end & final_tile),
            load.eq(~active | final),
            self.passes.ready.eq(load),
            self.read_enable.eq(advance),
            self.read.eq(pipeline[0] & advance),
            self.w.valid.eq(pipeline[-1] | (streams & self.words.valid)),
            self.w.payload.by_column.eq(pipeline[-1] & columns[-1]),
        ]
        weights: data.View = self.w.payload.weights
        with m.If(pipeline[-1]):
            m.d.comb += weights.as_value().eq(bank)
        with m.Else():
            m.d.comb += weights.as_value().eq(self.words.payload)

        m.d.sync += [
            unlanded.eq(unlanded + final - self.landed),
            final_tile.eq(tile == current.tiles - 1),
            streams.eq(streaming), flows.eq(streaming & self.w_takes),
        ]
        m.d.comb += streaming.eq(Mux(load, self.passes.valid & ~self.passes.payload.stationary,
                                     active & ~current.stationary)
                                 & advance & ~issue & ~pipeline[:-1].any())
        with m.If(advance):
            m.d.sync += [
                pipeline.eq(Cat(issue, pipeline)), columns.eq(Cat(current.by_column, columns)),
                self.read_address.eq(address),
            ]
        coming = self.passes.payload
        with m.If(load):
            m.d.sync += [
                active.eq(self.passes.valid), current.eq(coming), place.eq(0), tile.eq(0),
                address.eq(coming.w_base), next_base.eq(coming.w_base + coming.w_stride),
            ]
        with m.Elif(take):
            m.d.sync += place.eq(Mux(end, 0, place + 1))
            with m.If(end):
                m.d.sync += tile.eq(tile + 1)
        # Words of the stream have no address.
        with m.If(~load & issue & advance):
            m.d.sync += address.eq(Mux(end, next_base, address + 1))
            with m.If(end):
                m.d.sync += next_base.eq(next_base + current.w_stride)
        return m
