# SPDX-License-Identifier: Apache-2.0
"""Layouts of what engines of different rooms hand each other."""

__all__ = ["RAW_BITS", "raw_layout", "PLACE_BITS", "COUNT_BITS", "DELTA_BITS", "placement_layout",
           "first_token", "layout", "mode_bits", "packing", "request_layout", "span_bits",
           "start_layout",
           "track_layout", "weight_layout", "weight_span_bits"]

from collections.abc import Iterable

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS, PASS
from vitforge.spec.pass_fields import DRAIN_FIELDS, REQUEST_FIELDS, TABLE_FIELDS, WEIGHT_FIELDS
from vitforge.spec.sizes import doubled, most_words, paired, tables, weight_words

#: Signed width of a sum that leaves the accelerator.
RAW_BITS = 32
#: Width of a place, which is counted in pieces.
PLACE_BITS = 28
#: Widths of a loop's count, and of its step.
COUNT_BITS = 12
DELTA_BITS = 20

_FIELDS = {item.name: item for item in PASS.fields}


def raw_layout(config: Config) -> data.ArrayLayout:
    """Return the payload of the stream of sums."""
    return data.ArrayLayout(signed(RAW_BITS), config.lanes)


def placement_layout() -> data.StructLayout:
    """Return what the placer needs of a LOAD."""
    loops = {f"{name}_{loop}": shape for loop in range(LOOPS)
             for name, shape in (("count", unsigned(COUNT_BITS)), ("delta", signed(DELTA_BITS)))}
    return data.StructLayout({"piece": unsigned(3), "base": unsigned(PLACE_BITS),
                              "destination": unsigned(2), "bytes": unsigned(32), **loops})


def layout(names: Iterable[str], **more: int) -> data.StructLayout:
    """Return a struct of fields of `spec.instruction.PASS`, and of `more` unsigned ones."""
    shapes: dict[str, Shape] = {}
    for name in names:
        item = _FIELDS[name]
        shapes[name] = signed(item.bits) if item.signed else unsigned(item.bits)
    return data.StructLayout(shapes | {name: unsigned(bits) for name, bits in more.items()})


def span_bits(config: Config) -> int:
    """Return the width of a pass's `words`: 0 if there is always one."""
    return (most_words(config) - 1).bit_length()


def weight_span_bits(config: Config) -> int:
    """Return the width of how many times `rows` elements a row of weights has: 0 if it is once."""
    return (weight_words(config) - 1).bit_length()


def mode_bits(config: Config) -> dict[str, int]:
    """Return the width of a pass's `mode`, by its name; nothing if there is one only."""
    return {"mode": 1 + doubled(config)} if paired(config) else {}


def packing(config: Config, *names: str) -> tuple[str, ...]:
    """Return names of fields that count only where two codes may share a byte; else nothing."""
    return names if doubled(config) else ()


def first_token(config: Config) -> tuple[str, ...]:
    """Return the field of a pass that is its first token's number, if it needn't be 0."""
    return ("f_base",) if tables(config) else ()


def request_layout(config: Config) -> data.StructLayout:
    """Return the fields of a pass that the feeder walks over."""
    return layout((*REQUEST_FIELDS, *packing(config, "keep", "offset"),
                   *(TABLE_FIELDS if tables(config) else ())), **mode_bits(config))


def _spread(names: Iterable[str], pitch: str, bits: int, **more: int) -> data.StructLayout:
    """Return a `layout`, with `words` of so many bits and the field `pitch` if there are any."""
    if not bits:
        return layout(names, **more)
    return layout((*names, pitch), **more, words=bits)


def start_layout(config: Config) -> data.StructLayout:
    """Return the fields of a pass that is to be drained."""
    return _spread((*DRAIN_FIELDS, *first_token(config), *packing(config, "pack")), "d_pitch",
                   span_bits(config), slot=2, bank=1)


def track_layout(config: Config, names: Iterable[str]) -> data.StructLayout:
    """Return the fields of a pass that say where its codes go, and others."""
    return _spread(("d_base", *names, *first_token(config), *packing(config, "pack")), "d_pitch",
                   span_bits(config))


def weight_layout(config: Config) -> data.StructLayout:
    """Return the fields of a pass that say where its weights come from."""
    return _spread(WEIGHT_FIELDS, "w_pitch", weight_span_bits(config), **mode_bits(config))
