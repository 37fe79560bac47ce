# SPDX-License-Identifier: Apache-2.0
"""Products and shifts of the requantizer: a pipelined multiplier, and powers of two for it."""

__all__ = ["FINE", "STEPS", "multiply", "shift_power"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike

from hw.lib.products import lut_product
from hw.lib.stream import delay, register

#: Steps of `multiply`.
STEPS = 3
#: Positions of a shift that a multiplier makes.
FINE = 16
#: Positions whose bits of the power share a synchronous reset.
GROUP = 4


def multiply(m: Module, a: Value, b: Value, *, advance: ValueLike, name: str, low: int = 0,
             high: int | None = None, luts: bool = False) -> Signal:
    """Bits `low` to `high` of a product, `STEPS` steps after its operands; signed as the product.

    Half of a clock cycle passes in a multiplier block, whose place on the chip is given. So the
    registers of the operands and of the product stand beside it, and reach their own neighbours
    in steps of their own. With `luts` all steps are those of `hw.lib.products.lut_product`.
    """
    if luts:
        return lut_product(m, a, b, registers=STEPS, advance=advance, name=name)
    a = delay(m, a, advance=advance, name=f"{name}_a")
    b = delay(m, b, advance=advance, name=f"{name}_b")
    product = a * b
    part = product[low:high]
    if product.shape().signed and (high is None or high == len(product)):
        part = part.as_signed()
    return delay(m, part, advance=advance, cycles=2, name=f"{name}_product")


def shift_power(m: Module, amount: Value, *, advance: ValueLike, other: Value | None = None,
                use_other: ValueLike = 0) -> Value:
    """``2**(FINE - amount)``, one step later.

    With `use_other`, for which the amount must be 0, bits 13 to 16 are `other` instead.

    The low half of the amount is decoded once, and the high half chooses which group of bits isn't
    held at 0 by its synchronous reset: half the logic of a decoder.
    """
    position: Value = Cat(amount[:2] == place for place in range(GROUP))
    if other is not None:
        position = Mux(use_other, other[::-1], position)
    groups: list[Value] = []
    for number in range(FINE // GROUP):
        group = register(m, Mux(amount[2:] != number, 0, position), advance=advance,
                         name=f"power_{number}")
        groups.append(group[::-1])
    return Cat(Const(0, 1), *reversed(groups))
