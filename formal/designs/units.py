# SPDX-License-Identifier: Apache-2.0
"""The streams of the units: offers that stay, and nothing out that did not come in."""

__all__ = ["DESIGNS"]

import functools
from typing import Any

from amaranth.hdl import Signal

from formal.checker import Checker
from formal.streams import promised
from hw.units import UNITS, create, words
from vitforge.spec.config import Config


def unit(name: str, config: Config) -> Checker:
    """Check every stream of a unit, whatever the others do."""
    design: Any = create(name, config)
    check = Checker(design)
    ports = {port: getattr(design, port) for port in words(name, config)}
    sinks = {port: stream for port, stream in ports.items() if not port.startswith("o")}
    sources = {port: stream for port, stream in ports.items() if port not in sinks}
    arrived = {}
    for port, stream in sinks.items():
        arrived[port] = Signal(name=f"{port}_arrived")
        with check.m.If(stream.valid & stream.ready):
            check.m.d.sync += arrived[port].eq(1)
    for port, stream in sources.items():
        promised(check, port, stream)
        for sink, has in arrived.items():
            check.prove(f"{port}_nothing_without_{sink}", ~stream.valid | has)
        check.reach(f"{port}_word", stream.valid)
        # Everybody waits for this one: then all that moves is what is before it.
        still = stream.valid & ~stream.ready
        check.reach(f"{port}_held", still & check.past(still, f"{port}_still"))
    for port, stream in sinks.items():
        check.reach(f"{port}_refused", stream.valid & ~stream.ready)
    return check


DESIGNS = {name: functools.partial(unit, name) for name in UNITS}
