# SPDX-License-Identifier: Apache-2.0
"""Layouts of what engines of different rooms hand each other."""

__all__ = ["RAW_BITS", "raw_layout", "PLACE_BITS", "COUNT_BITS", "DELTA_BITS", "placement_layout",
           "layout"]

from collections.abc import Iterable

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS, PASS

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
