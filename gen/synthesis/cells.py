# SPDX-License-Identifier: Apache-2.0
"""A flat module of a Yosys netlist for an ECP5: its cells, and who drives and who uses each net."""

__all__ = ["Netlist", "register"]

from collections import Counter
from collections.abc import Sequence
from typing import Any

#: Truth table of a LUT: A and not B.
_GATE = "0010" * 4


def register(cell: Any) -> tuple[Any, Any, Any] | None:
    """Clock, enable and synchronous reset of a flip-flop that a block could hold, or None.

    Such a one takes the rising edge and begins with 0; a reset goes before its enable.
    """
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


class Netlist:
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

    def behind(self, nets: Sequence[Any]) -> tuple[list[str], tuple[Any, Any, Any]] | None:
        """Return the registers that alone take these nets, and what they have in common.

        None if something else takes one, or if clocks, enables or resets differ.
        """
        if not all(net in self.registers and self.uses[net] == 1 for net in nets):
            return None
        names = [self.registers[net] for net in nets]
        kinds = {register(self.cells[name]) for name in names}
        kind = kinds.pop() if len(kinds) == 1 else None
        return (names, kind) if kind is not None else None

    def pull(self, cell: Any, pins: Sequence[str], names: Sequence[str]) -> None:
        """Put registers behind outputs of a cell into it: it drives what they drove."""
        for pin, name in zip(pins, names, strict=True):
            net = self.cells[name]["connections"]["Q"][0]
            self.remove(name)
            cell["connections"][pin] = [net]

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
