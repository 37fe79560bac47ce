# SPDX-License-Identifier: Apache-2.0
"""Normalise a stream of elements, given the factors of each row."""

__all__ = ["Normalize", "codes_word", "parameters_word"]

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.layernorm.lane import LaneWidths, code_mask, lane, saturate
from hw.layernorm.scale import factors_word
from hw.layernorm.statistics import elements_word
from hw.lib.stream import Skid, delay, signature
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.layernorm_widths import FRACTION, GAMMA_BITS, OFFSET_BITS
from vitforge.spec.words import Field, Word


def parameters_word(config: Config) -> Word:
    """Return the word of the parameters of `lanes` channels."""
    return Word((
        Field("gamma", GAMMA_BITS, signed=True, count=config.lanes,
              text=f"in 2**-{FRACTION} output steps"),
        Field("offset", OFFSET_BITS, signed=True, count=config.lanes,
              text=f"beta + zero point + 1/2, in 2**-{FRACTION} output steps")))


def codes_word(config: Config) -> Word:
    """Return the word of `lanes` normalised elements."""
    return Word((Field("code", CODE_BITS, count=config.lanes,
                       text="normalised element; 0 where keep was 0"),
                 Field("last", 1, text="last word of the row")))


class Normalize(wiring.Component):
    """``clamp(n*gamma + offset, 0, 2**bits - 1)`` of every element, `lanes` a cycle.

    ``n = ((C*x - S) << up >> drop) * root >> rsqrt_bits - 1`` (`hw.layernorm.lane`).

    Rounding: n's two shifts truncate; the code is rounded half up by the half that `offset` holds,
    and a floor.

    A word leaves ``latency`` cycles after it has entered; initiation interval 1 within a row. A
    row's first word is accepted once its factors are there; they are taken four cycles later, so
    that rows follow each other after five cycles at the earliest. A parameter word is held in a
    register until its elements come by; the pipeline stalls while they wait for it. Bit-exact with
    steps 1 to 3 of `golden.units.layernorm.layernorm`; the widths are those of `NormFormat`.

    Members
    -------
    i : In(signature(elements_word(config)))
        Elements.
    row : In(signature(factors_word(config)))
        Factors of the row that begins.
    p : In(signature(parameters_word(config)))
        Parameters, one word for every word of elements.
    bits : In(4, init=8)
        Width of a code, 2 to 8; static.
    o : Out(signature(codes_word(config)))
        Codes.
    """

    #: Registers from `i` to `o`, the skid's included.
    latency = 10

    def __init__(self, config: Config):
        self.config = config
        super().__init__({"i": In(signature(elements_word(config))),
                          "row": In(signature(factors_word(config))),
                          "p": In(signature(parameters_word(config))),
                          "bits": In(4, init=CODE_BITS),   # type: ignore[call-arg]
                          "o": Out(signature(codes_word(config)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.skid = skid = Skid(codes_word(self.config))
        wiring.connect(m, skid.o, wiring.flipped(self.o))

        advance = Signal()
        within = Signal()
        taking = Signal()
        accept = Signal()
        word, row = self.i.payload, self.row.payload
        m.d.comb += [
            self.i.ready.eq(advance & (within | (self.row.valid & ~taking))),
            accept.eq(self.i.valid & self.i.ready),
        ]
        valid = [accept]
        first = [accept & ~within]
        for stage in range(9):
            valid.append(delay(m, valid[-1], advance=advance, name=f"valid_{stage}", init=0))
        for stage in range(4):
            first.append(delay(m, first[-1], advance=advance, name=f"first_{stage}", init=0))
        with m.If(accept):
            m.d.sync += within.eq(~word.last)
        m.d.comb += self.row.ready.eq(advance & first[4])
        with m.If(self.row.ready):
            m.d.sync += taking.eq(0)
        with m.Elif(advance & first[0]):
            m.d.sync += taking.eq(1)

        # Parameters meet their elements in front of the eighth register of nine.
        held = Signal()
        take = Signal()
        parameters = Signal.like(self.p.payload, reset_less=True)
        m.d.comb += [
            take.eq(skid.i.ready & valid[7] & held),
            advance.eq(skid.i.ready & (held | ~valid[7])),
            self.p.ready.eq(~held | take),
        ]
        with m.If(self.p.ready):
            m.d.sync += [held.eq(self.p.valid), parameters.eq(self.p.payload)]

        # A factor is loaded with the row's first word, where that word needs it. What goes to the
        # multipliers is there three times, since they lie far apart; the copies are reset to 0, to
        # ones, and not at all, or a synthesizer would merge them.
        total = self._load(m, "total", row.total, advance & first[2])
        coarse = self._load(m, "coarse", row.coarse, advance & first[3])
        counts = [self._load(m, f"count_{n}", row.count, advance & first[0], init)
                  for n, init in enumerate((None, 0, -1))]
        roots = [self._load(m, f"root_{n}", row.root, advance & first[4], init)
                 for n, init in enumerate((None, 0, -1))]
        keep = delay(m, word.keep.as_value(), advance=advance, cycles=9,
                     name="keep")
        m.d.comb += [
            # `advance`, of which the skid knows its own part.
            skid.i.valid.eq(valid[9] & (held | ~valid[7])),
            skid.i.payload.last.eq(delay(m, word.last, advance=advance, cycles=9, name="last")),
        ]
        mask = Signal(CODE_BITS, reset_less=True)
        m.d.sync += mask.eq(code_mask(self.bits))
        widths = LaneWidths.of(self.config)
        for n in range(self.config.lanes):
            _, y = lane(m, widths, n, advance, x=word.x[n], count=counts[n % 3], total=total,
                        coarse=coarse, root=roots[n % 3], gamma=parameters.gamma[n],
                        offset=parameters.offset[n])
            with m.If(keep[n]):
                m.d.comb += skid.i.payload.code[n].eq(saturate(y, mask))
        return m

    @staticmethod
    def _load(m: Module, name: str, value: Value, enable: Value,
              init: int | None = None) -> Signal:
        register = Signal(value.shape(), name=name, reset_less=init is None,
                          init=(init or 0) & (1 << len(value)) - 1)
        with m.If(enable):
            m.d.sync += register.eq(value)
        return register
