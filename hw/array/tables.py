# SPDX-License-Identifier: Apache-2.0
"""A product made of LUTs: tables of two bits times two bits, and a tree that adds them."""

__all__ = ["table_product"]

from amaranth.hdl import Cat, Module, Signal, Value, signed

from hw.lib.stream import delay
from vitforge.spec.elements import table_chains


def _table(m: Module, name: str, left: Value, right: Value) -> Signal:
    """Return the four bits of the product of two digits, each a LUT of four inputs.

    An unsigned digit is 0 to 3 and a signed one -2 to 1: products are 0 to 9 or -6 to 4.
    """
    product = Signal(4, name=name)

    def value(digit: Value, code: int) -> int:
        return code - 4 if digit.shape().signed and code >= 2 else code

    with m.Switch(Cat(left[:2], right[:2])):
        for code in range(16):
            with m.Case(code):
                m.d.comb += product.eq(value(left, code & 3) * value(right, code >> 2) & 15)
    return product


def _digits(value: Value) -> list[Value]:
    """Cut a signed number into digits of two bits; the last has its sign."""
    count = -(-len(value) // 2)
    wide = Cat(value, value[-1])[:2 * count]
    digits: list[Value] = [wide[2 * place:2 * place + 2] for place in range(count)]
    return [*digits[:-1], digits[-1].as_signed()]


def table_product(m: Module, name: str, weight: Value, operand: Value, *, advance: Value
                  ) -> Value:
    """Multiply two signed numbers without a multiplier, exactly.

    ``sum of weight_digit[i] * operand_digit[j] << 2 * (i + j)``: a register behind the tables of
    digits, and one behind every level of the adders. Latency
    :func:`vitforge.spec.elements.table_stages`, initiation interval 1. The result is as wide as
    both factors together: no sum on the way, being a part of the product's own terms, is wider than
    the terms it has and a bit a level.
    """
    left, right = _digits(weight), _digits(operand)
    terms: list[tuple[int, Value]] = []
    for number, chain in enumerate(table_chains(len(weight), len(operand))):
        tables = [_table(m, f"table_{name}_{i}_{j}", left[i], right[j]) for i, j in chain]
        i, j = chain[-1]
        joined: Value = Cat(tables)
        if left[i].shape().signed or right[j].shape().signed:
            joined = joined.as_signed()
        terms.append((2 * sum(chain[0]), delay(m, joined, advance=advance,
                                               name=f"chain_{name}_{number}")))
    level = 0
    while len(terms) > 1:
        terms.sort(key=lambda term: (len(term[1]) + term[0], term[0]))
        paired: list[tuple[int, Value]] = []
        for number in range(0, len(terms), 2):
            pair = terms[number:number + 2]
            low = min(place for place, _ in pair)
            total = sum((value << place - low for place, value in pair), start=0)
            paired.append((low, delay(m, total, advance=advance,
                                      name=f"tree_{name}_{level}_{number}")))
        terms, level = paired, level + 1
    place, value = terms[0]
    product = Signal(signed(len(weight) + len(operand)), name=f"whole_{name}")
    m.d.comb += product.eq(value << place)
    return product
