# SPDX-License-Identifier: Apache-2.0
"""The one rounding and the one saturation of the datapath, as Amaranth expressions."""

__all__ = ["round_shift", "saturate"]

from amaranth.hdl import Mux, Value, ValueLike, signed, unsigned


def round_shift(value: ValueLike, amount: int) -> Value:
    """``(value + (1 << amount-1)) >> amount``: a constant arithmetic shift, rounding half up.

    The result is one bit wider than the shifted value, so that it can't overflow.
    """
    value = Value.cast(value)
    if amount == 0:
        return value
    return (value + (1 << amount - 1)) >> amount


def saturate(value: ValueLike, low: int, high: int) -> Value:
    """Clamp `value` to ``low..high``; the result has the width of that range."""
    value = Value.cast(value)
    shape = signed(max(high.bit_length(), (-low - 1).bit_length()) + 1) if low < 0 else \
        unsigned(high.bit_length())
    clamped = Mux(value < low, low, Mux(value > high, high, value))
    return clamped[:shape.width].as_signed() if low < 0 else clamped[:shape.width]
