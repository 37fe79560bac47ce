# SPDX-License-Identifier: Apache-2.0
"""Widths layer by layer: what a record says about them, and what the integer side takes."""

__all__ = ["LayerWidths", "layer_widths", "with_stream"]

from collections.abc import Mapping
from dataclasses import dataclass

from golden.ptq import own
from golden.ptq.record import Record
from golden.ptq.sites import source

_SUFFIX = ".weight"


@dataclass(frozen=True)
class LayerWidths:
    """Bits of a layer's weights and of the activations that it reads; 0 is floating point."""

    weights: int
    activations: int


def layer_widths(record: Record) -> dict[str, LayerWidths]:
    """Return the width table of a record, by layer name ("blocks.0.mlp.fc1")."""
    found = {}
    for name, item in record.formats.items():
        if name.endswith(_SUFFIX):
            layer = name.removesuffix(_SUFFIX)
            read = record.formats.get(source(layer))
            found[layer] = LayerWidths(item.bits, read.bits if read else 0)
    return found


def with_stream(method: str, widths: Mapping[str, int]) -> dict[str, int]:
    """Return widths with the residual stream's: that of activations, if nothing else is said.

    A method that leaves the stream in floating point keeps doing so.
    """
    found = dict(widths)
    if "activations" in found and getattr(own.kind(method)().settings, "stream", False):
        found.setdefault("stream", found["activations"])
    return found
