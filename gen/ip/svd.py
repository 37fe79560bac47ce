# SPDX-License-Identifier: Apache-2.0
"""The registers as CMSIS-SVD, which debuggers show and header generators read."""

__all__ = ["svd"]

from xml.sax.saxutils import escape

from gen.ip.rdl import identifier
from vitforge.spec.config import Config
from vitforge.spec.register_map import (
    ADDRESS_BITS,
    REGISTERS,
    VERSION,
    BitField,
    Register,
    reset_value,
)

_ACCESS = {"ro": "read-only", "rw": "read-write", "w1c": "read-write", "command": "write-only"}


def _field(item: BitField, access: str) -> str:
    written = ("          <modifiedWriteValues>oneToClear</modifiedWriteValues>\n"
               if access == "w1c" else "")
    values = "".join("            <enumeratedValue>\n"
                     f"              <name>{identifier(choice.name)}</name>\n"
                     f"              <description>{escape(choice.text)}</description>\n"
                     f"              <value>{choice.value}</value>\n"
                     "            </enumeratedValue>\n" for choice in item.choices)
    if values:
        values = f"          <enumeratedValues>\n{values}          </enumeratedValues>\n"
    return (f"        <field>\n          <name>{item.name}</name>\n"
            f"          <description>{escape(item.text)}</description>\n"
            f"          <bitOffset>{item.low}</bitOffset>\n"
            f"          <bitWidth>{item.width}</bitWidth>\n"
            f"          <access>{_ACCESS[access]}</access>\n{written}{values}        </field>\n")


def _register(register: Register, config: Config | None) -> str:
    reset = reset_value(register, config)
    value = "" if reset is None else f"      <resetValue>0x{reset:08x}</resetValue>\n"
    fields = "".join(_field(item, register.access) for item in register.fields)
    if fields:
        fields = f"      <fields>\n{fields}      </fields>\n"
    return (f"    <register>\n      <name>{register.name}</name>\n"
            f"      <description>{escape(register.text)}</description>\n"
            f"      <addressOffset>0x{register.offset:03x}</addressOffset>\n"
            f"      <access>{_ACCESS[register.access]}</access>\n{value}{fields}"
            "    </register>\n")


def svd(config: Config | None = None, base: int = 0) -> str:
    """Return a device of one peripheral.

    Parameters
    ----------
    base
        Where the registers are in the processor's address space.
    """
    version = ".".join(map(str, VERSION))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
        '<device schemaVersion="1.3" xmlns:xs="http://www.w3.org/2001/XMLSchema-instance" '
        'xs:noNamespaceSchemaLocation="CMSIS-SVD.xsd">\n'
        f"  <name>ViTForge</name>\n  <version>{version}</version>\n"
        "  <description>Vision-transformer accelerator</description>\n"
        "  <addressUnitBits>8</addressUnitBits>\n  <width>32</width>\n  <size>32</size>\n"
        "  <peripherals>\n  <peripheral>\n    <name>VITFORGE</name>\n"
        f"    <version>{version}</version>\n"
        "    <description>Registers of the accelerator</description>\n"
        f"    <baseAddress>0x{base:08x}</baseAddress>\n"
        "    <addressBlock>\n      <offset>0</offset>\n"
        f"      <size>0x{1 << ADDRESS_BITS:x}</size>\n"
        "      <usage>registers</usage>\n    </addressBlock>\n    <registers>\n"
        + "".join(_register(register, config) for register in REGISTERS)
        + "    </registers>\n  </peripheral>\n  </peripherals>\n</device>\n")
