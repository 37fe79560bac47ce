# SPDX-License-Identifier: Apache-2.0
"""The page of sign-off figures is what its files make, and the files are what the runs wrote."""

import json
import re
import shutil

import pytest

from formal import signoff
from formal.signoff import KEPT, OTHERS, PAGE, page
from sim import coverage

RUN = {"date": "2026-11-30", "commit": "abc"}
RUNS = {
    "formal": {
        "tiny": {"requant": [{"name": "p_o_stays", "status": "proved", "frame": -1},
                             {"name": "p_o_late", "status": "undecided", "frame": -1},
                             {"name": "c_o_word", "status": "disproved", "frame": 3}]},
        "run": {**RUN, "yosys": "0.70", "abc": "ABC 1.01", "seconds": 9.5}},
    "mutants": {"requant tiny": {
        "unit": "requant", "config": "tiny", "mutants": 300, "killed": 280, "equivalent": 19,
        "alive": 1, "seed": 1, "bench_seed": 2, "limit": 30, "seconds": 77.0, "yosys": "0.70",
        "verilator": "5.048", "run": RUN, "survivors": [
            {"number": 7, "what": "x[3] Q[3] inv (hw/requant/unit.py:9)", "found": "undecided",
             "why": None}]}},
    "coverage": {"requant tiny": {
        "unit": "requant", "config": "tiny", "seed": 1, "cycles": 47056, "words": 17460,
        "verilator": "5.048", "run": RUN, "seconds": 3.0,
        "line": {"points": 3, "covered": 3}, "branch": {"points": 0, "covered": 0},
        "toggle": {"points": 20000, "covered": 19999}, "net": {"points": 8, "covered": 4},
        "missing": [
            {"kind": "toggle", "module": "requant", "place": f"{name}:{way}", "waived": None}
            for name in ("sum[3]", "sum[4]", "cells[0][1]", "cells[7][1]")
            for way in ("0->1", "1->0")]}},
    "corrupt": {"tiny": {"config": "tiny", "programs": 2000, "seed": 1, "different": ["x"],
                         "kinds": {"bytes": 1999, "bad field": 1}, "verilator": "5.048",
                         "run": RUN, "seconds": 5}},
    "soak": {"seeds": 40, "first": 3, "wrong": [7], "machines": 11, "cycles": 123456,
             "stalled": 25, "verilator": "5.048", "run": RUN, "seconds": 6},
}


@pytest.fixture
def output(tmp_path):
    """Return where the page goes, beside a folder with what others publish."""
    (tmp_path / "page").mkdir()
    shutil.copy(KEPT / OTHERS, tmp_path / "page")
    return tmp_path / "page.md"


def test_the_page_is_made_of_its_files():
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m formal.signoff makes it again"


def test_figures_of_runs_come_to_the_page(tmp_path, output, capsys, monkeypatch):
    monkeypatch.setattr(coverage, "WAIVED", {r"^requant requant sum\[": "no",
                                             r"^requant requant cells\[": "alike"})
    for name, found in RUNS.items():
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps(found))
    assert signoff.main(["--runs", str(tmp_path / "runs"), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"the page: {output}\n"
    text = output.read_text()
    assert text == page(output.with_suffix(""))
    # What is not all of it is never 100 %.
    assert ("| requant | tiny | 1 of 2 | 280 of 281, 99.64 % | 19 | 100.00 % | none | 99.99 % | "
            "50.00 % | "
            "47,056 | 17,460 |\n") in text
    assert "1 of 2 properties of 1 designs hold" in text and "1 of 1 situations" in text
    assert re.search(r" Open: \w+ of requant of tiny: (undecided|disproved)\.", text)
    assert "Not run, and open: of `tiny` skid, " in text and "; of `edge8` all; " in text
    assert "2,000; golden machine and Verilog disagree of 1. What they came to: bytes 1,999" in text
    assert ("Random networks: 40 on 11 machines that were drawn too, 25 of them on a memory that "
            "stalls; 123,456 cycles; golden machine and Verilog disagree of 1.") in text
    assert "| random networks | 2026-11-30 | `abc` | from 3 | Verilator 5.048 | 6 |\n" in text
    assert "| requant | `x[3] Q[3] inv (hw/requant/unit.py:9)` | undecided | open |\n" in text
    assert "| requant | toggle | `requant` `sum` | 4 | no |\n" in text
    assert "| requant | toggle | `requant` `cells` | 4 | alike |\n" in text
    assert "| proofs | 2026-11-30 | `abc` | none | Yosys 0.70, ABC 1.01 | 9.5 |\n" in text
    assert "| mutants of requant | 2026-11-30 | `abc` | mutants 1, bench 2 |" in text


def test_what_was_not_run_is_called_so(tmp_path, output, capsys):
    (tmp_path / "runs" / "coverage").mkdir(parents=True)
    (tmp_path / "runs" / "coverage" / "coverage.json").write_text(json.dumps(RUNS["coverage"]))
    assert signoff.main(["--runs", str(tmp_path / "runs"), "-o", str(output)]) == 0
    assert capsys.readouterr().err.count("not run: ") == 4
    text = output.read_text()
    assert "| requant | tiny | not run | not run |  | 100.00 % |" in text
    assert "Proofs were not run." in text and "Corrupted programs were not run." in text
    assert "Random networks were not run." in text
