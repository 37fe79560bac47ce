# SPDX-License-Identifier: Apache-2.0
"""The number that a token of a pass has in its stream."""

__all__ = ["base_member", "in_stream"]

from typing import Any

from amaranth.hdl import Module, Value
from amaranth.lib.wiring import In

from hw.lib.memories import MemoryDelay
from vitforge.spec.config import Config
from vitforge.spec.sizes import stream_bits, tables


def base_member(config: Config) -> dict[str, Any]:
    """Return the member of a signature for the number of a pass's token 0, if it needn't be 0."""
    return {"base": In(stream_bits(config))} if tables(config) else {}


def in_stream(m: Module, engine: Any, number: Value, cycles: int) -> Value:
    """Return the number in its stream of token `number` of a pass.

    Parameters
    ----------
    engine
        What has a `base_member`, of `cycles` cycles ago.
    """
    if not tables(engine.config):
        return number
    m.submodules.bases = bases = MemoryDelay(len(engine.base), cycles)
    m.d.comb += bases.i.eq(engine.base)
    return number + bases.o
