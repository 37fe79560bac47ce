# SPDX-License-Identifier: Apache-2.0
"""Read the program word by word, check it, and hand every part of it to its engine."""

__all__ = ["FAULTS", "Sequencer"]

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.lib.layouts import layout, placement_layout
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import (
    DESTINATIONS,
    LINE,
    LOAD,
    LOOPS,
    OPCODES,
    OPERANDS,
    OPERATIONS,
    PASS,
    STATISTICS,
    THRESHOLD,
)
from vitforge.spec.pass_fields import DRAIN_FIELDS, PASSES, REQUEST_FIELDS, WEIGHT_FIELDS
from vitforge.spec.register_map import FAULTS
from vitforge.spec.requant_fields import THRESHOLDS
from vitforge.spec.sizes import ADDRESS_BITS
from vitforge.spec.softmax_widths import ShiftWidths
from vitforge.spec.words import Word

#: Parts of `cols` bytes in the parameters of `cols` channels.
PARTS = 8
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
    a PASS NORM (8 words a tile), THRESHOLDS (a line), PARAMETER (8 words), PUSH, WEIGHTS (`rows`
    words a tile); for a LOAD ISSUE and LOADING, or INLINE (a word of the bank each), for END
    FINISH. DECODE of a PASS waits while `PASSES` passes are under way, and if it brings thresholds
    while one that uses them is; that of a LOAD and of END until none is.

    Members
    -------
    words, bits, align :
        Words of `cols` elements, the width of a packed element, and whether the word that is
        taken now is the last of its block.
    exhausted : In(1)
        All bytes of the program have been read from memory.
    requests, weights_of, tiles, drains : Out(streams)
        The pass, for the feeder, the weight source, the accumulators and the drain; always ready,
        since no more than `PASSES` are under way.
    weights : Out(stream of cols * 8 bits)
    parameter_write, norm_write : Out
        Slot (and tile), part, and `cols` bytes.
    thresholds : Out(ArrayLayout(signed(value_bits + 1), 15))
        Of the drain.
    load, placement : Out(streams)
        Address and bytes for the memory reader; the rest for the placer.
    loaded : In(1)
        Pulse: everything of the LOAD is in its bank.
    write : Out(struct)
        Words of a LOAD that has its data in the program.
    landed : In(1)
        Pulse of the drain.
    idle : In(1)
        The memory writer has nothing under way.
    input_address, input_bytes, output_bytes : In(32)
    done : Out(1)
        Pulse.
    fault : Out(struct)
        `valid` (pulse), `kind` and `address`.
    instruction : Out(32)
        Number of the instruction that is being read, from 0.
    counted : Out(1)
        Pulse: an instruction has been decoded.
    """

    def __init__(self, config: Config):
        self.config = config
        word = config.cols * 8
        tile_bits = max(1, (config.max_channels // config.rows - 1).bit_length())
        super().__init__({
            "words": In(stream.Signature(word)), "bits": Out(4), "align": Out(1),
            "exhausted": In(1),
            "requests": Out(stream.Signature(layout(REQUEST_FIELDS))),
            "weights_of": Out(stream.Signature(layout(WEIGHT_FIELDS))),
            "tiles": Out(stream.Signature(12)),
            "drains": Out(stream.Signature(layout(DRAIN_FIELDS, slot=2, bank=1))),
            "weights": Out(stream.Signature(word)),
            "parameter_write": Out(data.StructLayout({"en": 1, "slot": 2, "part": 3,
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
        config = self.config
        head_words = max(1, LINE // config.cols)
        line = Signal(LINE * 8, reset_less=True)
        self._pass = _view(PASS, line)
        self._load = _view(LOAD, line)

        address = Signal(ADDRESS_BITS, reset_less=True)
        left = Signal(32, reset_less=True)
        place = Signal(range(max(head_words, PARTS, config.rows)))
        tile = Signal(12)
        slot = Signal(2)
        under_way = Signal(range(PASSES + 1))
        push = Signal()
        take = Signal()
        # Much of what is in front of the sequencer waits for this, so it comes from registers.
        takes = Signal(init=1)
        weighs = Signal()
        m.d.comb += [
            self.words.ready.eq(takes | weighs & self.weights.ready),
            self.weights.valid.eq(weighs & self.words.valid),
            take.eq(self.words.valid & self.words.ready),
        ]
        m.d.sync += under_way.eq(under_way + push - self.landed)

        self._outputs(m, slot, push)

        # Passes under way that use thresholds, by their slots; they land in order.
        users = Signal(PASSES)
        oldest = Signal(2)
        with m.If(self.landed):
            m.d.sync += [users.bit_select(oldest, 1).eq(0), oldest.eq(oldest + 1)]
        with m.If(push):
            m.d.sync += users.bit_select(slot, 1).eq(self._pass.format != FORMATS["uniform"])
        waits = (under_way == PASSES) | (self._pass.has_thresholds & users.any())
        bits = Signal(4, init=8)
        m.d.comb += [
            self.bits.eq(bits),
            self.parameter_write.slot.eq(slot), self.parameter_write.part.eq(place),
            self.parameter_write.data.eq(self.words.payload),
            self.norm_write.slot.eq(self._pass.norm_slot), self.norm_write.tile.eq(tile),
            self.norm_write.part.eq(place), self.norm_write.data.eq(self.words.payload),
            self.weights.payload.eq(self.words.payload),
            self.write.destination.eq(self._load.destination), self.write.address.eq(address),
            self.write.data.eq(self.words.payload),
        ]

        # Of each threshold only the bits that the drain takes are kept.
        level = config.value_bits + 1
        levels = Signal(level * (THRESHOLDS + 1), reset_less=True)
        incoming = Cat(self.words.payload[low:low + level]
                       for low in range(0, config.cols * 8, THRESHOLD.bits))
        m.d.comb += self.thresholds.eq(levels[:level * THRESHOLDS])

        patience = Signal(range(PATIENCE))
        starved = Signal()
        # After so long no word will ever come.
        with m.If(self.words.valid | ~self.exhausted):
            m.d.sync += [patience.eq(0), starved.eq(0)]
        with m.Else():
            m.d.sync += [patience.eq(patience + 1), starved.eq(starved | patience.all())]

        opcode = self._pass.opcode
        # Two steps: what is wrong is found in CHECK, what comes first of it in DECODE.
        checks = self._checks()
        found = Signal(len(checks))
        # A tile takes several words, so its number may be looked at a cycle late.
        final_tile = Signal()
        m.d.sync += final_tile.eq(tile == self._pass.tiles - 1)
        finished = Signal()         # an instruction has been read, which its number says later
        with m.If(finished):
            m.d.sync += self.instruction.eq(self.instruction + 1)
        m.d.sync += finished.eq(0)
        # The next word is the last of its block. All in front of the sequencer waits for this, too.
        ending = Signal(init=head_words == 1)

        def go(state: str) -> None:
            m.next = state
            m.d.sync += [takes.eq(state in _TAKING), weighs.eq(state == "WEIGHTS"),
                         ending.eq(head_words == 1 and state in ("HEAD", "THRESHOLDS"))]

        def steps(last: int, next_state: str, *, tiles: bool = False) -> None:
            """Count the words of a block; go on after the last."""
            with m.If(take):
                m.d.sync += [place.eq(place + 1),
                             ending.eq((place + 1 == last) & (final_tile if tiles else 1))]
                with m.If(place == last):
                    m.d.sync += [place.eq(0), tile.eq(tile + 1)]
                with m.If(ending):
                    m.d.sync += tile.eq(0)
                    go(next_state)
            with m.If(starved):
                self._fail(m, "program without end")
                go("STOPPED")

        m.d.comb += self.align.eq(ending)
        with m.FSM(name="state"):
            with m.State("HEAD"):
                with m.If(self.words.valid):
                    m.d.sync += line.eq(Cat(line, self.words.payload)[-len(line):])
                steps(head_words - 1, "CHECK")
            with m.State("CHECK"):
                m.d.sync += found.eq(Cat(wrong for wrong, _, _ in checks))
                go("DECODE")
            with m.State("DECODE"):
                m.d.sync += [address.eq(self._load.base), left.eq(self._load.bytes)]
                with m.If(found.any()):
                    # The last that is found here goes first.
                    for index, (_, kind, where) in reversed([*enumerate(checks)]):
                        with m.If(found[index]):
                            self._fail(m, kind, where)
                    go("STOPPED")
                with m.Elif(opcode == OPCODES["PASS"]):
                    with m.If(~waits):
                        m.d.comb += self.counted.eq(1)
                        go("PARAMETER")
                        with m.If(self._pass.has_thresholds):
                            go("THRESHOLDS")
                        with m.If(self._pass.has_norm):
                            go("NORM")
                with m.Elif(under_way == 0):
                    m.d.comb += self.counted.eq(1)
                    go("ISSUE")
                    with m.If(self._load.inline):
                        go("INLINE")
                        m.d.sync += ending.eq(self._load.bytes == config.cols)
                    with m.If(opcode == OPCODES["END"]):
                        go("FINISH")
            with m.State("NORM"):
                m.d.comb += self.norm_write.en.eq(self.words.valid)
                steps(PARTS - 1, "PARAMETER", tiles=True)
                with m.If(take & ending & self._pass.has_thresholds):
                    go("THRESHOLDS")
            with m.State("THRESHOLDS"):
                with m.If(self.words.valid):
                    m.d.sync += levels.eq(Cat(levels, incoming)[-len(levels):])
                steps(head_words - 1, "PARAMETER")
            with m.State("PARAMETER"):
                m.d.comb += self.parameter_write.en.eq(self.words.valid)
                steps(PARTS - 1, "PUSH")
            with m.State("PUSH"):
                m.d.comb += push.eq(1)
                m.d.sync += slot.eq(slot + 1)
                with m.If(self._pass.stationary):
                    m.d.sync += finished.eq(1)
                    go("HEAD")
                with m.Else():
                    m.d.sync += bits.eq(self._pass.weight_bits)
                    go("WEIGHTS")
            with m.State("WEIGHTS"):
                steps(config.rows - 1, "HEAD", tiles=True)
                with m.If(take & ending):
                    m.d.sync += [bits.eq(8), finished.eq(1)]
            with m.State("ISSUE"):
                m.d.comb += [self.load.valid.eq(self.placement.ready),
                             self.placement.valid.eq(self.load.ready)]
                with m.If(self.load.ready & self.placement.ready):
                    go("LOADING")
            with m.State("INLINE"):
                m.d.comb += self.write.en.eq(self.words.valid)
                with m.If(self.words.valid):
                    m.d.sync += [address.eq(address + 1), left.eq(left - config.cols),
                                 ending.eq(left == 2 * config.cols)]
                    with m.If(ending):
                        m.d.sync += finished.eq(1)
                        go("HEAD")
                with m.If(starved):
                    self._fail(m, "program without end")
                    go("STOPPED")
            with m.State("LOADING"):
                with m.If(self.loaded):
                    m.d.sync += finished.eq(1)
                    go("HEAD")
            with m.State("FINISH"):
                with m.If(self.idle):
                    m.d.comb += self.done.eq(1)
                    go("STOPPED")
            with m.State("STOPPED"):
                pass
        return m

    def _outputs(self, m: Module, slot: Value, push: Value) -> None:
        fields: Any = self._pass
        for target in (self.requests, self.weights_of, self.drains):
            names = target.payload.shape().members
            m.d.comb += [target.payload[name].eq(fields[name])
                         for name in names if name not in ("slot", "bank")]
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

    def _checks(self) -> list[tuple[Value, str, Value | int]]:
        """Look at the whole instruction: what is wrong, its fault and address; first goes first."""
        config, fields, load = self.config, self._pass, self._load
        is_pass = fields.opcode == OPCODES["PASS"]
        is_load = fields.opcode == OPCODES["LOAD"]
        raw = is_pass & (fields.operation == OPERATIONS["raw"])
        counts = [load[f"count_{loop}"] == 0 for loop in range(LOOPS)]

        def beyond(size: Value, *parts: Value) -> Value:
            # Of a difference of three synthesis makes one carry chain; a sum and a comparison
            # are two.
            rest = size
            for part in parts:
                rest = rest - part
            return rest[-1]

        coded = is_pass & ~raw
        searched = fields.format >= FORMATS["log2"]
        wrong_bits = (fields.bits < 2) | (fields.bits > Mux(searched, 4, 8))
        scales = (fields.operation == OPERATIONS["gelu"]) \
            | (fields.operation == OPERATIONS["residual"])
        softmax = (fields.operand == OPERANDS["softmax"]) \
            | (fields.statistics == STATISTICS["softmax"])
        wide_factor = scales & (fields.multiplier2 >> config.factor_bits).any()

        wrong = (load.destination > DESTINATIONS["residual"]) | Cat(counts).any()
        if smallest := (config.lanes - 1).bit_length():
            wrong |= load.piece < smallest
        result = fields.tokens << (config.cols * 4).bit_length() - 1
        return [
            (~is_pass & ~is_load & (fields.opcode != OPCODES["END"]), "unknown opcode",
             fields.opcode),
            (is_pass & ((fields.tokens == 0) | (fields.tokens > config.max_tokens)
                        | (fields.tiles == 0)), "bad length", 0),
            (is_pass & ((fields.operand == OPERANDS["norm"]) | fields.has_norm)
             & (fields.tiles > config.max_channels // config.rows), "bad length", 0),
            (is_pass & ~fields.stationary
             & ((fields.weight_bits < 2) | (fields.weight_bits > config.weight_bits)),
             "bad field", 0),
            (is_pass & ((fields.operand == 3) | (fields.statistics == 3)
                        | ((fields.destination == DESTINATIONS["memory"]) != raw)
                        | (raw & (fields.statistics != STATISTICS["none"]))), "bad field", 0),
            (coded & (wrong_bits | wide_factor)
             | is_pass & softmax & (fields.softmax_multiplier >> ShiftWidths.multiplier).any(),
             "bad field", 0),
            (raw & (fields.offset[:6] != 0), "misaligned address", fields.offset),
            (raw & beyond(self.output_bytes, fields.offset, result),
             "address outside the window", fields.offset),
            (is_load & (load.bytes == 0), "bad length", 0),
            (is_load & Mux(load.inline, load.bytes[:(config.cols - 1).bit_length()] != 0,
                           load.offset[:6] | load.bytes[:6] != 0), "misaligned address",
             load.offset),
            (is_load & ~load.inline & beyond(self.input_bytes, load.offset, load.bytes),
             "address outside the window", load.offset),
            (is_load & (wrong | (load.piece > (config.rows - 1).bit_length())), "bad field", 0),
        ]
