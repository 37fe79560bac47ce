# SPDX-License-Identifier: Apache-2.0
"""Registers behind a block memory of an ECP5 moved into it, where they cost nothing and no way.

A DP16KD takes 5.7 ns from its clock to its outputs, and a fraction of that with the registers that
it has there. Yosys never uses them, so this is done on its netlist: a register is moved if it does
in the memory what it did behind it, on every cycle.
"""

__all__ = ["pack_outputs"]

from typing import Any

from gen.synthesis.cells import Netlist

#: Bits of a port, and of the one read port of a memory of the widest words.
PORT, WIDE = 18, 36


def _width(cell: Any, letter: str) -> int:
    value = str(cell["parameters"][f"DATA_WIDTH_{letter}"]).strip()
    return int(value, 2) if len(value) > 2 else int(value)


def _ports(cell: Any) -> list[str]:
    """Return the letters of each read port's outputs: of both halves if words are of 36 bits."""
    return ["AB"] if _width(cell, "B") == WIDE else ["A", "B"]


def _pack(netlist: Netlist, cell: Any, letters: str) -> bool:
    """Move the registers of a read port in, if all that uses it are registers of one kind."""
    pins = [pin for letter in letters for place in range(PORT)
            if (pin := f"DO{letter}{place}") in cell["connections"]
            and netlist.uses[cell["connections"][pin][0]]]
    found = netlist.behind([cell["connections"][pin][0] for pin in pins])
    if found is None:
        return False
    names, kind = found
    # The clock of the port; the memory's own reset is none, so neither may be the register's.
    port = letters[-1]
    if (kind[2] != "0" or cell["connections"][f"CLK{port}"] != [kind[0]]
            or cell["parameters"].get(f"CLK{port}MUX", f"CLK{port}").strip() != f"CLK{port}"
            or cell["connections"].get(f"RST{port}", ["0"]) != ["0"]):
        return False
    netlist.pull(cell, pins, names)
    for letter in letters:
        cell["parameters"][f"REGMODE_{letter}"] = "OUTREG"
        netlist.connect(cell, f"OCE{letter}", kind[1])
    return True


def pack_outputs(module: Any) -> dict[str, int]:
    """Move registers into the block memories of a flat module of a Yosys netlist, in place.

    The registers of a read port are moved if they are all of one kind, with the clock of the port
    and no reset, begin with 0, and if the memory feeds nothing else.

    Returns
    -------
    dict of str to int
        Read ports that are used, and how many of them have registers now.
    """
    netlist = Netlist(module["cells"], module.get("ports", {}))
    found = dict.fromkeys(("ports", "registers"), 0)
    for cell in [cell for cell in module["cells"].values() if cell["type"] == "DP16KD"]:
        for letters in _ports(cell):
            if any(netlist.uses[cell["connections"][pin][0]] for letter in letters
                   for place in range(PORT)
                   if (pin := f"DO{letter}{place}") in cell["connections"]):
                found["ports"] += 1
                found["registers"] += _pack(netlist, cell, letters)
    return found
