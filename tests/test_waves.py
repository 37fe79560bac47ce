# SPDX-License-Identifier: Apache-2.0
"""Waves: fields of streams by name, in the file and in what the viewer shows at first."""

import re
import subprocess

import pytest
import torch
from optional_tools import FST

import sim.run
from gen.elaborate import elaborate
from golden.float.vit import Vit, VitSpec
from golden.network.calibrate import calibrate
from hw.units import UNITS
from sim.accelerator.check import check
from sim.accelerator.waves import annotated as annotated_accelerator
from sim.accelerator.waves import state as state_of_accelerator
from sim.cases.image import all_cases
from sim.run import WAIVERS, regress
from sim.toolchain import find
from sim.waves import annotated, state
from tests.sample import leading
from vitforge.spec.config import load

#: A row of 6 channels has two elements of none on an array of 4 rows.
SPEC = VitSpec(image_size=12, patch_size=4, in_channels=2, classes=3, dim=6, depth=2, heads=2,
               mlp_hidden=12)
IMAGES = torch.randint(256, (2, 2, 12, 12), generator=torch.Generator().manual_seed(1),
                       ).to(torch.uint8)


def _shown(text):
    """Return signals of a save file, by name: bits."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([\w.]+?)(?:\[(\d+):0\])?", line):
            found[match[1]] = int(match[2] or 0) + 1
    return found


@pytest.mark.rtl
@pytest.mark.parametrize("unit", leading(
    1, ["layernorm", *(unit for unit in UNITS if unit != "layernorm")]))
def test_annotated_units_give_no_warning(unit, tmp_path):
    design, tools = elaborate(unit, load("tiny")), find()
    (tmp_path / f"{unit}.v").write_text(annotated(design))
    done = subprocess.run([tools.verilator, "--lint-only", "-Wall", str(WAIVERS), f"{unit}.v",
                           "--top-module", unit], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_save_file_has_every_field():
    design = elaborate("requant", load("tiny"))
    text = state(design, "player.unit", sim.run.Path("dump.fst"))
    assert text.startswith('[dumpfile] "dump.fst"\n')
    shown = _shown(text)
    for name, word in design.streams.items():
        fields = {signal.rpartition(".")[2] for signal in shown if f".stream_{name}." in signal}
        assert fields == {"valid", "ready"} | {
            f"{item.name}_{index}" if item.count else item.name for item in word.fields
            for index in range(item.count or 1)}
    assert shown["player.unit.stream_i.acc_1"] == 32 and shown["player.unit.stream_i.last"] == 1
    assert re.search(r"^@420\nplayer\.unit\.stream_i\.acc_0\[31:0\]$", text, re.MULTILINE)
    assert re.search(r"^@100000028\nplayer\.unit\.stream_i\.format\[1:0\]$", text, re.MULTILINE)


def _vcd(path):
    """Return the declared signals, name to (identifier, bits), and their values at the end."""
    signals, values, scopes = {}, {}, []
    with path.open(encoding="ascii") as file:
        for line in file:
            match line.split():
                case ["$scope", _, name, "$end"]:
                    scopes.append(name)
                case ["$upscope", "$end"]:
                    scopes.pop()
                case ["$var", _, bits, code, name, *_]:
                    signals[".".join([*scopes, name])] = code, int(bits)
                case [value, code] if value[0] == "b":
                    values[code] = int(value[1:], 2)
                case [change] if change[0] in "01":
                    values[change[1:]] = int(change[0])
    return signals, values


def _one_case(monkeypatch):
    """Play a short case."""
    monkeypatch.setattr(sim.run, "all_cases", lambda *arguments: [
        case for case in all_cases(*arguments) if case.name == "table signed"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a recorded VCD."""
    with pytest.MonkeyPatch.context() as patch:
        _one_case(patch)
        patch.setattr(sim.run, "fst", lambda tools: False)
        return regress("requant", load("tiny"), fast=True, waves=True,
                       directory=tmp_path_factory.mktemp("vcd")).waves


@pytest.mark.rtl
@pytest.mark.thorough
def test_recorded_waves_have_what_is_shown(plain):
    assert plain.name == "dump.vcd"
    signals, values = _vcd(plain)
    shown = _shown(plain.with_suffix(".gtkw").read_text())
    assert len(shown) == 31 and {name: signals[name][1] for name in shown} == shown
    for name, word in elaborate("requant", load("tiny")).streams.items():
        inside = f"player.unit.stream_{name}."
        fields = word.unpack([values[signals[f"{inside}payload"][0]]])
        for item in word.fields:
            for index, want in enumerate(fields[item.name].reshape(-1).tolist()):
                element = f"{item.name}_{index}" if item.count else item.name
                code, bits = signals[inside + element]
                assert values.get(code, 0) == want % (1 << bits)


@pytest.mark.rtl
@pytest.mark.slow   # another library to compile
@FST
def test_packed_waves_are_smaller(plain, tmp_path, monkeypatch):
    _one_case(monkeypatch)
    small = regress("requant", load("tiny"), fast=True, waves=True, directory=tmp_path).waves
    # An FST begins with a header block of 329 bytes.
    assert small.name == "dump.fst" and small.read_bytes()[:9] == b"\0" + (329).to_bytes(8, "big")
    assert '[dumpfile] "dump.fst"' in small.with_suffix(".gtkw").read_text()
    assert small.stat().st_size < plain.stat().st_size / 5


@pytest.mark.rtl
@pytest.mark.slow   # nothing else runs on this model
def test_waves_of_the_accelerator_have_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(sim.run, "fst", lambda tools: False)
    network = calibrate(Vit(SPEC).initialize(1).eval(), IMAGES, load("tiny"))
    found = check(network, IMAGES[:1], waves=True, directory=tmp_path)
    [dump] = found.directory.glob("run-*/dump.vcd")
    signals, _ = _vcd(dump)
    shown = _shown(dump.with_suffix(".gtkw").read_text())
    assert len(shown) > 150 and {name: signals[name][1] for name in shown} == shown


def test_save_file_of_the_accelerator_has_engines_and_codes_by_name():
    plain = elaborate("accelerator", load("tiny")).verilog
    text, sequencer = annotated_accelerator(plain), "accelerator_top.dut.core.sequencer"
    field = "drains__payload__operation"
    assert f"{field}_residual = 2'd2, {field}_raw = 2'd3}} {field}_t ;" in text
    shown = state_of_accelerator(plain, sim.run.Path("dump.fst"))
    assert shown.startswith('[dumpfile] "dump.fst"\n') and shown.count("\n@200\n-") == 11
    assert re.search(rf"^@100000028\n{sequencer}\.{field}\[1:0\]$", shown, re.MULTILINE)
    inside = _shown(shown)
    assert len(inside) == sum("@" not in line and "." in line for line in shown.splitlines()) - 2
    assert inside[f"{sequencer}.requests__payload__a_base"] == 24
    assert inside["accelerator_top.dut.core.array.o__payload__sums"] == 4 * 27
    assert inside["accelerator_top.dut.m_axi_rdata"] == 64
    with pytest.raises(ValueError, match="there is no module accelerator"):
        annotated_accelerator(elaborate("requant", load("tiny")).verilog)
