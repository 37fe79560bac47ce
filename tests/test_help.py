# SPDX-License-Identifier: Apache-2.0
"""Every command says what it does at once, and what is not installed in one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gen.cli import EXTRAS

#: Commands, with the arguments that a run needs.
COMMANDS = {
    "golden.quantize": ("--method", "minmax", "--checkpoint", "F", "--calibration", "D"),
}
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


def run(command, *arguments, hidden=""):
    module, *rest = command.split()
    return subprocess.run([sys.executable, "-c", RUN, module, hidden, *rest, *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_needs_no_pytorch(command):
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "example" in done.stdout
    assert done.stdout.endswith("imported:\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_one_line_at_once(command):
    done = run(command, *COMMANDS[command], "--no-such-option")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "--no-such-option" in done.stderr
    assert done.stdout.endswith("imported:\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_packages_that_are_missing_are_one_line(tmp_path, command):
    done = run(command, *COMMANDS[command], hidden=",".join(EXTRAS))
    assert done.returncode == 2
    assert re.fullmatch(r"[^\n]+: error: \w+ is not installed: "
                        r"`pip install 'vitforge\[\w+\]'` brings it\n", done.stderr)
