# SPDX-License-Identifier: Apache-2.0
"""Registers beside a multiplier of an ECP5 moved into it, where they cost nothing and no way.

The block has registers at both operands and at the product. Vendors' synthesizers use them by
themselves; Yosys maps every product to a multiplier without registers, which is two fifths of a
clock cycle at 100 MHz with long wires on both sides. So this is done on its netlist: a register is
moved if it does in the multiplier what it did beside it, on every cycle. A synchronous reset of an
operand's register, which Yosys makes of any AND in front of one, becomes that AND again.
"""

__all__ = ["pack_registers"]

from typing import Any

from gen.synthesis.cells import Netlist, register

#: Bits of an operand and of a product.
OPERAND, PRODUCT = 18, 36


def _clocked(netlist: Netlist, cell: Any, name: str, clock: Any, enable: Any) -> None:
    """Use a register of the block: number 0 of clock, reset; one enable for each register."""
    number = ("INPUTA", "INPUTB", "OUTPUT").index(name)
    cell["parameters"] |= {f"REG_{name}_CLK": "CLK0", f"REG_{name}_CE": f"CE{number}",
                           f"REG_{name}_RST": "RST0"}
    for pin, net in (("CLK0", clock), (f"CE{number}", enable), ("RST0", "0")):
        netlist.connect(cell, pin, net)


def _pack_product(netlist: Netlist, cell: Any) -> bool:
    """Move the product's register in, if all that uses the product is that register."""
    pins = [pin for pin in (f"P{place}" for place in range(PRODUCT))
            if pin in cell["connections"] and netlist.uses[cell["connections"][pin][0]]]
    found = netlist.behind([cell["connections"][pin][0] for pin in pins])
    if found is None or found[1][2] != "0":
        return False
    names, (clock, enable, _) = found
    netlist.pull(cell, pins, names)
    _clocked(netlist, cell, "OUTPUT", clock, enable)
    return True


def _pack_operands(netlist: Netlist, cell: Any) -> bool:
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
            kind = register(netlist.cells[name]) if name in netlist.cells else None
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
    netlist = Netlist(module["cells"], module.get("ports", {}))
    found = dict.fromkeys(("multipliers", "operands", "product"), 0)
    for cell in [cell for cell in module["cells"].values() if cell["type"] == "MULT18X18D"]:
        found["multipliers"] += 1
        found["product"] += _pack_product(netlist, cell)
        found["operands"] += _pack_operands(netlist, cell)
    return found
