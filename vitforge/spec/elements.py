# SPDX-License-Identifier: Apache-2.0
"""How many products an element of the array makes at once, and how wide everything in it is.

An element has one multiplier. In a packed mode it multiplies two weights, w0 and w1, at once by one
operand (`pair`) or by those of two tokens (`quad`)::

    (w1 << 2s | +w0) * (a1 << s | +a0) = w1 a1 << 3s + w1 a0 << 2s + w0 a1 << s + w0 a0

(``x << n | +y`` stands for ``(x << n) + y``). Every product has a field of its own, as long as the
sum of the products in it stays within ``+-(2**(s-1) - 1)``; the products of `group` rows are added
before the fields are taken apart. A field is what its bits say as a signed number, and one more if
the field below it is negative, which had borrowed from it.
"""

__all__ = ["DEEP", "MODES", "PORTS", "Element", "array_latency", "holds", "table_chains",
           "table_stages"]

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitforge.spec.config import Config

#: Weights and tokens of an element, by mode.
MODES = {"single": (1, 1), "pair": (2, 1), "quad": (2, 2)}
#: Signed widths of the ports for weights and for operands, by multiplier.
PORTS = {"18x18": (18, 18), "25x18": (25, 18), "27x18": (27, 18)}
#: Rows that are added packed at most: more save little, and widen the sum of every row.
DEEP = 8


def _bits(bound: int) -> int:
    """Signed width of numbers up to `bound` in magnitude."""
    return bound.bit_length() + 1


class Element:
    """Layout of an element's numbers.

    The fields of the mode with most products are its *segments*, `spacing` bits apart. A mode with
    fewer products has fields of several segments: sums are added segment by segment, and between
    two segments of one field there is a carry, between those of two fields a borrow.

    Attributes
    ----------
    modes
        Names of `MODES`, in order; a word's mode is its place here.
    segments
        Products of the mode that has most.
    spacing
        Bits from a segment to the next.
    group
        Rows whose products are added before the split.
    operand_bits
        Signed width of an operand, by mode.
    skews
        For every segment the cycles that it's added later than segment 0: a carry takes one.
    """

    def __init__(self, config: "Config"):
        self.modes = tuple(config.modes.split("+"))
        self.packed = self.modes != ("single",)
        self.single = "single" in self.modes
        self.weight_bits = config.weight_bits
        self.packed_bits = config.packed_weight_bits
        self.segments = max(self.fields(mode) for mode in self.modes)
        # Two tokens of four bits fill the 18 bits; the longer ports have room for codes of four
        # bits less their zero point.
        self.operand_bits = {"single": config.operand_bits, "pair": config.mantissa_bits,
                             "quad": 4 if config.multiplier == "18x18" else 5}
        self._rows = config.rows
        self.spacing, self.group = self._layout(PORTS.get(config.multiplier, (0, 0))[0])
        skews = [0]
        for place in range(1, self.segments):
            # Where two fields meet in every mode, nobody waits for a carry.
            waits = not all(self.meets(mode, place) for mode in self.modes)
            skews.append(skews[-1] + 1 if waits else 0)
        self.skews = tuple(skews)

    @staticmethod
    def fields(mode: str) -> int:
        """Products of an element in a mode."""
        weights, tokens = MODES[mode]
        return weights * tokens

    def product(self, mode: str) -> int:
        """Return the largest magnitude of a product.

        ``|operand| <= 2**(bits-1)``. A single weight may be the least of its width, packed ones
        may not: ``w1 - 1`` must fit the width of w1, as w0 borrows one.
        """
        weight = 1 << self.weight_bits - 1 if mode == "single" else (1 << self.packed_bits - 1) - 1
        return weight << self.operand_bits[mode] - 1

    def field_bits(self, mode: str, rows: int) -> int:
        """Signed width of the sum of `rows` products.

        One field of the packed sum, before it gets back what was borrowed, fits it too: the bound
        is less than ``2**(bits-1)``, so there is room for one less than its negative.
        """
        return _bits(rows * self.product(mode))

    def meets(self, mode: str, place: int) -> bool:
        """Whether two fields meet in front of segment `place`, from 1 on, in a mode."""
        return place % (self.segments // self.fields(mode)) == 0

    def _layout(self, port: int) -> tuple[int, int]:
        """Return spacing and group: room for the sums of `DEEP` rows, or what the port has.

        The upper weight begins at ``port - packed_bits`` at most. Sums of `group` rows must stay
        below half of a field: ``group * product < 2**(bits of the field - 1)``.
        """
        packed = [mode for mode in self.modes if mode != "single"]
        if not packed:
            return 0, 1
        # Segments from w0 to w1, and the mode with least room.
        apart = self.segments // 2
        fullest = self.product("quad" if "quad" in packed else "pair")
        spacing = min((port - self.packed_bits) // apart, _bits(DEEP * fullest))
        room = [((1 << self.segments // self.fields(mode) * spacing - 1) - 1) // self.product(mode)
                for mode in packed] if spacing > 0 else [0]
        return max(spacing, 0), min(DEEP, self._rows, *room)

    @property
    def upper(self) -> int:
        """Place of the upper weight in a packed element."""
        return self.segments // 2 * self.spacing

    @property
    def bus_bits(self) -> int:
        """Width of an element of a weight word, ``(w1 << bits) + w0`` if it's packed.

        That fits twice the bits: ``|w1| <= 2**(bits-1) - 1``, so a borrow leaves w1 its width.
        """
        return max(self.weight_bits * self.single, 2 * self.packed_bits * self.packed)

    @property
    def code_bits(self) -> int:
        """Width of an operand of an activation word.

        ``(a1 << bits) + a0`` of two tokens may be less than ``-2**(2*bits-1)`` by a borrow.
        """
        return max(self.operand_bits["pair"] * (self.single or "pair" in self.modes),
                   (2 * self.operand_bits["quad"] + 1) * ("quad" in self.modes))

    @property
    def port_bits(self) -> int:
        """Signed width of the multiplier's operand: two tokens, less a borrow, `spacing` apart."""
        widths = [self.operand_bits[mode] for mode in self.modes if mode != "quad"]
        if "quad" in self.modes:
            widths.append(self.spacing + self.operand_bits["quad"] + 1)
        return max(widths)

    def sum_bits(self, rows: int) -> int:
        """Signed width of the packed sum of `rows` products, in any mode."""
        return max((self.fields(mode) - 1) * self.segments // self.fields(mode) * self.spacing
                   + self.field_bits(mode, rows) for mode in self.modes)

    def segment_bits(self, place: int, rows: int) -> int:
        """Signed width of a segment of the sum of `rows` rows.

        Where it is the end of a field, what the field's other segments leave of the sum; and one
        bit more than `spacing`, by which a carry is seen, where there may be one.
        """
        widths = [1]
        for mode in self.modes:
            length = self.segments // self.fields(mode)
            if (place + 1) % length == 0:
                widths.append(self.field_bits(mode, rows) - (length - 1) * self.spacing)
            else:
                widths.append(self.spacing + 1)
        return max(widths)


def holds(config: "Config") -> int:
    """Return the widest packed weights that a multiplier holds in the modes wanted; 0: none."""
    for bits in range(8, 1, -1):
        element = Element(replace(config, packed_weight_bits=bits))
        if element.group and element.port_bits <= PORTS[config.multiplier][1]:
            return bits
    return 0


def table_chains(weight_bits: int, operand_bits: int) -> list[list[tuple[int, int]]]:
    """Return the 2x2-bit tables of a product that is made of LUTs, as (digit, digit), in chains.

    A number is digits of two bits, of which the last is signed. A product of two unsigned ones is
    0 to 9, four bits, so the product of digits two places up, whatever its sign, can stand in front
    of it without an adder.
    """
    digits = -(-weight_bits // 2), -(-operand_bits // 2)
    left = sorted(((i, j) for i in range(digits[0]) for j in range(digits[1])), key=sum)
    chains = []
    while left:
        chain = [left[0]]
        while chain[-1][0] < digits[0] - 1 and chain[-1][1] < digits[1] - 1:
            above = [pair for pair in left if sum(pair) == sum(chain[-1]) + 2]
            if not above:
                break
            chain.append(above[0])
        left = [pair for pair in left if pair not in chain]
        chains.append(chain)
    return chains


def table_stages(config: "Config") -> int:
    """Return the registers of a product that is made of LUTs.

    One behind the tables, and one a level of the tree that adds their chains.
    """
    operand = config.operand_bits if config.pe_style == "wide" else config.mantissa_bits
    return 1 + (len(table_chains(config.weight_bits, operand)) - 1).bit_length()


def array_latency(config: "Config") -> int:
    """Return the cycles from an activation word to its sums, if nothing stalls.

    A word crosses the array row by row and column by column; there are two registers of an
    operand that is shifted (the shift style spends one behind the multiplier), those of the
    product, of the sum, and of the skid buffer. A packed sum of several rows has a register before
    it is taken apart, and a carry one for every segment that it passes.
    """
    element = Element(config)
    crossing = config.rows + config.cols + 3
    if not element.packed:
        stages = table_stages(config) if config.multiplier == "none" else 1
        return crossing + stages - 1
    return crossing - (not element.single) + (element.group > 1) + max(element.skews)
