# SPDX-License-Identifier: Apache-2.0
"""The words of an array whose elements take two or four products."""

__all__ = ["packed_words"]

from vitforge.spec.config import Config
from vitforge.spec.elements import Element
from vitforge.spec.words import Field, Word


def packed_words(config: Config) -> dict[str, Word]:
    """Return the words of the ports of `hw.array.systolic.SystolicArray` in packed modes.

    What only one value could have isn't there: the mode of one, shifts without single products.
    """
    element = Element(config)
    mode = () if len(element.modes) == 1 else (
        Field("mode", (len(element.modes) - 1).bit_length(), values=element.modes,
              text="products of the word"),)
    last = Field("last", 1, text="the next word starts with the next tile of weights")
    quad = element.operand_bits["quad"]
    return {
        "w": Word((
            Field("weights", element.bus_bits, signed=True, count=max(config.rows, config.cols),
                  text="a row or a column of a tile; packed, the second weight times "
                  f"2**{element.packed_bits}, plus the first"),
            Field("by_column", 1, text="the tile comes column by column"),
            *(Field("packed", 1, text="the tile has two weights an element")
              for _ in range(element.single)),
        )),
        "a": Word((
            Field("mantissa", element.code_bits, signed=True, count=config.rows,
                  text="operands before their shift" + (
                      f"; of two tokens, the second's times 2**{quad}, plus the first's"
                      if "quad" in element.modes else "")),
            *(Field("shift", config.shift_bits, count=config.rows, text="left shifts")
              for _ in range(element.single)),
            *mode, last,
        )),
        "o": Word((
            *(Field(f"segment_{place}", element.segment_bits(place, config.rows), signed=True,
                    count=config.cols, text=f"the sums' bits from {place * element.spacing} on")
              for place in range(element.segments)),
            *mode, Field("last", 1, text="as in the activation word"),
        )),
    }
