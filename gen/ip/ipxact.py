# SPDX-License-Identifier: Apache-2.0
"""``component.xml``: the accelerator as IP-XACT, IEEE 1685-2009, the edition that Vivado reads."""

__all__ = ["NAMESPACE", "component"]

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from gen.elaborate import Design
from gen.ip.buses import Bus, buses
from gen.ip.rdl import identifier
from vitforge.spec.config import Config
from vitforge.spec.register_map import (
    ADDRESS_BITS,
    REGISTERS,
    BitField,
    Register,
    reset_value,
)

NAMESPACE = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
VENDOR, LIBRARY = "vitforge", "ip"
#: Of the address space that the memory bus sees.
SPACE = 1 << 32
_ACCESS = {"ro": "read-only", "rw": "read-write", "w1c": "read-write", "command": "write-only"}
#: Types of files by the ending of their names; any other is ``unknown``.
_TYPES = {"v": "verilogSource", "vh": "verilogSource", "h": "cSource"}


def _add(parent: ET.Element, tag: str, text: object = None, /, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, f"{{{NAMESPACE}}}{tag}",
                            {f"{{{NAMESPACE}}}{key}": value for key, value in attributes.items()})
    if text is not None:
        element.text = str(text)
    return element


def _name(parent: ET.Element, kind: tuple[str, str, str, str]) -> None:
    for tag, text in zip(("vendor", "library", "name", "version"), kind, strict=True):
        _add(parent, tag, text)


def _interface(parent: ET.Element, bus: Bus) -> None:
    element = _add(parent, "busInterface")
    _add(element, "name", bus.name)
    vendor, library, name, version = bus.kind
    for tag, kind in (("busType", name), ("abstractionType", f"{name}_rtl")):
        _add(element, tag, vendor=vendor, library=library, name=kind, version=version)
    role = _add(element, "master" if bus.is_master else "slave")
    if bus.name == "m_axi":
        _add(role, "addressSpaceRef", addressSpaceRef="memory")
    if bus.name == "s_axi":
        _add(role, "memoryMapRef", memoryMapRef="s_axi")
    maps = _add(element, "portMaps")
    for port, logical in bus.ports.items():
        entry = _add(maps, "portMap")
        _add(_add(entry, "logicalPort"), "name", logical)
        _add(_add(entry, "physicalPort"), "name", port)
    parameters = _add(element, "parameters")
    for key, value in bus.parameters.items():
        parameter = _add(parameters, "parameter")
        _add(parameter, "name", key)
        _add(parameter, "value", value)


def _field(parent: ET.Element, item: BitField, access: str) -> None:
    element = _add(parent, "field")
    _add(element, "name", item.name)
    _add(element, "description", item.text)
    _add(element, "bitOffset", item.low)
    _add(element, "bitWidth", item.width)
    if item.choices:
        values = _add(element, "enumeratedValues")
        for choice in item.choices:
            value = _add(values, "enumeratedValue")
            _add(value, "name", identifier(choice.name))
            _add(value, "displayName", choice.name)
            _add(value, "description", choice.text)
            _add(value, "value", choice.value)
    _add(element, "access", _ACCESS[access])
    if access == "w1c":
        _add(element, "modifiedWriteValue", "oneToClear")


def _register(parent: ET.Element, register: Register, config: Config) -> None:
    element = _add(parent, "register")
    _add(element, "name", register.name)
    _add(element, "description", register.text)
    _add(element, "addressOffset", f"0x{register.offset:x}")
    _add(element, "size", 32)
    _add(element, "access", _ACCESS[register.access])
    reset = _add(element, "reset")
    _add(reset, "value", f"0x{reset_value(register, config) or 0:x}")
    for item in register.fields or (BitField("value", 0, 32, register.text),):
        _field(element, item, register.access)


def _model(parent: ET.Element, design: Design) -> None:
    model = _add(parent, "model")
    views = _add(model, "views")
    for view, purpose in (("xilinx_anylanguagesynthesis", "synthesis"),
                          ("xilinx_anylanguagebehavioralsimulation", "simulation")):
        element = _add(views, "view")
        _add(element, "name", view)
        _add(element, "envIdentifier", f":vivado.xilinx.com:{purpose}")
        _add(element, "language", "verilog")
        _add(element, "modelName", design.top)
        _add(_add(element, "fileSetRef"), "localName", "rtl")
    ports = _add(model, "ports")
    for name, is_input, bits in (("clk", True, 1), ("rst", True, 1), *design.ports):
        port = _add(ports, "port")
        _add(port, "name", name)
        wire = _add(port, "wire")
        _add(wire, "direction", "in" if is_input else "out")
        if bits is not None and bits > 1:
            vector = _add(wire, "vector")
            _add(vector, "left", bits - 1)
            _add(vector, "right", 0)


def component(design: Design, config: Config, version: str,
              files: Mapping[str, Sequence[str]]) -> str:
    """Return the text of ``component.xml``.

    Parameters
    ----------
    design
        The accelerator.
    version
        Of this project.
    files
        File sets: their names, and paths beside ``component.xml``. ``rtl`` is compiled.
    """
    ET.register_namespace("spirit", NAMESPACE)
    root = ET.Element(f"{{{NAMESPACE}}}component")
    _name(root, (VENDOR, LIBRARY, f"{design.top}_{config.name}", version))
    interfaces = _add(root, "busInterfaces")
    for bus in buses(design, config):
        _interface(interfaces, bus)
    space = _add(_add(root, "addressSpaces"), "addressSpace")
    _add(space, "name", "memory")
    _add(space, "range", SPACE)
    _add(space, "width", config.axi_bits)
    memory_map = _add(_add(root, "memoryMaps"), "memoryMap")
    _add(memory_map, "name", "s_axi")
    block = _add(memory_map, "addressBlock")
    _add(block, "name", "registers")
    _add(block, "baseAddress", 0)
    _add(block, "range", 1 << ADDRESS_BITS)
    _add(block, "width", 32)
    _add(block, "usage", "register")
    for register in REGISTERS:
        _register(block, register, config)
    _model(root, design)
    sets = _add(root, "fileSets")
    for name, paths in files.items():
        element = _add(sets, "fileSet")
        _add(element, "name", name)
        for path in paths:
            file = _add(element, "file")
            _add(file, "name", path)
            _add(file, "fileType", _TYPES.get(path.rpartition(".")[2], "unknown"))
    _add(root, "description", "Integer-only vision-transformer accelerator, configuration "
                              f"{config.name}")
    ET.indent(root)
    return ('<?xml version="1.0" encoding="UTF-8"?>\n'
            "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
            + ET.tostring(root, encoding="unicode") + "\n")
