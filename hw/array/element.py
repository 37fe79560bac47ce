# SPDX-License-Identifier: Apache-2.0
"""An element of the array that takes two or four products: its operand, its weights, its sums."""

__all__ = ["meets", "port", "spread", "split", "stored"]

from collections.abc import Callable, Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from hw.lib.stream import delay, register
from vitforge.spec.elements import Element


def meets(element: Element, mode: Value, place: int) -> Value:
    """Return whether two fields meet in front of segment `place` in a word's mode."""
    return Cat(mode == index for index, name in enumerate(element.modes)
               if element.meets(name, place)).any()


def _places(element: Element) -> list[tuple[int, int]]:
    """Return for every bit of the port which bit of a single, and of packed weights, it is."""
    bits, upper = element.packed_bits, element.upper
    width = max(upper + bits, element.weight_bits if element.single else 0)
    return [(min(place, element.weight_bits - 1) if element.single else 0,
             place if place < bits else bits - 1 if place < upper
             else min(place - upper + bits, 2 * bits - 1)) for place in range(width)]


def stored(element: Element, bus: Value, packed: Value) -> Value:
    """Return the bits that differ on the port, of a single weight or of ``w1 << bits | +w0``.

    The upper weight has lent the lower one what it needs already. The choice of the mode stands in
    front of the registers of the weights, once a bus; behind them bits are only copied.
    """
    return Cat(bus[two] if one == two or not element.single else Mux(packed, bus[two], bus[one])
               for one, two in dict.fromkeys(_places(element)))


def port(element: Element, weight: Value) -> Value:
    """Return the multiplier's port for weights, ``(w1 << upper) + w0`` or the single weight."""
    places = _places(element)
    different = list(dict.fromkeys(places))
    return Cat(weight[different.index(place)] for place in places).as_signed()


def spread(element: Element, codes: Value) -> Value:
    """Return ``(a1 << spacing) + a0`` of ``(a1 << bits) + a0``: the bits between are a0's sign."""
    bits = element.operand_bits["quad"]
    fill = codes[bits - 1].replicate(element.spacing - bits)
    return Cat(codes[:bits], fill, codes[bits:2 * bits + 1]).as_signed()


def split(m: Module, element: Element, name: str, total: Value, before: Sequence[Value] | None, *,
          rows: int, late: int, ends: Callable[[int, int], Value], advance: Value
          ) -> list[Value]:
    """Add the fields of a packed sum to those of the rows before, segment by segment.

    ``segment + sext(total[low:high]) + carry``: the carry comes out of the segment below, or, where
    two fields meet, is what the lower field borrowed, its sign: `total` has one too little there.

    Widths are those of :meth:`vitforge.spec.elements.Element.segment_bits`. The carry out of the
    low `spacing` bits is read off the sum's next bit, ``sum[s] ^ segment[s] ^ sext(total)[s]``, so
    the adder is one piece, and the carry has a register before the next segment: segment i is
    added ``element.skews[i]`` cycles late.

    Parameters
    ----------
    total
        Sum of the products of some rows, all fields.
    before
        Segments of the rows above; None if there are none.
    rows
        Rows that are in the result.
    late
        Registers from a group's segments to when the next group's sum is there, less one.
    ends
        Whether two fields meet in front of a segment: of its number, and the cycles since `total`.
    """
    spacing, skews, last = element.spacing, element.skews, element.segments - 1
    segments: list[Value] = []
    # What is seen of a carry, beside the sum's own bit; nothing, if there can be none.
    seen: Value | None = None
    for place, skew in enumerate(skews):
        part = total[place * spacing:(place + 1) * spacing if place < last else None].as_signed()
        borrow: Value = total[place * spacing - 1] if place else Const(0, 1)
        if skew:
            part = delay(m, part, advance=advance, cycles=skew, name=f"part_{name}_{place}"
                         ).as_signed()
            borrow = delay(m, borrow, advance=advance, cycles=skew, name=f"borrow_{name}_{place}")
            meet = ends(place, skew)
            below = Const(0, 1) if seen is None else segments[-1][spacing] ^ seen
            carry = Mux(meet, borrow, below)
        else:
            carry = borrow
        old: Value = Const(0, signed(1))
        if before is not None:
            old = before[place] if not late else delay(
                m, before[place], advance=advance, cycles=late, name=f"waiting_{name}_{place}")
        segment = register(m, old + part + carry if place else old + part, advance=advance,
                           name=f"segment_{name}_{place}",
                           shape=signed(element.segment_bits(place, rows)))
        seen = None
        # The first rows' lowest segment is what it is; one above it may carry what it borrowed.
        if place < last and skews[place + 1] and (place or before is not None):
            wide = Signal(signed(spacing + 1), name=f"wide_{name}_{place}")
            m.d.comb += wide.eq(old)
            seen = delay(m, wide[spacing] ^ part[-1], advance=advance, name=f"seen_{name}_{place}")
        segments.append(segment)
    return segments
