# SPDX-License-Identifier: Apache-2.0
"""From beats of the memory bus to words, as wide as their elements make them."""

__all__ = ["Unpacker"]

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.chunks import Split
from hw.lib.layouts import weight_span_bits
from vitforge.spec.config import Config
from vitforge.spec.packing import ELEMENT, Packing


class Unpacker(wiring.Component):
    """Cut the stream of the program into words of `rows` elements, or several times that.

    Element 0 has the low bits. Elements have `bits` bits, and come as they are stored; a word is
    padded to whole bytes, words follow each other without gaps, and a block of words begins at a
    multiple of 64 bytes.

    A beat is cut into chunks; these go through `places` registers, the low one last. The next word
    is copied to the window when the chunks that it lies in are there, in the cycle in which the
    word before it is taken at the earliest, and it is offered from the cycle after that on. So it
    is a word a cycle as long as there are chunks, of which one moves a cycle.

    The width of a block need not be known before its first word is offered. So that word waits for
    as many bytes as the widest has, and where the second begins is only found when the first is
    taken: in the cycle after the first word of a block none is offered, nor in the cycle after the
    last. What is left of the last line of a block is dropped a chunk a cycle.

    A beat that is taken when all is empty gives its first word ``1 + places`` cycles later, one
    more if a beat is several chunks, and later if that word needs several beats.

    Members
    -------
    i : In(stream.Signature(axi_bits))
        Beats. `ready` depends on ``o.ready`` if a beat is one chunk.
    bits : In(4)
        Width of the elements of this block; from when its first word is taken until its last is.
    span : In(weight_span_bits(config))
        How many times `rows` elements a word of this block has, less one; as `bits`. Only if an
        array has more columns than rows.
    align : In(1)
        The word that is taken in this cycle is the last of its block.
    o : Out(stream.Signature(cols * 8))
        What is behind a word's elements is anything.
    """

    def __init__(self, config: Config):
        self.config = config
        self.packing = Packing(config)
        span = weight_span_bits(config)
        super().__init__({
            "i": In(stream.Signature(config.axi_bits)),
            "bits": In(4), "align": In(1),
            **({"span": In(span)} if span else {}),
            "o": Out(stream.Signature(config.cols * ELEMENT)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        packing, reach = self.packing, self._reach
        m.submodules.split = split = Split(self.config.axi_bits, packing.chunk * packing.unit * 8)
        m.d.comb += [split.i.payload.eq(self.i.payload), split.i.valid.eq(self.i.valid),
                     self.i.ready.eq(split.i.ready)]

        shift = Signal()
        chunks, full = self._chunks(m, split.o, shift)

        # Where the next word begins: in the low chunk, or `skip` chunks above it.
        place_bits = (packing.chunk - 1).bit_length()
        place = Signal(place_bits)
        skip = Signal(range(packing.places + 1))
        line = Signal(range(packing.line))      # of the low chunk, its place in its line
        fresh = Signal(init=1)                  # the next word, or the one offered, opens a block
        aligning = Signal()                     # bytes are left of the block before
        # Where it ends: known a word before, as all of a block are of one size; the first one of a
        # block begins at place 0.
        size = self._size(m)
        following = Signal(range(packing.chunk - 1 + packing.largest + 1))
        end = Signal.like(following)
        m.d.comb += end.eq(Mux(fresh, size, following))
        total = end[:place_bits] + size
        reaches = Signal(packing.places)        # the chunks in which it lies

        taken = Signal()
        here = Signal()
        there = Signal()
        drop = Signal()
        aligned = Signal(init=1)                # none, or the low chunk is a line's: a register
        # Whether the word is taken is known last, so both answers are worked out before.
        idle_load = Signal()
        taken_load = Signal()
        load = Signal()
        idle_step = Signal()
        taken_step = Signal()
        step = Signal()
        m.d.comb += [
            taken.eq(self.o.valid & self.o.ready),
            here.eq(skip == 0),
            idle_load.eq(here & aligned & there & ~self.o.valid),
            taken_load.eq(here & aligned & there & ~fresh & ~self.align),
            load.eq(Mux(taken, taken_load, idle_load)),
            idle_step.eq(idle_load & ~fresh),
            taken_step.eq(taken_load | fresh),
            step.eq(Mux(taken, taken_step, idle_step)),
            drop.eq(here & ~aligned & full[0]),
        ]
        # A word that opens a block begins with the low chunk, and has any width.
        m.d.comb += there.eq((full | ~Mux(fresh, reach(packing.largest), reaches)).all())

        # Chunks that have no more use: a word lay in them, so they are there.
        passed = Signal.like(skip)
        beyond = Signal()
        m.d.comb += [
            beyond.eq(end >= packing.chunk),
            passed.eq(Mux(step, end >> place_bits, skip)),
            shift.eq(Mux(taken, drop | Mux(taken_step, beyond, ~here),
                         drop | Mux(idle_step, beyond, ~here))),
        ]
        m.d.sync += skip.eq(passed - (shift & ~drop))
        with m.If(step):
            m.d.sync += [place.eq(end), following.eq(total), reaches.eq(reach(total))]
        with m.Elif(drop):
            m.d.sync += place.eq(0)
        with m.If(shift):
            m.d.sync += line.eq(line + 1)
        at_line = Mux(step, end[:place_bits] == 0, drop | (place == 0)) \
            & (line == Mux(shift, packing.line - 1, 0))
        m.d.sync += aligned.eq(at_line | ~Mux(taken, self.align, aligning & ~load))
        self._offer(m, load, taken, fresh, aligning)


        window = Signal(packing.largest * packing.unit * 8, reset_less=True)
        with m.If(load):
            m.d.sync += window.eq(self._shifted(Cat(chunks), place))
        m.d.comb += self.o.payload.eq(window)
        return m

    def _offer(self, m: Module, load: Value, taken: Value, fresh: Signal, aligning: Signal,
               ) -> None:
        """Hold a word from the cycle after `load` until it is taken; look for the next block."""
        with m.If(load):
            m.d.sync += [self.o.valid.eq(1), aligning.eq(0)]
        with m.Elif(taken):
            m.d.sync += self.o.valid.eq(0)
        with m.If(taken):
            m.d.sync += fresh.eq(self.align)
            with m.If(self.align):
                m.d.sync += aligning.eq(1)

    def _reach(self, end: ValueLike) -> Value:
        """Return for each chunk whether a word that ends before unit `end` lies in it."""
        return Cat(Value.cast(end) > index * self.packing.chunk
                   for index in range(self.packing.places))

    def _size(self, m: Module) -> Signal:
        """Return the units of a word of this block."""
        size = Signal(range(self.packing.largest + 1))
        kind = Cat(self.bits, self.span) if weight_span_bits(self.config) else self.bits
        with m.Switch(kind):
            for (bits, words), units in self.packing.units.items():
                with m.Case(bits | words - 1 << len(self.bits)):
                    m.d.comb += size.eq(units)
        return size

    def _chunks(self, m: Module, source: Any, shift: Value) -> tuple[list[Signal], Signal]:
        """Move chunks down where there is room, and the low one out with `shift`.

        Returns
        -------
        tuple
            The chunks, the low one first, and which of them are there.
        """
        packing = self.packing
        chunks = [Signal(len(source.payload), name=f"chunk_{index}", reset_less=True)
                  for index in range(packing.places)]
        full = Signal(packing.places)
        above = [*zip(chunks[1:], full[1:], strict=True), (source.payload, source.valid)]
        moves: Value = shift
        for index, (payload, valid) in enumerate(above):
            moves = moves | ~full[index]
            with m.If(moves):
                m.d.sync += [chunks[index].eq(payload), full[index].eq(valid)]
        m.d.comb += source.ready.eq(moves)
        return chunks, full

    def _shifted(self, value: Value, place: Value) -> Value:
        """Return the largest word from `place` on: two inputs a bit for every bit of `place`."""
        unit = self.packing.unit * 8
        for bit in reversed(range(len(place))):
            value = Mux(place[bit], value >> (unit << bit), value)
            value = value[:(self.packing.largest + (1 << bit) - 1) * unit]
        return value[:self.packing.largest * unit]
