# SPDX-License-Identifier: Apache-2.0
"""The one table of the integer GeLU, shared by the gateware and the golden model.

``gelu(x) = relu(x) - bump(|x|)`` with ``bump(u) = u * Phi(-u)``, which rises to 0.17 at 0.75 and is
nothing beyond 4. So one table of the bump, the same for every layer, makes GeLU exact in the
straight parts of the curve and as good as its entries in the bend. QuickGELU, ``x sigmoid(1.702
x)``, is ``relu(x) - bump(|x|)`` as well, with ``bump(u) = u sigmoid(-1.702 u)``, which is nothing
beyond 8; a configuration has one of them.
"""

__all__ = ["FRACTION_OFFSET", "bump_bits", "bump_drop", "bump_range", "bump_table"]

import math

from vitforge.spec.config import Config

#: A value has ``value_bits - FRACTION_OFFSET`` fraction bits: GeLU's input spans +-16.
FRACTION_OFFSET = 5
#: log2 of the entries of the largest table: one block RAM of 2,048 x 9 bits for two lanes.
INDEX_BITS = 11


def _exact(u: float) -> float:
    return 0.5 * u * math.erfc(u / math.sqrt(2))


def _quick(u: float) -> float:
    return u / (1 + math.exp(1.702 * u))


#: Of each GELU the bump, and log2 of the magnitude from which on it is taken as 0.
_BUMPS = {"exact": (_exact, 2), "quick": (_quick, 3)}


def bump_range(config: Config) -> int:
    """Return log2 of the magnitude from which on the bump is taken as 0."""
    return _BUMPS[config.gelu][1]


def bump_drop(config: Config) -> int:
    """Low bits of a magnitude that don't take part in the index of the table."""
    return max(0, config.value_bits - FRACTION_OFFSET + bump_range(config) - INDEX_BITS)


def bump_table(config: Config) -> tuple[int, ...]:
    """Return the bump in steps of a value, for magnitudes from 0 to ``2**bump_range``.

    Entry i serves the ``2**bump_drop`` magnitudes whose high bits are i, and is the bump in their
    middle, rounded. The last entry is 0: it serves all larger magnitudes as well.

    Notes
    -----
    With 16 value bits an entry is off by at most ``0.5 * 1.5/2 + 0.5`` steps of ``2**-11``: the
    slope of the bump is at most 0.5, and an input lies at most 1.5 steps from the middle. Beyond 4
    the bump is below ``1.3e-4``, a quarter of a step. QuickGELU's entries serve twice as many
    magnitudes, and are off by at most ``0.5 * 3.5 + 0.5`` steps.
    """
    drop = bump_drop(config)
    fraction = config.value_bits - FRACTION_OFFSET
    entries = 1 << fraction + bump_range(config) - drop
    middle = ((1 << drop) - 1) / 2
    bump = _BUMPS[config.gelu][0]
    table = [round(bump(((index << drop) + middle) / 2**fraction) * 2**fraction)
             for index in range(entries)]
    table[-1] = 0
    return tuple(table)


def bump_bits(config: Config) -> int:
    """Width of an entry."""
    return max(bump_table(config)).bit_length()
