# SPDX-License-Identifier: Apache-2.0
"""The bench itself: it catches broken Verilog, and its trace keeps the rules of streams."""

import dataclasses
import itertools
import re

import pytest

import sim.run
from gen.elaborate import elaborate
from golden.units.stream import PipelineModel
from sim.__main__ import main
from sim.cases.case import Case
from sim.cases.image import all_cases
from sim.cases.trace import AFTERMATH, PATTERNS, trace
from sim.run import SimulationError, regress
from vitforge.spec.config import load
from vitforge.spec.words import Field, Word

WORDS = {"i": Word((Field("x", 8),)), "o": Word((Field("x", 8),))}


def _case(words=100):
    data = list(range(words))
    return Case("count", {"i": data}, {"o": data}, PipelineModel(stages=2))


@pytest.mark.parametrize(("gaps", "stalls"), PATTERNS)
def test_trace_keeps_the_rules_of_streams(gaps, stalls):
    cycles = list(trace(_case(), WORDS, gaps, stalls))
    sent = [c.payload["i"] for c in cycles if c.offer["i"] and c.ready["i"]]
    received = [c.result["o"] for c in cycles if c.valid["o"] and c.accept["o"]]
    assert sent == received == list(range(100))
    for now, after in itertools.pairwise(cycles):
        if now.offer["i"] and not now.ready["i"]:
            assert after.offer["i"] and after.payload["i"] == now.payload["i"]
        if now.valid["o"] and not now.accept["o"]:
            assert after.valid["o"] and after.result["o"] == now.result["o"]
    assert not any(c.valid["o"] for c in cycles[-AFTERMATH:])
    if (gaps, stalls) == ("flow", "flow"):
        assert len(cycles) == 100 + 3 + AFTERMATH, "100 words, latency 3"
    else:
        assert len(cycles) > 120 + AFTERMATH


def test_a_model_that_stops_is_not_waited_for():
    class Deaf(PipelineModel):
        def settle(self, valid, ready):
            return {"i": False}, {"o": False}

    case = Case("deaf", {"i": [1]}, {"o": [1]}, Deaf(stages=0))
    with pytest.raises(RuntimeError, match=r"^deaf: the model moves nothing for 5000 cycles"):
        list(trace(case, WORDS, "flow", "flow"))


def test_a_model_with_a_word_too_many_is_refused():
    case = Case("more", {"i": [1, 2]}, {"o": [1]}, PipelineModel(stages=0))
    with pytest.raises(RuntimeError, match=r"^more: the model offers a word too many on o$"):
        list(trace(case, WORDS, "flow", "flow"))


#: What is wrong with the last buffer, by the number in a file; and how the difference is told.
WRONG = {
    1: (r"assign i__ready = ([^;]+);", r"assign i__ready = (\1) | broken[0] == 2'd1;",
        r"i\.ready is 1, not 0"),
    2: (r"assign o__valid = ([^;]+);", r"assign o__valid = (\1) ^ broken[0] == 2'd2;",
        r"o\.valid is 1, not 0"),
    3: (r"o__payload <= ([^;]+);", r"o__payload <= (\1) ^ (broken[0] == 2'd3);",
        r"o\.payload is 0x"),
}


@pytest.mark.rtl
@pytest.mark.thorough
def test_python_and_the_player_find_the_same_first_difference(tmp_path, monkeypatch):
    number = tmp_path / "broken.hex"

    def broken(unit, config):
        """Generate a unit whose last buffer is wrong as the file says: one model for all."""
        design = elaborate(unit, config)
        before, skid = design.verilog.rsplit("module ", 1)
        assert skid.startswith("\\requant.skid")
        for pattern, replacement, _ in WRONG.values():
            skid, count = re.subn(pattern, replacement, skid, count=1)
            assert count == 1
        head, body = skid.split(");\n", 1)
        body = f'  reg [1:0] broken [0:0];\n  initial $readmemh("{number}", broken);\n{body}'
        return dataclasses.replace(design, verilog=f"{before}module {head});\n{body}")

    monkeypatch.setattr(sim.run, "elaborate", broken)
    monkeypatch.setattr(sim.run, "all_cases", lambda *case: all_cases(*case)[:2])
    for wrong, (_, _, message) in WRONG.items():
        number.write_text(f"{wrong}\n")
        found = []
        for fast in (False, True):
            with pytest.raises(SimulationError, match=message):
                regress("requant", load("tiny"), fast=fast, directory=tmp_path / str(fast))
            log, = (tmp_path / str(fast)).glob("*/run.log")
            found.append(re.findall(r"Mismatch: (.*, gaps .*, stalls .*, cycle \d+: .*)",
                                    log.read_text()))
        # Python goes on with the next pattern; the player speaks last, and ends with the first.
        assert found[0][0] == found[1][-1]
    number.write_text("0\n")
    regress("requant", load("tiny"), fast=True, directory=tmp_path / "True")


@pytest.mark.parametrize(("arguments", "message"), [
    (["gelu"], "invalid choice: 'gelu'"),
    (["softmax", "--config", "huge"], "no configuration 'huge'"),
    (["softmax", "--seed", "x"], "invalid int value: 'x'"),
])
def test_bad_input_gets_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tool_gets_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["requant", "--config", "tiny", "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert "not found" in captured.err and "install" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
