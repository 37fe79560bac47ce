# SPDX-License-Identifier: Apache-2.0
"""From words of the scratchpad to operands of the systolic array, a word a cycle."""

__all__ = ["OperandPath"]

from functools import partial

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.array.systolic import SystolicArray
from hw.layernorm.lane import code_mask, lane, saturate
from hw.layernorm.scale import factors_word
from hw.lib.layouts import mode_bits, packing
from hw.lib.stream import delay, layout, register
from hw.operand.decode import Decoder
from hw.operand.format import PLACES, OperandFormat
from hw.operand.levels import LevelLookup
from hw.operand.memory import NormParameters
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS, FORMATS, LOG2_BITS
from vitforge.spec.instruction import MODES, OPERANDS, PASS
from vitforge.spec.probability_levels import FRACTION
from vitforge.spec.sizes import doubled, stream_bits, stream_tokens, token_bits

#: Fields of a PASS that go with every word.
FIELDS = ("operand", "operand_format", "operand_zero_point", "operand_m", "operand_signed",
          "operand_bits", "norm_zero_point", "norm_slot", "probability_slot", "softmax_multiplier",
          "softmax_shift")
#: The mask of a whole code.
_BYTE = (1 << CODE_BITS) - 1


class OperandPath(wiring.Component):
    """`rows` lanes that decode codes, normalise them first (norm), or code probabilities (softmax).

    ``(mantissa, shift) = decode(plain ? code : norm ? layernorm(code) : attention(score))``

    Rounding: decoding is exact; norm and softmax end in a floor with the half in its offset
    (`hw.operand.format`), and levels look up entries that are rounded already.

    One pipeline for all modes (see `hw.operand.format`), which moves as a whole on a cycle with
    `advance`; words of any modes follow each other without a gap. A request enters in a step, its
    word from the bank two steps later, and its operands leave `latency` steps after the request.

    Bit-exact with the `decode` of `golden.formats`, with `golden.units.layernorm.layernorm`
    (decoded as uniform codes), and with `golden.units.softmax.log_softmax` (decoded as log2 codes
    of attention_bits; or `golden.units.softmax_levels.level_words`, decoded as the fields say),
    given the factors that the statistics have found.

    What a request uses must have been written in an earlier cycle, and may be overwritten `latency`
    steps later.

    Members
    -------
    advance : In(1)
        The pipeline takes a step.
    i : In(StructLayout)
        A request: `valid`, `token`, `tile` (of the norm parameters), `last` and, if there are pairs
        of weights, `mode` (both go to the array), `blank` (all operands are 0), `valid_rows`
        (softmax: elements from there on are 0), and the fields of
        `vitforge.spec.instruction.PASS` that say how to decode.
    codes : In(rows * 8)
        The word of the request of two steps ago.
    o : Out(Signature({valid, payload}))
        Activation words of `hw.array.systolic.SystolicArray`.
    offers : Out(1)
        What ``o.valid`` will be in the next cycle.
    kept : Out(StructLayout({en, last, data}))
        Only where operands may be kept, ``latency - 1`` steps after a request with `keep`: the low
        4 bits of every code, 0 where there is no operand, and whether it is its tile's last word.
    norm_write : In(StructLayout({en, slot, tile, part, data}))
        An eighth of a tile's norm parameters (`hw.operand.memory.NormParameters`).
    factor_write : In(StructLayout({en, token, payload}))
        Factors of a token, `hw.layernorm.scale.factors_word`.
    probability_write : In(StructLayout({en, slot, token, offset}))
        What `hw.softmax.statistics.SoftmaxStatistics` has found for a token.
    """

    #: Steps from a request to its operands.
    latency = 13

    def __init__(self, config: Config):
        self.config = config
        self.format = OperandFormat(config)
        word = layout(SystolicArray.words(config)["a"])
        widths = {item.name: item.bits for item in PASS.fields}
        token = stream_bits(config)
        self._parameters = NormParameters(config)
        super().__init__({
            "advance": In(1),
            "i": In(data.StructLayout({
                "valid": 1, "token": token, "tile": range(max(2, self.format.tiles)), "last": 1,
                "blank": 1, "valid_rows": range(config.rows + 1),
                **{name: widths[name] for name in FIELDS}, **mode_bits(config),
                **dict.fromkeys(packing(config, "keep"), 1)})),
            "codes": In(config.rows * CODE_BITS),
            "o": Out(wiring.Signature({"valid": Out(1), "payload": Out(word)})),
            "offers": Out(1),
            **({"kept": Out(data.StructLayout({"en": 1, "last": 1, "data": config.rows * 4}))}
               if doubled(config) else {}),
            "norm_write": In(self._parameters.signature.members["write"].shape),
            "factor_write": In(data.StructLayout({
                "en": 1, "token": token, "payload": layout(factors_word(config))})),
            "probability_write": In(data.StructLayout({
                "en": 1, "slot": 1, "token": token_bits(config),
                "offset": self.format.softmax.offset})),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        late = partial(delay, m, advance=self.advance)
        request, form = self.i, self.format
        norm = _steps(m, self.advance, request.operand == OPERANDS["norm"], 8, "norm")
        softmax = _steps(m, self.advance, request.operand == OPERANDS["softmax"], 8, "softmax")

        m.submodules.parameters = parameters = self._parameters
        place = Signal(parameters.early.shape())
        m.d.comb += [
            place.slot.eq(request.norm_slot),
            place.tile.eq(request.tile),
            parameters.write.eq(self.norm_write),
            parameters.advance.eq(self.advance),
            parameters.early.eq(place),
            parameters.late.eq(late(place.as_value(), cycles=6, name="place")),
        ]

        # Step 2: the word, its zero point and shifts.
        zero_point = late(Mux(norm[1], late(request.norm_zero_point, name="norm_zero_point"),
                              softmax[1] << CODE_BITS - 1), name="front_zero_point")
        shifts = [late(parameters.shift[n] & norm[1].replicate(len(parameters.shift[n])),
                       name=f"shift_{n}") for n in range(self.config.rows)]
        count, total, coarse, root = self._factors(m, norm, softmax)

        # Step 11: who has an operand, and of what format.
        kept = Mux(request.blank, 0, Mux(softmax[0], request.valid_rows, self.config.rows))
        kept = late(kept, cycles=11, name="kept")
        decoder = self._decoder(m, norm[0], softmax[0])
        mask = late(late(Mux(norm[8], code_mask(late(request.operand_bits, cycles=8,
                                                     name="norm_bits")), _BYTE), name="mask"),
                    cycles=2, name="code_mask")
        lookup = self._lookup(m, softmax[8]) if form.levels else None
        for n in range(self.config.rows):
            code = self.codes.word_select(n, CODE_BITS)
            # In step 9.
            gamma = self._parameter(m, f"gamma_{n}", parameters.gamma[n], norm[8], softmax[8],
                                    form.plain.gamma, form.distance.gamma)
            offset = self._parameter(m, f"beta_{n}", parameters.offset[n], norm[8], softmax[8],
                                     form.plain.offset, form.distance.offset)
            normal, y = lane(m, form.lane, n, self.advance, x=(code - zero_point) << shifts[n],
                             count=count[n % len(count)], total=total, coarse=coarse,
                             root=root[n % len(root)], gamma=gamma, offset=offset)
            result = saturate(y, mask)
            if lookup:
                # One of the two is 0.
                m.d.comb += lookup.distances[n].eq(normal >> form.level_drop)
                result = result | lookup.o[n]
            result = late(result, name=f"code_{n}")
            lives = late(n < kept, name=f"lives_{n}")
            if doubled(self.config):
                m.d.comb += self.kept.data.word_select(n, 4).eq(Mux(lives, result[:4], 0))
            mantissa, shift = decoder.decode(result)
            with m.If(self.advance):
                m.d.sync += [
                    self.o.payload.mantissa[n].eq(Mux(lives, mantissa, 0)),
                    self.o.payload.shift[n].eq(shift),
                ]
        m.d.comb += [
            self.o.payload.last.eq(late(request.last, cycles=self.latency, name="last")),
            self.offers.eq(Mux(self.advance, late(request.valid, cycles=self.latency - 1,
                                                  name="valid", init=0), self.o.valid)),
        ]
        m.d.sync += self.o.valid.eq(self.offers)
        if doubled(self.config):
            m.d.comb += [
                self.kept.en.eq(self.advance & late(request.valid & request.keep,
                                                    cycles=self.latency - 1, name="keeps", init=0)),
                self.kept.last.eq(late(request.last, cycles=self.latency - 1, name="kept_last")),
            ]
        for name in mode_bits(self.config):
            m.d.comb += self.o.payload[name].eq(late(request[name], cycles=self.latency,
                                                     name=name))
        return m

    def _factors(self, m: Module, norm: list[Value], softmax: list[Value]) \
            -> tuple[list[Signal], Signal, Signal, list[Signal]]:
        """Read the token's factors; each is there in the step in which the lanes use it."""
        request, form = self.i, self.format
        late = partial(delay, m, advance=self.advance)
        write = self.factor_write
        factors: data.View = data.View(layout(factors_word(self.config)), self._read(
            m, "factors", stream_tokens(self.config), write.en, write.token,
            write.payload.as_value(), request.token))
        write = self.probability_write
        found = self._read(m, "probabilities", 2 * self.config.max_tokens, write.en,
                           Cat(write.slot, write.token), write.offset,
                           Cat(request.probability_slot, request.token[:token_bits(self.config)]))
        multiplier = late(request.softmax_multiplier[:form.softmax.multiplier], cycles=2,
                          name="multiplier")

        # Step 3: of this mode. What goes to all multipliers is there three times, since they lie
        # far apart; the copies are reset to 0, to ones, and not at all, or a synthesizer would
        # merge them.
        selected = Mux(norm[2], factors.count, Mux(softmax[2], multiplier, form.plain.count))
        count = [self._copy(m, f"count_{n}", selected, unsigned(form.count_bits), init)
                 for n, init in enumerate((None, 0, -1))]
        total = Signal(signed(form.total_bits), reset_less=True)
        row: Value = (found.as_signed() + 1) << form.surplus
        if form.levels:
            shift = late(request.softmax_shift.as_signed(), cycles=2, name="shift")
            row = (found.as_signed() << form.surplus) + (shift << PLACES - FRACTION)
        coarse = Signal(range(max(2, len(form.lane.shifts))), reset_less=True)
        root = Signal(self.config.rsqrt_bits, reset_less=True)
        with m.If(self.advance):
            m.d.sync += [
                total.eq(Mux(norm[2], factors.total,
                             Mux(softmax[2], row, 0))),
                coarse.eq(Mux(norm[2], factors.coarse,
                              Mux(softmax[2], form.distance.coarse, form.plain.coarse))),
                root.eq(Mux(norm[2], factors.root, 1 << self.config.rsqrt_bits - 1)),
            ]
        total = late(total, cycles=2, name="total")
        coarse = late(coarse, cycles=3, name="coarse")
        root = late(root, cycles=3, name="root")
        roots = [self._copy(m, f"root_copy_{n}", root, root.shape(), init)
                 for n, init in enumerate((None, 0, -1))]
        return count, total, coarse, roots

    def _read(self, m: Module, name: str, depth: int, en: Value, place: Value, value: Value,
              address: Value) -> Value:
        """Build a memory with its output register, two steps behind `address`."""
        memory: Memory = Memory(shape=unsigned(len(value)), depth=depth, init=[],
                                attrs={"no_rw_check": "1"})
        m.submodules[name] = memory
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [write.en.eq(en), write.addr.eq(place), write.data.eq(value),
                     read.addr.eq(address), read.en.eq(self.advance)]
        return delay(m, read.data, advance=self.advance, name=f"{name}_read")

    def _copy(self, m: Module, name: str, value: Value, shape: Shape, init: int | None) -> Signal:
        return register(m, value, advance=self.advance, name=name, shape=shape,
                        init=None if init is None else init & (1 << shape.width) - 1)

    def _parameter(self, m: Module, name: str, value: Value, norm: Value, softmax: Value,
                   plain: int, distance: int) -> Signal:
        """Register a channel's parameter, or the mode's constant."""
        return register(m, Mux(norm, value, Mux(softmax, distance, plain)), advance=self.advance,
                        name=name, shape=value.shape())

    def _lookup(self, m: Module, softmax: Value) -> LevelLookup:
        """Build the table of probabilities; its words are there in step 11."""
        m.submodules.levels = lookup = LevelLookup(self.config)
        m.d.comb += [
            lookup.advance.eq(self.advance),
            lookup.live.eq(softmax),
            lookup.m.eq(delay(m, self.i.operand_m, advance=self.advance, cycles=8,
                              name="level_m")),
        ]
        return lookup

    def _decoder(self, m: Module, norm: Value, softmax: Value) -> Decoder:
        """Delay what says how to decode; norm gives uniform codes, softmax log2 codes if any."""
        request, own = self.i, softmax
        if self.format.levels:
            own = Const(0)
        late = partial(delay, m, advance=self.advance, cycles=11)
        form = Mux(norm, FORMATS["uniform"],
                   Mux(own, FORMATS["log2"], request.operand_format))[:2]
        deep = not self.format.levels and self.config.attention_bits > LOG2_BITS
        return Decoder(
            m, self.config, self.advance, format=late(form, name="format"),
            zero_point=late(request.operand_zero_point, name="zero_point"),
            scale=late(request.operand_m, name="scale"),
            sign=late(request.operand_signed, name="sign"),
            bits=late(Mux(own, self.format.log2_bits, request.operand_bits)[:4], name="bits"),
            whole=late(softmax, name="whole") if deep else 0,
            pairs=late(request.mode == MODES["quad"], name="pairs")
            if doubled(self.config) else None)


def _steps(m: Module, advance: Value, value: Value, cycles: int, name: str) -> list[Value]:
    """Return `value` after 0 to `cycles` steps."""
    steps = [value]
    for index in range(cycles):
        steps.append(delay(m, steps[-1], advance=advance, name=f"{name}_{index}"))
    return steps
