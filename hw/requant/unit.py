# SPDX-License-Identifier: Apache-2.0
"""Two-scale requantizer: from accumulators to codes of any activation format, `lanes` a cycle."""

__all__ = ["Requantizer"]

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import Skid, delay, signature
from hw.requant.encode import Encode
from hw.requant.operation import Operation
from hw.requant.scale import Scale
from hw.requant.thresholds import last_of, load_thresholds, mask_of, next_to
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.gelu import bump_bits, bump_table
from vitforge.spec.requant_fields import OPERATIONS, THRESHOLDS
from vitforge.spec.words import Field, Word

#: Steps of a lane before its second and its third part.
_SECOND = Scale.latency
_THIRD = _SECOND + Operation.latency


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What all lanes take of a word, each in the step that uses it."""

    kind: Signal
    kind_late: Signal
    factor: Signal
    more: Signal
    early_search: Signal
    search: Signal
    offset: Signal
    mask: Signal
    late_mask: Signal
    flip: Signal
    lowest: Signal


class Requantizer(wiring.Component):
    """Bias, dyadic multiply, GeLU or residual, and the code of the layer's format.

    ``code = lowest + encode(operation(round_shift((acc + bias) * multiplier, shift)))``

    Rounding: half up at the end of each of the three steps (`hw.requant.scale`,
    `hw.requant.operation`, `hw.requant.encode`).

    Bit-exact with :func:`golden.units.requant.requantize`, for the formats that the configuration
    has; what a word with another one gives is not defined. A word is `lanes` elements; latency
    `latency` cycles, initiation interval 1. The two-scale format is a reconstruction [R] of
    TSPTQ-ViT's V-2SF with MPTQ-ViT's run-time m.

    Parameters
    ----------
    config
        Lanes and widths.
    flowing
        Whoever takes the codes is always ready; the same on every cycle, with fewer LUTs.

    Members
    -------
    i : In(signature(words(config)["i"]))
        Accumulators with their parameters.
    o : Out(signature(words(config)["o"]))
        Codes.
    thresholds : In(ArrayLayout(signed(value_bits + 1), 15))
        What `golden.units.encoding.thresholds` returns for the formats two-scale, log2 and table;
        all but numbers 3, 7 and 11 are cut to `value_bits`. Held from the first word that uses them
        being taken until the last has left.
    """

    latency = Scale.latency + Operation.latency + Encode.latency + Skid.latency

    def __init__(self, config: Config, *, flowing: bool = False):
        self.config = config
        self.flowing = flowing
        words = self.words(config)
        super().__init__({
            "i": In(signature(words["i"])),
            "o": Out(signature(words["o"])),
            "thresholds": In(data.ArrayLayout(signed(config.value_bits + 1), THRESHOLDS)),
        })

    @staticmethod
    def words(config: Config) -> dict[str, Word]:
        """Return the words of the streams `i` and `o`."""
        lanes = config.lanes
        return {
            "i": Word((
                Field("acc", config.acc_bits, True, lanes, "accumulators"),
                Field("bias", config.acc_bits, True, lanes, "added to the accumulators"),
                Field("multiplier", config.multiplier_bits, False, lanes, "then multiplied"),
                Field("shift", 6, False, lanes, "then shifted right, rounding half up"),
                Field("residual", config.norm_bits, True, lanes,
                      "decoded residual operands; ignored but by the operation residual"),
                Field("encode_shift", 4, False, lanes, "right shift before the code"),
                Field("operation", 2, text="0 linear, 1 GeLU, 2 residual",
                      values=tuple(OPERATIONS)),
                Field("multiplier2", config.factor_bits, text="factor of GeLU's result (all "
                      "its bits are fraction bits) or of the residual"),
                Field("format", 2, text="0 uniform or PTF, 1 two-scale, 2 log2, 3 table",
                      values=tuple(FORMATS)),
                Field("zero_point", 8, text="of uniform codes"),
                Field("bits", 4, text="width of a code, 2 to 8"),
                Field("m", 4, text="shift between the regions of two-scale codes"),
                Field("signed", 1, text="whether two-scale codes are two's complement"),
                Field("lowest", 8, text="added to the code"),
                Field("last", 1, text="handed through"),
            )),
            "o": Word((
                Field("codes", 8, False, lanes, "codes, zero above their width"),
                Field("last", 1, text="of the input word"),
            )),
        }

    def _tables(self, m: Module, advance: Value, indices: list[Value]) -> list[Value]:
        """Look the bumps up in two steps: one memory with two ports for two lanes."""
        results: list[Value] = []
        for first in range(0, len(indices), 2):
            memory = Memory(shape=bump_bits(self.config), depth=len(bump_table(self.config)),
                            init=bump_table(self.config))
            m.submodules[f"bump_{first}"] = memory
            for index in indices[first:first + 2]:
                read = memory.read_port()
                m.d.comb += [read.en.eq(advance), read.addr.eq(index)]
                results.append(delay(m, read.data, advance=advance, name="bump"))
        return results

    def _shared(self, m: Module, late: Callable[[Value, int, str], Signal], early: int) -> _Shared:
        """Delay the fields that all lanes share, each to the step that uses it."""
        word = self.i.payload

        def decoded(value: Value, name: str) -> Signal:
            signal = Signal.like(value, name=name)
            m.d.comb += signal.eq(value)
            return signal

        second, third = _SECOND, _THIRD - early
        kind = late(word.operation, second + 2, "operation")
        kind_late = late(kind, 2, "operation_late")
        factor = late(word.multiplier2, second + 5, "factor")
        kinds = self.config.result_formats

        def is_kind(kind: str, name: str) -> Value:
            return decoded(word.format == FORMATS[kind], name) if kind in kinds else Const(0, 1)

        two_scale, log2 = is_kind("two-scale", "two_scale"), is_kind("log2", "log2")
        signed_two_scale = decoded(two_scale & word.signed, "signed_two_scale")
        more = late(Mux(two_scale, word.m, 0), third + 1, "m")
        searches: Value = Const(0, 1)
        if self.config.counts_thresholds:
            searches = decoded(word.format >= FORMATS["log2"], "search")
        early_search = late(searches, third + 2, "search_early")
        search = late(early_search, 1, "search_late")
        mask = late(mask_of(late((word.bits - two_scale)[:4], third + 5, "width")), 1, "mask")
        uniform = 1 if kinds == {"uniform"} else word.format == FORMATS["uniform"]
        offset = late(late(Mux(uniform, word.zero_point, 0), third + 6, "zero_point")
                      | last_of(mask) & late(signed_two_scale, third + 6, "low").replicate(8),
                      1, "offset")
        late_mask = late(mask, 3, "mask_late")
        flip = late(late_mask & late(log2, third + 9, "inverted").replicate(8)
                    | last_of(late_mask) & late(signed_two_scale, third + 9, "sign").replicate(8)
                    | next_to(late_mask) & late(two_scale, third + 9, "region").replicate(8),
                    1, "flip")
        return _Shared(kind=kind, kind_late=kind_late, factor=factor, more=more,
                       early_search=early_search, search=search, offset=offset, mask=mask,
                       late_mask=late_mask, flip=flip,
                       lowest=late(word.lowest, _THIRD + Encode.latency, "lowest"))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = range(self.config.lanes)
        word = self.i.payload
        m.submodules.skid = skid = Skid(self.words(self.config)["o"],
                                          flowing=self.flowing)
        advance = skid.i.ready

        def late(value: Value, cycles: int, name: str) -> Signal:
            return delay(m, value, advance=advance, cycles=cycles, name=name)

        scale = [Scale(self.config) for _ in lanes]
        operate = [Operation(self.config) for _ in lanes]
        encode = [Encode(self.config) for _ in lanes]
        for lane in lanes:
            m.submodules[f"scale_{lane}"] = scale[lane]
            m.submodules[f"operate_{lane}"] = operate[lane]
            m.submodules[f"encode_{lane}"] = encode[lane]

        early = encode[0].early
        shared = self._shared(m, late, early)
        if self.config.counts_thresholds:
            address, fourth, evens = load_thresholds(m, self.thresholds,
                                                     self.config.value_bits)
            for lane in lanes:
                m.d.comb += [
                    encode[lane].address.eq(address),
                    encode[lane].fourth.eq(fourth),
                    encode[lane].second.eq(evens),
                ]

        bumps = self._tables(m, advance, [scale[lane].index for lane in lanes])
        for lane in lanes:
            m.d.comb += [
                scale[lane].advance.eq(advance),
                scale[lane].acc.eq(word.acc[lane]),
                scale[lane].bias.eq(word.bias[lane]),
                scale[lane].multiplier.eq(word.multiplier[lane]),
                scale[lane].shift.eq(word.shift[lane]),

                operate[lane].advance.eq(advance),
                operate[lane].magnitude.eq(scale[lane].magnitude),
                operate[lane].negative.eq(scale[lane].negative),
                operate[lane].bump.eq(bumps[lane]),
                operate[lane].gelu.eq(shared.kind == OPERATIONS["gelu"]),
                operate[lane].late_gelu.eq(shared.kind_late == OPERATIONS["gelu"]),
                operate[lane].late_residual.eq(shared.kind_late == OPERATIONS["residual"]),
                operate[lane].residual.eq(late(word.residual[lane], _SECOND + 4,
                                               f"residual_{lane}")),
                operate[lane].factor.eq(shared.factor),

                encode[lane].advance.eq(advance),
                encode[lane].y.eq(operate[lane].y),
                encode[lane].middle.eq(self.thresholds[7]),
                encode[lane].lower.eq(self.thresholds[3]),
                encode[lane].upper.eq(self.thresholds[11]),
                encode[lane].encode_shift.eq(late(word.encode_shift[lane], _THIRD + 2 - early,
                                                  f"encode_shift_{lane}")),
                encode[lane].m.eq(shared.more),
                encode[lane].offset.eq(shared.offset),
                encode[lane].mask.eq(late(shared.mask, 2, "mask_2")),
                encode[lane].late_mask.eq(late(shared.late_mask, 1, "mask_4")),
                encode[lane].early_search.eq(shared.early_search),
                encode[lane].search.eq(shared.search),
                encode[lane].flip.eq(shared.flip),
                skid.i.payload.codes[lane].eq((encode[lane].code + shared.lowest)[:8]),
            ]

        stages = _THIRD + Encode.latency
        m.d.comb += [
            self.i.ready.eq(advance),
            skid.i.valid.eq(delay(m, self.i.valid, advance=advance, cycles=stages, name="valid",
                                  init=0)),
            skid.i.payload.last.eq(late(word.last, stages, "last")),
        ]
        wiring.connect(m, wiring.flipped(self.o), skid.o)
        return m
