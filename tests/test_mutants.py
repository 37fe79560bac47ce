# SPDX-License-Identifier: Apache-2.0
"""Mutants: killed, proved equal or alive, each by what it is; and nothing is judged twice."""

import dataclasses
import itertools

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from formal.mutants import __main__ as command
from formal.mutants import equal as proving
from formal.mutants import judge as judging
from formal.mutants import netlist
from formal.mutants.cut import Graph, differs, read
from formal.mutants.equal import graph_of
from formal.mutants.judge import ALIVE, EQUIVALENT, KILLED, judge
from gen.convert import convert
from gen.elaborate import Design
from golden.units.stream import PipelineModel
from hw.lib.stream import Skid, signature
from sim.cases.case import Case
from sim.replay import Replayed
from tests.optional_tools import ABC
from vitforge.spec.config import load
from vitforge.spec.words import Field, Word

WORD = Word((Field("x", 4),))


class _Unit(wiring.Component):
    """A buffer behind ``x | x & 2 x``, in which the second term adds nothing to the first."""

    i: In(signature(WORD))
    o: Out(signature(WORD))

    def elaborate(self, platform):
        m = Module()
        m.submodules.skid = skid = Skid(WORD)
        m.d.comb += [skid.i.valid.eq(self.i.valid), self.i.ready.eq(skid.i.ready),
                     skid.i.payload.x.eq(self.i.payload.x
                                         | (self.i.payload.x & (self.i.payload.x << 1)))]
        wiring.connect(m, wiring.flipped(self.o), skid.o)
        return m


def _judge(monkeypatch, folder, data):
    """Judge mutants of the unit by a bench that sends `data`."""
    design = Design("unit4", "unit4", convert(_Unit(), "unit4"), 1, {"i": WORD, "o": WORD},
                    (("i", True, None), ("o", False, None)))
    case = Case("data", {"i": data}, {"o": data}, PipelineModel(stages=0))
    monkeypatch.setattr(judging, "elaborate", lambda unit, config: design)
    monkeypatch.setattr(judging, "all_cases", lambda unit, config, seed: [case])
    monkeypatch.setattr(netlist, "create", lambda unit, config: _Unit())
    return judge("unit4", load("tiny"), folder, count=200, seed=1, bench_seed=1, limit=60)


@ABC
@pytest.mark.rtl
@pytest.mark.synth
@pytest.mark.thorough
def test_every_mutant_is_killed_or_proved_equal_and_a_poor_bench_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("OPT_FAST", "-O0")
    poor = _judge(monkeypatch, tmp_path, [0, 1, 3, 5] * 2)
    found = {mutant.number: item.status for mutant, item in poor}
    assert set(found.values()) == {KILLED, EQUIVALENT, ALIVE} and len(found) > 100
    alive = [mutant for mutant, item in poor if item.status == ALIVE]
    assert all(item.where.startswith("differs in ") for _, item in poor if item.status == ALIVE)
    # All that the poor one can't see has to do with the bit that is never 1 in it.
    assert {mutant.bit for mutant in alive if mutant.wire.startswith("o.p__x")} <= {3}

    monkeypatch.setattr(judging, "equal", None)     # nothing is left for it
    good = _judge(monkeypatch, tmp_path, [*range(16), *range(15, -1, -1)] * 2)
    again = {mutant.number: item.status for mutant, item in good}
    assert set(again.values()) == {KILLED, EQUIVALENT}
    assert {number for number, status in again.items() if status == EQUIVALENT} \
        == {number for number, status in found.items() if status == EQUIVALENT}
    equivalent = [mutant for mutant, item in good if item.status == EQUIVALENT]
    assert any(source.startswith("tests/test_mutants.py:")
               for mutant in equivalent for source in mutant.sources)

    monkeypatch.setattr(judging, "replay", lambda *arguments: Replayed(False, 0, 0, 0))
    assert {mutant.number: item.status for mutant, item in _judge(
        monkeypatch, tmp_path, [*range(16), *range(15, -1, -1)] * 2)} == again, "not judged twice"


def test_latches_begin_with_the_number():
    graph = b"aig 6 1 3 0 2 1\n4\n6\n8\n12\n\x01\x02\x03\n\x04"
    assert graph_of(graph, (2, 0), 1) == b"aig 6 1 3 0 2 1\n4 0\n6\n8 1\n12\n\x01\x02\x03\n\x04"
    assert graph_of(graph, (2, 0), 2) == b"aig 6 1 3 0 2 1\n4 1\n6\n8 0\n12\n\x01\x02\x03\n\x04"


def test_a_mutant_names_its_place():
    mutant = netlist._read(
        "mutate -ctrl mutant 9 17 -mode cnot1 -module mutants -cell $flatten\\first.$434 -port Q "
        "-portbit 14 -ctrlbit 10 -wire first.term -wirebit 3 "
        "-src /x/site-packages/amaranth/lib/data.py:1|hw/lib/stream.py:39 -src hw/x.py:7")
    assert (mutant.number, mutant.mode, mutant.port, mutant.bit) == (17, "cnot1", "Q", 14)
    assert str(mutant) == "first.term[3] Q[14] cnot1 (hw/x.py:7, hw/lib/stream.py:39)"


@pytest.mark.parametrize(("arguments", "words"), [
    (["gelu"], "unit must be one of systolic, "), (["--config", "huge"], "no configuration 'huge'"),
    (["--count", "0"], "--count must be at least 1"), (["--limit", "0"], "--limit must be at")])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    out = tmp_path / "out"
    assert command.main([*arguments, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not out.exists()


def _evaluate(graph, inputs, state):
    """Return all values of a graph's variables."""
    values = [0, *inputs, *state]
    for left, right in graph.gates:
        values.append((values[left >> 1] ^ left & 1) & (values[right >> 1] ^ right & 1))
    return values


def _output(graph, inputs, state):
    output, = graph.outputs
    return _evaluate(graph, inputs, state)[output >> 1] ^ output & 1


#: Inputs a, b and choice; a register q that takes a & b, or with choice a & b & q; output !q.
AND = b"aig 6 3 1 1 2\n10\n9\n\x06\x02\x02\x02"


def test_a_graph_is_read_as_it_is_written():
    graph = read(AND)
    assert (graph.inputs, graph.nexts, graph.outputs) == (3, [10], [9])
    assert graph.gates == [(4, 2), (10, 8)]


@pytest.mark.parametrize(("chosen", "compared"), [(0, [(0, None)]), (1, [(0, None)]), (1, [])])
def test_two_of_a_graph_differ_where_they_do(chosen, compared):
    # The register's next is !choice & a & b | choice & a & b & q, in three gates more.
    gates = [(4, 2), (10, 8), (12, 6), (10, 7), (15, 17)]
    graph = Graph(3, [19], [9], gates)
    miter, reached = (read(differs(graph, {2: 0}, {2: chosen}, compared, reached=item))
                      for item in (False, True))
    assert not miter.nexts and len(reached.nexts) == 1
    for a, b, q in itertools.product((0, 1), repeat=3):
        differ = chosen and a and b and not q
        assert _output(miter, [a, b, 0, q], []) == _output(reached, [a, b, 0], [q]) == differ
        assert _output(dataclasses.replace(reached, outputs=reached.nexts), [a, b, 0], [q]) \
            == a & b, "the first says what comes next"


@ABC
def test_what_only_states_tell_that_are_not_reached_is_proved(tmp_path):
    # A register that keeps 0; where it is 1, the choice comes out.
    graph = b"aig 4 2 1 1 1\n6\n8\n\x02\x02"
    assert read(graph) == Graph(2, [6], [8], [(6, 4)])
    (tmp_path / "cut.aig").write_bytes(graph)
    made = netlist.Mutated((), "", tmp_path, (), tmp_path / "cut.aig", (1,), ((0, None),))
    assert proving._alike(made, 1, 9)
    (tmp_path / "cut.aig").write_bytes(graph.replace(b"\n6\n", b"\n2\n"))
    assert not proving._alike(made, 1, 9), "it takes an input"
    assert not [path for path in tmp_path.iterdir() if path.name != "cut.aig"]
