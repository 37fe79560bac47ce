# SPDX-License-Identifier: Apache-2.0
"""First step of the requantizer, one lane: bias, multiply, shift with rounding, saturate."""

__all__ = ["Scale"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.lib.products import shift_right
from hw.lib.stream import delay, register
from hw.requant.multiply import FINE, STEPS, multiply, shift_power
from vitforge.spec.config import Config
from vitforge.spec.gelu import FRACTION_OFFSET, bump_drop, bump_range, bump_table

#: Low digit of a sum, unsigned: what one 18 x 18 multiplier takes.
DIGIT = 17


class Scale(wiring.Component):
    """``round_shift((acc + bias) * multiplier, shift)``, saturated, as sign and magnitude.

    Rounding: half up, by the bit below the window as the carry of the last addition.

    The product P is complemented where it is negative, so that zeros come in from above, and
    because of ``-(w + r) == ~w + 1 - r`` a magnitude is rounded like a positive number: with w the
    shifted complement and r the bit below it, ``|v| = w + r`` for both signs. The coarse shift by
    0, 16, 32 or 48 is a multiplexer; the fine one, by f = 0 to 15, multiplies two digits by
    ``2**(16-f)`` and adds them, with the rounding in the same carry chain. Where the drain's
    products are made of LUTs it is a shifter, and the sum's high digit is multiplied by LUTs.

    Widths: ``|acc + bias| <= 2**acc_bits`` takes ``acc_bits + 1`` bits, and the product
    ``acc_bits + multiplier_bits + 1``, all signed; nothing is cut before the saturation.

    Members
    -------
    advance : In(1)
        The pipeline takes a step.
    acc, bias : In(signed(acc_bits))
    multiplier : In(multiplier_bits)
    shift : In(6)
    magnitude : Out(value_bits - 1)
        ``|v|``, at most ``2**(value_bits-1) - 1``, `latency` steps later.
    negative : Out(1)
        Sign of v; v = 0 may have either.
    index : Out
        Entry of the bump's table for ``|v|``; the last one from ``|v| = 2**bump_range`` on.
    """

    latency = 11

    def __init__(self, config: Config):
        self.config = config
        self._luts = config.drain_products == "luts"
        self._index_bits = (len(bump_table(config)) - 1).bit_length()
        super().__init__({
            "advance": In(1),
            "acc": In(signed(config.acc_bits)),
            "bias": In(signed(config.acc_bits)),
            "multiplier": In(config.multiplier_bits),
            "shift": In(6),
            "magnitude": Out(config.value_bits - 1),
            "negative": Out(1),
            "index": Out(self._index_bits),
        })

    def _multiply(self, m: Module) -> tuple[Signal, Signal]:
        """Four steps and an addition: the exact product, and the shift beside it.

        Powers of two alone take no multiplier; the factor is 0 or 1 then.
        """
        digit = min(DIGIT, self.config.acc_bits)
        total = register(m, self.acc + self.bias, advance=self.advance, name="total")
        multiplier = register(m, self.multiplier, advance=self.advance, name="multiplier_1")
        if self.config.multiplier_bits == 1:
            product = delay(m, Mux(multiplier, total, 0), advance=self.advance, cycles=STEPS,
                            name="kept")
            return product, self._late_shift(m)
        low = multiply(m, total[:digit], multiplier, advance=self.advance, name="low")
        high = multiply(m, total.shift_right(digit), multiplier, advance=self.advance,
                        name="high", luts=self._luts)

        # The sum fits the high product's width because the whole product fits acc + multiplier + 1.
        upper = Signal.like(high)
        m.d.comb += upper.eq(high + low[digit:])
        product = Signal(len(high) + digit)
        m.d.comb += product.eq(Cat(low[:digit], upper))
        return product, self._late_shift(m)

    def _late_shift(self, m: Module) -> Signal:
        return delay(m, self.shift, advance=self.advance, cycles=1 + STEPS, name="shift")

    def _window(self, m: Module, product: Signal, shift: Signal) \
            -> tuple[Value, Value, Signal]:
        """Two steps: complement and coarse shift; bit 0 of the window is the rounding bit."""
        bits = self.config.value_bits
        coarse_early = shift[4:]
        coarse = register(m, coarse_early, advance=self.advance, name="coarse")
        whole = register(m, product, advance=self.advance, name="product")
        sign = whole[-1]

        def below(value: Value, place: int) -> Value:
            return value[place - 1] if place else Const(0, 1)

        # Where three or four coarse shifts reach into the product, each has registers of its own,
        # which are zero unless it is chosen: a synchronous reset takes no logic, and with it a
        # multiplexer is an OR.
        places = range(bits + FINE - 1)
        reach = [sum(FINE * step + place - 1 < len(product) - 1 for step in range(4))
                 for place in places]
        many = [place for place in places if reach[place] > 2]
        chosen: list[Value] = [Const(0, 1) for _ in many]
        for step in range(4):
            inside = [place for place in many if FINE * step + place - 1 < len(product) - 1]
            if not inside:
                continue
            found = Cat(below(product, FINE * step + place) for place in inside)
            own = register(m, Mux(coarse_early == step, found, 0), advance=self.advance,
                           name=f"chosen_{step}")
            for index in range(len(inside)):
                chosen[index] |= own[index]

        # Three groups of bits, by how many of the coarse shifts reach into the product there. A
        # group is cleared where a shift by 48, or by 32 too, leaves zeros.
        groups: list[list[Value]] = [[], [], []]
        for place in places:
            if reach[place] > 2:
                groups[4 - reach[place]].append(chosen[place] ^ sign)
                continue
            near, far = (below(whole, FINE * step + place) ^ sign if reach[place] > step
                         else Const(0, 1) for step in range(2))
            groups[2].append(Mux(coarse[0], far, near))
        window = []
        for index, clear in enumerate((Const(0, 1), coarse == 3, coarse[1])):
            if not groups[index]:
                continue
            window.append(register(m, Mux(clear, 0, Cat(groups[index])), advance=self.advance,
                                   name=f"window_{index}"))

        above = []
        for step in range(4):
            first = FINE * step + bits + FINE - 2
            group = [whole[place] ^ sign
                     for place in range(first, min(first + FINE, len(product) - 1))]
            above.append(Cat(group).any() if group else Const(0, 1))
        above_early = register(m, Cat(above), advance=self.advance, name="above_groups")
        coarse_late = register(m, coarse, advance=self.advance, name="coarse_late")
        overflow = Cat(above_early[step] & (coarse_late < step + 1)
                       for step in range(3)).any() | above_early[3]
        return Cat(window), overflow, register(m, sign, advance=self.advance, name="sign")

    def _fine_shift(self, m: Module, window: Value, fine: Value) -> tuple[Value, Value]:
        """Shift the window right, `STEPS` steps later: two numbers that add up to it.

        The window comes a step after `fine`.
        """
        if self._luts:
            fine = delay(m, fine, advance=self.advance, name="fine_late")
            shifted = shift_right(m, window, fine, advance=self.advance, name="shifted")
            shifted = delay(m, shifted, advance=self.advance, cycles=STEPS - 2, name="settled")
            return shifted, Const(0, len(shifted))
        power = shift_power(m, fine, advance=self.advance)
        return (multiply(m, window[:FINE], power, advance=self.advance, name="low_digit",
                         low=FINE),
                multiply(m, window[FINE:], power, advance=self.advance, name="high_digit"))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.config.value_bits
        product, shift = self._multiply(m)
        window, above, sign = self._window(m, product, shift)

        fine = register(m, shift[:4], advance=self.advance, name="fine")
        low, high = self._fine_shift(m, window, fine)
        above = delay(m, above, advance=self.advance, cycles=STEPS, name="above_late")
        sign = delay(m, sign, advance=self.advance, cycles=STEPS, name="sign_late")

        # The digits don't overlap; the lowest column adds the constant 1 to the rounding bit.
        double = Signal(bits + 2)
        m.d.comb += double.eq(Cat(Const(1, 1), low[:bits]) + Cat(Const(1, 1), high[:bits]))
        rounded = register(m, double[2:], advance=self.advance, name="rounded")
        overflow = register(m, above | low[bits:].any() | high[bits:].any(),
                            advance=self.advance, name="overflow")

        # The initial value is the one of a synchronous set, which many registers can't have else.
        magnitude = Signal(bits - 1, reset_less=True, init=-1 + (1 << bits - 1))
        index = Signal(self._index_bits, reset_less=True, init=-1 + (1 << self._index_bits))
        beyond = Signal()
        saturated = Signal()
        m.d.comb += [
            saturated.eq(overflow | rounded[bits - 1]),
            beyond.eq(saturated | rounded[bits - FRACTION_OFFSET
                                        + bump_range(self.config):].any()),
        ]
        with m.If(self.advance):
            m.d.sync += [
                magnitude.eq(Mux(saturated, -1, rounded[:bits - 1])),
                index.eq(Mux(beyond, -1, rounded >> bump_drop(self.config))),
            ]
        m.d.comb += [
            self.magnitude.eq(magnitude),
            self.index.eq(index),
            self.negative.eq(delay(m, sign, advance=self.advance, cycles=2, name="negative")),
        ]
        return m
