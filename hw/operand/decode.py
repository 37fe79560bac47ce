# SPDX-License-Identifier: Apache-2.0
"""From a code to the mantissa and the shift that the array takes, by the code's format."""

__all__ = ["Decoder"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike

from hw.lib.stream import delay
from vitforge.spec.config import Config
from vitforge.spec.elements import Element
from vitforge.spec.formats import CODE_BITS, FORMATS


class Decoder:
    """What all lanes share of the decoding: masks instead of widths.

    Of the configuration's `operand_formats`; others don't come.

    ``operand = mantissa << shift``

    Rounding: none.

    - uniform: ``code - zero_point``, shift 0;
    - two-scale: the lower ``bits - 1`` bits, two's complement if `signed`, shift m if the bit above
      them is set;
    - log2: 1 with the shift ``2**bits - 1 - code``; 0 from the highest code on, or beyond it if
      `whole`.

    Parameters
    ----------
    format, zero_point, scale, sign, bits
        The fields of the instruction, one step before the codes.
    whole
        Whether the highest code of `bits` bits is a power of two.
    pairs
        Where words may be of two tokens: whether the next one is, one step before the codes. A code
        is then two of 4 bits, each less the low 4 bits of the zero point, the upper one
        ``2**operand_bits`` times the lower (`vitforge.spec.elements`).
    """

    def __init__(self, m: Module, config: Config, advance: Value, *, format: Value,
                 zero_point: Value, scale: Value, sign: Value, bits: Value,
                 whole: ValueLike = 0, pairs: Value | None = None) -> None:
        self.config = config
        self.pairs: Value | None = None
        if pairs is not None:
            self._apart = Element(config).operand_bits["quad"]
            self.pairs = delay(m, pairs, advance=advance, name="pairs")
            zero_point = Mux(pairs, self._spread(Cat(zero_point[:4], zero_point[:4])), zero_point)
        self.two_scale = Signal(reset_less=True)
        self.log2 = Signal(reset_less=True)
        self.zero_point = Signal(len(zero_point), reset_less=True)
        self.scale = Signal(config.shift_bits, reset_less=True)
        #: Bits of the magnitude; the region's bit, and the sign's, or none.
        self.low = Signal(CODE_BITS, reset_less=True)
        self.region = Signal(CODE_BITS, reset_less=True)
        self.sign = Signal(CODE_BITS, reset_less=True)
        self.whole: Value = Const(0)
        if not isinstance(whole, int):
            self.whole = delay(m, whole, advance=advance, name="whole")
        two_scale = Signal()
        top = Signal(CODE_BITS + 1)
        m.d.comb += [
            two_scale.eq(format == FORMATS["two-scale"]),
            # One bit: the first above the magnitude.
            top.eq(1 << Mux(two_scale, bits - 1, bits)[:4]),
        ]
        with m.If(advance):
            m.d.sync += [
                self.two_scale.eq(two_scale),
                self.log2.eq(format == FORMATS["log2"]),
                self.zero_point.eq(zero_point),
                self.scale.eq(scale),
                self.low.eq(top - 1),
                self.region.eq(top),
                self.sign.eq(Mux(sign, top >> 1, 0)),
            ]

    def _spread(self, code: Value) -> Value:
        """Bring the upper 4 bits to the place of the second operand."""
        return Cat(code[:4], Const(0, self._apart - 4), code[4:])

    def decode(self, code: Value) -> tuple[Value, Value]:
        """Return mantissa (9 bits, signed) and shift of a code, unregistered."""
        kinds = self.config.operand_formats
        rest = ~code & self.low
        one = (rest.any() | self.whole) & ~(code & ~self.low).any()
        negative = (code & self.sign).any()
        magnitude = Cat(code & self.low | ~self.low & negative.replicate(CODE_BITS), negative)
        plain = code if self.pairs is None else Mux(self.pairs, self._spread(code), code)
        mantissa: Value = plain - self.zero_point
        shift: Value = Const(0, CODE_BITS)
        if "log2" in kinds:
            mantissa = Mux(self.log2, one, mantissa)
            shift = rest & self.log2.replicate(CODE_BITS)
        if "two-scale" in kinds:
            mantissa = Mux(self.two_scale, magnitude.as_signed(), mantissa)
            shift = Mux(self.two_scale, self.scale & (code & self.region).any().replicate(
                len(self.scale)), shift)
        return mantissa, shift[:len(self.scale)]
