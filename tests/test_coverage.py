# SPDX-License-Identifier: Apache-2.0
"""Coverage of the generated Verilog: what Verilator wrote is read as it is."""

import json

import pytest

from sim import coverage
from sim.coverage import RESULTS, Point, points


def _line(page, line, column, comment, scope, count):
    fields = {"f": "unit.v", "l": line, "n": column, "page": page, "o": comment, "h": scope}
    text = "".join(f"\x01{key}\x02{value}" for key, value in fields.items())
    return f"C '{text}' {count}\n"


def test_points_are_those_of_the_modules_summed_over_instances():
    text = ("# SystemC::Coverage-3\n"
            + _line("v_toggle/unit.lane", 3, 7, "sum[2]:0->1", "top.a", 0)
            + _line("v_toggle/unit.lane", 3, 7, "sum[2]:0->1", "top.b", 5)
            + _line("v_toggle/unit.lane", 3, 7, "sum[2]:1->0", "top.a", 0)
            + _line("v_toggle/unit", 3, 7, "__0241[0]:1->0", "top", 0)
            + _line("v_branch/unit", 9, 5, "if", "top", 2)
            + _line("v_line/unit", 9, 5, "block", "top", 0)
            + _line("v_branch/unit", 10, 5, "else", "top", 0)
            + _line("v_line/player", 1, 1, "block", "top", 7)
            + _line("v_user/unit", 1, 1, "cover", "top", 7))
    verilog = "\n" * 8 + "  if (a)\n  if (\\$start ) begin end\n"
    assert points(text, ["unit", "unit.lane"], verilog) == {
        Point("toggle", "unit.lane", "sum[2]:0->1"): 5,
        Point("toggle", "unit.lane", "sum[2]:1->0"): 0,
        Point("net", "unit", "$1[0]:1->0"): 0,
        Point("branch", "unit", "9:5 if (a) if"): 2, Point("line", "unit", "9:5 if (a) block"): 0}


def test_a_reason_is_found_by_its_pattern(monkeypatch):
    monkeypatch.setattr(coverage, "WAIVED", {r"^unit unit\.lane sum\[": "it can't"})
    assert coverage.reason("unit", Point("toggle", "unit.lane", "sum[2]:0->1")) == "it can't"
    assert coverage.reason("unit", Point("toggle", "unit", "sum[2]:0->1")) is None


@pytest.mark.rtl
@pytest.mark.thorough
def test_a_bench_covers_its_unit(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OPT_FAST", "-O0")
    assert coverage.main(["softmax", "--config", "tiny", "-o", str(tmp_path)]) == 0
    found = json.loads((tmp_path / RESULTS).read_text())["softmax tiny"]
    for kind, least in zip(coverage.KINDS, (1, 0.9, 0.9, 0.6), strict=True):
        part = found[kind]
        missing = [item for item in found["missing"] if item["kind"] == kind]
        assert part["points"] - part["covered"] == len(missing)
        assert part["covered"] >= least * part["points"] > 0, kind
    assert found["cycles"] > 10_000 and found["words"] > 1000
    assert f"results: {tmp_path / RESULTS}" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (["gelu"], "unit must be one of systolic, "),
    (["--config", "huge"], "no configuration 'huge'")])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    assert coverage.main([*arguments, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not out.exists()
