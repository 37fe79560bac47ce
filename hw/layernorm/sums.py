# SPDX-License-Identifier: Apache-2.0
"""Arithmetic of LayerNorm's statistics: sums over the lanes, and the exact variance of totals.

Pipelines in which every register takes a step on a cycle with `advance`. A multiplier has registers
of its own on both sides, so that the way to it and back isn't part of another path. Widths and
their bounds are in `vitforge.spec.layernorm_widths`.
"""

__all__ = ["VARIANCE_STEPS", "add_pairs", "lane_sums", "variance"]

import operator
from collections.abc import Sequence
from functools import partial, reduce
from itertools import pairwise

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned

from hw.lib.products import product
from hw.lib.stream import delay, register
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat

#: Digits of Q: unsigned, so that they fit a signed 18-bit multiplier.
DIGIT = 17
#: Registers of `variance`.
VARIANCE_STEPS = 3


def add_pairs(m: Module, advance: Value, name: str, values: Sequence[Value]) -> list[Signal]:
    """One level of an adder tree: half as many values."""
    values = list(values)
    pairs = [left + right for left, right in list(pairwise(values))[::2]]
    odd: list[Value] = [values[-1]] if len(values) % 2 else []
    return [register(m, value, advance=advance, name=f"{name}_{n}")
            for n, value in enumerate([*pairs, *odd])]


def lane_sums(m: Module, elements: Sequence[Value], *, advance: Value, config: Config,
              registers: int = 1) -> tuple[Value, Value]:
    """Return sums of the elements and of their squares.

    ``levels + 1`` registers later, and those of a product (`hw.lib.products.product`).
    """
    inputs = [delay(m, x, advance=advance, name=f"input_{n}") for n, x in enumerate(elements)]
    xs = [delay(m, x, advance=advance, cycles=registers, name=f"x_{n}")
          for n, x in enumerate(inputs)]
    squares = [product(m, x, x, registers=registers, advance=advance, name=f"square_{n}",
                       shape=unsigned(2 * config.norm_bits - 1))
               for n, x in enumerate(inputs)]
    for level in range(NormFormat(config).levels):
        xs = add_pairs(m, advance, f"x_sum_{level}", xs)
        squares = [*add_pairs(m, advance, f"square_sum_{level}", squares)]
    return xs[0], squares[0]


def variance(m: Module, count: Value, total: Value, squares: Value, *, advance: Value,
             config: Config, registers: int = 1) -> Value:
    """Return ``V = C*Q - S*S``, `VARIANCE_STEPS` registers later and one subtraction behind them.

    With more `registers` for a product, that many more but one later.

    C*Q is a sum of products by 17-bit digits of Q, S*S is ``(a << 2*half | b*b) + (a*b << half+1)``
    for ``S = (a << half) + b``: no product is wider than 18 by 18 bits.
    """
    width = NormFormat(config)
    count, total, squares = (delay(m, item, advance=advance, name=f"final_{name}") for name, item
                             in (("count", count), ("total", total), ("squares", squares)))
    times = partial(product, m, registers=registers, advance=advance)
    digits = [times(count, squares[low:low + DIGIT], name=f"digit_{low}")
              for low in range(0, width.square_bits, DIGIT)]
    half = (width.sum_bits + 1) // 2
    high = Signal(signed(width.sum_bits - half))
    m.d.comb += high.eq(total >> half)
    high_square = times(high, high, name="high_square",
                        shape=unsigned(2 * (width.sum_bits - half) - 1))
    low_square = times(total[:half], total[:half], name="low_square")
    cross = times(high, total[:half], name="cross")

    # Both are at most C*Q, below 2**variance_bits, or equal to it in C*Q's and S*S's extreme.
    shape = unsigned(width.variance_bits + 1)
    products = register(
        m, reduce(operator.add, (digit << DIGIT * n for n, digit in enumerate(digits))),
        advance=advance, name="product", shape=shape)
    square = register(m, Cat(low_square, high_square) + (cross << half + 1), advance=advance,
                      name="square", shape=shape)
    # V itself is always below 2**variance_bits.
    return products - square
