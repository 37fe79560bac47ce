# SPDX-License-Identifier: Apache-2.0
"""Elements of the systolic array that take two or four products, and their sums."""

__all__ = ["PackedGrid"]

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.array.element import meets, port, split, spread, stored
from hw.lib.stream import delay, register
from vitforge.spec.config import Config
from vitforge.spec.elements import Element
from vitforge.spec.names import PRODUCT


class PackedGrid(wiring.Component):
    """Multiply and add, `rows` elements a column, in the mode of every activation word.

    ``field[c, w * tokens + t] = sum over r of operand[r, t] * weight[r, c, w]``

    Rounding: none, sums are exact.

    The operand of a word that is accepted at t is multiplied in element (r, c) at
    ``t + lag + 1 + r + c``, as in the plain array. The products of `group` rows are added packed;
    then each of their fields goes to the sum of its own (`hw.array.element.split`). The mode
    chooses in front of the registers of operands and weights, and the carries behind the products;
    nothing is chosen in front of a multiplier.

    Widths: all of :class:`vitforge.spec.elements.Element`. What is above the last bit of a segment
    inside a field is zero, so a field is ``sum of segment << place * spacing``.

    Members
    -------
    advance : In(1)
        Whether everything moves in this cycle.
    codes, shifts, mode : In
        The activation word.
    buses, captures, packed : In
        From the loader, as it has them.
    swaps : In(rows + cols - 1)
        Whether the elements of a diagonal take over their next weights; only with `advance`.
    segments : Out(segments x cols)
        The sums of all columns, `latency` cycles after their word.
    ends : Out(mode)
        The mode of those sums.
    """

    def __init__(self, config: Config, lag: int):
        self.config = config
        self.lag = lag
        self.element = element = Element(config)
        self.latency = config.rows + config.cols + lag + 1 + (element.group > 1) \
            + max(element.skews)
        longer = max(config.rows, config.cols)
        self._mode_bits = max(1, (len(element.modes) - 1).bit_length())
        super().__init__({
            "advance": In(1),
            "codes": In(data.ArrayLayout(signed(element.code_bits), config.rows)),
            "shifts": In(data.ArrayLayout(unsigned(config.shift_bits), config.rows)),
            "mode": In(self._mode_bits),
            "buses": In(data.ArrayLayout(signed(element.bus_bits), longer)),
            "captures": In(config.rows * config.cols),
            "packed": In(longer),
            "swaps": In(config.rows + config.cols - 1),
            "segments": Out(data.StructLayout({
                f"segment_{place}": data.ArrayLayout(
                    signed(element.segment_bits(place, config.rows)), config.cols)
                for place in range(element.segments)})),
            "ends": Out(self._mode_bits),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols, element = self.config.rows, self.config.cols, self.element
        self._modes: list[Value] = [self.mode]
        for index in range(self.latency):
            self._modes.append(delay(m, self._modes[-1], advance=self.advance,
                                     name=f"mode_{index}"))
        weights = []
        for j in range(max(rows, cols)):
            value = stored(element, self.buses[j], self.packed[j])
            weights.append(Signal(len(value), name=f"stored_{j}"))
            m.d.comb += weights[j].eq(value)

        totals: list[Value] = [Const(0)] * cols
        sums: list[list[Value] | None] = [None] * cols
        for r in range(rows):
            operands = self._operands(m, r)
            top, end = r % element.group == 0, r % element.group == element.group - 1
            for c in range(cols):
                i, j = (r, c) if cols >= rows else (c, r)
                weight = self._weight(m, f"{r}_{c}", self.captures[j * min(rows, cols) + i],
                                      weights[j], self.swaps[r + c])
                product = delay(m, (operands[c] * port(element, weight))[:element.sum_bits(1)]
                                .as_signed(), advance=self.advance, name=f"{PRODUCT}{r}_{c}")
                if element.group > 1:
                    inside = r % element.group + 1
                    totals[c] = register(m, product if top else totals[c] + product,
                                         advance=self.advance, name=f"sum_{r}_{c}",
                                         shape=signed(element.sum_bits(inside)))
                else:
                    totals[c] = product
                if end or r == rows - 1:
                    sums[c] = self._split(m, r, c, totals[c], sums[c])
        for c in range(cols):
            self._align(m, c, sums[c] or [])
        m.d.comb += self.ends.eq(self._modes[self.latency])
        return m

    def _operands(self, m: Module, r: int) -> list[Value]:
        """Return the operand of row `r` at each column."""
        element = self.element
        codes = delay(m, self.codes[r], advance=self.advance, cycles=r, name=f"skewed_codes_{r}")
        whole = codes[:element.operand_bits["pair"]].as_signed()
        quad: Value | None = None
        if "quad" in element.modes:
            quad = self._modes[r] == element.modes.index("quad")
        value: Value = whole
        if element.single:
            shift: Value = Const(0, 3)
            if self.config.shifts_operands:
                shift = delay(m, self.shifts[r], advance=self.advance, cycles=r,
                              name=f"skewed_shift_{r}")
            fine = Signal(signed(len(whole) + 3), name=f"fine_{r}")
            m.d.comb += fine.eq(whole << shift[:2])
            value = fine
        if quad is not None:
            value = Mux(quad, spread(element, codes), value) if element.modes != ("quad",) \
                else spread(element, codes)
        if element.single:
            coarse = Signal(signed(element.port_bits), name=f"coarse_{r}")
            half = delay(m, value, advance=self.advance, name=f"half_{r}")
            m.d.comb += coarse.eq(half << (delay(m, shift >> 2, advance=self.advance,
                                                 name=f"rest_{r}") << 2))
            value = coarse
        operands: list[Value] = []
        for c in range(self.config.cols):
            value = delay(m, value, advance=self.advance, name=f"operand_{r}_{c}")
            operands.append(value)
        return operands

    def _weight(self, m: Module, name: str, capture: Value, coming: Value, swap: Value) -> Signal:
        """Return the weights that an element uses, and hide the next ones behind them."""
        shadow = register(m, coming, advance=capture, name=f"shadow_{name}")
        return register(m, shadow, advance=swap, name=f"weight_{name}")

    def _split(self, m: Module, r: int, c: int, total: Value, before: list[Value] | None
               ) -> list[Value]:
        element = self.element
        # When the packed sum is there, after its word; and how long its group is.
        there = self.lag + 2 + r + c + (element.group > 1)
        length = r % element.group + 1

        def ends(place: int, skew: int) -> Value:
            return meets(element, self._modes[there + skew], place)

        return split(m, element, f"{r}_{c}", total, before, rows=r + 1, late=length - 1,
                     ends=ends, advance=self.advance)

    def _align(self, m: Module, c: int, segments: list[Value]) -> None:
        """Bring all segments to the time of the last one, without what is above inside a field."""
        element = self.element
        for place, segment in enumerate(segments):
            late = self.config.cols - 1 - c + max(element.skews) - element.skews[place]
            value = delay(m, segment, advance=self.advance, cycles=late,
                          name=f"column_{c}_{place}").as_signed()
            if place < element.segments - 1 and element.skews[place + 1]:
                end = meets(element, self._modes[self.latency], place + 1)
                value = Mux(end, value, value[:element.spacing])
            m.d.comb += self.segments[f"segment_{place}"][c].eq(value)
