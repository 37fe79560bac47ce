# SPDX-License-Identifier: Apache-2.0
"""How the program lies in the beats of the memory bus: what gateware and cycle model follow."""

__all__ = ["ELEMENT", "OUTSTANDING", "PAGE", "Packing", "burst_limit"]

import math

from vitforge.spec.config import Config
from vitforge.spec.instruction import LINE
from vitforge.spec.sizes import weight_words

#: Width of an element of a word.
ELEMENT = 8
#: No burst crosses a multiple of this many bytes.
PAGE = 4096
#: Bursts under way at most: 16 bursts of 4 beats still cover a latency of 60 cycles.
OUTSTANDING = 16


def burst_limit(config: Config) -> int:
    """Beats of the longest burst: a power of two, so that aligned bursts stay in their page."""
    return 1 << min(config.burst_beats, PAGE * 8 // config.axi_bits).bit_length() - 1


class Packing:
    """How words lie in the beats of a configuration.

    A word has `rows` elements; a row of weights, where the array has more columns, as many times
    `rows` as its pass uses. Bytes go through the unpacker in units, of which every word and every
    line is a whole number: `rows` bits where that is a whole number of bytes, and one byte at
    worst.

    Attributes
    ----------
    widths
        Bits of an element that are understood: those of weights, and 8.
    sizes
        Bytes of a word, by width and by how many times `rows` elements it has.
    unit
        Bytes of a unit.
    units
        Units of a word, the same.
    largest
        Units of the largest word.
    chunk
        Units that move together: a beat, or as much of it as holds the largest word.
    line
        Chunks of a line.
    places
        Chunks that the largest word can lie in.
    """

    def __init__(self, config: Config):
        self.widths = (*range(2, min(config.weight_bits, ELEMENT - 1) + 1), ELEMENT)
        self.sizes = {(bits, words): -(-words * config.rows * bits // 8)
                      for words in range(1, weight_words(config) + 1) for bits in self.widths}
        self.unit = math.gcd(LINE, config.axi_bits // 8, *self.sizes.values())
        self.units = {kind: size // self.unit for kind, size in self.sizes.items()}
        self.largest = max(self.units.values())
        word = 1 << (config.cols - 1).bit_length()
        self.chunk = min(config.axi_bits // 8, word) // self.unit
        self.line = LINE // self.unit // self.chunk
        self.places = -(-(self.chunk - 1 + self.largest) // self.chunk)
