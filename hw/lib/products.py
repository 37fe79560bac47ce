# SPDX-License-Identifier: Apache-2.0
"""Products and shifts made of LUTs, where a device has no multiplier left for them."""

__all__ = ["few_times", "lut_product", "product", "shift_right"]

from amaranth.hdl import Module, Mux, Shape, Signal, Value, ValueLike

from hw.lib.stream import delay, register


def few_times(value: Value, count: Value) -> Value:
    """Return ``value * count`` by an adder a bit of the count: no multiplier for a bit or two."""
    terms: list[Value] = [Mux(bit, value << place, 0) for place, bit in enumerate(count)]
    return sum(terms[1:], start=terms[0])


def lut_product(m: Module, a: Value, b: Value, *, registers: int, advance: ValueLike, name: str
                ) -> Signal:
    """Multiply exactly, `registers` (1 or more) steps later, without a multiplier.

    Two rows of partial products each make a term, and a tree adds the terms: that many additions
    one after the other as `vitforge.spec.products.levels` says of the shorter factor. There is a
    register behind each of the last ones; where there are fewer registers than additions the first
    ones, which are the shortest, share one. Any factor is exact: terms are as wide as they need be,
    and the product as wide as both factors together.
    """
    if len(a) > len(b):
        a, b = b, a
    shape = Shape(len(a) + len(b), signed=a.shape().signed or b.shape().signed)
    terms: list[Value] = []
    for place in range(0, len(a), 2):
        # The top bit of a signed factor counts negative.
        top = place + 2 >= len(a) and a.shape().signed
        term: Value = Mux(a[place], b, 0)
        if place + 1 < len(a):
            above = Mux(a[place + 1], b, 0) << 1
            term = term - above if top else term + above
        elif top:
            term = -term
        terms.append(term << place)
    levels = 1 + (len(terms) - 1).bit_length()
    for level in range(levels):
        if level:
            terms = [sum(terms[at + 1:at + 2], start=terms[at]) for at in range(0, len(terms), 2)]
        if level >= levels - registers:
            cycles = 1 + max(0, registers - levels) if level == levels - 1 else 1
            terms = [delay(m, term, advance=advance, cycles=cycles, name=f"{name}_{level}_{number}")
                     for number, term in enumerate(terms)]
    result = Signal(shape, name=f"{name}_whole")
    m.d.comb += result.eq(terms[0])
    return result


def product(m: Module, a: Value, b: Value, *, registers: int, advance: ValueLike, name: str,
            shape: Shape | None = None) -> Value:
    """Return ``a * b``, `registers` steps later: 1 for a multiplier, more for LUTs.

    In its own shape unless a bound gives another.
    """
    if registers == 1:
        return register(m, a * b, advance=advance, name=name, shape=shape)
    whole = lut_product(m, a, b, registers=registers, advance=advance, name=name)
    if shape is None:
        return whole
    cut = Signal(shape, name=name)
    m.d.comb += cut.eq(whole)
    return cut


def shift_right(m: Module, value: Value, amount: Value, *, advance: ValueLike, name: str) -> Value:
    """Shift by 0 to 15, two steps later: by fours, then by what is left; signed as `value`."""
    signed = value.shape().signed
    coarse = register(m, value >> (amount[2:4] << 2), advance=advance, name=f"{name}_coarse",
                      shape=value.shape())
    fine = delay(m, amount[:2], advance=advance, name=f"{name}_fine")
    result = register(m, coarse >> fine, advance=advance, name=name, shape=value.shape())
    return result.as_signed() if signed else result
