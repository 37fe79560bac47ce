# SPDX-License-Identifier: Apache-2.0
"""Words of one width as words of another."""

__all__ = ["Join", "Split"]

from typing import Any

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


def _ratio(wide: int, narrow: int) -> int:
    ratio = wide // narrow
    if ratio * narrow != wide or ratio & ratio - 1 or not ratio:
        raise ValueError(f"the widths must be a power of two apart, not {wide} and {narrow}")
    return ratio


def _pass_through(m: Module, component: Any) -> None:
    """Join input and output by wires: a chunk is a word."""
    m.d.comb += [component.o.valid.eq(component.i.valid),
                 component.o.payload.eq(component.i.payload),
                 component.i.ready.eq(component.o.ready), component.empty.eq(1)]


class Split(wiring.Component):
    """Cut words into chunks, low bits first.

    Latency 1, a chunk a cycle without gaps from word to word. Of one chunk a word nothing is left
    but wires: latency 0, no register.

    Members
    -------
    i : In(stream.Signature(wide))
    o : Out(stream.Signature(narrow))
    drop : In(1)
        What is left of the word goes with the chunk that is taken now.
    empty : Out(1)
        No chunk is waiting.
    """

    def __init__(self, wide: int, narrow: int):
        self.ratio = _ratio(wide, narrow)
        super().__init__({"i": In(stream.Signature(wide)), "o": Out(stream.Signature(narrow)),
                          "drop": In(1), "empty": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.ratio == 1:
            _pass_through(m, self)
            return m
        width = len(self.o.payload)
        held = Signal.like(self.i.payload, reset_less=True)
        place = Signal(range(self.ratio))
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | (self.o.ready & (place.all() | self.drop))),
            self.o.payload.eq(Array(held[low:low + width]
                                    for low in range(0, len(held), width))[place]),
            self.empty.eq(~self.o.valid),
        ]
        with m.If(self.i.ready):
            m.d.sync += [held.eq(self.i.payload), self.o.valid.eq(self.i.valid), place.eq(0)]
        with m.Elif(self.o.ready):
            m.d.sync += place.eq(place + 1)
        return m


class Join(wiring.Component):
    """Put chunks together to words, first chunk in the low bits.

    A word is offered one cycle after its last chunk; the next chunk is taken as it goes. Of one
    chunk a word nothing is left but wires.

    Members
    -------
    i : In(stream.Signature(narrow))
    o : Out(stream.Signature(wide))
    last : In(1)
        The word ends with the chunk that is taken now; its high bits are anything.
    empty : Out(1)
        No chunk is waiting.
    """

    def __init__(self, narrow: int, wide: int):
        self.ratio = _ratio(wide, narrow)
        super().__init__({"i": In(stream.Signature(narrow)), "o": Out(stream.Signature(wide)),
                          "last": In(1), "empty": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.ratio == 1:
            _pass_through(m, self)
            return m
        place = Signal(range(self.ratio))
        parts = Array(self.o.payload.word_select(index, len(self.i.payload))
                      for index in range(self.ratio))
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready),
                     self.empty.eq(~self.o.valid & (place == 0))]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(0)
            with m.If(self.i.valid):
                m.d.sync += [parts[place].eq(self.i.payload), place.eq(place + 1)]
                with m.If(place.all() | self.last):
                    m.d.sync += [self.o.valid.eq(1), place.eq(0)]
        return m
