# SPDX-License-Identifier: Apache-2.0
"""Registers around a design, so that the paths from and to its ports are timed as well."""

__all__ = ["DESIGN", "bounded"]

from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import In

from gen.convert import convert
from hw.units import create
from vitforge.spec.config import Config

#: Instance of the design in its frame.
DESIGN = "design"


def bounded(unit: str, config: Config) -> str:
    """Return the Verilog of a design with a register at every port.

    Without pins a placer times no path that begins or ends at a port. Inside a chip there is a
    register somewhere behind each; this puts it where it does not help: directly there.
    """
    component: Any = create(unit, config)
    m = Module()
    m.submodules[DESIGN] = component
    ports = []
    for path, member, value in component.signature.flatten(component):
        inside = Value.cast(value)
        name = "_".join(map(str, path))
        port = Signal(len(inside), name=name)
        ports.append(port)
        if member.flow == In:
            register = Signal(len(inside), name=f"{name}_register", reset_less=True)
            m.d.sync += register.eq(port)
            m.d.comb += inside.eq(register)
        else:
            m.d.sync += port.eq(inside)
    return convert(m, unit, ports)
