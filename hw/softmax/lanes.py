# SPDX-License-Identifier: Apache-2.0
"""What the halves of the log-softmax have in common: trees over lanes, and tables of segments."""

__all__ = ["depth", "exponent", "larger", "mask", "power_pipeline", "tree"]

from collections.abc import Callable, Sequence
from functools import partial

from amaranth.hdl import Array, Const, Module, Mux, Shape, Signal, Value, ValueLike, signed

from hw.lib.products import lut_product, product
from hw.lib.stream import delay, register
from vitforge.spec.softmax_widths import SLOPE_FRACTION, Segments, ShiftWidths


def depth(lanes: int) -> int:
    """Return the registers on the way through a `tree` of that many values."""
    return (lanes - 1).bit_length()


def tree(m: Module, values: Sequence[Value], combine: Callable[[Value, Value], Value], *,
         advance: ValueLike, name: str) -> Value:
    """Combine values two by two, with a register after every level."""
    values = list(values)
    level = 1
    while len(values) > 1:
        pairs = [combine(*values[at:at + 2]) if at + 1 < len(values) else values[at]
                 for at in range(0, len(values), 2)]
        values = [delay(m, value, advance=advance, name=f"{name}_{level}_{index}")
                  for index, value in enumerate(pairs)]
        level += 1
    return values[0]


def larger(left: Value, right: Value) -> Value:
    """Return the maximum of two signed values of one shape, in that shape."""
    return Mux(left > right, left, right).as_signed()


def mask(score: Value, keep: Value) -> Value:
    """Return `score`, or the lowest score where it isn't kept."""
    return Mux(keep, score, Const(-(1 << len(score) - 1), Shape.cast(score.shape()))).as_signed()


def exponent(m: Module, score: Value, multiplier: Value, widths: ShiftWidths, *,
             advance: ValueLike, name: str, registers: int = 1) -> Signal:
    """Return ``floor(score * multiplier)`` in steps of ``2**-exp_fraction_bits``.

    `registers` cycles later (`hw.lib.products.product`).

    ``|score * multiplier| <= 2**(score_bits+16)`` fits an 18x18 multiplier's product, and 9 integer
    bits with the sign (`ShiftWidths`).
    """
    surplus = widths.multiplier_fraction - widths.fraction
    whole: Value = score * multiplier if registers == 1 else lut_product(
        m, score, multiplier, registers=registers, advance=advance, name=f"{name}_product")
    floor = whole >> surplus if surplus >= 0 else whole << -surplus
    shape = signed(widths.integer + widths.fraction)
    if registers == 1:
        return register(m, floor, advance=advance, name=name, shape=shape)
    result = Signal(shape, name=name)
    m.d.comb += result.eq(floor)
    return result


def _lookup(entries: Sequence[int], index: Value) -> Value:
    bits = max(max(entries).bit_length(), 1)
    if len(index) == 0:
        return Const(entries[0], bits)
    return Value.cast(Array([Const(entry, bits) for entry in entries])[index])


def power_pipeline(m: Module, fraction: Value, table: Segments, *, advance: ValueLike,
                   name: str, registers: int = 1) -> Value:
    """Evaluate `table` at `fraction`: registers of slope and product, then the sum, unregistered.

    One register of the slope, and `registers` of the product (`hw.lib.products.product`).

    The value is below ``2**len(fraction)`` by the construction of the table.
    """
    late = partial(delay, m, advance=advance)
    index: Value = Const(0, 0)
    scaled: Value = Const(0)
    slope: Value = Const(table.slope[0])
    if table.index_bits:
        index = fraction[table.rest_bits:]
        slope = late(_lookup(table.slope, index), name=f"{name}_slope")
        index = late(index, name=f"{name}_index")
    if table.rest_bits:
        rest = late(fraction[:table.rest_bits], name=f"{name}_rest")
        scaled = product(m, slope, rest, registers=registers, advance=advance,
                         name=f"{name}_product_1")
    intercept = late(_lookup(table.intercept, index), cycles=registers, name=f"{name}_intercept")
    return (intercept + (scaled >> SLOPE_FRACTION))[:len(fraction)]
