# SPDX-License-Identifier: Apache-2.0
"""The vectors pass in simulators without Python, and catch a single wrong bit."""

import os
import shutil
import subprocess

import pytest

from hw.units import UNITS
from sim.toolchain import find
from sim.vectors import main


def _write(unit, out):
    assert main(["--unit", unit, "--config", "tiny", "-o", str(out)]) == 0


def _verilator(unit, folder):
    tools = find()
    environment = {**os.environ, **tools.environment}
    subprocess.run([tools.verilator, "--binary", "--timing", "-Wno-fatal", "-O3", "tb.v",
                    f"{unit}.v", "--top-module", "tb"], cwd=folder, check=True, timeout=300,
                   capture_output=True, env=environment)


def _replay(folder):
    return subprocess.run(["obj_dir/Vtb"], cwd=folder, capture_output=True, text=True, timeout=300,
                          check=False)


def _corrupt(path):
    """Flip one bit that counts: `ready` or `valid` of a cycle that is compared."""
    lines = path.read_text().splitlines()
    index = next(n for n, line in enumerate(lines) if n > len(lines) // 2 and int(line, 16) & 1)
    lines[index] = f"{int(lines[index], 16) ^ 2:0{len(lines[index])}x}"
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.rtl
@pytest.mark.parametrize("unit", UNITS)
def test_verilator_replays_them_without_python(tmp_path, unit):
    _write(unit, tmp_path / "out")
    _verilator(unit, tmp_path / "out")
    done = _replay(tmp_path / "out")
    cycles = len((tmp_path / "out" / "stimulus.hex").read_text().splitlines())
    assert cycles > 1000
    assert done.returncode == 0, done.stdout
    assert f"PASS: {unit}, {cycles} cycles" in " ".join(done.stdout.split())
    _corrupt(tmp_path / "out" / "expected.hex")
    done = _replay(tmp_path / "out")
    assert done.returncode != 0
    assert f"FAIL: {unit}, 1 differences" in " ".join(done.stdout.split())


@pytest.mark.rtl
@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("language", ["-g2005", "-g2012"])
@pytest.mark.parametrize("unit", UNITS)
def test_icarus_replays_them(tmp_path, unit, language):
    _write(unit, tmp_path / "out")
    subprocess.run(["iverilog", language, "-o", "tb.vvp", "tb.v", f"{unit}.v"],
                   cwd=tmp_path / "out", check=True, timeout=300, capture_output=True)
    done = subprocess.run(["vvp", "-n", "tb.vvp"], cwd=tmp_path / "out", capture_output=True,
                          text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"PASS: {unit}" in done.stdout
    _corrupt(tmp_path / "out" / "expected.hex")
    done = subprocess.run(["vvp", "-n", "tb.vvp"], cwd=tmp_path / "out", capture_output=True,
                          text=True, timeout=600, check=False)
    assert done.returncode != 0
    assert f"FAIL: {unit}, 1 differences" in done.stdout


def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, capsys):
    assert main(["--unit", "requant", "--config", "no.toml", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
