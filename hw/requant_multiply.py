# SPDX-License-Identifier: Apache-2.0
"""A pipelined multiplier with nothing but wire beside it."""

__all__ = ["STEPS", "multiply"]

from amaranth.hdl import Module, Signal, Value, ValueLike

from hw.stream import delay

#: Steps of `multiply`.
STEPS = 3


def multiply(m: Module, a: Value, b: Value, *, advance: ValueLike, name: str, low: int = 0,
             high: int | None = None) -> Signal:
    """Bits `low` to `high` of a product, `STEPS` steps after its operands; signed as the product.

    Half of a clock cycle passes in a multiplier block, whose place on the chip is given. So the
    registers of the operands and of the product stand beside it, and reach their own neighbours
    in steps of their own.
    """
    a = delay(m, a, advance=advance, name=f"{name}_a")
    b = delay(m, b, advance=advance, name=f"{name}_b")
    product = a * b
    part = product[low:high]
    if product.shape().signed and (high is None or high == len(product)):
        part = part.as_signed()
    return delay(m, part, advance=advance, cycles=2, name=f"{name}_product")
