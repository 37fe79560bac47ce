# SPDX-License-Identifier: Apache-2.0
"""Masks of a code's width, and the loader of the lanes' thresholds."""

__all__ = ["mask_of", "last_of", "next_to", "load_thresholds"]

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data


def mask_of(width: Value) -> Value:
    """Bits below `width`, of 8."""
    return Cat(width > place for place in range(8))


def last_of(mask: Value) -> Value:
    """Highest bit of a mask, if it has one."""
    return mask ^ mask.shift_right(1)


def next_to(mask: Value) -> Value:
    """Lowest bit above a mask, of 8."""
    return ~mask & mask.shift_left(1)[:8]


def load_thresholds(m: Module, thresholds: data.View, bits: int) \
        -> tuple[Signal, Signal, Signal]:
    """Write the lanes' small memories of thresholds over and over, eight cycles a round.

    Returns the address and thresholds ``4 * (address % 4) + 1`` and ``2 * address``, of `bits`
    bits. A word takes 21 cycles to get there, so thresholds that come with it are in time.
    """
    # All ones but for the one whose turn it is.
    turn = Signal(8, init=0xfe)
    quarter = Signal(4, init=0xe)
    address = Signal(3)
    late_address = Signal(3)
    fourth = Signal(signed(bits))
    second = Signal(signed(bits))

    def gated(name: str, index: int, wait: Value) -> Signal:
        register = Signal(bits, name=f"{name}_{index}", reset_less=True)
        m.d.sync += register.eq(Mux(wait, 0, thresholds[index]))
        return register

    # Registers with a synchronous reset and an OR cost a third of what multiplexers do.
    m.d.sync += [
        turn.eq(turn.rotate_left(1)),
        quarter.eq(quarter.rotate_left(1)),
        address.eq(Mux(turn[0], address + 1, 0)),
        late_address.eq(address),
        fourth.eq(reduce(or_, (gated("fourth", 4 * index + 1, quarter[index])
                               for index in range(4)))),
        second.eq(reduce(or_, (gated("second", 2 * index, turn[index]) for index in range(8)))),
    ]
    return late_address, fourth, second
