# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.registers``: the register map for people, programs and other tools.

Markdown, C header, JSON, Verilog macros, SystemRDL (`gen.ip.rdl`) and CMSIS-SVD (`gen.ip.svd`).

All are printed from `vitforge.spec.register_map`, which the gateware is made from as well.
"""

__all__ = ["FILES", "header", "main", "markdown", "to_json", "verilog"]

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gen.ip.rdl import system_rdl
from gen.ip.svd import svd
from vitforge.base.cli import replace_folder, run_command
from vitforge.base.markdown import table
from vitforge.spec.config import Config, load
from vitforge.spec.option import add_config
from vitforge.spec.register_map import (
    ACCESS,
    ADDRESS_BITS,
    REGISTERS,
    VERSION,
    BitField,
    Register,
    reset_value,
)

_INTRODUCTION = f"""\
# Registers

Printed by `python -m gen.registers` from `vitforge/spec/register_map.py`.
Version {VERSION[0]}.{VERSION[1]}.

AXI4-Lite, 32-bit registers, {1 << ADDRESS_BITS} bytes. Byte strobes are honoured; the two lowest
bits of an address are ignored. A read or write of an address without a register, and a write of a
read-only register, gets SLVERR and does nothing. Bits that are not listed read 0 and ignore what is
written.

## A run

1. Write the three buffers. The accelerator reads inside the program and the input buffer only, and
   writes inside the output buffer only.
2. Clear `IRQ_STATUS`, and write 1 to `CONTROL.start`. A wrong buffer ends the run at once, with a
   fault.
3. Wait for the interrupt, or until `STATUS.busy` is 0.
4. With `STATUS.done` the results are in memory. With `STATUS.fault`, `FAULT` and the two registers
   behind it say what happened and where; the next start needs no reset.

`CONTROL.stop` ends a run early, as a fault of the kind "stopped". The buffers can't be written
while `STATUS.busy`. Read a counter LOW first: that keeps its upper half as it is in that cycle, in
every HIGH register, until another LOW is read. A start clears the counters.
"""


def _bits(item: BitField) -> str:
    return str(item.low) if item.width == 1 else f"{item.low + item.width - 1}:{item.low}"


def markdown(config: Config | None = None) -> str:
    """Return the manual of the registers.

    Parameters
    ----------
    config
        Whose constants are given as reset values; without it they are left open.
    """
    rows = []
    details = []
    for register in REGISTERS:
        value = reset_value(register, config)
        reset = "of the configuration" if value is None else f"`0x{value:08x}`" if value else "0"
        rows.append((f"`0x{register.offset:03x}`", f"`{register.name}`", register.access, reset,
                     register.text))
        if register.fields:
            details.append(f"### {register.name}\n\n" + table(
                ("bits", "field", "what"),
                [(_bits(item), f"`{item.name}`", item.text) for item in register.fields]))
        for item in register.fields:
            if item.choices:
                details.append(table(("value", f"`{item.name}`", "what"), [
                    (str(choice.value), choice.name, choice.text) for choice in item.choices]))
    access = table(("access", "what"), list(ACCESS.items()))
    registers = table(("offset", "register", "access", "reset", "what"), rows)
    return "\n".join([_INTRODUCTION, "## Map\n", access, registers, "## Fields\n", *details])


def _macro(name: str, value: str) -> str:
    return f"#define VITFORGE_{name} {value}\n"


def _identifier(text: str) -> str:
    return text.upper().replace(" ", "_")


def _definitions(register: Register, config: Config | None) -> str:
    value = reset_value(register, config)
    parts = [f"\n/* {register.name} ({register.access}): {register.text} */\n",
             _macro(f"{register.name}_OFFSET", f"0x{register.offset:03x}u")]
    if value:
        parts.append(_macro(f"{register.name}_RESET", f"0x{value:08x}u"))
    for item in register.fields:
        name = f"{register.name}_{item.name.upper()}"
        parts += [_macro(f"{name}_SHIFT", f"{item.low}u"),
                  _macro(f"{name}_MASK", f"0x{item.mask:08x}u")]
        if item.choices:
            values = "".join(f"    VITFORGE_{name}_{_identifier(choice.name)} = {choice.value},"
                             f" /* {choice.text} */\n" for choice in item.choices)
            # The comma behind the last value is no C++98.
            values = values.replace(f"= {item.choices[-1].value}, /*",
                                    f"= {item.choices[-1].value} /*")
            parts.append(f"enum vitforge_{name.lower()} {{\n{values}}};\n")
            names = ", \\\n    ".join(f'"{choice.name}"' for choice in item.choices)
            parts.append("/* An initializer: the name of every value, by its number. */\n"
                         + _macro(f"{name}_NAMES", f"{{ \\\n    {names} }}"))
    return "".join(parts)


def header(config: Config | None = None) -> str:
    """Return the C header: offsets, masks and shifts of the fields, values.

    Parameters
    ----------
    config
        Whose constants are defined too (``VITFORGE_CONFIG_HASH_RESET``, ...).
    """
    body = "".join(_definitions(register, config) for register in REGISTERS)
    return ("/* SPDX-License-Identifier: Apache-2.0 */\n"
            "/* Registers of the ViTForge accelerator. Generated: do not edit. */\n"
            "#ifndef VITFORGE_REGISTERS_H\n#define VITFORGE_REGISTERS_H\n\n"
            + _macro("ADDRESS_SPACE_BYTES", f"0x{1 << ADDRESS_BITS:x}u")
            + _macro("VERSION_MAJOR", f"{VERSION[0]}u")
            + _macro("VERSION_MINOR", f"{VERSION[1]}u")
            + body + "\n#endif\n")


def verilog() -> str:
    """Return addresses as macros of Verilog."""
    return "// SPDX-License-Identifier: Apache-2.0\n" + "".join(
        f"`define VITFORGE_{register.name} {ADDRESS_BITS}'h{register.offset:03x}\n"
        for register in REGISTERS)


def to_json(config: Config | None = None) -> str:
    """Return the map as JSON, for other tools.

    Parameters
    ----------
    config
        Whose constants are given as reset values; without it they are null.
    """
    registers = [{
        "name": register.name, "offset": register.offset, "access": register.access,
        "reset": reset_value(register, config), "locked_while_busy": register.locked,
        "text": register.text,
        "fields": [{
            "name": item.name, "low": item.low, "width": item.width, "text": item.text,
            "values": [{"name": choice.name, "value": choice.value, "text": choice.text}
                       for choice in item.choices],
        } for item in register.fields],
    } for register in REGISTERS]
    return json.dumps({"version": list(VERSION), "address_bits": ADDRESS_BITS, "data_bits": 32,
                       "configuration": config and config.name,
                       "registers": registers}, indent=2) + "\n"


#: File names in the output folder, and what makes them.
FILES: dict[str, Callable[[Config | None], str]] = {
    "registers.md": markdown, "vitforge_registers.h": header, "registers.json": to_json,
    "vitforge_registers.vh": lambda config: verilog(), "vitforge.rdl": system_rdl,
    "vitforge.svd": svd,
}


def _generate(args: argparse.Namespace) -> int:
    config = load(args.config) if args.config else None
    with replace_folder(args.output) as folder:
        for name, make in FILES.items():
            (folder / name).write_text(make(config), encoding="utf-8")
    for name in FILES:
        print(args.output / name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gen.registers", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write the register map as Markdown, C header, JSON, Verilog macros,\n"
                    "SystemRDL and CMSIS-SVD.",
        epilog="example: python -m gen.registers --config edge8 -o build/registers")
    add_config(parser, None, about="one whose constants are given too: ", none="those of none")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write; replaced as a whole")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; exit code 2 with one line for bad input."""
    return run_command(_generate, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
