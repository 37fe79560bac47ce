# SPDX-License-Identifier: Apache-2.0
"""What the units share about streams: payloads from words, and the register that ends a pipeline.

Every unit is a pipeline that moves as a whole: on a cycle with `advance` all its stages take a
step, on a cycle without none does. `advance` is the ready of the `Skid` at the end, which comes
from a register, so back-pressure never passes combinationally from output to input.
"""

__all__ = ["Skid", "delay", "layout", "register", "signature"]

from amaranth.hdl import Const, Module, Mux, Shape, Signal, ValueLike, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vitforge.spec.words import Field, Word


def _shape(field: Field) -> Shape | data.ArrayLayout:
    element = signed(field.bits) if field.signed else unsigned(field.bits)
    return element if field.count is None else data.ArrayLayout(element, field.count)


def layout(word: Word) -> data.StructLayout:
    """Return the fields of `word`, first field in the low bits."""
    return data.StructLayout({item.name: _shape(item) for item in word.fields})


def signature(word: Word) -> stream.Signature:
    """Stream signature whose payload is the layout of `word`."""
    return stream.Signature(layout(word))


def register(m: Module, value: ValueLike, *, advance: ValueLike, name: str,
             shape: Shape | None = None, init: int | None = None) -> Signal:
    """Register `value` on a cycle with `advance`, in its own shape unless a bound gives another.

    Data registers need no reset; give `init` for control bits that do.
    """
    result = Signal.like(value if shape is None else Const(0, shape), name=name, init=init or 0,
                         reset_less=init is None)
    with m.If(advance):
        m.d.sync += result.eq(value)
    return result


def delay(m: Module, value: ValueLike, *, advance: ValueLike, cycles: int = 1,
          name: str = "delayed", init: int | None = None) -> Signal:
    """Put `cycles` >= 1 times a `register` behind `value`, named in their order."""
    for index in range(cycles):
        value = register(m, value, advance=advance, name=f"{name}_{index + 1}", init=init)
    return value


class Skid(wiring.Component):
    """Two words of buffer whose ``i.ready`` is a function of registers alone.

    Latency 1, initiation interval 1. ``i.ready`` is low only while both places are taken, so a
    consumer that is always ready never causes a stall.

    Parameters
    ----------
    word
        What is held.
    flowing
        The consumer is always ready: ``o.ready`` isn't looked at, ``i.ready`` is constant, and one
        register does the same on every cycle. With it the enable of the whole pipeline goes.

    Members
    -------
    i : In(signature(word))
        Words in; ready while at most one word is held.
    o : Out(signature(word))
        The same words in order.
    """

    latency = 1

    def __init__(self, word: Word, *, flowing: bool = False):
        self.flowing = flowing
        super().__init__({"i": In(signature(word)), "o": Out(signature(word))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.flowing:
            m.d.comb += [
                self.i.ready.eq(1),
                self.o.valid.eq(delay(m, self.i.valid, advance=1, name="valid", init=0)),
                self.o.payload.eq(delay(m, self.i.payload.as_value(), advance=1, name="head")),
            ]
            return m
        level = Signal(range(3))
        spare = Signal.like(self.i.payload.as_value(), reset_less=True)
        head = Signal.like(self.i.payload.as_value(), reset_less=True)
        push = Signal()
        pop = Signal()
        m.d.comb += [
            self.i.ready.eq(level != 2),
            self.o.valid.eq(level != 0),
            self.o.payload.eq(head),
            push.eq(self.i.valid & self.i.ready),
            pop.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += level.eq(level + push - pop)
        # Without a word to take, what is loaded here isn't valid; so one multiplexer is enough.
        with m.If((level == 0) | pop):
            m.d.sync += head.eq(Mux(level == 2, spare, self.i.payload))
        with m.If(push):
            m.d.sync += spare.eq(self.i.payload)
        return m
