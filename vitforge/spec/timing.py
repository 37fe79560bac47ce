# SPDX-License-Identifier: Apache-2.0
"""Latencies that the accelerator's engines promise, as formulas of the configuration.

`golden` predicts cycles by them, without a line of gateware; `hw.core` compares them with those of
its engines whenever a core is built, and refuses to be built with others.
"""

__all__ = ["KEPT", "LATENCY", "OPERAND", "WRITTEN", "Timing", "norm_statistics", "revisit",
           "softmax_statistics"]

from dataclasses import dataclass
from typing import Self

from vitforge.spec.config import Config
from vitforge.spec.elements import array_latency
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.products import DrainProducts
from vitforge.spec.sizes import groups, word_groups

#: Of the memory, if nothing else is said: from a read address to its first beat.
LATENCY = 60
#: Of the operand path: from a request to its operands.
OPERAND = 13
#: From the request of a word to that of its kept code, at least: it is given to its bank with the
#: last step, and written a cycle later.
KEPT = OPERAND + 1
#: Of the requantizer: scale, operation, code, and its skid buffer.
REQUANT = 11 + 9 + 10 + 1
#: From a group's issue to its accumulators in the requantizer.
FED = 4
#: From a group's issue to the write of its codes.
WRITTEN = FED + REQUANT + 1


def _levels(lanes: int) -> int:
    """Return the registers on the way through a tree over the lanes."""
    return (lanes - 1).bit_length()


def norm_statistics(config: Config) -> int:
    """Return the cycles from the write of a row's last codes to its LayerNorm's factors.

    Decode and square, add up, keep, the variance, the search for its leading zeros (two steps a
    cycle), the table.
    """
    products = DrainProducts.of(config)
    return 2 + products.squares + _levels(config.lanes) + 1 + 2 + products.variance + 6 \
        + products.root + -(-NormFormat(config).pairs.bit_length() // 2)


def softmax_statistics(config: Config) -> int:
    """Return the cycles from the write of a row's last codes to its softmax's offset.

    The comparison of keys, the exponents, both trees, the logarithm.
    """
    levels, products = _levels(config.lanes), DrainProducts.of(config)
    # The table of powers has the time of the comparisons.
    compared = max(levels, 1, products.power)
    return 1 + 8 + products.exponent + products.power + compared + levels


def revisit(config: Config) -> int:
    """Return the cycles between the starts of two passes with statistics, at least.

    A token's state is there 3 cycles after its last group. Of two passes with G groups a token, the
    second must begin ``G + 3`` cycles behind the first. If it has H < G, its token t comes
    ``t * (G - H)`` cycles sooner after its start: of T tokens the last is early enough behind the
    first pass, which takes ``T * G`` cycles, unless ``(T - 1) * H < 3``.
    """
    most, least = groups(config), word_groups(config)
    return most + 3 + 2 // least * (most - least)


@dataclass(frozen=True)
class Timing:
    """Constants of the gateware, in cycles.

    Attributes
    ----------
    depth
        Steps from a word's issue by the feeder to its offer to the array.
    sums
        From a word taken by the array to its sums.
    early
        Groups that a drain has left when it releases its accumulators.
    landed
        From a drain's last group to the pulse that all it wrote is there.
    revisit
        Between the starts of two drains with statistics, at least.
    """

    depth: int
    sums: int
    early: int
    landed: int
    revisit: int

    #: From a pass's last sums to the pulse that they are in the accumulators.
    collect = 4
    #: From a drain's start to its first group.
    first_group = 1

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return those of the core of a configuration."""
        depth = 1 + OPERAND
        sums = array_latency(config)
        statistics = max(norm_statistics(config), softmax_statistics(config))
        # What is given to a bank in one cycle may be read in the second after that.
        return cls(depth=depth, sums=sums, early=depth + sums + 5,
                   landed=WRITTEN + statistics + 1, revisit=revisit(config))
