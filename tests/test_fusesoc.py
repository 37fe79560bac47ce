# SPDX-License-Identifier: Apache-2.0
"""The FuseSoC core, run by FuseSoC: lint, and a digit on the bench in Verilog, without Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gen.compiler.command import main as program
from gen.verilog import main as verilog
from golden.machine.cycles import Buffers, predict
from hw.units import UNITS
from sim.toolchain import find
from vitforge.spec.config import load

pytestmark = pytest.mark.rtl

FUSESOC = Path(sys.executable).with_name("fusesoc")


def fusesoc(core, folder, *arguments):
    """Run it in a folder that is its home too, with our Verilator, and return what it did."""
    tools = find()
    home = {name: str(folder / "home") for name in (
        "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    path = os.pathsep.join((str(tools.verilator.parent), os.environ["PATH"]))
    return subprocess.run([FUSESOC, "--cores-root", core, "run", *arguments], cwd=folder,
                          env={**os.environ, "PATH": path, **tools.environment, **home},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=900, check=False)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = tmp_path_factory.mktemp("core") / "tiny"
    assert verilog(["--config", "tiny", "-o", str(folder)]) == 0
    return folder


@pytest.mark.thorough
def test_lint_passes_and_fails(core, tmp_path):
    done = fusesoc(core, tmp_path, "--target=lint", "vitforge:core:tiny")
    assert done.returncode == 0 and "verilator -f" in done.stdout, done.stdout
    rtl = core / "rtl" / "accelerator.v"
    text = rtl.read_text()
    wrong = text.replace("\nendmodule", "\n  wire open;\n  wire used = !open;\nendmodule", 1)
    try:
        rtl.write_text(wrong)
        done = fusesoc(core, tmp_path, "--target=lint_accelerator", "vitforge:core:tiny")
    finally:
        rtl.write_text(text)
    assert done.returncode != 0 and "%Warning-UNDRIVEN" in done.stdout


@pytest.mark.thorough
def test_every_unit_has_a_lint_of_its_own(tmp_path):
    folder = tmp_path / "units"
    assert verilog(["--config", "tiny", "--unit", "all", "-o", str(folder)]) == 0
    assert {f"lint_{unit}" for unit in UNITS} < set(yaml.safe_load(
        (folder / "tiny.core").read_text().removeprefix("CAPI=2:\n"))["targets"])
    for target in ("lint", f"lint_{next(iter(UNITS))}"):
        done = fusesoc(folder, tmp_path, f"--target={target}", "vitforge:core:tiny")
        assert done.returncode == 0, done.stdout
    done = fusesoc(folder, tmp_path, "--target=sim", "vitforge:core:tiny")
    assert done.returncode != 0, "the bench is the accelerator's"


def test_every_target_says_what_it_does(core):
    """Read from the file: FuseSoC 2.4.7 shows a target's description only in rare cases."""
    head, _, text = (core / "tiny.core").read_text().partition("\n")
    targets = yaml.safe_load(text)["targets"]
    assert head == "CAPI=2:"
    assert set(targets) == {"default", "lint", "lint_accelerator", "sim"}
    assert all(len(target["description"]) > 20 for target in targets.values())


@pytest.mark.slow
def test_sim_runs_a_digit_and_fails_if_it_should(core, tmp_path):
    folder = tmp_path / "run"
    assert program(["mnist", "--config", "tiny", "--image", "4", "-o", str(folder)]) == 0
    arguments = (folder / "fusesoc.args").read_text().split()

    def run(*more, stages=()):
        done = fusesoc(core, folder, *stages, "--target=sim", "vitforge:core:tiny", *more)
        return done.returncode, done.stdout

    buffers = json.loads((folder / "memory.json").read_text())["buffers"]
    exact = predict((folder / "program.bin").read_bytes(), load("tiny"),
                    buffers=Buffers(*(buffers[name]["address"]
                                      for name in ("program", "input", "output"))))
    code, text = run(*arguments)
    assert code == 0, text[-3000:]
    assert f"{exact.cycles} cycles, array busy in {exact.array_busy}," in text
    assert "\nPASSED\n" in text
    # Built once: from here on only run.
    once = ["--run"]
    code, text = run(*arguments, "--stall=60", "--jitter=31", stages=once)
    assert code == 0 and "\nPASSED\n" in text and f"{exact.cycles} cycles" not in text
    code, text = run(*arguments, "--limit=1000", stages=once)
    assert code != 0 and "\nFAILED: no interrupt\n" in text
    code, text = run(stages=once)
    assert code != 0 and "\nFAILED: plusargs are missing\n" in text

    lines = (folder / "expected.hex").read_text().splitlines()
    lines[-1] = f"{int(lines[-1], 16) ^ 1:016x}"
    (folder / "expected.hex").write_text("\n".join(lines) + "\n")
    code, text = run(*arguments, stages=once)
    assert code != 0 and "\nFAILED: 1 beats of the output differ\n" in text
    assert "PASSED" not in text
