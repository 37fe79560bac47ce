# SPDX-License-Identifier: Apache-2.0
"""Weight side of a pass: tiles for the array from the stream, or out of the stationary bank."""

__all__ = ["WeightSource"]

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.array.bank import Bank
from hw.array.systolic import SystolicArray
from hw.lib.layouts import mode_bits, weight_layout, weight_span_bits
from hw.lib.stream import signature
from vitforge.spec.config import Config
from vitforge.spec.formats import MIDDLE
from vitforge.spec.instruction import MODES
from vitforge.spec.packing import ELEMENT, Packing
from vitforge.spec.sizes import ADDRESS_BITS, doubled, weight_words


class WeightSource(wiring.Component):
    """Hand the weights of every pass to the array, `rows` words a tile, or `cols` by column.

    ``weight = element`` of the stream, or two weights if the pass is of pairs, ``code - 128`` of
    the stationary bank.

    Rounding: none.

    The weights of a word come `late` cycles after the word: a register where they are chosen, and
    one where elements of `bits` bits have become weights. The array waits for neither.

    The words of a stationary pass wait until at most two passes before it haven't landed. They
    are read one a cycle, into a pipeline of three registers (address, and the bank's two) that
    stands still while the array doesn't take its last one. A pass from the stream begins when
    that pipeline is empty. Keys and values are codes with the zero point 128, whose difference is
    the code with its top bit inverted.

    If an array has more columns than rows, a row of stationary weights may be several words of the
    bank, ``w_pitch`` words apart. They are read one after the other, all but the last wait in
    registers for that, and the array gets the row with it.

    Where tokens share multipliers, a stationary word of a pass of pair or quad is packed: a byte is
    two codes of 4 bits with the zero point 8, of which 0 counts as 1, and makes the element
    ``(w1 << 4) + w0``.

    Members
    -------
    passes : In(stream.Signature(weight_layout(config)))
        A pass is taken in the cycle after it has begun.
    words, bits : In(stream.Signature(cols * 8)), In(4)
        Weights of the stream's passes, and the width of an element of the word that is taken.
    landed : In(1)
        Pulse of the drain.
    read_enable, read, read_address : Out; data : In
        Read port of the stationary bank.
    w : Out(signature(SystolicArray.words(config)["w"]))
        `weights` are those of the word `late` cycles before.
    w_takes : In(1)
        What ``w.ready`` will be in the next cycle.
    """

    #: Cycles from a word to its weights.
    late = 2

    def __init__(self, config: Config):
        self.config = config
        self.word = SystolicArray.words(config)["w"]
        super().__init__({
            "passes": In(stream.Signature(weight_layout(config))),
            "words": In(stream.Signature(config.cols * ELEMENT)), "bits": In(4),
            "landed": In(1),
            "read_enable": Out(1), "read": Out(1), "read_address": Out(ADDRESS_BITS),
            "data": In(config.rows * 8),
            "w": Out(signature(self.word)), "w_takes": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, coming = self.config.rows, self.passes.payload
        # What else is needed of the pass whose words are taken; of one from the stream, the mode.
        current: Any = Signal(weight_layout(self.config), reset_less=True)
        modes = {name: Signal.like(coming[name], reset_less=True)
                 for name in mode_bits(self.config)}
        # A pass of the bank is under way, or one from the stream. What comes from other engines
        # comes late in its cycle, so all that can be known before is a register.
        reads = Signal()
        feeds = Signal()
        # A word of the bank is wanted, and the pipeline moves.
        issue = Signal()
        advance = Signal(init=1)
        # The pass that comes was begun.
        opened = Signal()
        moves = Signal()
        take = Signal()
        load = Signal()
        pipeline = Signal(1 + Bank.latency)
        by_column = Signal(1 + Bank.latency, name="columns")
        packed = Signal(1 + Bank.latency) if doubled(self.config) else None
        # A pass from the stream is under way, and the pipeline is empty; and the array takes a word
        # too.
        streams = Signal()
        streaming = Signal()
        flows = Signal()
        bank = Cat(self._element(index, None if packed is None else packed[-1])
                   for index in range(rows))
        several = _Rows(m, self.config, current, advance) if weight_span_bits(self.config) \
            else None
        # The last read of a row is the array's word, as is every one where a row is one.
        way = several.wholes if several else pipeline
        whole = way[-1]
        end, closes, turned = self._count(m, load, take, opened, several)
        m.d.comb += [
            moves.eq(issue & advance),
            self.words.ready.eq(flows),
            take.eq(moves | self.words.valid & flows),
            load.eq(~(reads | feeds) | take & closes),
            self.passes.ready.eq(opened),
            self.read_enable.eq(advance),
            self.read.eq(pipeline[0] & advance),
            self.w.valid.eq(whole | (streams & self.words.valid)),
            self.w.payload.by_column.eq(pipeline[-1] & by_column[-1]),
            streaming.eq(Mux(load, self.passes.valid & ~coming.stationary, feeds)
                         & advance & ~issue & ~pipeline[:-1].any()),
        ]
        m.d.sync += [
            streams.eq(streaming), flows.eq(streaming & self.w_takes),
            advance.eq(self.w_takes | ~Mux(advance, way[-2], whole)),
            opened.eq(load & self.passes.valid),
            issue.eq(self._issues(m, load, take & closes, reads)),
        ]
        self._word(m, bank, several, pipeline[-1], streams, modes, packed)
        address = self._address(m, moves, reads, turned, end, closes, current, several)
        if several:
            several.step(m, coming, issue, opened)
        with m.If(advance):
            m.d.sync += [
                pipeline.eq(Cat(issue, pipeline)),
                by_column.eq(Cat(current.by_column, by_column)),
                self.read_address.eq(address),
            ]
            if packed is not None:
                m.d.sync += packed.eq(Cat(modes["mode"] != MODES["single"], packed))
        with m.If(load):
            m.d.sync += [
                reads.eq(self.passes.valid & coming.stationary),
                feeds.eq(self.passes.valid & ~coming.stationary),
                *(mode.eq(coming[name]) for name, mode in modes.items()),
            ]
        return m

    def _issues(self, m: Module, load: Value, final: Value, reads: Value) -> Value:
        """Return whether the bank is read in the next cycle: a pass is, and few haven't landed."""
        unlanded = Signal(3)
        m.d.sync += unlanded.eq(unlanded + final - self.landed)
        # As many as before, or one more, which is known late.
        few, fewer = (unlanded <= Mux(self.landed, most + 1, most) for most in (2, 1))
        return Mux(load, self.passes.valid & self.passes.payload.stationary
                   & Mux(final, fewer, few), reads & few)

    def _count(self, m: Module, load: Value, take: Value, opened: Value, several: "_Rows | None",
               ) -> tuple[Signal, Signal, Signal]:
        """Count words and tiles.

        Returns
        -------
        tuple
            The next word is the last of its tile, of its pass; the word before was the last of a
            tile, but not of its pass.
        """
        place = Signal(range(self.config.cols))
        rest = Signal.like(self.passes.payload.tiles, reset_less=True)
        # Known three cycles after the word before a tile, and asked for with the tile's last word
        # but one: as a tile has four words or more, in the third cycle at the earliest.
        final_tile = Signal(reset_less=True)
        end, closes, turned = Signal(name="end"), Signal(name="closes"), Signal(name="turned")
        ends = Signal()
        m.d.comb += ends.eq(place + 1 == (several.final if several else self.config.rows - 1))
        m.d.sync += turned.eq(take & end & ~closes)
        with m.If(load):
            m.d.sync += [place.eq(0), end.eq(0), closes.eq(0)]
        with m.Elif(take):
            m.d.sync += [place.eq(Mux(end, 0, place + 1)), end.eq(ends),
                         closes.eq(ends & final_tile)]
        with m.If(opened):
            m.d.sync += [rest.eq(self.passes.payload.tiles),
                         final_tile.eq(self.passes.payload.tiles == 1)]
        with m.Elif(turned):
            m.d.sync += [rest.eq(rest - 1), final_tile.eq(rest == 2)]
        return end, closes, turned

    def _address(self, m: Module, moves: Value, reads: Value, turned: Value, end: Value,
                 closes: Value, current: Any, several: "_Rows | None") -> Signal:
        """Return where the next row of stationary weights is; words of the stream have no address.

        While none is read, the pass that comes is looked at in every cycle.

        Parameters
        ----------
        moves
            The row is read.
        """
        coming = self.passes.payload
        address = Signal(ADDRESS_BITS, reset_less=True)
        base = Signal(ADDRESS_BITS, reset_less=True)            # of the tile
        next_base = Signal(ADDRESS_BITS, reset_less=True)       # of the one behind it
        fresh = ~reads | closes
        m.d.sync += next_base.eq(base + current.w_stride)
        with m.If(~reads | moves & closes):
            m.d.sync += [current.eq(coming), base.eq(coming.w_base)]
        with m.Elif(turned):
            m.d.sync += base.eq(next_base)

        def following(further: Value) -> Value:
            return Mux(fresh, coming.w_base, Mux(end, next_base, further))

        with m.If(~reads | moves):
            m.d.sync += address.eq(following(several.next(address) if several else address + 1))
        if several:
            with m.If(~reads | moves):
                m.d.sync += several.part.eq(Mux(~reads | several.issued, 0, several.part + 1))
            with m.If(~reads | moves & several.issued):
                m.d.sync += several.first.eq(following(several.first + 1))
        return address

    def _element(self, index: int, packed: Value | None) -> Value:
        """Return a weight of the bank's word, or the two weights that a packed byte has."""
        code = self.data.bit_select(index * 8, 8)
        if packed is None:
            return code ^ MIDDLE
        # A code of 0 is one of 1, and a negative lower weight borrows from the upper one.
        lower, upper = (half | ~half.any() for half in (code[:4], code[4:]))
        two = Cat(lower ^ 8, ((upper ^ 8) - ~lower[3])[:4])
        return Mux(packed, two, code ^ MIDDLE)

    def _word(self, m: Module, bank: Value, several: "_Rows | None", reads: Value, streams: Value,
              modes: dict[str, Signal], packed: Value | None) -> None:
        """Give the array the bank's row where there is one, else the word of the stream."""
        chosen = Signal(self.words.payload.shape(), reset_less=True)
        bits = Signal(self.bits.shape(), reset_less=True)
        row = several.row(m, bank) if several else bank
        m.d.sync += [chosen.eq(Mux(reads, row, self.words.payload)),
                     bits.eq(Mux(reads, ELEMENT, self.bits))]
        weights = Signal(self.w.payload.weights.as_value().shape(), reset_less=True)
        m.d.comb += self.w.payload.weights.as_value().eq(weights)
        m.d.sync += weights.eq(self._elements(m, chosen, bits))

        for mode in modes.values():
            # Of two weights an element in the stream; and in the bank, where they can be there.
            two: Value = streams & mode
            if packed is not None:
                two = Mux(reads, packed[-1], streams & (mode != MODES["single"]))
            m.d.comb += self.w.payload.packed.eq(two)

    def _elements(self, m: Module, word: Value, bits: Value) -> Value:
        """Return a word's elements of `bits` bits each, extended to `ELEMENT`."""
        elements = Signal(len(word), name="elements")
        *narrow, _ = Packing(self.config).widths
        # The low bits of the width tell all apart.
        with m.Switch(bits[:(ELEMENT - 1).bit_length()]):
            for width in narrow:
                with m.Case(width):
                    m.d.comb += [
                        elements.word_select(index, ELEMENT).eq(
                            word[index * width:(index + 1) * width].as_signed())
                        for index in range(self.config.cols)]
            with m.Default():
                m.d.comb += elements.eq(word)
        return elements


class _Rows:
    """Rows of stationary weights that are several words of the bank.

    Attributes
    ----------
    final
        Number of a tile's last word: of the stream, or of the bank.
    wholes
        Where the reads are on the way to their data: the last of its row, or one by column.
    """

    def __init__(self, m: Module, config: Config, current: Any, advance: Value):
        self.config, self.current, self.advance = config, current, advance
        bits = weight_span_bits(config)
        self.final = Signal(range(config.cols), reset_less=True)
        # Of the next read, and on the way to its data: its place in its row.
        self.part = Signal(bits)
        self.issued = Signal()          # it is the last of its row
        self.parts = [Signal(bits, name=f"part_{n}") for n in range(1 + Bank.latency)]
        self.wholes = Signal(1 + Bank.latency)
        self.first = Signal(ADDRESS_BITS, name="first", reset_less=True)
        self.held = [Signal(config.rows * 8, name=f"held_{n}", reset_less=True)
                     for n in range(weight_words(config) - 1)]
        m.d.comb += self.issued.eq(current.by_column | (self.part == current.words))

    def next(self, address: Value) -> Value:
        """Return the address behind one that doesn't end its tile."""
        return Mux(self.issued, self.first + 1, address + self.current.w_pitch)

    def row(self, m: Module, bank: Value) -> Value:
        """Return the weights of a row whose last word is `bank`; those beyond are anything."""
        with m.If(self.advance):
            for number, held in enumerate(self.held):
                with m.If(self.parts[-1] == number):
                    m.d.sync += held.eq(bank)
        return Cat(*(Mux(self.parts[-1] > number, held, bank)
                     for number, held in enumerate(self.held)), bank)

    def step(self, m: Module, coming: Any, issue: Value, opened: Value) -> None:
        """Add the registers that go with the reads, and the number of a tile's last word."""
        rows = self.config.rows
        with m.If(self.advance):
            m.d.sync += [
                Cat(self.parts).eq(Cat(self.part, self.parts)),
                self.wholes.eq(Cat(issue & self.issued, self.wholes)),
            ]
        # A cycle after the pass has begun, when its first word isn't the last but one.
        with m.If(opened):
            m.d.sync += self.final.eq(Mux(~coming.stationary, rows - 1, Mux(
                coming.by_column, self.config.cols - 1, (coming.words + 1) * rows - 1)))
