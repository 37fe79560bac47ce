# SPDX-License-Identifier: Apache-2.0
"""The bench in Verilog alone: what gen.verilog and gen.program write, built and run without us."""

import json
import os
import re
import subprocess

import pytest

from gen.program import main as program
from gen.verilog import main as verilog
from golden.accelerator_cycles import Buffers, predict
from hw.config import load
from sim.toolchain import find

pytestmark = [pytest.mark.rtl, pytest.mark.slow]


def files_of(core: str, names: list[str]) -> list[str]:
    """Return the files of a FuseSoC core's file sets, in order."""
    found = []
    for name in names:
        part = re.search(rf"^  {name}:\n    files:\n((?:      - .*\n)+)", core, re.MULTILINE)
        found += re.findall(r"- (\S+?)(?::.*)?$", part.group(1), re.MULTILINE)
    return found


def test_the_simulation_target_runs_a_program(tmp_path):
    core_folder, run_folder = tmp_path / "core", tmp_path / "run"
    assert verilog(["--config", "tiny", "-o", str(core_folder)]) == 0
    assert program(["mnist", "--config", "tiny", "--image", "4", "-o", str(run_folder)]) == 0
    core = (core_folder / "tiny.core").read_text()
    target = core[core.index("\n  sim:\n"):]
    options = re.search(r"verilator_options: \[(.*)\]", target).group(1).split(", ")
    sets = re.search(r"filesets: \[(.*)\]", target).group(1).split(", ")
    sources = [name for name in files_of(core, sets) if not name.endswith(".vh")]
    sources.sort(key=lambda name: not name.endswith(".vlt"))
    tools = find()
    built = subprocess.run(
        [tools.verilator, "--binary", *options, "--output-split", "5000", "-Iregisters",
         "--top-module", "accelerator_host", *sources, "-o", "host"], cwd=core_folder,
        env={**os.environ, **tools.environment}, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]

    arguments = (run_folder / "host.args").read_text().split()
    host = core_folder / "obj_dir" / "host"

    def run(*more: str, good: bool = True) -> str:
        done = subprocess.run([host, *arguments, *more], cwd=run_folder, capture_output=True,
                              text=True, check=False)
        assert (done.returncode == 0) == good
        return done.stdout

    buffers = json.loads((run_folder / "memory.json").read_text())["buffers"]
    exact = predict((run_folder / "program.bin").read_bytes(), load("tiny"),
                    buffers=Buffers(*(buffers[name]["address"]
                                      for name in ("program", "input", "output"))))
    text = run()
    assert f"{exact.cycles} cycles, array busy in {exact.array_busy}," in text
    assert "PASSED" in text
    assert "PASSED" in run("+stall=60", "+jitter=31")

    lines = (run_folder / "expected.hex").read_text().splitlines()
    lines[-1] = f"{int(lines[-1], 16) ^ 1:016x}"
    (run_folder / "expected.hex").write_text("\n".join(lines) + "\n")
    assert "FAILED: 1 beats of the output differ" in run(good=False)
    arguments = [text for text in arguments if "expected" not in text]
    assert "FAILED: plusargs are missing" in run(good=False)
