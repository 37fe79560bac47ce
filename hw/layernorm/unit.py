# SPDX-License-Identifier: Apache-2.0
"""LayerNorm of power-of-two-factor codes, `lanes` elements a cycle."""

__all__ = ["LayerNorm"]

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layernorm.buffer import Ring
from hw.layernorm.normalize import Normalize, codes_word, parameters_word
from hw.layernorm.scale import RowScale
from hw.layernorm.statistics import Statistics, elements_word
from hw.lib.stream import delay, signature
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.words import Field, Word


class LayerNorm(wiring.Component):
    """Decode, gather statistics, and normalise out of a buffer while the next row comes in.

    ``code = clamp(round(gamma*(C*x - S)/sqrt(C*Q - S*S) + beta) + zero_point, 0, 2**bits - 1)``

    Rounding: half up in the last step (`hw.layernorm.normalize`); the root and the two shifts
    before it truncate, and sums are exact.

    ``x = mantissa << shift`` must fit norm_bits. Any element may be left out with `keep`; C is the
    number of those that are kept, at most max_channels in at most ``max_channels / lanes`` words
    (rounded up). A row of one repeated value gives `offset`, rounded.

    Bit-exact with `golden.units.layernorm.layernorm`. The first code of a row leaves `latency`
    cycles after its last element has entered, if nothing stalls. Initiation interval 1: rows of
    `interval` words or more flow without a pause; shorter rows take `interval` cycles each.

    The rows in flight share one ring buffer, which holds the longest row and what comes in while
    its factors are computed: a row is read while the next ones are written.

    Members
    -------
    i : In(signature(words(config)["i"]))
        Elements.
    p : In(signature(words(config)["p"]))
        Parameters, one word for every word of elements, in the same order.
    bits : In(4, init=8)
        Width of a code, 2 to 8. Held from a row's first word until its last code has left.
    o : Out(signature(words(config)["o"]))
        Codes.
    """

    def __init__(self, config: Config):
        self.config = config
        words = self.words(config)
        width = NormFormat(config)
        # The first register decodes.
        self.latency = (1 + width.levels + Statistics.registers + width.pairs + RowScale.registers
                        + Normalize.latency)
        #: Cycles from one row to the next, at least: the search, or the table and its use.
        self.interval = max(width.pairs + 1, 10)
        bits = In(4, init=CODE_BITS)   # type: ignore[call-arg]
        super().__init__({"bits": bits} | {
            name: (Out if name == "o" else In)(signature(word)) for name, word in words.items()})

    @staticmethod
    def words(config: Config) -> dict[str, Word]:
        """Fields of every stream."""
        width = NormFormat(config)
        return {
            "i": Word((
                Field("mantissa", config.mantissa_bits, signed=True, count=config.lanes,
                      text="code minus zero point"),
                Field("shift", width.shift_bits, count=config.lanes,
                      text="alpha of PTF, m*flag of O-2SF"),
                Field("keep", 1, count=config.lanes, text="whether the row has this element"),
                Field("last", 1, text="last word of the row"))),
            "p": parameters_word(config),
            "o": codes_word(config),
        }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.statistics = statistics = Statistics(self.config)
        m.submodules.scale = scale = RowScale(self.config)
        m.submodules.normalize = normalize = Normalize(self.config)
        m.submodules.buffer = buffer = Ring(elements_word(self.config),
                                            NormFormat(self.config).buffer_words)

        # Decoded elements go to the statistics and to the buffer, or to neither.
        advance = Signal()
        elements = Signal.like(statistics.i.payload, reset_less=True)
        valid = delay(m, self.i.valid, advance=advance, name="valid", init=0)
        m.d.comb += [
            advance.eq(statistics.i.ready & buffer.i.ready),
            self.i.ready.eq(advance),
            statistics.i.valid.eq(valid & buffer.i.ready),
            statistics.i.payload.eq(elements),
            buffer.i.valid.eq(valid & statistics.i.ready),
            buffer.i.payload.eq(elements),
        ]
        with m.If(advance):
            m.d.sync += [elements.keep.eq(self.i.payload.keep),
                         elements.last.eq(self.i.payload.last)]
            for n in range(self.config.lanes):
                with m.If(self.i.payload.keep[n]):
                    m.d.sync += elements.x[n].eq(self._decode(n))
                with m.Else():
                    m.d.sync += elements.x[n].eq(0)

        m.d.comb += normalize.bits.eq(self.bits)
        wiring.connect(m, statistics.o, scale.i)
        wiring.connect(m, scale.o, normalize.row)
        wiring.connect(m, buffer.o, normalize.i)
        wiring.connect(m, wiring.flipped(self.p), normalize.p)
        wiring.connect(m, normalize.o, wiring.flipped(self.o))
        return m

    def _decode(self, n: int) -> Value:
        """``mantissa << shift``, which fits norm_bits by contract."""
        return self.i.payload.mantissa[n] << self.i.payload.shift[n]
