# SPDX-License-Identifier: Apache-2.0
"""slang, which is strict about the language, takes all Verilog, old and new, without a warning."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gen.elaborate import elaborate
from hw.units import UNITS
from vitforge.spec.config import load

SIM = Path(__file__).parents[1] / "sim"
#: Elaborates designs, each by its top module and files; ends without Python's end, at which the
#: package speaks of leaks.
SLANG = """\
import json, os, sys
from pyslang.driver import Driver

def accepts(standard, top, files):
    driver = Driver()
    driver.addStandardArgs()
    # The benches have a time scale; the design, which has no delays, has none.
    words = ["slang", *files, "--top", top, "--std", standard, "-Werror", "--timescale=1ns/1ps"]
    return (driver.parseCommandLine(" ".join(words)) and driver.processOptions()
            and driver.parseAllSources() and driver.runFullCompilation(True))

done = all(accepts(sys.argv[1], *design) for design in json.loads(sys.argv[2]))
sys.stdout.flush()
sys.stderr.flush()
os._exit(0 if done else 1)
"""


def slang(standard: str, *designs: tuple[str, list[Path]]) -> tuple[int, str]:
    """Return the exit code, 0 if nothing is warned of, and what was said."""
    words = json.dumps([(top, list(map(str, files))) for top, files in designs])
    done = subprocess.run([sys.executable, "-c", SLANG, standard, words], capture_output=True,
                          text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("standard", ["1364-2005", "1800-2023"])
def test_slang_takes_the_generated_verilog(standard: str, tmp_path: Path) -> None:
    designs = [(unit, [tmp_path / f"{unit}.v"]) for unit in (*UNITS, "accelerator")]
    for unit, [file] in designs:
        file.write_text(elaborate(unit, load("tiny")).verilog, encoding="utf-8")
    bench = [*designs[-1][1], SIM / "accelerator_top.v", SIM / "memory.v"]
    assert slang(standard, *designs, ("accelerator_top", bench)) == (0, "")


def test_slang_refuses_what_it_warns_of(tmp_path: Path) -> None:
    file = tmp_path / "narrow.v"
    file.write_text("module narrow(input [3:0] a, output [3:0] q);\n  part p(.q(q));\n"
                    "endmodule\nmodule part(input [3:0] a, output [3:0] q);\n  assign q = a;\n"
                    "endmodule\n")
    code, said = slang("1364-2005", ("narrow", [file]))
    assert code == 1 and "has no connection" in said
