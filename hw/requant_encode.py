# SPDX-License-Identifier: Apache-2.0
"""Third step of the requantizer, one lane: search among thresholds, shift, round, clamp."""

__all__ = ["Encode"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.requant_multiply import STEPS, multiply
from hw.stream import delay

#: Positions of the shift, which a multiplier makes.
PLACES = 16


class Encode(wiring.Component):
    """Code of one integer: uniform, two-scale, log2 or table.

    A binary search of four steps counts the thresholds that aren't above y: the code of the table
    format, the complement of the one of log2, and the region of the two-scale format, whose low
    region lies between thresholds 3 and 11. The region is known after two of the steps, so one
    shifter serves both regions: y times ``2**(16 - shift)``.

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
    encode_shift : In(4)
        In step 2.
    m : In(4)
        More shift for the high region: 0 but in the two-scale format; in step 2.
    offset, mask : In(8)
        Added before the clamp to ``0..mask``, in step 7 and 8.
    search : In(1)
        Whether the code comes from the search; in step 7.
    flip, region : In(8)
        Bits that are inverted, and that are set in the high region; in step 9.
    code : Out(8)
        In step 10.
    """

    latency = 10

    def __init__(self, config: Config):
        self.config = config
        wide, narrow = signed(config.value_bits + 1), signed(config.value_bits)
        super().__init__({
            "advance": In(1), "y": In(wide),
            "middle": In(wide), "lower": In(wide), "upper": In(wide),
            "address": In(3), "fourth": In(narrow), "second": In(narrow),
            "encode_shift": In(4), "m": In(4),
            "offset": In(8), "mask": In(8), "search": In(1), "flip": In(8), "region": In(8),
            "code": Out(8),
        })

    def _register(self, m: Module, value: Value, name: str) -> Signal:
        register = Signal.like(value, name=name, reset_less=True)
        with m.If(self.advance):
            m.d.sync += register.eq(value)
        return register

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

    def _search(self, m: Module, y: list[Signal]) -> tuple[Value, Value]:
        """Four steps: what is found after two of them, and after all."""
        found = self._register(m, y[0] >= self.middle, "found_1")
        second = Mux(found, self.upper, self.lower)
        found = self._register(m, Cat(y[1] >= second, found), "found_2")
        high = ~(found[0] ^ found[1])
        third = self._memory(m, "fourths", found, self.fourth)
        found = self._register(m, Cat(y[2] >= third, found), "found_3")
        last = self._memory(m, "seconds", found, self.second)
        return high, self._register(m, Cat(y[3] >= last, found), "found_4")

    def _shift(self, m: Module, y: Signal, amount: Value, count: Value) \
            -> tuple[Value, Signal, Signal]:
        """Six steps: the low 8 bits with rounding and offset, the sign, and whether more is set.

        With 8 bits x below a sign of 1, the sum means ``x - 256``. The count of a search takes the
        sum's place in the last step.
        """
        amount = self._register(m, amount, "amount")
        power = Signal(PLACES + 1, reset_less=True)
        with m.If(self.advance):
            m.d.sync += power.eq(Cat(amount == PLACES - place for place in range(PLACES + 1)))
        # Bit 0 is the rounding bit.
        shifted = multiply(m, y, power, advance=self.advance, name="shifted", low=PLACES - 1,
                           high=PLACES + len(y)).as_signed()

        # The lowest column adds the constant 1 to the rounding bit.
        double = Signal(10)
        m.d.comb += double.eq(shifted[:9] + Cat(Const(1, 1), self.offset))
        low = self._register(m, Mux(self.search, count, double[1:5]), "sum_low")
        high = Signal(5, reset_less=True)
        sign = Signal(reset_less=True)
        more = Signal(reset_less=True)
        rest = shifted[9:-1]
        with m.If(self.advance):
            m.d.sync += [
                high.eq(Mux(self.search, 0, double[5:])),
                sign.eq(Mux(self.search, 0, shifted[-1])),
                more.eq(Mux(self.search, 0, (rest ^ shifted[-1].replicate(len(rest))).any())),
            ]
        return Cat(low, high), sign, more

    def elaborate(self, platform: object) -> Module:
        m = Module()
        y = [self.y]
        for step in range(1, 5):
            y.append(self._register(m, y[-1], f"y_{step}"))
        high, count = self._search(m, y)
        # m is added in the step in which the region is known.
        amount = Mux(high, self.encode_shift + self.m, self.encode_shift)[:4]
        high = delay(m, high, advance=self.advance, cycles=STEPS + 4, name="high_late")
        count = delay(m, count, advance=self.advance, cycles=STEPS, name="count_late")
        total, sign, more = self._shift(m, y[4], amount, count)

        below = Signal()
        above = Signal()
        m.d.comb += [
            below.eq(sign & (more | ~total[8])),
            above.eq(~sign & (more | total[8]) | (total[:8] & ~self.mask).any()),
        ]
        code = self._register(m, Mux(below, 0, (total[:8] | above.replicate(8)) & self.mask),
                              "clamped")
        code = code ^ self.flip | Mux(high, self.region, 0)
        m.d.comb += self.code.eq(self._register(m, code, "code_10"))
        return m
