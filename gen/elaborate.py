# SPDX-License-Identifier: Apache-2.0
"""From a design and a configuration to Verilog text, the same bytes on every machine."""

__all__ = ["Design", "elaborate", "generate"]

from dataclasses import dataclass

from gen.convert import convert
from hw.units import create, words
from vitforge.spec.config import Config
from vitforge.spec.words import Word


@dataclass(frozen=True)
class Design:
    """A generated unit, or the accelerator.

    Attributes
    ----------
    unit, top, verilog
        Name of the unit, of its top module, and the Verilog text.
    latency
        Cycles, as the component documents it; none of the accelerator.
    streams
        Word of every stream, by port name.
    ports
        Every port in order: its name, whether it is an input, and for what is no stream its width.
    """

    unit: str
    top: str
    verilog: str
    latency: int | None
    streams: dict[str, Word]
    ports: tuple[tuple[str, bool, int | None], ...]


def elaborate(unit: str, config: Config, prefix: str = "") -> Design:
    """Generate a unit; `prefix` begins the names of all its modules."""
    from amaranth.hdl import Shape

    component = create(unit, config)
    text = convert(component, prefix + unit)
    streams = words(unit, config)
    ports = tuple((name, member.flow.name == "In",
                   None if name in streams else Shape.cast(member.shape).width)
                  for name, member in component.signature.members.items())
    return Design(unit, prefix + unit, text, getattr(component, "latency", None), streams, ports)


def generate(unit: str, config: Config) -> str:
    """Return the Verilog of a unit; its top module has the name of the unit."""
    return elaborate(unit, config).verilog
