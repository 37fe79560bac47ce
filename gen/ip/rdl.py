# SPDX-License-Identifier: Apache-2.0
"""The registers as SystemRDL 2.0, which PeakRDL and others compile."""

__all__ = ["identifier", "system_rdl"]

import json
import re

from vitforge.spec.config import Config
from vitforge.spec.register_map import REGISTERS, BitField, Choice, Register, reset_value

#: What software and hardware do with the fields of a register, by its access.
_PROPERTIES = {
    "ro": "sw = r; hw = w;",
    "rw": "sw = rw; hw = r;",
    "w1c": "sw = rw; onwrite = woclr; hw = rw;",
    "command": "sw = w; hw = r; singlepulse;",
}


def identifier(text: str) -> str:
    """Return a name that any language takes."""
    return re.sub(r"\W", "_", text)


def _choices(name: str, width: int, choices: tuple[Choice, ...]) -> str:
    lines = "".join(f"            {identifier(choice.name)} = {width}'d{choice.value} {{\n"
                    f"                name = {json.dumps(choice.name)};\n"
                    f"                desc = {json.dumps(choice.text)};\n            }};\n"
                    for choice in choices)
    return f"        enum {name} {{\n{lines}        }};\n"


def _field(register: Register, item: BitField, reset: int | None) -> str:
    kind = f"{register.name.lower()}_{item.name}_e"
    encoded = f"            encode = {kind};\n" if item.choices else ""
    value = "" if reset is None else f" = {item.width}'h{(reset & item.mask) >> item.low:x}"
    return ((_choices(kind, item.width, item.choices) if item.choices else "")
            + f"        field {{\n            desc = {json.dumps(item.text)};\n"
            f"            {_PROPERTIES[register.access]}\n{encoded}"
            f"        }} {item.name}[{item.low + item.width - 1}:{item.low}]{value};\n")


def system_rdl(config: Config | None = None) -> str:
    """Return the address map ``vitforge``.

    A register without fields has one, ``value``. What the configuration decides has a reset value
    only if there is one.
    """
    parts = []
    for register in REGISTERS:
        fields = register.fields or (BitField("value", 0, 32, register.text),)
        reset = reset_value(register, config)
        body = "".join(_field(register, item, reset) for item in fields)
        parts.append(f"    reg {{\n        desc = {json.dumps(register.text)};\n{body}"
                     f"    }} {register.name} @ 0x{register.offset:03x};\n")
    return ("// SPDX-License-Identifier: Apache-2.0\n"
            "// Registers of the ViTForge accelerator. Generated: do not edit.\n"
            "addrmap vitforge {\n"
            '    name = "ViTForge accelerator";\n'
            "    default regwidth = 32;\n    default accesswidth = 32;\n"
            "    littleendian;\n\n" + "\n".join(parts) + "};\n")
