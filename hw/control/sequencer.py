# SPDX-License-Identifier: Apache-2.0
"""Read the program word by word, check it, and hand every part of it to its engine."""

__all__ = ["FAULTS", "Sequencer"]

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.control.checks import checks
from hw.control.sequencer_state import PARTS, SequencerState
from hw.lib.layouts import (
    placement_layout,
    request_layout,
    span_bits,
    start_layout,
    weight_layout,
    weight_span_bits,
)
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import (
    LOAD,
    OPCODES,
    PASS,
    THRESHOLD,
)
from vitforge.spec.pass_fields import PASSES
from vitforge.spec.register_map import FAULTS
from vitforge.spec.requant_fields import THRESHOLDS
from vitforge.spec.sizes import ADDRESS_BITS, doubled, paired
from vitforge.spec.words import Word

#: Cycles without a word after which a program whose bytes have all been read is over.
PATIENCE = 64
#: States that take a word whenever there is one.
_TAKING = ("HEAD", "NORM", "THRESHOLDS", "PARAMETER", "INLINE")


def _view(word: Word, value: Value) -> Any:
    shapes = {item.name: signed(item.bits) if item.signed else unsigned(item.bits)
              for item in word.fields}
    return data.View(data.StructLayout(shapes), value)


class Sequencer(wiring.Component):
    """Turn the stream of words into passes, parameters, weights and loads.

    States, a cycle each or a cycle a word: HEAD (words of an instruction), CHECK, DECODE, then for
    a PASS NORM (8 words a tile), THRESHOLDS (a line), PARAMETER (8 words for each of a token),
    PUSH, WEIGHTS (`rows` words a tile); for a LOAD ISSUE and LOADING, or INLINE (a word of the bank
    each), for END FINISH. DECODE of a PASS waits while `PASSES` passes are under way, and if it
    brings thresholds while one that uses them is; that of a LOAD and of END until none is.

    Members
    -------
    words : In(stream.Signature(cols * 8)); bits, align, span : Out
        Words of elements as they are stored (what is no weight has 8 bits an element), the width of
        an element, whether the word that is taken now is the last of its block; and how many times
        `rows` elements it has, less one: of weights as many as a token gets words, and no more than
        the array has columns, otherwise one. `span` is there if an array has more columns than
        rows.
    exhausted : In(1)
        All bytes of the program have been read from memory.
    requests, weights_of, tiles, drains : Out(stream.Signature)
        The pass, for the feeder, the weight source, the accumulators and the drain; always ready,
        since no more than `PASSES` are under way.
    weights : Out(stream.Signature(cols * 8))
    parameter_write, norm_write : Out
        Slot (and tile), part, and `rows` bytes.
    thresholds : Out(ArrayLayout(signed(value_bits + 1), 15))
        Of the drain.
    load, placement : Out(stream.Signature)
        Address and bytes for the memory reader; the rest for the placer.
    loaded : In(1)
        Pulse: everything of the LOAD is in its bank.
    write : Out(StructLayout)
        Words of a LOAD that has its data in the program.
    landed : In(1)
        Pulse of the drain.
    idle : In(1)
        The memory writer has nothing under way.
    input_address, input_bytes, output_bytes : In(32)
    done : Out(1)
        Pulse.
    fault : Out(StructLayout)
        `valid` (pulse), `kind` and `address`.
    instruction : Out(32)
        Number of the instruction that is being read, from 0.
    counted : Out(1)
        Pulse: an instruction has been decoded.
    """

    def __init__(self, config: Config):
        self.config = config
        word, whole, span = config.rows * 8, config.cols * 8, weight_span_bits(config)
        tile_bits = max(1, (config.max_channels // config.rows - 1).bit_length())
        super().__init__({
            "words": In(stream.Signature(whole)), "bits": Out(4), "align": Out(1),
            **({"span": Out(span)} if span else {}),
            "exhausted": In(1),
            "requests": Out(stream.Signature(request_layout(config))),
            "weights_of": Out(stream.Signature(weight_layout(config))),
            "tiles": Out(stream.Signature(12)),
            "drains": Out(stream.Signature(start_layout(config))),
            "weights": Out(stream.Signature(whole)),
            "parameter_write": Out(data.StructLayout({"en": 1, "slot": 2,
                                                      "part": 3 + span_bits(config),
                                                      "data": word})),
            "norm_write": Out(data.StructLayout({"en": 1, "slot": 1, "tile": tile_bits, "part": 3,
                                                 "data": word})),
            "thresholds": Out(data.ArrayLayout(signed(config.value_bits + 1), THRESHOLDS)),
            "load": Out(stream.Signature(data.StructLayout({"address": 32, "bytes": 32}))),
            "placement": Out(stream.Signature(placement_layout())),
            "write": Out(data.StructLayout({"en": 1, "destination": 2, "address": ADDRESS_BITS,
                                            "data": word})),
            "loaded": In(1), "landed": In(1), "idle": In(1),
            "input_address": In(32), "input_bytes": In(32), "output_bytes": In(32),
            "done": Out(1),
            "fault": Out(data.StructLayout({"valid": 1, "kind": 4, "address": 32})),
            "instruction": Out(32), "counted": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._now = SequencerState(self.config)
        # Width of `words`: 0 if a token has one word; and of `span`.
        self._several = span_bits(self.config)
        self._wide = weight_span_bits(self.config)
        # Of words that are no weights.
        self._word = self.words.payload[:self.config.rows * 8]
        self._pass = _view(PASS, self._now.line)
        self._load = _view(LOAD, self._now.line)
        self._take_words(m)
        self._outputs(m)
        waits = self._passes_wait(m)
        self._blocks(m)
        self._starve(m)
        self._count(m)
        with m.FSM(name="state"):
            self._read_instruction(m, waits)
            self._read_pass(m)
            self._read_load(m)
            self._end(m)
        return m

    def _take_words(self, m: Module) -> None:
        """Take a word in the states that do, and in WEIGHTS when the weight source does."""
        now = self._now
        m.d.comb += [
            self.words.ready.eq(now.takes | now.weighs & self.weights.ready),
            self.weights.valid.eq(now.weighs & self.words.valid),
            now.take.eq(self.words.valid & self.words.ready),
        ]

    def _passes_wait(self, m: Module) -> Value:
        """Count the passes under way; say whether the one that is decoded waits for them."""
        now = self._now
        # Those that use thresholds, by their slots; they land in order.
        users = Signal(PASSES)
        oldest = Signal(2)
        m.d.sync += now.under_way.eq(now.under_way + now.push - self.landed)
        with m.If(self.landed):
            m.d.sync += [users.bit_select(oldest, 1).eq(0), oldest.eq(oldest + 1)]
        with m.If(now.push):
            m.d.sync += users.bit_select(now.slot, 1).eq(self._pass.format != FORMATS["uniform"])
        return (now.under_way == PASSES) | (self._pass.has_thresholds & users.any())

    def _blocks(self, m: Module) -> None:
        """Lead every word to all that may take one, with the place that it has there."""
        now, word = self._now, self._word
        if self._wide:
            m.d.comb += self.span.eq(now.span)
        m.d.comb += [
            self.bits.eq(now.bits),
            self.parameter_write.slot.eq(now.slot), self.parameter_write.part.eq(now.place),
            self.parameter_write.data.eq(word),
            self.norm_write.slot.eq(self._pass.norm_slot), self.norm_write.tile.eq(now.tile),
            self.norm_write.part.eq(now.place), self.norm_write.data.eq(word),
            self.weights.payload.eq(self.words.payload),
            self.write.en.eq(now.inlines & self.words.valid),
            self.write.destination.eq(self._load.destination), self.write.address.eq(now.address),
            self.write.data.eq(word),
            self.thresholds.eq(now.levels[:len(self.thresholds.as_value())]),
        ]
        with m.If(~now.inlines):
            m.d.sync += [now.address.eq(self._load.base), now.left.eq(self._load.bytes)]
        with m.Elif(self.words.valid):
            m.d.sync += [now.address.eq(now.address + 1),
                         now.left.eq(now.left - self.config.rows)]

    def _starve(self, m: Module) -> None:
        """Notice that no word will ever come: none did for so long, and all have been read."""
        now = self._now
        patience = Signal(range(PATIENCE))
        with m.If(self.words.valid | ~self.exhausted):
            m.d.sync += [patience.eq(0), now.starved.eq(0)]
        with m.Else():
            m.d.sync += [patience.eq(patience + 1), now.starved.eq(now.starved | patience.all())]

    def _count(self, m: Module) -> None:
        """Count instructions, and note the ends of blocks and of their tiles."""
        now = self._now
        # A tile takes several words, so its number may be looked at a cycle late.
        m.d.sync += now.final_tile.eq(now.tile == self._pass.tiles - 1)
        with m.If(now.finished):
            m.d.sync += self.instruction.eq(self.instruction + 1)
        m.d.sync += now.finished.eq(0)
        m.d.comb += self.align.eq(now.ending)

    def _go(self, m: Module, state: str) -> None:
        """Enter a state, with the registers that say what it does with words."""
        now = self._now
        m.next = state
        m.d.sync += [now.takes.eq(state in _TAKING), now.weighs.eq(state == "WEIGHTS"),
                     now.inlines.eq(state == "INLINE"),
                     now.ending.eq(now.head_words == 1 and state in ("HEAD", "THRESHOLDS"))]

    def _steps(self, m: Module, last: Value | int, next_state: str, *, tiles: bool = False
               ) -> None:
        """Count the words of a block; go on after the last."""
        now = self._now
        with m.If(now.take):
            m.d.sync += [now.place.eq(now.place + 1),
                         now.ending.eq((now.place + 1 == last) & (now.final_tile if tiles else 1))]
            with m.If(now.place == last):
                m.d.sync += [now.place.eq(0), now.tile.eq(now.tile + 1)]
            with m.If(now.ending):
                m.d.sync += now.tile.eq(0)
                self._go(m, next_state)
        with m.If(now.starved):
            self._fail(m, "program without end")
            self._go(m, "STOPPED")

    def _read_instruction(self, m: Module, waits: Value) -> None:
        """Add the states that read and check an instruction, and go to its first block."""
        now, opcode = self._now, self._pass.opcode
        # Two steps: what is wrong is found in CHECK, what comes first of it in DECODE.
        wrong = checks(self.config, self._pass, self._load, input_bytes=self.input_bytes,
                       output_bytes=self.output_bytes)
        found = Signal(len(wrong))
        with m.State("HEAD"):
            with m.If(self.words.valid):
                m.d.sync += now.line.eq(Cat(now.line, self._word)[-len(now.line):])
            self._steps(m, now.head_words - 1, "CHECK")
        with m.State("CHECK"):
            m.d.sync += found.eq(Cat(is_so for is_so, _, _ in wrong))
            self._go(m, "DECODE")
        with m.State("DECODE"):
            with m.If(found.any()):
                # The last that is found here goes first.
                for index, (_, kind, where) in reversed([*enumerate(wrong)]):
                    with m.If(found[index]):
                        self._fail(m, kind, where)
                self._go(m, "STOPPED")
            with m.Elif(opcode == OPCODES["PASS"]):
                with m.If(~waits):
                    m.d.comb += self.counted.eq(1)
                    self._go(m, "PARAMETER")
                    with m.If(self._pass.has_thresholds):
                        self._go(m, "THRESHOLDS")
                    with m.If(self._pass.has_norm):
                        self._go(m, "NORM")
            with m.Elif(now.under_way == 0):
                m.d.comb += self.counted.eq(1)
                self._go(m, "ISSUE")
                with m.If(self._load.inline):
                    self._go(m, "INLINE")
                    m.d.sync += now.ending.eq(self._load.bytes == self.config.rows)
                with m.If(opcode == OPCODES["END"]):
                    self._go(m, "FINISH")

    def _read_pass(self, m: Module) -> None:
        """Add the states that read a PASS: what goes with it, its start, its weights."""
        now, config = self._now, self.config
        with m.State("NORM"):
            m.d.comb += self.norm_write.en.eq(self.words.valid)
            self._steps(m, PARTS - 1, "PARAMETER", tiles=True)
            with m.If(now.take & now.ending & self._pass.has_thresholds):
                self._go(m, "THRESHOLDS")
        with m.State("THRESHOLDS"):
            # Of each threshold only the bits that the drain takes are kept.
            level = config.value_bits + 1
            incoming = Cat(self._word[low:low + level]
                           for low in range(0, config.rows * 8, THRESHOLD.bits))
            with m.If(self.words.valid):
                m.d.sync += now.levels.eq(Cat(now.levels, incoming)[-len(now.levels):])
            self._steps(m, now.head_words - 1, "PARAMETER")
        with m.State("PARAMETER"):
            m.d.comb += self.parameter_write.en.eq(self.words.valid)
            self._steps(m, Cat(Const(PARTS - 1), self._pass.words[:self._several])
                        if self._several else PARTS - 1, "PUSH")
        with m.State("PUSH"):
            m.d.comb += now.push.eq(1)
            m.d.sync += now.slot.eq(now.slot + 1)
            with m.If(self._pass.stationary):
                m.d.sync += now.finished.eq(1)
                self._go(m, "HEAD")
            with m.Else():
                m.d.sync += now.bits.eq(self._pass.weight_bits)
                if self._wide:
                    m.d.sync += now.span.eq(self._span())
                self._go(m, "WEIGHTS")
        with m.State("WEIGHTS"):
            self._steps(m, config.rows - 1, "HEAD", tiles=True)
            with m.If(now.take & now.ending):
                m.d.sync += [now.bits.eq(8), now.finished.eq(1)]
                if self._wide:
                    m.d.sync += now.span.eq(0)

    def _span(self) -> Value:
        """Return how many times `rows` elements a row of the pass's weights has, less one."""
        words = self._pass.words
        if not paired(self.config):
            return words
        # With pairs, as many as there are columns at most.
        return words[:self._wide] | words[self._wide:self._several].any().replicate(self._wide)

    def _read_load(self, m: Module) -> None:
        """Add the states of a LOAD: from memory, or from the program itself."""
        now, config = self._now, self.config
        with m.State("ISSUE"):
            m.d.comb += [self.load.valid.eq(self.placement.ready),
                         self.placement.valid.eq(self.load.ready)]
            with m.If(self.load.ready & self.placement.ready):
                self._go(m, "LOADING")
        with m.State("INLINE"):
            with m.If(self.words.valid):
                m.d.sync += now.ending.eq(now.left == 2 * config.rows)
                with m.If(now.ending):
                    m.d.sync += now.finished.eq(1)
                    self._go(m, "HEAD")
            with m.If(now.starved):
                self._fail(m, "program without end")
                self._go(m, "STOPPED")
        with m.State("LOADING"):
            with m.If(self.loaded):
                m.d.sync += now.finished.eq(1)
                self._go(m, "HEAD")

    def _end(self, m: Module) -> None:
        """Add the states of END, and the one that nothing leaves."""
        with m.State("FINISH"):
            with m.If(self.idle):
                m.d.comb += self.done.eq(1)
                self._go(m, "STOPPED")
        with m.State("STOPPED"):
            pass

    def _outputs(self, m: Module) -> None:
        """Give the pass, or the LOAD, to its engines."""
        fields: Any = self._pass
        slot, push = self._now.slot, self._now.push
        for target in (self.requests, self.weights_of, self.drains):
            names = target.payload.shape().members
            m.d.comb += [target.payload[name].eq(fields[name])
                         for name in names if name not in ("slot", "bank")]
            if target is self.weights_of and self._wide and doubled(self.config):
                # Stationary weights are packed too.
                m.d.comb += target.payload.words.eq(self._span())
            m.d.comb += target.valid.eq(push)
        m.d.comb += [
            self.drains.payload.slot.eq(slot), self.drains.payload.bank.eq(slot[0]),
            self.tiles.valid.eq(push), self.tiles.payload.eq(fields.tiles),
            self.load.payload.address.eq(self.input_address + self._load.offset),
            self.load.payload.bytes.eq(self._load.bytes),
            *(self.placement.payload[name].eq(self._load[name])
              for name in self.placement.payload.shape().members),
        ]

    def _fail(self, m: Module, kind: str, address: Value | int = 0) -> None:
        m.d.comb += [self.fault.valid.eq(1), self.fault.kind.eq(FAULTS[kind]),
                     self.fault.address.eq(address)]
