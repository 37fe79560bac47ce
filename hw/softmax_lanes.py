# SPDX-License-Identifier: Apache-2.0
"""What the halves of the log-softmax have in common: trees over lanes, and tables of segments."""

__all__ = ["depth", "exponent", "mask", "power_pipeline", "tree"]

from collections.abc import Callable, Sequence

from amaranth.hdl import Array, Const, Module, Mux, Shape, Signal, Value, ValueLike, signed

from hw.softmax_tables import SLOPE_FRACTION, Segments, ShiftWidths
from hw.stream import delay

#: Levels of a tree between two registers.
LEVELS = 2


def depth(lanes: int) -> int:
    """Registers on the way through a `tree` of that many values."""
    return -(-(lanes - 1).bit_length() // LEVELS)


def tree(m: Module, values: Sequence[Value], combine: Callable[[Value, Value], Value], *,
         advance: ValueLike, name: str) -> Value:
    """Combine values two by two, with a register after every second level and after the last."""
    values = list(values)
    level = 0
    while len(values) > 1:
        pairs = [combine(*values[at:at + 2]) if at + 1 < len(values) else values[at]
                 for at in range(0, len(values), 2)]
        level += 1
        if level % LEVELS == 0 or len(pairs) == 1:
            pairs = [delay(m, value, advance=advance, name=f"{name}_{level}_{index}")
                     for index, value in enumerate(pairs)]
        values = pairs
    return values[0]


def larger(left: Value, right: Value) -> Value:
    """Return the maximum of two signed values of one shape, in that shape."""
    return Mux(left > right, left, right).as_signed()


def mask(score: Value, keep: Value) -> Value:
    """Return `score`, or the lowest score where it isn't kept."""
    return Mux(keep, score, Const(-(1 << len(score) - 1), Shape.cast(score.shape()))).as_signed()


def exponent(m: Module, score: Value, multiplier: Value, widths: ShiftWidths, *,
             advance: ValueLike, name: str) -> Signal:
    """Register ``floor(score * multiplier)`` in steps of ``2**-exp_fraction_bits``.

    ``|score * multiplier| <= 2**(score_bits+16)`` fits an 18x18 multiplier's product, and 9 integer
    bits with the sign (`ShiftWidths`).
    """
    surplus = widths.multiplier_fraction - widths.fraction
    product = score * multiplier
    floor = product >> surplus if surplus >= 0 else product << -surplus
    register = Signal(signed(widths.integer + widths.fraction), name=name, reset_less=True)
    with m.If(advance):
        m.d.sync += register.eq(floor)
    return register


def _lookup(entries: Sequence[int], index: Value) -> Value:
    bits = max(max(entries).bit_length(), 1)
    if len(index) == 0:
        return Const(entries[0], bits)
    return Value.cast(Array([Const(entry, bits) for entry in entries])[index])


def power_pipeline(m: Module, fraction: Value, table: Segments, *, advance: ValueLike,
                   name: str) -> Value:
    """Evaluate `table` at `fraction`: two registers (slope, product), then the sum, unregistered.

    The value is below ``2**len(fraction)`` by the construction of the table.
    """
    index, rest = fraction[table.rest_bits:], fraction[:table.rest_bits]
    slope = delay(m, _lookup(table.slope, index), advance=advance, name=f"{name}_slope")
    rest = delay(m, rest, advance=advance, name=f"{name}_rest")
    index = delay(m, index, advance=advance, name=f"{name}_index")
    product = delay(m, slope * rest, advance=advance, name=f"{name}_product")
    intercept = delay(m, _lookup(table.intercept, index), advance=advance,
                      name=f"{name}_intercept")
    return (intercept + (product >> SLOPE_FRACTION))[:len(fraction)]
