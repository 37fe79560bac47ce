# SPDX-License-Identifier: Apache-2.0
"""Tables of tangent levels, made apart from what quantization makes of them."""

import math

from golden.formats.formats import Table
from golden.formats.tangent import tangent_levels


def tangent_table(bits: int = 4, slope: float = 1.4, top: int = 255) -> Table:
    """Return the levels in steps of ``1/top``, the nearest to each."""
    return Table(scale=1 / top, bits=bits, values=tuple(
        math.floor(value * top + 0.5) for value in tangent_levels(bits, slope)))
