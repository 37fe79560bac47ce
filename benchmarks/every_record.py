# SPDX-License-Identifier: Apache-2.0
"""The record of networks that ran on the generated Verilog: a row for each, with its command."""

__all__ = ["WHOLE", "BLOCK", "Ran", "block", "read", "verdict", "write"]

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import kept_rows
from golden.float.vit import VitSpec
from golden.network.topology import Spec

#: Parts of a network: all of it, or image to logits with one block.
WHOLE, BLOCK = "whole", "a block"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ran:
    """A run that was equal to the golden model in every byte and every counter.

    `cycles` is 0 where `command` doesn't say them.
    """

    network: str
    part: str
    array: str
    cycles: int
    command: str


def block(spec: Spec) -> Spec:
    """Return the shape of a network with one block.

    Raises
    ------
    ValueError
        If the network has blocks of several shapes.
    """
    if not isinstance(spec, VitSpec):
        raise ValueError("a block is of a ViT; a Swin's stages differ")
    return dataclasses.replace(spec, depth=1)


def read(path: Path) -> list[Ran]:
    """Return what ran; nothing if there is no record yet."""
    return kept_rows.read(Ran, path)


def write(runs: Iterable[Ran], path: Path) -> None:
    """Add runs to the record; a new run of the same part takes the old one's place."""
    kept = {(item.network, item.part, item.array): item for item in (*read(path), *runs)}
    kept_rows.write(Ran, (kept[key] for key in sorted(kept)), path)


def verdict(name: str, spec: Spec, record: Sequence[Ran], shape: Callable[[str], Spec]) -> str:
    """Say what of a network ran: whole, a block, or not yet; networks of one shape count as one."""
    for part in (WHOLE, BLOCK):
        for item in record:
            if item.part != part:
                continue
            other = shape(item.network)
            if item.network == name or other == spec or (
                    part == BLOCK and isinstance(spec, VitSpec) and isinstance(other, VitSpec)
                    and block(other) == block(spec)):
                return part
    return "not yet"
