# SPDX-License-Identifier: Apache-2.0
"""What the lanes of the requantizer share: the word's fields decoded, and the threshold loader."""

__all__ = ["FORMATS", "OPERATIONS", "THRESHOLDS", "Bits", "load_thresholds", "masks"]

from functools import reduce
from operator import or_
from typing import NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data

#: Codes of the field ``format``.
FORMATS = {"uniform": 0, "two-scale": 1, "log2": 2, "table": 3}
#: Codes of the field ``operation``.
OPERATIONS = {"linear": 0, "gelu": 1, "residual": 2}
#: Elements of the input ``thresholds``.
THRESHOLDS = 15


class Bits(NamedTuple):
    """Constants of a word's format, each 8 bits but `search`."""

    offset: Value
    mask: Value
    flip: Value
    region: Value
    search: Value


def masks(kind: Value, bits: Value, negative: Value, zero_point: Value) -> Bits:
    """Constants that an encoder needs, from the fields format, bits, signed and zero_point."""
    two_scale = kind == FORMATS["two-scale"]
    middle = Mux(two_scale & negative, Cat(bits == place + 2 for place in range(8)), 0)
    full = Cat(bits > place for place in range(8))
    return Bits(
        offset=Mux(kind == FORMATS["uniform"], zero_point, middle),
        mask=Mux(two_scale, full >> 1, full),
        flip=Mux(kind == FORMATS["log2"], full, middle),
        region=Mux(two_scale, Cat(bits == place + 1 for place in range(8)), 0),
        search=(kind == FORMATS["log2"]) | (kind == FORMATS["table"]),
    )


def load_thresholds(m: Module, thresholds: data.View, bits: int) \
        -> tuple[Signal, Signal, Signal]:
    """Write the lanes' small memories of thresholds over and over, eight cycles a round.

    Returns the address and thresholds ``4 * (address % 4) + 1`` and ``2 * address``, of `bits`
    bits. A word takes 22 cycles to get there, so thresholds that come with it are in time.
    """
    turn = Signal(8, init=1)
    quarter = Signal(4, init=1)
    address = Signal(3)
    fourth = Signal(signed(bits))
    second = Signal(signed(bits))
    m.d.sync += [
        turn.eq(turn.rotate_left(1)),
        quarter.eq(quarter.rotate_left(1)),
        address.eq(Mux(turn[0], 0, address + 1)),
        # Sums of products cost half of what multiplexers do.
        fourth.eq(reduce(or_, (thresholds[4 * index + 1] & quarter[index].replicate(bits)
                               for index in range(4)))),
        second.eq(reduce(or_, (thresholds[2 * index] & turn[index].replicate(bits)
                               for index in range(8)))),
    ]
    return address, fourth, second
