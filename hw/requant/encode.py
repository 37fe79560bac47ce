# SPDX-License-Identifier: Apache-2.0
"""Third step of the requantizer, one lane: search among thresholds, shift, round, clamp."""

__all__ = ["Encode"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.products import shift_right
from hw.lib.stream import delay, register
from hw.requant.multiply import FINE, STEPS, multiply, shift_power
from vitforge.spec.config import Config


class Encode(wiring.Component):
    """Code of one integer: uniform, two-scale, log2 or table.

    ``code = clamp(round_shift(y, encode_shift + m * region) + offset, 0, 2**bits - 1)``, or how
    many thresholds aren't above y.

    Rounding: half up, by the bit below the shifted y as the carry of the offset's addition;
    thresholds hold the rounding of what they encode.

    A binary search of four steps counts the thresholds that aren't above y: the code of the table
    format, the complement of the one of log2, and the region of the two-scale format, whose low
    region lies between thresholds 3 and 11. The first two steps are one: three comparisons with
    what is the same for all lanes cost no more than two with a multiplexer. So the region is known
    before the shift, and one shifter serves both regions: y times ``2**(16 - shift)``. A count
    goes the same way, as ``8 * (count * 2**13)``. (Where the drain's products are made of LUTs, the
    shifter is one, and takes the count itself.) Where the configuration lacks the formats that
    need them, there is no comparison, no memory and no multiplexer. With uniform codes alone the
    search's time is free: all comes a step `early`, and the last step's registers, whose bits of
    one place have a synchronous reset for all lanes, are the mask without logic.

    Widths: y takes ``value_bits + 1`` bits. After the shift, all above bit 8 is only a sign and
    whether the rest equals it, because an offset of at most 255 can't bring it back.

    Members
    -------
    advance : In(1)
        The pipeline takes a step.
    y : In(signed(value_bits + 1))
        In step 0.
    middle, lower, upper : In(signed(value_bits + 1))
        Thresholds 7, 3 and 11; static.
    address : In(3)
    fourth, second : In(signed(value_bits))
        Thresholds ``4 * (address % 4) + 1`` and ``2 * address``, written on every clock cycle.
    m : In(4)
        More shift for the high region: 0 but in the two-scale format; in step 1.
    encode_shift : In(4)
        In step 2, less `early`.
    early_search, search : In(1)
        Whether the code comes from the search; in step 2 and 3.
    offset : In(8)
        Added before the clamp, in step 7, less `early`; 0 with `search`.
    mask, late_mask, flip : In(8)
        The clamp is to ``0..mask``. Then bits of the mask are inverted by `flip`; others are zero,
        or say with `flip` whether it is the high region. In step 8, 10 and 10, less `early`.
    code : Out(8)
        In step 10, from some logic.
    """

    latency = 10

    def __init__(self, config: Config):
        self.config = config
        #: Steps that are left where nothing is searched.
        self.early = int(config.formats == "uniform")
        wide, narrow = signed(config.value_bits + 1), signed(config.value_bits)
        super().__init__({
            "advance": In(1), "y": In(wide),
            "middle": In(wide), "lower": In(wide), "upper": In(wide),
            "address": In(3), "fourth": In(narrow), "second": In(narrow),
            "m": In(4), "encode_shift": In(4), "early_search": In(1), "search": In(1),
            "offset": In(8), "mask": In(8), "late_mask": In(8), "flip": In(8),
            "code": Out(8),
        })

    def _memory(self, m: Module, name: str, address: Value, data: Value) -> Signal:
        m.submodules[name] = memory = Memory(shape=signed(self.config.value_bits),
                                             depth=1 << len(address), init=[],
                                             attrs={"ram_style": "distributed"})
        write = memory.write_port()
        read = memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(data),
            write.en.eq(1),
            read.addr.eq(address),
        ]
        return read.data

    def _search(self, m: Module, y: list[Signal]) -> tuple[Value, Value | None]:
        """Whether it is the high region, after one step, and the count, after three, if any."""
        if self.early:
            return Const(0, 1), None
        lower = register(m, y[0] >= self.lower, advance=self.advance, name="above_lower")
        middle: Value = Const(0, 1)
        if self.config.counts_thresholds:
            middle = register(m, y[0] >= self.middle, advance=self.advance, name="above_middle")
        upper = register(m, y[0] >= self.upper, advance=self.advance, name="above_upper")
        high = ~lower | upper
        if not self.config.counts_thresholds:
            return high, None
        found: Value = Cat(Mux(middle, upper, lower), middle)
        third = self._memory(m, "fourths", found, self.fourth)
        found = register(m, Cat(y[1] >= third, found), advance=self.advance, name="found_3")
        last = self._memory(m, "seconds", found, self.second)
        count = register(m, Cat(y[2] >= last, found), advance=self.advance, name="count")
        return high, count

    def _shifted(self, m: Module, operand: Signal, amount: Value, count: Value | None) -> Value:
        """Shift the operand, which comes a step after amount and count; `STEPS` steps later.

        One bit more than that is left below. With `search` the amount is 0, the result ``2*count``.
        """
        if self.config.drain_products == "luts":
            amount = delay(m, amount, advance=self.advance, name="amount_late")
            value = Cat(Const(0, 1), operand).as_signed()
            if count is not None:
                count = delay(m, count, advance=self.advance, name="count_late")
                searched = delay(m, self.search, advance=self.advance, name="searched")
                value = Mux(searched, Cat(Const(0, 1), count, Const(0, 1)).as_signed(), value)
            shifted = shift_right(m, value.as_signed(), amount, advance=self.advance, name="shift")
            return delay(m, shifted, advance=self.advance, cycles=STEPS - 2,
                         name="shifted").as_signed()
        power = shift_power(m, amount, advance=self.advance, other=count, use_other=self.search)
        return multiply(m, operand, power, advance=self.advance, name="shifted", low=FINE - 1,
                        high=FINE + len(operand)).as_signed()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        y = [self.y]
        for step in range(1, 4 - self.early):
            y.append(register(m, y[-1], advance=self.advance, name=f"y_{step}"))
        high, count = self._search(m, y)

        more_shift = Signal(4, reset_less=True)
        # The initial value is the one of a synchronous set.
        operand = Signal(signed(self.config.value_bits + 1), reset_less=True, init=8)
        with m.If(self.advance):
            m.d.sync += [
                more_shift.eq(Mux(high, self.m, 0)),
                operand.eq(y[-1] if count is None else Mux(self.search, 8, y[-1])),
            ]
        shift = (self.encode_shift + more_shift)[:4]
        amount = register(m, shift if count is None else Mux(self.early_search, 0, shift),
                          advance=self.advance, name="amount")
        # Bit 0 is the rounding bit.
        shifted = self._shifted(m, operand, amount, count)

        # The lowest column adds the constant 1 to the rounding bit. With 8 bits x below a sign of
        # 1, the sum means ``x - 256``.
        double = Signal(10)
        m.d.comb += double.eq(shifted[:9] + Cat(Const(1, 1), self.offset))
        total = register(m, double[1:], advance=self.advance, name="total")
        sign = register(m, shifted[-1], advance=self.advance, name="sign")
        rest = shifted[9:-1] ^ shifted[-1].replicate(len(shifted) - 10)
        more = Cat(register(m, rest[first:first + 3].any(), advance=self.advance,
                            name=f"more_{first}") for first in range(0, len(rest), 3)).any()

        # A synchronous reset and a set clamp without logic.
        beyond = (total[:8] & ~self.mask).any()
        above = register(m, Mux(sign, ~more & total[8] & beyond, more | total[8] | beyond),
                         advance=self.advance, name="above")
        raised = Signal(8, reset_less=True)
        clamped = Signal(8, reset_less=True, init=0xff)
        with m.If(self.advance):
            m.d.sync += [
                raised.eq(Mux(sign & (more | ~total[8]), 0, total[:8])),
                clamped.eq(Mux(above, 0xff, raised)),
            ]
        if self.early:
            m.d.comb += self.code.eq(register(m, Cat(
                Mux(self.late_mask[place], clamped[place], 0) for place in range(8)),
                advance=self.advance, name="masked"))
            return m
        high = delay(m, high, advance=self.advance, cycles=STEPS + 6, name="high_late")
        m.d.comb += self.code.eq(Cat(
            Mux(self.late_mask[place], clamped[place] ^ self.flip[place], self.flip[place] & high)
            for place in range(8)))
        return m
