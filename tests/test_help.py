# SPDX-License-Identifier: Apache-2.0
"""Every command says what it does at once, and what is not installed in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gen.compiler.options import MNIST, NAMES
from golden.commands.methods import ABOUT
from golden.commands.options import PLANS
from golden.float.models import MODELS
from golden.ptq import METHODS
from golden.training.train import TASKS
from tests.sample import leading
from vitforge.base.cli import EXTRAS

#: Commands, with the arguments that a run needs.
COMMANDS = {
    "gen.verilog": ("-o", "F"),
    "gen.program": ("mnist", "-o", "F"),
    "sim.vectors": ("--unit", "softmax", "-o", "F"),
    "gen.synth": ("-o", "F"),
    "explore": ("units", "-o", "F"),
    "formal": (),
    "formal.mutants": ("-o", "F"),
    "formal.signoff": ("-o", "F"),
    "sim.coverage": ("-o", "F"),
    "sim.corrupt": ("-o", "F"),
    "sim.soak": ("-o", "F"),
    "gen.registers": ("-o", "F"),
    "sim accelerator": ("-o", "F"),
    "sim softmax": ("-o", "F"),
    "golden.quantize": ("--method", "minmax", "--checkpoint", "F", "--calibration", "D"),
    "golden.evaluate": (),
    "golden.train": ("--data", "F", "-o", "F.safetensors"),
    "golden.mnist": ("-o", "F"),
    "golden.rotate": ("--checkpoint", "F", "--calibration", "F", "-o", "F"),
    "golden.cifar10": ("--data", "F", "-o", "F"),
    "benchmarks.exported": ("--checkpoint", "F", "--calibration", "D", "--evaluate", "D"),
    "benchmarks.methods": ("--checkpoint", "F", "--calibration", "D", "--evaluate", "D"),
    "benchmarks.networks": ("-o", "F"),
    "benchmarks.outliers": ("--data", "F", "-o", "F.safetensors"),
    "benchmarks.quantization": ("--checkpoint", "F", "--calibration", "D", "--evaluate", "D"),
    "benchmarks.simulation": ("-o", "F"),
    "examples.demo": ("-o", "F"),
    "examples.litex": ("-o", "F"),
    "examples.zynq": ("D", "-o", "F"),
    "examples.litex.board": ("ulx3s-85f", "-o", "F"),
}
#: Those that need no more than Amaranth, and one whose tools are processes (`tests/test_synth.py`).
ALONE = ("gen.verilog", "gen.registers", "gen.synth", "examples.zynq", "formal.signoff")
ROOT = Path(__file__).parents[1]
#: Runs a module as a command, without the packages that are named, and says what it imported.
RUN = """\
import runpy, sys
module, hidden, *sys.argv[1:] = sys.argv[1:]
for name in hidden.split(","):
    sys.modules[name] = None
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    seen = [name for name in ("torch", "PIL", "rich", "cocotb") if sys.modules.get(name)]
    print("imported:", *seen)
"""


def run(folder, command, *arguments, hidden=""):
    module, *rest = command.split()
    return subprocess.run([sys.executable, "-c", RUN, module, hidden, *rest, *arguments],
                          cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", leading(8, COMMANDS))
def test_help_has_an_example_and_needs_no_pytorch(tmp_path, command):
    done = run(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "example" in done.stdout
    assert done.stdout.endswith("imported:\n")


@pytest.mark.parametrize("command", ["golden.quantize", "sim accelerator"])
def test_a_wrong_option_is_one_line_at_once(tmp_path, command):
    done = run(tmp_path, command, *COMMANDS[command], "--no-such-option")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--no-such-option" in done.stderr
    assert done.stdout == "imported:\n"


@pytest.mark.parametrize("command", leading(
    6, (name for name in COMMANDS if name not in ALONE)))
def test_packages_that_are_missing_are_one_line(tmp_path, command):
    done = run(tmp_path, command, *COMMANDS[command], hidden=",".join(EXTRAS))
    assert done.returncode == 2
    assert re.fullmatch(r"[^\n]+: error: \w+ is not installed: "
                        r"`pip install 'vitforge\[\w+\]'` brings it\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_names_of_the_light_tables():
    assert list(ABOUT) == list(METHODS)
    assert NAMES == (MNIST, *(name for name in MODELS if name != "mnist_vit"))
    assert list(PLANS) == list(TASKS)
