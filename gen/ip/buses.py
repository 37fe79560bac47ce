# SPDX-License-Identifier: Apache-2.0
"""The accelerator's ports as bus interfaces, by the names that Vivado has for them.

One list, from which `annotate` writes attributes into the Verilog and `gen.ip.ipxact` the
interfaces of ``component.xml``.
"""

__all__ = ["Bus", "annotate", "buses"]

import re
from dataclasses import dataclass

from gen.elaborate import Design
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit
from vitforge.spec.register_map import ADDRESS_BITS


@dataclass(frozen=True)
class Bus:
    """One interface.

    Attributes
    ----------
    kind
        Vendor, library, name and version of the interface's definition.
    is_master
        Whether the accelerator is its master, or drives it.
    ports
        Logical names of the definition, by ports.
    parameters
        As the definition names them.
    """

    name: str
    kind: tuple[str, str, str, str]
    is_master: bool
    ports: dict[str, str]
    parameters: dict[str, str]


def _signal(name: str) -> tuple[str, str, str, str]:
    return "xilinx.com", "signal", name, "1.0"


def buses(design: Design, config: Config) -> tuple[Bus, ...]:
    """Return clock, reset, interrupt, registers and memory bus of a generated accelerator."""
    aximm = "xilinx.com", "interface", "aximm", "1.0"
    names = [name for name, _, _ in design.ports]

    def axi(prefix: str) -> dict[str, str]:
        return {name: name.removeprefix(prefix).upper() for name in names
                if name.startswith(prefix)}

    return (
        Bus("clk", _signal("clock"), False, {"clk": "CLK"},
            {"ASSOCIATED_BUSIF": "s_axi:m_axi", "ASSOCIATED_RESET": "rst"}),
        Bus("rst", _signal("reset"), False, {"rst": "RST"}, {"POLARITY": "ACTIVE_HIGH"}),
        Bus("interrupt", _signal("interrupt"), True, {"interrupt": "INTERRUPT"},
            {"SENSITIVITY": "LEVEL_HIGH"}),
        Bus("s_axi", aximm, False, axi("s_axi_"),
            {"PROTOCOL": "AXI4LITE", "DATA_WIDTH": "32", "ADDR_WIDTH": str(ADDRESS_BITS)}),
        Bus("m_axi", aximm, True, axi("m_axi_"),
            {"PROTOCOL": "AXI4", "DATA_WIDTH": str(config.axi_bits), "ADDR_WIDTH": "32",
             "ID_WIDTH": "1", "SUPPORTS_NARROW_BURST": "0",
             "MAX_BURST_LENGTH": str(burst_limit(config)),
             "NUM_READ_OUTSTANDING": str(OUTSTANDING), "NUM_WRITE_OUTSTANDING": "1"}),
    )


def annotate(design: Design, config: Config) -> str:
    """Return the Verilog of an accelerator with an attribute at every port of its top module.

    ``X_INTERFACE_INFO`` names interface and signal; ``X_INTERFACE_PARAMETER``, at the first port of
    each interface, its parameters. Other tools ignore them.
    """
    lines: dict[str, str] = {}
    for bus in buses(design, config):
        parameters = ", ".join(f"{name} {value}" for name, value in bus.parameters.items())
        more = (f'  (* X_INTERFACE_PARAMETER = "XIL_INTERFACENAME {bus.name}, {parameters}" *)\n')
        for port, logical in bus.ports.items():
            kind = ":".join(bus.kind)
            lines[port] = f'{more}  (* X_INTERFACE_INFO = "{kind} {bus.name} {logical}" *)\n'
            more = ""
    start = design.verilog.index(f"module {design.top}(")
    end = design.verilog.index("\nendmodule", start)
    head, top, rest = (design.verilog[:start], design.verilog[start:end], design.verilog[end:])
    top = re.sub(r"^  (?:input|output) (?:\[\d+:0\] )?(\w+);$",
                 lambda found: lines.pop(found[1], "") + found[0], top, flags=re.MULTILINE)
    assert not lines, f"no ports {', '.join(lines)}"
    return head + top + rest
