# SPDX-License-Identifier: Apache-2.0
"""Commands to the memory masters, and a stop that is held: what both are driven with.

Memory has four pages in these proofs: the upper bits of an address are 0.
"""

__all__ = ["PAGES", "command", "held"]

from typing import Any

from amaranth.hdl import Cat, Const, Signal, Value

from formal.checker import Checker

#: Bytes of four pages.
PAGES = 1 << 14
LINE = 64


def command(check: Checker, name: str, port: Any, *,
            multiple: int = LINE) -> None:
    """Drive a command: a line's address, and a number of bytes that ends in memory.

    Parameters
    ----------
    multiple
        Bytes of which there are some: a power of two, at most a line.
    """
    bits, low, unit = PAGES.bit_length() - 1, LINE.bit_length() - 1, multiple.bit_length() - 1
    address = check.free(bits - low, f"{name}_line")
    count = check.free(bits + 1 - unit, f"{name}_count")
    payload = port.payload
    check.m.d.comb += [payload.address.eq(Cat(Const(0, low), address)),
                       payload.bytes.eq(Cat(Const(0, unit), count))]
    check.assume(f"{name}_ends_in_memory", payload.address + payload.bytes <= PAGES)


def held(check: Checker, port: Value) -> Signal:
    """Drive a stop that comes at any moment and stays; return whether it has."""
    before = Signal(name="stopped")
    check.m.d.comb += port.eq(before | check.free(1, "stops"))
    check.m.d.sync += before.eq(port)
    return before
