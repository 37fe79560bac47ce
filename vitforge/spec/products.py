# SPDX-License-Identifier: Apache-2.0
"""The drain's products where they are made of LUTs: how many registers each of them has."""

__all__ = ["DrainProducts", "levels"]

from dataclasses import dataclass
from typing import Self

from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.rsqrt_table import rsqrt_table
from vitforge.spec.softmax_widths import ShiftWidths


def levels(width: int) -> int:
    """Return the additions one after the other in a product by a factor of `width` bits.

    One joins two rows of partial products, and a tree adds what these give.
    """
    return 1 + (max(1, -(-width // 2)) - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class DrainProducts:
    """Registers of the products of the drain's statistics, the first one behind the operands' own.

    A multiplier has one. In LUTs there is one behind every addition; the widths are those of the
    narrower factor.

    Attributes
    ----------
    squares, variance, root
        Of LayerNorm: of its elements, of a row's totals, of the reciprocal root's table.
    exponent, power
        Of softmax: of a score and its row's multiplier, of the tables of powers and logarithms.
    """

    squares: int = 1
    variance: int = 1
    root: int = 1
    exponent: int = 1
    power: int = 1

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return those of a configuration."""
        if config.drain_products == "multipliers":
            return cls()
        norm, table = NormFormat(config), rsqrt_table(config.rsqrt_bits)
        half = (norm.sum_bits + 1) // 2
        widths = {"squares": config.norm_bits, "variance": max(norm.count_bits, half),
                  "root": min(table.slope_bits, table.step_bits), "exponent": config.score_bits,
                  "power": ShiftWidths(config).power.rest_bits}
        return cls(**{name: max(2, levels(width)) for name, width in widths.items()})
