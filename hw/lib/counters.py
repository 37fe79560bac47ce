# SPDX-License-Identifier: Apache-2.0
"""Counters of a run, twice as wide as the registers that they are read through."""

__all__ = ["Counters"]

import functools
import operator
from collections.abc import Sequence

from amaranth.hdl import Module, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class Counters(wiring.Component):
    """Count events, and keep the upper half of a counter while its lower half is read.

    An event of cycle n is in the counter from cycle n+2 on: a register before the adder keeps the
    path from wherever the event comes from short. One register keeps the upper half for all
    counters, so a pair must be read without another LOW between.

    Parameters
    ----------
    names
        Of the counters.
    half
        Bits of a register; a counter has twice as many.

    Members
    -------
    clear : In(1)
        All counters are zero in the next cycle; events of the cycle before aren't counted.
    events : In(StructLayout)
        A bit for each counter.
    keep : In(StructLayout)
        A bit for each counter: its lower half is read in this cycle. At most one is set.
    low : Out(StructLayout)
        Lower halves.
    high : Out(half)
        Upper half of the counter that was kept last, as it was in that cycle.
    """

    def __init__(self, names: Sequence[str], half: int = 32):
        self.names = tuple(names)
        self.half = half
        bits = data.StructLayout({name: unsigned(1) for name in self.names})
        super().__init__({
            "clear": In(1), "events": In(bits), "keep": In(bits),
            "low": Out(data.StructLayout({name: unsigned(half) for name in self.names})),
            "high": Out(half),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upper: list[Value] = []
        for name in self.names:
            counter = Signal(2 * self.half, name=name)
            event = Signal(name=f"{name}_event")
            m.d.sync += [event.eq(self.events[name]), counter.eq(counter + event)]
            with m.If(self.clear):
                m.d.sync += counter.eq(0)
            m.d.comb += self.low[name].eq(counter[:self.half])
            upper.append(counter[self.half:] & self.keep[name].replicate(self.half))
        # At most one of them isn't zero.
        with m.If(self.keep.as_value().any()):
            m.d.sync += self.high.eq(functools.reduce(operator.or_, upper))
        return m
