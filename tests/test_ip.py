# SPDX-License-Identifier: Apache-2.0
"""What other tools are told of the accelerator: they see what the register list says."""

import importlib.metadata
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cmsis_svd.parser import SVDParser
from peakrdl_ipxact import IPXACTImporter
from systemrdl import RDLCompiler
from systemrdl.rdltypes import OnWriteType

from gen.ip.ipxact import NAMESPACE
from gen.ip.rdl import identifier, system_rdl
from gen.ip.svd import svd
from gen.verilog import main
from tests.optional_tools import TCL
from vitforge.spec.config import load
from vitforge.spec.register_map import ADDRESS_BITS, REGISTERS, BitField, reset_value

CONFIG = load("tiny")


def wanted(config, *, bare=True):
    """Return the map: (name, offset) and fields as (name, low, high, readable, writable, ...).

    `bare` is whether a register without fields has one, ``value``.
    """
    found = {}
    for register in REGISTERS:
        reset = reset_value(register, config)
        fields = register.fields or ((BitField("value", 0, 32, ""),) if bare else ())
        access = register.access
        found[register.name, register.offset] = [
            (item.name, item.low, item.low + item.width - 1, access != "command",
             access != "ro", access == "w1c",
             None if reset is None else (reset & item.mask) >> item.low,
             {identifier(choice.name): choice.value for choice in item.choices})
            for item in fields]
    return found


def compiled(top):
    """Return the map as PeakRDL's compiler sees it."""
    found = {}
    for register in top.registers():
        found[register.inst_name, register.absolute_address] = [
            (item.inst_name, item.low, item.high, item.is_sw_readable, item.is_sw_writable,
             item.get_property("onwrite") == OnWriteType.woclr, item.get_property("reset"),
             {member.name: member.value for member in item.get_property("encode") or ()})
            for item in register.fields()]
    return found


@pytest.mark.parametrize("config", [None, CONFIG])
def test_peakrdl_compiles_the_same_map(tmp_path, config):
    file = tmp_path / "vitforge.rdl"
    file.write_text(system_rdl(config))
    compiler = RDLCompiler()
    compiler.compile_file(str(file))
    top = compiler.elaborate().top
    assert compiled(top) == wanted(config)
    assert top.size <= 1 << ADDRESS_BITS
    pulses = [f"{item.parent.inst_name}.{item.inst_name}" for register in top.registers()
              for item in register.fields() if item.get_property("singlepulse")]
    assert pulses == ["CONTROL.start", "CONTROL.stop"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("ip") / "out"
    assert main(["--config", "tiny", "--name", "my_", "--frequency", "125", "-o", str(out)]) == 0
    return out


@pytest.mark.thorough
def test_peakrdl_reads_the_same_map_from_ip_xact(folder):
    compiler = RDLCompiler()
    IPXACTImporter(compiler).import_file(str(folder / "component.xml"))
    top = compiler.elaborate().top
    [block] = top.children()
    assert block.inst_name == "registers" and block.size <= 1 << ADDRESS_BITS
    assert compiled(block) == wanted(CONFIG)


@pytest.mark.parametrize("config", [None, CONFIG])
def test_a_reader_of_cmsis_svd_sees_the_same_map(tmp_path, config):
    file = tmp_path / "vitforge.svd"
    file.write_text(svd(config, base=0x9000_0000))
    [device] = SVDParser.for_xml_file(str(file)).get_device().peripherals
    assert device.base_address == 0x9000_0000
    assert device.address_blocks[0].size == 1 << ADDRESS_BITS
    found = {}
    for register in device.registers:
        reset = next(reset_value(item, config) for item in REGISTERS if item.name == register.name)
        assert reset is None or register.reset_value == reset
        found[register.name, register.address_offset] = [
            (item.name, item.bit_offset, item.bit_offset + item.bit_width - 1,
             item.access.value != "write-only", item.access.value != "read-only",
             item.modified_write_values is not None
             and item.modified_write_values.value == "oneToClear",
             {value.name: value.value for values in item.enumerated_values or ()
              for value in values.enumerated_values})
            for item in register.fields or ()]
    assert found == {place: [(*item[:6], item[7]) for item in fields]
                     for place, fields in wanted(config, bare=False).items()}


def ports(folder):
    """Return the ports of the top module as Verilog declares them, with their attributes."""
    text = (folder / "rtl" / "my_accelerator.v").read_text()
    body = text[text.index("module my_accelerator("):]
    body = body[:body.index("endmodule")]
    return {name: (direction, int(high or 0) + 1, re.findall(r'(\w+) = "(.*?)"', attributes))
            for attributes, direction, high, name in re.findall(
                r"((?:^  \(\* .* \*\)\n)*)^  (input|output) (?:\[(\d+):0\] )?(\w+);$", body,
                re.MULTILINE)}


def test_every_port_says_its_interface(folder):
    found = ports(folder)
    assert len(found) > 60
    parameters = {}
    for name, (_, _, attributes) in found.items():
        told = dict(attributes)
        kind, bus, logical = told["X_INTERFACE_INFO"].split()
        assert name in (bus, f"{bus}_{logical.lower()}")
        signal = {"clk": "clock", "rst": "reset"}.get(bus, bus)
        assert kind == ("xilinx.com:interface:aximm:1.0" if "_axi_" in name else
                        f"xilinx.com:signal:{signal}:1.0")
        if "X_INTERFACE_PARAMETER" in told:
            head, *rest = told["X_INTERFACE_PARAMETER"].split(", ")
            assert head == f"XIL_INTERFACENAME {bus}" and bus not in parameters
            parameters[bus] = dict(item.split(" ") for item in rest)
    assert parameters["rst"] == {"POLARITY": "ACTIVE_HIGH"}
    assert parameters["clk"] == {"ASSOCIATED_BUSIF": "s_axi:m_axi", "ASSOCIATED_RESET": "rst"}
    assert parameters["interrupt"] == {"SENSITIVITY": "LEVEL_HIGH"}
    assert parameters["s_axi"]["PROTOCOL"] == "AXI4LITE"
    assert parameters["m_axi"]["DATA_WIDTH"] == str(CONFIG.axi_bits)


def test_ip_xact_has_the_ports_and_files_that_are_there(folder):
    root = ET.parse(folder / "component.xml").getroot()
    names = {"s": NAMESPACE}

    def texts(path):
        return [item.text for item in root.findall(path, names)]

    assert texts("s:name") == ["my_accelerator_tiny"]
    assert texts("s:version") == [importlib.metadata.version("vitforge")]
    told = {}
    for port in root.findall("s:model/s:ports/s:port", names):
        left = port.find("s:wire/s:vector/s:left", names)
        told[port.find("s:name", names).text] = (
            {"in": "input", "out": "output"}[port.find("s:wire/s:direction", names).text],
            1 if left is None else int(left.text) + 1)
    assert told == {name: port[:2] for name, port in ports(folder).items()}
    mapped = texts(".//s:physicalPort/s:name")
    assert sorted(mapped) == sorted(told)
    files = texts(".//s:file/s:name")
    assert "rtl/my_accelerator.v" in files and "registers/vitforge.rdl" in files
    assert all((folder / name).is_file() for name in files)


def test_what_interconnects_expect_is_constant(folder):
    text = (folder / "rtl" / "my_accelerator.v").read_text()
    for channel in ("ar", "aw"):
        for name, value in (("lock", "1'h0"), ("cache", "4'h3"), ("prot", "3'h0"),
                            ("qos", "4'h0"), ("region", "4'h0"), ("burst", "2'h1")):
            assert re.search(rf"assign m_axi_{channel}{name} = {value};", text), channel + name


def test_constraints_for_vivado_are_those_of_sdc(folder):
    constraints = folder / "constraints"
    assert (constraints / "clock.xdc").read_text() == (constraints / "clock.sdc").read_text() \
        == "create_clock -name clk -period 8.000 [get_ports clk]\n"


@TCL
def test_the_script_for_vivado_is_tcl_and_names_what_is_there(folder, tmp_path):
    """Not Vivado: its commands are replaced by one that keeps their words."""
    import tkinter
    tcl = tkinter.Tcl()
    calls = []
    tcl.createcommand("keep", lambda *words: calls.append(words) or words[0])
    tcl.eval("namespace eval ipx {}; set argv {}")
    for name in ("create_project", "add_files", "set_property", "get_files", "current_fileset",
                 *(f"ipx::{name}" for name in (
                     "package_project", "current_core", "associate_bus_interfaces",
                     "create_xgui_files", "update_checksums", "check_integrity", "save_core"))):
        tcl.eval(f"proc {name} args {{ keep {name} {{*}}$args }}")
    tcl.eval("proc puts args { keep puts {*}$args }")
    tcl.eval(f"source {{{folder / 'package_ip.tcl'}}}")
    added = [Path(words[-1]) for words in calls if words[0] == "add_files"]
    assert added == [folder / "rtl" / "my_accelerator.v", folder / "constraints" / "clock.xdc"]
    assert all(path.is_file() for path in added)
    assert ("set_property", "top", "my_accelerator", "current_fileset") in calls
    assert {words[2] for words in calls if words[0] == "ipx::associate_bus_interfaces"} \
        == {"s_axi", "m_axi"}
    assert calls[-1] == ("puts", f"packaged: {folder / 'packaged'}")
