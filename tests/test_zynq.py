# SPDX-License-Identifier: Apache-2.0
"""The block design for a Zynq: Tcl that connects what is there. Not run by Vivado."""

import json
import xml.etree.ElementTree as ET

import pytest

from examples.zynq.__main__ import main
from gen.ip.ipxact import NAMESPACE
from gen.verilog import main as verilog
from tests.optional_tools import TCL


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zynq") / "core"
    assert verilog(["--config", "tiny", "-o", str(folder)]) == 0
    return folder


def run(script):
    """Run it with Vivado's commands replaced by one that keeps their words; return these."""
    import tkinter
    tcl = tkinter.Tcl()
    calls = []
    tcl.createcommand("keep", lambda *words: calls.append(words) or words[-1])
    for name in ("create_project", "set_property", "current_project", "update_ip_catalog",
                 "create_bd_design", "create_bd_cell", "apply_bd_automation", "get_bd_cells",
                 "connect_bd_intf_net", "get_bd_intf_pins", "connect_bd_net", "get_bd_pins",
                 "assign_bd_address", "get_bd_addr_spaces", "get_bd_addr_segs",
                 "validate_bd_design", "save_bd_design", "make_wrapper", "get_files",
                 "current_fileset", "launch_runs", "wait_on_run"):
        tcl.eval(f"proc {name} args {{ keep {name} {{*}}$args }}")
    tcl.eval("proc puts args { keep puts {*}$args }; rename file real_file")
    tcl.eval('proc file {what args} { if {$what eq "copy"} { keep copy {*}$args } else '
             "{ real_file $what {*}$args } }")
    tcl.eval(f"source {{{script}}}")
    return calls


@TCL
def test_every_port_of_the_core_is_connected_once(core, tmp_path):
    out = tmp_path / "out"
    assert main([str(core), "--frequency", "80", "-o", str(out)]) == 0
    calls = run(out / "design.tcl")
    cells = {words[-1]: words[-2] for words in calls if words[0] == "create_bd_cell"}
    names = {"s": NAMESPACE}
    root = ET.parse(core / "component.xml").getroot()
    vlnv = ":".join(root.find(f"s:{tag}", names).text for tag in ("vendor", "library", "name"))
    assert cells["accelerator"] == vlnv
    interfaces = {item.text for item in root.findall("s:busInterfaces/s:busInterface/s:name",
                                                     names)}
    pins = [pin for words in calls if words[0] in ("connect_bd_net", "connect_bd_intf_net")
            for pin in words[1:]]
    assert {pin.split("/")[0] for pin in pins} == set(cells)
    of_core = [pin.split("/")[1] for pin in pins if pin.startswith("accelerator/")]
    assert sorted(of_core) == sorted(interfaces)
    # Active high, as component.xml says.
    assert ("connect_bd_net", "reset/peripheral_reset", "accelerator/rst") in calls
    settings = next(words for words in calls if words[:2] == ("set_property", "-dict"))
    assert "CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ 80 " in settings[2]
    assert "CONFIG.PCW_S_AXI_HP0_DATA_WIDTH 64" in settings[2]
    [block] = root.findall(".//s:addressBlock", names)
    given = next(words for words in calls if words[0] == "assign_bd_address")
    assert given[-1] == f"accelerator/s_axi/{block.find('s:name', names).text}"
    assert int(given[given.index("-range") + 1], 16) == int(block.find("s:range", names).text)
    assert ("set_property", "ip_repo_paths", str(core / "packaged"), "current_project") in calls


@pytest.mark.parametrize(("change", "arguments", "message"), [
    (None, [], "is no folder of gen.verilog: no manifest.json"),
    ({"units": {"softmax": {}}}, [], "has no accelerator, but softmax"),
    ({"configuration": {"axi_bits": 256, "name": "wide"}}, [], "at most 128 bits, not 256"),
    ({}, ["--frequency", "0"], "--frequency must be 1 to 250 MHz, not 0"),
])
def test_bad_input_gets_one_line(core, tmp_path, capsys, change, arguments, message):
    folder = tmp_path / "core"
    folder.mkdir()
    if change is not None:
        manifest = json.loads((core / "manifest.json").read_text()) | change
        (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main([str(folder), *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
