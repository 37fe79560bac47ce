# SPDX-License-Identifier: Apache-2.0
"""Proofs: what is right is proved, what is broken is not, and no proof is of nothing."""

import json
import shutil
import sys

import pytest
from amaranth.hdl import Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from formal import __main__ as command
from formal import prove as proving
from formal.checker import Checker
from formal.designs import DESIGNS, lib
from formal.options import CONFIGS, NAMES, RESULTS, good
from formal.prove import prove
from formal.streams import ordered, promised, soon, trusted
from hw.bus.fetch_buffer import FetchBuffer
from hw.lib.queue import Queue
from hw.lib.stream import Skid
from tests.optional_tools import ABC


def test_names_on_the_command_line_are_the_designs():
    assert tuple(DESIGNS) == NAMES


@pytest.mark.parametrize("config", CONFIGS)
def test_every_design_has_properties_and_situations_in_every_configuration(config):
    counts = {}
    for name, build in DESIGNS.items():
        check = build(CONFIGS[config])
        assert check.properties and check.situations, name
        counts[name] = len(check.properties)
    assert sum(counts.values()) >= 135, counts


# -- what is broken


def _statuses(check, folder):
    return {item.name[2:]: item.status for item in prove(check, folder)}


@pytest.mark.thorough
@ABC
def test_a_buffer_that_is_ready_when_full_loses_a_word(tmp_path):
    class Ready(Skid):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.domain.comb += self.i.ready.eq(1)
            return m
    design = Ready(lib._word(CONFIGS["tiny"]))
    check = Checker(design)
    ordered(check, "words", design.i, design.o, held=2)
    found = _statuses(check, tmp_path)
    assert found["words_no_more_than_fit"] == found["words_in_order"] == "disproved"


@pytest.mark.thorough
@ABC
def test_a_queue_that_offers_its_memory_too_early_changes_a_word(tmp_path):
    class Early(Queue):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            # The newest word in place of the oldest.
            m.domain.comb += self.o.payload.eq(self.i.payload)
            return m
    design = Early(2, 4)
    check = Checker(design)
    promised(check, "o", design.o)
    inside = ordered(check, "entries", design.i, design.o, held=4)
    check.prove("offers_what_it_holds", design.o.valid == (inside != 0))
    found = _statuses(check, tmp_path)
    assert found["o_stays"] == found["entries_in_order"] == "disproved"
    assert found["offers_what_it_holds"] == found["entries_none_lost"] == "proved"
    assert found["entries_full"] == "disproved", "a situation comes true"


class _Wire(wiring.Component):
    """Passes a stream on, so it keeps what it is given to keep."""

    i: In(stream.Signature(2))
    o: Out(stream.Signature(2))

    def elaborate(self, platform):
        from amaranth.hdl import Module
        m = Module()
        wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
        return m


@pytest.mark.thorough
@ABC
def test_assumptions_count_and_a_proof_of_nothing_shows(tmp_path):
    def checked(*, trust, contradict=False):
        design = _Wire()
        check = Checker(design)
        promised(check, "o", design.o)
        check.reach("word", design.o.valid)
        if trust:
            trusted(check, "i", design.i)
        if contradict:
            check.assume("nothing_ever_comes", ~design.i.valid)
        return check
    free = prove(checked(trust=False), tmp_path / "free")
    assert {item.name: (item.status, item.frame) for item in free} == {
        "p_o_stays": ("disproved", 1), "c_word": ("disproved", 0)}
    assert all(map(good, prove(checked(trust=True), tmp_path / "trust")))
    # The property holds, of a wire on which nothing moves: the situation says so.
    still = prove(checked(trust=True, contradict=True), tmp_path / "still")
    assert {item.name: good(item) for item in still} == {"p_o_stays": True, "c_word": False}


@pytest.mark.thorough
@ABC
def test_bounds_on_waiting(tmp_path):
    def waits(cycles, falls=None):
        design = FetchBuffer(1, 2)
        check = Checker(design)
        inside = Signal(3)
        check.m.d.sync += inside.eq(inside + (design.i.valid & design.i.ready)
                                    - (design.o.valid & design.o.ready))
        waiting = (inside != 0) & ~design.o.valid
        left = {None: None, True: waiting, False: waiting | design.o.valid}[falls]
        soon(check, "offered", waiting, cycles=cycles, left=left)
        return _statuses(check, tmp_path / f"{cycles} {falls}")["offered"]
    # Its latency is two cycles: in the one between, a word is inside and not offered.
    assert (waits(0), waits(1)) == ("disproved", "proved")
    # What is said to be left has to get less.
    assert (waits(1, falls=True), waits(1, falls=False)) == ("proved", "disproved")


def test_statements_have_names_of_their_own():
    check = Checker(_Wire())
    check.prove("a", 1)
    with pytest.raises(ValueError, match="p_a is said twice"):
        check.prove("a", 1)


# -- the command


@pytest.mark.thorough
@ABC
def test_command_proves_once_and_says_what_it_found(tmp_path, capsys):
    arguments = ["skid-flowing", "--config", "tiny", "-o", str(tmp_path)]
    assert command.main(arguments) == 0
    text = capsys.readouterr().out
    assert "| skid-flowing | 3 of 3 |" in text
    assert "3 of 3 properties proved without bound, 1 of 1 situations reached" in text
    assert text.splitlines()[-1] == f"results: {tmp_path / RESULTS}"
    plain = json.loads((tmp_path / RESULTS).read_text())
    assert {item["status"] for item in plain["tiny"]["skid-flowing"]} == {"proved", "disproved"}
    kept = tmp_path / "skid-flowing-tiny" / "verdicts.json"
    kept.write_text(kept.read_text().replace('"proved"', '"disproved"'))
    # What was found is believed as long as the Verilog is the same; and a failure is exit code 1.
    assert command.main(arguments) == 1
    assert "skid-flowing of tiny: ready is disproved" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["skids"], "design must be one of skid, "), (["--config", "huge"], "--config must be one of"),
    (["--limit", "0"], "--limit must be at least 1")])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    assert command.main([*arguments, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not out.exists()


def test_without_abc_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main(["skid", "--config", "tiny", "-o", str(tmp_path)]) == 2
    assert "ABC is not installed: `apt-get install berkeley-abc`" in capsys.readouterr().err


@pytest.mark.slow
@ABC
@pytest.mark.parametrize("config", CONFIGS)
def test_everything_is_proved(tmp_path, config):
    assert command.main(["--config", config, "-o", str(tmp_path)]) == 0


def test_limits_are_seconds_of_a_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(proving, "solver", lambda: sys.executable)
    assert proving.solved(tmp_path, "import time; time.sleep(1.1); print(5)", 1) == "5\n"
    assert proving.solved(tmp_path, "while True: pass", 1) is None
