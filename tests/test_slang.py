# SPDX-License-Identifier: Apache-2.0
"""slang, which is strict about the language, takes all Verilog, old and new, without a warning."""

from pathlib import Path

import pytest
from pyslang.driver import Driver

from gen.elaborate import elaborate
from hw.units import UNITS
from vitforge.spec.config import load

SIM = Path(__file__).parents[1] / "sim"


def accepts(top: str, *files: Path, standard: str) -> bool:
    """Elaborate a design; a warning is an error."""
    driver = Driver()
    driver.addStandardArgs()
    # The benches have a time scale; the design, which has no delays, has none.
    words = ["slang", *map(str, files), "--top", top, "--std", standard, "-Werror",
             "--timescale=1ns/1ps"]
    return (driver.parseCommandLine(" ".join(words)) and driver.processOptions()
            and driver.parseAllSources() and driver.runFullCompilation())


@pytest.mark.parametrize("standard", ["1364-2005", "1800-2023"])
def test_slang_takes_the_generated_verilog(standard: str, tmp_path: Path) -> None:
    for unit in (*UNITS, "accelerator"):
        file = tmp_path / f"{unit}.v"
        file.write_text(elaborate(unit, load("tiny")).verilog, encoding="utf-8")
        assert accepts(unit, file, standard=standard), unit
    assert accepts("accelerator_top", file, SIM / "accelerator_top.v", SIM / "memory.v",
                   standard=standard)
