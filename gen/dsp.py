# SPDX-License-Identifier: Apache-2.0
"""Registers beside a multiplier of an ECP5 moved into it, where they cost nothing and no way.

The block has registers at both operands and at the product. Vendors' synthesizers use them by
themselves; Yosys maps every product to a multiplier without registers, which is two fifths of a
clock cycle at 100 MHz with long wires on both sides. So this is done on its netlist: a register is
moved if it does in the multiplier what it did beside it, on every cycle.
"""

__all__ = ["pack_registers"]

from collections import Counter
from typing import Any

#: Bits of an operand and of a product.
OPERAND, PRODUCT = 18, 36


def _register(cell: Any) -> tuple[Any, Any] | None:
    """Clock and enable of a flip-flop that the multiplier could hold: set by nothing else."""
    if cell["type"] != "TRELLIS_FF":
        return None
    # Yosys writes a space behind a string of digits.
    parameters = {name: value.strip() for name, value in cell["parameters"].items()}
    nets = cell["connections"]
    plain = (parameters.get("CLKMUX", "CLK") == "CLK"
             and parameters.get("REGSET", "RESET") == "RESET"
             and (nets.get("LSR", ["0"]) == ["0"] or parameters.get("LSRMUX") == "0"))
    enable = {"1": "1", "CE": nets.get("CE", ["1"])[0]}.get(parameters.get("CEMUX", "CE"))
    return (nets["CLK"][0], enable) if plain and enable is not None else None


class _Netlist:
    """Cells of a flat module, and who drives and who uses each net."""

    def __init__(self, cells: dict[str, Any], ports: dict[str, Any]) -> None:
        self.cells = cells
        self.driver: dict[Any, str] = {}
        self.uses: Counter[Any] = Counter()
        self.registers: dict[Any, str] = {}
        for port in ports.values():
            self.uses.update(port["bits"])
        for name, cell in cells.items():
            for pin, bits in cell["connections"].items():
                if cell["port_directions"][pin] == "output":
                    self.driver |= dict.fromkeys(bits, name)
                    continue
                self.uses.update(bits)
                if pin == "DI" and cell["type"] == "TRELLIS_FF":
                    self.registers[bits[0]] = name

    def remove(self, name: str) -> None:
        cell = self.cells.pop(name)
        for pin, bits in cell["connections"].items():
            if cell["port_directions"][pin] == "input":
                self.uses.subtract(bits)

    def connect(self, cell: Any, pin: str, net: Any) -> None:
        """Give an input another net."""
        old = cell["connections"].get(pin)
        if old is not None:
            self.uses[old[0]] -= 1
        cell["connections"][pin] = [net]
        cell["port_directions"][pin] = "input"
        self.uses[net] += 1


def _clocked(netlist: _Netlist, cell: Any, name: str, clock: Any, enable: Any) -> None:
    """Use a register of the block: number 0 of clock, reset; one enable for each register."""
    number = ("INPUTA", "INPUTB", "OUTPUT").index(name)
    cell["parameters"] |= {f"REG_{name}_CLK": "CLK0", f"REG_{name}_CE": f"CE{number}",
                           f"REG_{name}_RST": "RST0"}
    for pin, net in (("CLK0", clock), (f"CE{number}", enable), ("RST0", "0")):
        netlist.connect(cell, pin, net)


def _pack_product(netlist: _Netlist, cell: Any) -> bool:
    """Move the product's register in, if all that uses the product is that register."""
    pins = [pin for pin in (f"P{place}" for place in range(PRODUCT))
            if pin in cell["connections"] and netlist.uses[cell["connections"][pin][0]]]
    names = []
    kinds = set()
    for pin in pins:
        net = cell["connections"][pin][0]
        name = netlist.registers.get(net)
        if name is None or netlist.uses[net] != 1:
            return False
        names.append(name)
        kinds.add(_register(netlist.cells[name]))
    if len(kinds) != 1 or None in kinds:
        return False
    for pin, name in zip(pins, names, strict=True):
        net = netlist.cells[name]["connections"]["Q"][0]
        netlist.remove(name)
        cell["connections"][pin] = [net]
    ((clock, enable),) = (kind for kind in kinds if kind is not None)
    _clocked(netlist, cell, "OUTPUT", clock, enable)
    return True


def _pack_operands(netlist: _Netlist, cell: Any) -> bool:
    """Move the registers of both operands in; where others use one, it stays outside as well."""
    found: list[tuple[dict[str, Any], Any]] = []
    for letter in "AB":
        nets = {pin: cell["connections"][pin][0]
                for pin in (f"{letter}{place}" for place in range(OPERAND))
                # A constant 1 would not be there in the first cycle.
                if cell["connections"].get(pin, ["0"]) != ["0"]}
        drivers = (netlist.cells.get(netlist.driver.get(net, "")) for net in nets.values())
        kinds = {driver and _register(driver) for driver in drivers}
        if len(kinds) != 1 or None in kinds:
            return False
        found.append((nets, kinds.pop()))
    for letter, (nets, (clock, enable)) in zip("AB", found, strict=True):
        for pin, net in nets.items():
            register = netlist.cells[netlist.driver[net]]
            netlist.connect(cell, pin, register["connections"]["DI"][0])
        _clocked(netlist, cell, f"INPUT{letter}", clock, enable)
    for net in {net for nets, _ in found for net in nets.values()}:
        if not netlist.uses[net]:
            netlist.remove(netlist.driver[net])
    return True


def pack_registers(module: Any) -> dict[str, int]:
    """Move registers into the multipliers of a flat module of a Yosys netlist, in place.

    A register is moved if nothing but clock and enable acts on it and its initial value is 0. The
    product's is moved if the multiplier feeds nothing else; those of the operands are moved both or
    not at all, as nextpnr wants it, and copied where they feed something else too.

    Returns
    -------
    dict of str to int
        Multipliers, and how many have registers at their operands and at their product.
    """
    netlist = _Netlist(module["cells"], module.get("ports", {}))
    found = dict.fromkeys(("multipliers", "operands", "product"), 0)
    for cell in [cell for cell in module["cells"].values() if cell["type"] == "MULT18X18D"]:
        found["multipliers"] += 1
        found["product"] += _pack_product(netlist, cell)
        found["operands"] += _pack_operands(netlist, cell)
    return found
