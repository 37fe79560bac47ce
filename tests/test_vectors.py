# SPDX-License-Identifier: Apache-2.0
"""The vectors pass in simulators without Python, and catch a single wrong bit."""

import os
import re
import shutil
import subprocess
from functools import cache

import pytest
from optional_tools import ICARUS

from hw.units import UNITS
from sim.toolchain import find
from sim.vectors import main
from tests.sample import leading, thinned

#: Lines from either end that stay where vectors are cut; more if the last run is longer.
END = 2000


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the function that gives the vectors of a unit, which nothing may change."""
    @cache
    def write(unit):
        out = tmp_path_factory.mktemp("vectors") / unit
        assert main(["--unit", unit, "--config", "tiny", "-o", str(out)]) == 0
        return out
    return write


def _cut(source, folder):
    """Copy vectors: the first runs, which flow, and the last, with random gaps and stalls."""
    shutil.copytree(source, folder)
    lines = [(folder / f"{name}.hex").read_text().splitlines(keepends=True)
             for name in ("stimulus", "expected")]
    assert len(lines[0]) > 2 * END
    # What comes after the cut begins with a reset.
    reset = [int(line, 16) & 1 for line in lines[0]]
    starts = [n for n in range(1, len(reset)) if reset[n] > reset[n - 1]]
    after = next((n for n in starts if n >= len(reset) - END), starts[-1])
    for name, each in zip(("stimulus", "expected"), lines, strict=True):
        (folder / f"{name}.hex").write_text("".join(each[:END] + each[after:]))
    cycles = END + len(lines[0]) - after
    text, count = re.subn(r"localparam CYCLES = \d+;", f"localparam CYCLES = {cycles};",
                          (folder / "tb.v").read_text())
    assert count == 1
    (folder / "tb.v").write_text(text)
    return cycles


def _verilator(unit, folder):
    # The library with coroutines is for these alone, and so isn't worth optimising.
    tools = find(optimisation="-O0")
    flags = tools.environment["MAKEFLAGS"].replace("OPT_GLOBAL=-O2", "OPT_GLOBAL=-O0")
    environment = {**os.environ, **tools.environment, "MAKEFLAGS": flags}
    subprocess.run([tools.verilator, "--binary", "--timing", "-Wno-fatal", "-O3", *tools.options,
                    "tb.v", f"{unit}.v", "--top-module", "tb"], cwd=folder, check=True, timeout=300,
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
@pytest.mark.slow   # Icarus replays them all, cut
@pytest.mark.parametrize("unit", UNITS)
def test_verilator_replays_them_without_python(tmp_path, written, unit):
    folder = tmp_path / "out"
    shutil.copytree(written(unit), folder)
    _verilator(unit, folder)
    done = _replay(folder)
    cycles = len((folder / "stimulus.hex").read_text().splitlines())
    assert cycles > 1000
    assert done.returncode == 0, done.stdout
    assert f"PASS: {unit}, {cycles} cycles" in " ".join(done.stdout.split())
    _corrupt(folder / "expected.hex")
    done = _replay(folder)
    assert done.returncode != 0
    assert f"FAIL: {unit}, 1 differences" in " ".join(done.stdout.split())


def _icarus(unit, folder, language):
    subprocess.run(["iverilog", language, "-o", "tb.vvp", "tb.v", f"{unit}.v"], cwd=folder,
                   check=True, timeout=300, capture_output=True)


def _vvp(folder):
    return subprocess.run(["vvp", "-n", "tb.vvp"], cwd=folder, capture_output=True, text=True,
                          timeout=600, check=False)


@pytest.mark.rtl
@ICARUS
@pytest.mark.parametrize(("unit", "language"), leading(1, thinned(
    ["layernorm", *(unit for unit in UNITS if unit != "layernorm")], ["-g2012", "-g2005"], of=2)))
def test_icarus_replays_some_of_them(tmp_path, written, unit, language):
    folder = tmp_path / "out"
    cycles = _cut(written(unit), folder)
    _icarus(unit, folder, language)
    done = _vvp(folder)
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"PASS: {unit}, {cycles} cycles" in " ".join(done.stdout.split())
    _corrupt(folder / "expected.hex")
    done = _vvp(folder)
    assert done.returncode != 0
    assert f"FAIL: {unit}, 1 differences" in done.stdout


@pytest.mark.rtl
@pytest.mark.slow
@ICARUS
@pytest.mark.parametrize("language", ["-g2005", "-g2012"])
@pytest.mark.parametrize("unit", UNITS)
def test_icarus_replays_all_of_them(tmp_path, written, unit, language):
    folder = tmp_path / "out"
    shutil.copytree(written(unit), folder)
    _icarus(unit, folder, language)
    done = _vvp(folder)
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"PASS: {unit}" in done.stdout


def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, capsys):
    assert main(["--unit", "requant", "--config", "no.toml", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
