# SPDX-License-Identifier: Apache-2.0
"""Areas in the cells of a library: counted by hand, and files that are no library."""

import json
from pathlib import Path

import pytest

from gen.synthesis import command as synth
from gen.synthesis.asic import CellArea, cell_area, read_liberty
from gen.synthesis.yowasp import SynthesisError

CELLS = Path(__file__).parent / "data" / "cells.lib"
FLIPFLOP = "cell (DFF) { ff (IQ, IQN) { } }"
NANDS = """
module top(input clk, input [1:0] a, input [1:0] b, output reg [1:0] q);
  always @(posedge clk) q <= ~(a & b);
endmodule
"""
MEMORY = """
module top(input clk, input [3:0] w, input [3:0] r, input [2:0] a, output reg [2:0] q);
  reg [2:0] m [15:0];
  always @(posedge clk) m[w] <= ~a;
  always @(posedge clk) q <= ~m[r];
endmodule
"""
LATCH = "module top(input g, input d, output reg q); always @* if (g) q = d; endmodule\n"


def test_name_is_read_and_braces_in_words_are_not():
    library = read_liberty(CELLS)
    assert library.name == "five_cells"
    assert "transistors {" in library.text


@pytest.mark.synth
@pytest.mark.thorough
def test_cells_are_those_that_are_there(tmp_path):
    library = read_liberty(CELLS)
    assert cell_area(NANDS, "top", library, cache=tmp_path) == CellArea(
        library="five_cells", area=2 * 4 + 2 * 20.5, sequential=2 * 20.5, cells=4, memory_bits=0)
    found = cell_area(MEMORY, "top", library, cache=tmp_path)
    # An inverter a bit on either side, and a register; the memory is bits.
    assert (found.memory_bits, found.sequential) == (16 * 3, 3 * 20.5)
    assert found.area == 3 * 20.5 + 6 * 2
    with pytest.raises(SynthesisError, match="D latches are not supported"):
        cell_area(LATCH, "top", library, cache=tmp_path)


@pytest.mark.parametrize(("text", "words"), [
    ("module top; endmodule", "is no Liberty file: it does not begin with library (NAME) {"),
    ("", "is no Liberty file: it does not begin with library (NAME) {"),
    ("/* library (x) { */", "is no Liberty file: it does not begin with library (NAME) {"),
    ("library (x) { }", "has no cell"),
    ("library (x) { cell (INV) { area : 1; } }", "has no flip-flop"),
    (f"library (x) {{ {FLIPFLOP}", "is no whole Liberty file: 1 groups are not closed"),
    ("library (x) { cell (A) { comment : \"}}\"; ff (I, N) { }",
     "is no whole Liberty file: 2 groups are not closed"),
])
def test_other_files_are_one_line(tmp_path, capsys, text, words):
    path = tmp_path / "cells.lib"
    path.write_text(text, encoding="utf-8")
    assert synth.main(["--target", "asic", "--liberty", str(path), "--config", "tiny",
                       "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_no_text_or_not_there_is_one_line(tmp_path, capsys):
    path = tmp_path / "cells.lib"
    for content, words in ((None, "No such file"), (b"\xff\xfe\x00", "it is not text")):
        if content:
            path.write_bytes(content)
        assert synth.main(["--target", "asic", "--liberty", str(path), "-o", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["--target", "asic"], "--liberty FILE is for --target asic, and that needs it"),
    (["--liberty", str(CELLS)], "--liberty FILE is for --target asic, and that needs it"),
    (["--target", "asic", "--liberty", str(CELLS), "--unit", "accelerator"],
     "--target asic is for units, not accelerator"),
    (["--target", "asic", "--liberty", str(CELLS), "--place"], "--place is for ecp5, not asic"),
])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    assert synth.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.synth
@pytest.mark.thorough
def test_command_makes_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(synth, "generate", lambda unit, config: NANDS.replace("top", unit))
    monkeypatch.chdir(tmp_path)
    assert synth.main(["--target", "asic", "--liberty", str(CELLS), "--unit", "systolic",
                       "--config", "tiny", "-o", "out"]) == 0
    row = json.loads((tmp_path / "out" / "area.json").read_text())["units"][0]
    assert row == {"unit": "systolic", "configuration": "tiny", "target": "asic",
                   "library": "five_cells", "area": 49.0, "sequential": 41.0, "cells": 4,
                   "memory_bits": 0}
    assert "five_cells" in capsys.readouterr().out
