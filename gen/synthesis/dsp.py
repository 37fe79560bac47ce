# SPDX-License-Identifier: Apache-2.0
"""Registers beside a multiplier of an ECP5 moved into it, where they cost nothing and no way.

The block has registers at both operands and at the product. Vendors' synthesizers use them by
themselves; Yosys maps every product to a multiplier without registers, which is two fifths of a
clock cycle at 100 MHz with long wires on both sides. So this is done on its netlist: a register is
moved if it does in the multiplier what it did beside it, on every cycle. A synchronous reset of an
operand's register, which Yosys makes of any AND in front of one, becomes that AND again.
"""

__all__ = ["pack_registers"]

from collections import Counter
from typing import Any

#: Bits of an operand and of a product.
OPERAND, PRODUCT = 18, 36
#: Truth table of a LUT: A and not B.
_GATE = "0010" * 4


def _register(cell: Any) -> tuple[Any, Any, Any] | None:
    """Clock, enable and synchronous reset of a flip-flop that the multiplier could hold."""
    if cell["type"] != "TRELLIS_FF":
        return None
    # Yosys writes a space behind a string of digits.
    parameters = {name: value.strip() for name, value in cell["parameters"].items()}
    nets = cell["connections"]
    reset = nets.get("LSR", ["0"])[0] if parameters.get("LSRMUX") != "0" else "0"
    plain = (parameters.get("CLKMUX", "CLK") == "CLK"
             and parameters.get("REGSET", "RESET") == "RESET"
             and (reset == "0" or (parameters.get("LSRMUX", "LSR") == "LSR"
                  and parameters.get("SRMODE") == "LSR_OVER_CE")))
    enable = {"1": "1", "CE": nets.get("CE", ["1"])[0]}.get(parameters.get("CEMUX", "CE"))
    return (nets["CLK"][0], enable, reset) if plain and enable is not None else None


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
        self._last = max((net for net in self.uses if isinstance(net, int)), default=0)
        self._gates: dict[str, Any] = {}

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

    def implies(self, net: Any, other: Any) -> bool:
        """Whether `net` is never 1 without `other`, by the LUT that drives it."""
        if other == "1":
            return True
        driver = self.cells.get(self.driver.get(net, ""), {})
        if driver.get("type") != "LUT4":
            return False
        inputs = [driver["connections"].get(pin, ["0"])[0] for pin in "ABCD"]
        table = int(driver["parameters"]["INIT"].strip(), 2)
        return other in inputs and not any(
            table >> value & 1 for value in range(16)
            if not value >> inputs.index(other) & 1)

    def data(self, name: str, reset: Any) -> Any:
        """Return what a register takes: its input, and 0 with its reset."""
        net = self.cells[name]["connections"]["DI"][0]
        if reset == "0":
            return net
        if name not in self._gates:
            self._last += 1
            self._gates[name] = self._last
            gate: dict[str, Any] = {"type": "LUT4", "parameters": {"INIT": _GATE}, "attributes": {},
                    "port_directions": {}, "connections": {}}
            for pin, value in (("A", net), ("B", reset), ("C", "0"), ("D", "0")):
                self.connect(gate, pin, value)
            gate["port_directions"]["Z"], gate["connections"]["Z"] = "output", [self._last]
            self.cells[f"{name}_gate"] = gate
            self.driver[self._last] = f"{name}_gate"
        return self._gates[name]


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
    if len(kinds) != 1:
        return False
    kind = kinds.pop()
    if kind is None or kind[2] != "0":
        return False
    for pin, name in zip(pins, names, strict=True):
        net = netlist.cells[name]["connections"]["Q"][0]
        netlist.remove(name)
        cell["connections"][pin] = [net]
    clock, enable, _ = kind
    _clocked(netlist, cell, "OUTPUT", clock, enable)
    return True


def _pack_operands(netlist: _Netlist, cell: Any) -> bool:
    """Move the registers of both operands in; where others use one, it stays outside as well."""
    found: list[tuple[dict[str, tuple[str, Any]], Any]] = []
    for letter in "AB":
        nets = {pin: cell["connections"][pin][0]
                for pin in (f"{letter}{place}" for place in range(OPERAND))
                # A constant 1 would not be there in the first cycle.
                if cell["connections"].get(pin, ["0"]) != ["0"]}
        registers = {}
        clocks = set()
        for pin, net in nets.items():
            name = netlist.driver.get(net, "")
            kind = _register(netlist.cells[name]) if name in netlist.cells else None
            if kind is None or (kind[2] != "0" and not netlist.implies(kind[2], kind[1])):
                return False
            registers[pin] = (name, kind[2])
            clocks.add(kind[:2])
        if len(clocks) != 1:
            return False
        found.append((registers, clocks.pop()))
    for letter, (registers, (clock, enable)) in zip("AB", found, strict=True):
        for pin, (name, reset) in registers.items():
            netlist.connect(cell, pin, netlist.data(name, reset))
        _clocked(netlist, cell, f"INPUT{letter}", clock, enable)
    for name in {name for registers, _ in found for name, _ in registers.values()}:
        if not netlist.uses[netlist.cells[name]["connections"]["Q"][0]]:
            netlist.remove(name)
    return True


def pack_registers(module: Any) -> dict[str, int]:
    """Move registers into the multipliers of a flat module of a Yosys netlist, in place.

    A register is moved if nothing but clock and enable acts on it and its initial value is 0. The
    product's is moved if the multiplier feeds nothing else; those of the operands are moved both or
    not at all, as nextpnr wants it, and copied where they feed something else too. An operand's may
    have a synchronous reset as well, if that never comes without the enable.

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
