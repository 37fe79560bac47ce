# SPDX-License-Identifier: Apache-2.0
"""Exploration without tools: spaces, the store, fronts, budgets, the page."""

import dataclasses
import json
import random
import re
import subprocess
import sys

import pandas
import pytest

from explore import __main__ as command
from explore import pool, sources
from explore.measure import measure
from explore.measured import measured
from explore.objectives import columns, order
from explore.page import page
from explore.point import Point, repeat, toml
from explore.pool import Local, Stopped, executor
from explore.run import explore
from explore.search import search
from explore.space_file import read, ready
from explore.stages import Stages, _Watched
from explore.store import Failure, Store, key
from explore.table import Budget, completed, frame, front, write
from gen.compiler import command as program
from golden.machine.cycles import predict
from vitforge.spec.config import Config, load

SPACE = """
title = "Softmax"
base = "tiny"
measure = ["cycles"]
[[study]]
name = "lanes"
design = "softmax"
axes = {lanes = [1, 2, 4], exponential = ["shift", "iexp"]}
"""


def _space(tmp_path, text=SPACE):
    path = tmp_path / "space.toml"
    path.write_text(text)
    return path


# -- spaces


def test_every_combination_is_a_point_the_first_axis_slowest(tmp_path):
    points = read(_space(tmp_path)).points()
    assert [(p.values["lanes"], p.values["exponential"]) for p in points] == [
        (1, "shift"), (1, "iexp"), (2, "shift"), (2, "iexp"), (4, "shift"), (4, "iexp")]
    assert {p.values["rows"] for p in points} == {4}  # of the base
    assert len({p.id for p in points}) == 6


def test_ranges_ties_and_limits(tmp_path):
    text = SPACE.replace("axes = {", "tie = {cols = \"rows\"}\nlimits = {macs = [4, 40]}\n"
                         "axes = {rows = {from = 2, to = 8, step = 2}, ")
    points = read(_space(tmp_path, text)).points()
    assert sorted({(p.values["rows"], p.values["cols"]) for p in points}) == [
        (2, 2), (4, 4), (6, 6)]
    assert len(points) == 18


def test_identity_is_what_is_measured_and_not_where_it_is_listed(tmp_path):
    first = read(_space(tmp_path)).points()[0]
    assert dataclasses.replace(first, study="other", space="another").id == first.id
    assert dataclasses.replace(first, measure=("cycles", "ecp5")).id != first.id
    assert dataclasses.replace(first, values={**first.values, "lanes": 3}).id != first.id
    assert Point.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    assert first.config().lanes == 1


@pytest.mark.parametrize(("change", "words"), [
    (("lanes = [1, 2, 4]", "lines = [1]"),
     "study 'lanes': parameter 'lines' is unknown: give rows"),
    (("lanes = [1, 2, 4]", "lanes = []"), "lanes is empty"),
    (("lanes = [1, 2, 4]", "lanes = [1, 1]"), "lanes has a value twice"),
    (("lanes = [1, 2, 4]", "lanes = {from = 4, to = 1}"), "lanes is empty: from 4 to 1"),
    (("lanes = [1, 2, 4]", "lanes = [0]"), "lanes must be an integer between 1 and 64, not 0"),
    (("lanes = [1, 2, 4]", "lanes = [true]"), "lanes must be an integer"),
    (('"iexp"', '"exp"'), "exponential must be one of shift, iexp, not 'exp'"),
    (('design = "softmax"', 'design = "soft"'), "design 'soft' is unknown: give accelerator"),
    (('design = "softmax"', 'design = "softmax"\ncolour = 1'), "key 'colour' is unknown"),
    (('design = "softmax"', ""), "design must be given"),
    (('design = "softmax"', 'design = "network"'), "cycles needs a network: mnist"),
    (('design = "softmax"', 'design = "softmax"\nlimits = {macs = [9, 4]}'),
     "limits of macs contradict each other: at least 9 and at most 4"),
    (('design = "softmax"', 'design = "softmax"\nlimits = {name = [9, 4]}'), "limit 'name'"),
    (('design = "softmax"', 'design = "softmax"\ntie = {lanes = "rows"}'), "lanes is tied to rows"),
    (('measure = ["cycles"]', 'measure = ["speed"]'), "measure 'speed' is unknown: give exact"),
    (('measure = ["cycles"]', 'measure = ["energy"]'), "energy is of a network's inference"),
    (('measure = ["cycles"]', "measure = []"), "measure must list at least one of exact"),
    (('base = "tiny"', 'base = "huge"'), "no configuration 'huge'"),
    (("[[study]]", 'objectives = {fps = "more"}\n[[study]]'), "objectives must be min or max"),
    (("[[study]]", 'objectives = {speed = "max"}\n[[study]]'),
     "objective 'speed' is measured by no study: give cycles_per_row, "),
    (("[[study]]", 'objectives = {"ecp5.luteq" = "min"}\n[[study]]'),
     "objective 'ecp5.luteq' is measured by no study"),
    (("[[study]]", "trials = 0\n[[study]]"), "trials must be a positive number"),
    (("[[study]]", "[study]"), "a space needs at least one [[study]]"),
    (("[[study]]", "[[study]"), "is not TOML"),
])
def test_bad_space_is_one_line_and_nothing_is_made(tmp_path, capsys, change, words):
    path = _space(tmp_path, SPACE.replace(*change))
    assert command.main([str(path), "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err, captured.err
    assert str(path) in captured.err
    assert captured.out == "" and not (tmp_path / "out").exists()


def test_space_that_its_limits_leave_empty(tmp_path, capsys):
    path = _space(tmp_path, SPACE.replace('design', 'limits = {macs = [500, 600]}\ndesign'))
    assert command.main([str(path), "-o", str(tmp_path / "out")]) == 2
    assert "the space is empty: none of its 6 points is within the limits macs 500..600" \
        in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["nothing"], "no space 'nothing': give one of "),
    (["--study", "none"], "study 'none' is unknown: give lanes"),
    (["--max-lut", "100"], "--max-lut can't be met: no study of space measures ecp5"),
    (["--min-fps", "1"], "--min-fps can't be met: no study of space measures cycles of a network"),
    (["--max-drop", "-1"], "--max-drop must be at least 0, not -1"),
    (["--jobs", "0"], "--jobs must be at least 1, not 0"),
    (["--clock", "0"], "--clock must be positive"),
    (["--executor", "ray://a:1"], "--executor must be local or dask://HOST:PORT"),
    (["--executor", "dask://here"], "--executor must be local or dask://HOST:PORT"),
    (["--trials", "3"], "a search needs objectives"),
])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    path = _space(tmp_path)
    first = [] if arguments[0] == "nothing" else [str(path)]
    assert command.main([*first, *arguments, "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err, captured.err
    assert captured.out == ""


@pytest.mark.parametrize("name", ready())
def test_ready_spaces_are_whole(name, capsys):
    assert command.main([name, "--list"]) == 0
    assert capsys.readouterr().out.count(" points (") == len(read(name).studies)
    for point in read(name).points():
        point.config()


# -- store


def test_result_is_measured_once_and_read_back_as_it_was(tmp_path):
    store, runs = Store(tmp_path), []

    def measure():
        runs.append(1)
        return {"a": (1, 2), "b": 0.1}

    first = store.get("stage", {"x": 1}, measure)
    again = Store(tmp_path).get("stage", {"x": 1}, measure)
    assert (first.cached, again.cached, len(runs)) == (False, True, 1)
    assert first.result == again.result == {"a": [1, 2], "b": 0.1}
    assert again.seconds == first.seconds
    store.get("stage", {"x": 2}, measure)
    store.get("other", {"x": 1}, measure)
    assert len(runs) == 3


def test_lasting_failure_is_kept_and_a_passing_one_is_not(tmp_path):
    store, runs = Store(tmp_path), []

    def fail(lasting):
        def measure():
            runs.append(lasting)
            raise Failure("two\nlines", lasting=lasting)
        return measure

    for _ in range(2):
        with pytest.raises(Failure, match=r"^two lines$"):
            store.get("stage", {}, fail(True))
        with pytest.raises(Failure):
            store.get("stage", {"x": 1}, fail(False))
    assert runs == [True, False, False]
    with pytest.raises(Failure):
        Store(tmp_path, retry=True).get("stage", {}, fail(True))
    assert runs.count(True) == 2


@pytest.mark.parametrize("damage", [lambda t: t[:len(t) // 2], lambda t: t.replace("41", "42"),
                                    lambda t: "[]", lambda t: ""])
def test_damaged_result_is_measured_again(tmp_path, capsys, damage):
    store = Store(tmp_path)
    store.get("stage", {}, lambda: {"cycles": 41})
    path = store.path("stage", {})
    path.write_text(damage(path.read_text()))
    assert store.get("stage", {}, lambda: {"cycles": 43}).result == {"cycles": 43}
    assert store.peek("stage", {}).result == {"cycles": 43}
    kept, = tmp_path.glob("stage/*.damaged")
    assert capsys.readouterr().err == \
        f"{path} is damaged and will be measured again; it is kept as {kept.name}\n"


def test_two_processes_measure_once(tmp_path):
    """The second waits for the first, and takes its result."""
    program = ("import sys, time\nfrom explore.store import Store\n"
               "def measure():\n    print('measured', flush=True)\n    time.sleep(1)\n"
               "    return {'a': 1}\n"
               f"print(Store({str(tmp_path)!r}).get('stage', {{}}, measure).result)\n")
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    output = "".join(process.communicate(timeout=60)[0] for process in both)
    assert output.count("measured") == 1 and output.count("{'a': 1}") == 2


def test_key_knows_values_and_not_their_order():
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key({"a": 1}) != key({"a": "1"})


# -- what results depend on


def test_closure_follows_imports_and_data():
    names = {str(path.relative_to(sources.ROOT)) for path in sources.closure("hw.softmax.unit")}
    assert {"hw/softmax/unit.py", "vitforge/spec/softmax_widths.py",
            "vitforge/spec/config.py"} <= names
    assert not any(name.startswith(("golden", "sim", "gen")) for name in names)
    names = {str(path.relative_to(sources.ROOT))
             for path in sources.closure("explore.workload")}
    assert {"golden/weights/mnist_vit.safetensors", "golden/data/mnist_sample.npz",
            "golden/network/calibrate.py"} <= names


def test_changed_line_changes_the_digest(tmp_path, monkeypatch):
    (tmp_path / "hw").mkdir()
    (tmp_path / "hw" / "a.py").write_text("from hw import b\n")
    (tmp_path / "hw" / "b.py").write_text("X = 1\n")
    (tmp_path / "hw" / "c.py").write_text("Y = 1\n")
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    fresh = sources.digest.__wrapped__
    before = fresh("hw.a")
    (tmp_path / "hw" / "c.py").write_text("Y = 2\n")
    assert fresh("hw.a") == before
    (tmp_path / "hw" / "b.py").write_text("X = 2\n")
    assert fresh("hw.a") != before


def test_watched_configuration_notes_what_is_read():
    config = _Watched(**load("tiny").to_dict())
    vars(config)["_read"] = set()
    assert config.partial_sum_bits(1) > 0
    assert vars(config)["_read"] == {"operand_bits", "weight_bits"}


def test_unit_that_does_not_change_is_compared_once(tmp_path, monkeypatch):
    """A softmax doesn't know the array: other arrays, same Verilog, same bench."""
    runs = []
    monkeypatch.setattr("sim.run.regress", lambda unit, config, fast, directory: runs.append(config)
                        or dataclasses.make_dataclass("R", ["cycles", "words", "cases", "patterns"])
                        (1, 2, 3, 4))
    stages = Stages(Store(tmp_path))
    tiny = load("tiny")
    stages.exact("softmax", tiny)
    stages.exact("softmax", dataclasses.replace(tiny, rows=8, cols=8, norm_bits=10))
    assert len(runs) == 1 and runs[0].lanes == tiny.lanes and runs[0].max_keys == tiny.max_keys
    stages.exact("softmax", dataclasses.replace(tiny, attention_bits=3))
    assert len(runs) == 2


# -- rows, tables, fronts, budgets


def _rows():
    values = Config().to_dict()
    del values["name"]
    rows = []
    for index, (luteq, dsp, cycles, drop, status) in enumerate((
            (1000, 64, 4e6, 0.0, "ok"), (500, 64, 5e6, 0.0, "ok"), (1200, 32, 4e6, 0.3, "ok"),
            (400, 16, 9e6, 1.0, "ok"), (300, 16, 1e6, 0.0, "failed"))):
        rows.append({"status": status, "reason": "too <big>" * (status != "ok"),
                     "point": f"{index:012x}", "space": "s", "study": "arrays",
                     "design": "accelerator", "ecp5.luteq": luteq, "ecp5.dsp": dsp,
                     "cycles": cycles, "drop": drop, "fmax_mhz": 80.0 if index == 1 else None,
                     **{f"config.{name}": value for name, value in values.items()}})
    return rows


def test_front_is_what_nothing_beats():
    table = frame(_rows())
    assert list(table.columns[:5]) == ["point", "space", "study", "design", "status"]
    assert front(table, {"ecp5.luteq": "min", "cycles": "min"}).tolist() == [
        True, True, False, True, False]
    assert front(table, {"ecp5.luteq": "min"}).tolist() == [False, False, False, True, False]
    assert front(table, {"cycles": "max", "drop": "min"}).tolist() == [
        False, True, False, True, False]
    assert not front(table, {"fmax_mhz": "max", "drop": "max", "cycles": "min"})[[0, 2]].any()
    assert not front(frame(_rows()[:1]), {"fmax_mhz": "max"}).any(), "nothing is whole"
    same = frame([_rows()[0], _rows()[0]])
    assert front(same, {"cycles": "min"}).tolist() == [True, True]
    with pytest.raises(ValueError, match="no column 'speed'"):
        front(table, {"speed": "min"})


def test_images_a_second_say_whose_clock():
    table = frame(_rows(), clock=50.0)
    assert table["clock_kind"].tolist() == ["assumed", "placed", "assumed", "assumed", "assumed"]
    assert table["fps"].tolist()[:2] == [50e6 / 4e6, 80e6 / 5e6]


@pytest.mark.parametrize(("budget", "best"), [
    ({}, "000000000000"), ({"max_lut": 600}, "000000000001"), ({"max_dsp": 40}, "000000000002"),
    ({"max_dsp": 40, "max_drop": 0.4}, "000000000002"), ({"max_lut": 450}, "000000000003"),
    ({"min_fps": 20, "max_lut": 1100}, "000000000000"),
])
def test_best_design_for_a_budget(budget, best):
    row, why = Budget(**budget).answer(frame(_rows()))
    assert row["point"] == best and why.startswith(f"accelerator {best} of arrays: ecp5.luteq ")


def test_of_equally_fast_designs_the_more_accurate_is_best():
    rows = [_rows()[0] | {"drop": drop, "logit_error": error, "point": name}
            for name, drop, error in (("a", 1.0, 1.0), ("b", 0.0, 3.0), ("c", 0.0, 2.0))]
    assert Budget().answer(frame(rows))[0]["point"] == "c"


def test_nothing_beats_the_best():
    """Designs that are alike in speed, area and loss, and not in what else they cost."""
    alike = _rows()[0] | {"energy_uj": 2.0, "bytes": 200, "ecp5.bram": 9}
    del alike["fmax_mhz"]
    for better in ("energy_uj", "bytes", "ecp5.bram"):
        table = frame([alike | {"point": "worse"}, alike | {"point": "best", better: 1}])
        assert Budget().answer(table)[0]["point"] == "best", better
    rng = random.Random(1)
    for _ in range(200):
        table = frame([alike | {"point": str(number), "cycles": rng.choice([1e6, 2e6]), **{
            name: rng.randint(0, 1) for name in ("ecp5.luteq", "drop", "energy_uj", "bytes",
                                                 "xilinx.dsp", "gates.gates")}}
                       for number in range(6)])
        counted = {name: way for name, way in order("ecp5").items() if name in table}
        chosen = table[front(table, counted)]["point"].tolist()
        assert len(counted) == 9 and Budget().answer(table)[0]["point"] in chosen


def test_columns_that_may_be_objectives_are_those_of_the_rows(tmp_path):
    config = {k: v for k, v in load("tiny").to_dict().items() if k != "name"}
    for design, network, wanted in (("softmax", "", ("cycles",)),
                                      ("network", "mnist", ("cycles", "energy"))):
        row = measure(Point(space="s", study="s", design=design, values=config, options={},
                            network=network, measure=wanted), tmp_path)
        found = completed(row, 100.0)
        assert row["status"] == "ok"
        assert columns(design, wanted) == {
            name for name, value in found.items() if isinstance(value, (int, float))
            and not name.startswith(("seconds", "config.")) and not name.endswith("_words_used")}


def test_a_search_of_a_study_without_an_objective_is_refused(tmp_path, capsys):
    text = SPACE.replace("[[study]]", 'objectives = {"ecp5.luteq" = "min"}\n[[study]]') \
        + SPACE[SPACE.index("[[study]]"):].replace('"lanes"', '"area"') + 'measure = ["ecp5"]\n'
    assert command.main([str(_space(tmp_path, text)), "--trials", "3",
                         "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.endswith("study 'lanes' can't be searched: it does not measure ecp5.luteq, "
                                 "an objective; with --study: area\n")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("budget", "why"), [
    ({"max_lut": 350}, "--max-lut 350 rules out all 4 that are left; the nearest has 400"),
    ({"max_lut": 450, "min_fps": 12},
     "--min-fps 12 rules out all 1 that are left; the nearest has 11.1111"),
    ({"max_lut": 1, "target": "xilinx"}, "xilinx.luteq was not measured, which --max-lut bounds"),
])
def test_budget_that_nothing_meets_says_which_limit_it_is(budget, why):
    assert Budget(**budget).answer(frame(_rows())) == (None, f"no design: {why}")


def test_table_is_the_same_from_both_files(tmp_path):
    table = frame(_rows())
    for path in write(table, tmp_path):
        back = pandas.read_parquet(path) if path.suffix == ".parquet" else \
            pandas.read_csv(path, dtype={"point": str}, keep_default_na=False,
                            na_values={"fmax_mhz": "", "reason": []})
        assert back.columns.tolist() == table.columns.tolist()
        assert back["point"].tolist() == table["point"].tolist()
        assert back["fps"].tolist() == table["fps"].tolist()
        assert back["config.exponential"].tolist() == table["config.exponential"].tolist()


def test_page_holds_everything(tmp_path):
    text = page(frame(_rows()), "A <title>", Budget(max_lut=600))
    assert "<title>A &lt;title&gt;</title>" in text
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text.split("<script>")[0])
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', text)[1]
    assert "<" not in data  # nothing in it can end the element
    found = json.loads(data)
    assert [row["reason"] for row in found["rows"]][-1] == "too <big>"
    assert found["rows"][1]["fps"] == 16.0 and found["rows"][0]["fmax_mhz"] is None
    assert found["budget"]["max_lut"] == 600
    assert "Plotly" in text and len(text) > 1_000_000 and "@" + "SCRIPT@" not in text


def test_toml_of_a_point_is_its_configuration(tmp_path):
    config = dataclasses.replace(load("edge8"), lanes=2, exponential="iexp")
    values = {k: v for k, v in config.to_dict().items() if k != "name"}
    path = tmp_path / "best.toml"
    path.write_text(toml(values, "one\ntwo"))
    assert load(path) == dataclasses.replace(config, name="best")


@pytest.mark.thorough
def test_toml_of_the_best_repeats_it(tmp_path):
    """Its commands give the bytes and the cycles of the row: narrower weights are no field."""
    values = {k: v for k, v in load("tiny").to_dict().items() if k != "name"}
    options = {"weights": 4, "stream": "ptf", "gelu_codes": "two-scale", "method": ""}
    point = Point(space="s", study="s", design="network", values=values, options=options,
                  network="mnist", measure=("cycles",))
    table = frame([measure(point, tmp_path / "cache")])
    space = dataclasses.replace(read("bits"), name="s")
    command._write(table, space, Budget(), tmp_path)
    file = tmp_path / "best-network.toml"
    text = file.read_text()
    assert "# network mnist: weights of 4 bits, stream ptf, GeLU two-scale, formats by " in text
    line = next(line for line in text.splitlines() if line.startswith("# python -m gen.program "))
    made = tmp_path / "program"
    assert program.main([*line.replace("FOLDER", str(made)).split()[4:]]) == 0
    found = predict((made / "program.bin").read_bytes(), load(file))
    assert found.cycles == table["cycles"][0]
    assert found.read_bytes + found.written_bytes == table["bytes"][0]


def test_toml_says_widths_of_layers_and_parts_have_no_verilog_of_their_own():
    point = read("bits").studies[0].point({"weights": 3})
    task = dataclasses.replace(point, widths={"blocks.0.mlp.fc1": 4}).to_dict()
    assert "weights of blocks.0.mlp.fc1: 4 bits" in repeat(task, "F")
    assert not any("gen.program" in line for line in repeat(task, "F"))
    assert not any("gen.verilog" in line for line in repeat(task | {"design": "operand"}, "F"))
    assert any("gen.verilog --unit softmax " in line
               for line in repeat(task | {"design": "softmax"}, "F"))


# -- running


class Fake:
    """An executor that knows every point's cycles, and fails where it is told to."""

    def __init__(self, fail=(), stop=None):
        self.asked, self.fail, self.stop = [], fail, stop

    def run(self, points):
        for point in reversed(points):
            if len(self.asked) == self.stop:
                raise KeyboardInterrupt
            self.asked.append(point.id)
            lanes = point.values["lanes"]
            row = {"status": "ok", "reason": "", "point": point.id, "space": point.space,
                   "study": point.study, "design": point.design, "seconds": 2.0,
                   "seconds_now": 2.0, "cycles_per_row": 64 / lanes, "ecp5.luteq": 100 * lanes,
                   "config.lanes": lanes}
            if lanes in self.fail:
                row |= {"status": "failed", "reason": "broken", "lasting": self.fail[lanes]}
            yield point, row


def test_stopped_run_goes_on_where_it_was(tmp_path):
    points = read(_space(tmp_path)).points()
    store = Store(tmp_path / "cache")
    first = Fake(stop=4)
    with pytest.raises(KeyboardInterrupt):
        list(measured(points, first, store))
    second, seen = Fake(), []
    rows = list(measured(points, second, store, lambda done, row: seen.append(done)))
    assert len(rows) == 6 and seen == [1, 2, 3, 4, 5, 6]
    assert sorted(first.asked + second.asked) == sorted(p.id for p in points)
    assert sum(row["seconds_now"] for _, row in rows) == 2 * 2.0


def test_failed_point_is_shown_and_tried_again_if_it_may_pass(tmp_path):
    points = read(_space(tmp_path)).points()
    store = Store(tmp_path / "cache")
    rows = {p.id: row for p, row in measured(points, Fake({1: True, 2: False}), store)}
    assert [rows[p.id]["status"] for p in points] == ["failed"] * 4 + ["ok"] * 2
    again = Fake()
    list(measured(points, again, store))
    assert sorted(again.asked) == sorted(p.id for p in points if p.values["lanes"] == 2)
    retried = Fake()
    list(measured(points, retried, Store(tmp_path / "cache", retry=True)))
    assert sorted(retried.asked) == sorted(p.id for p in points if p.values["lanes"] == 1)


def test_equal_points_of_two_studies_are_measured_once(tmp_path):
    text = SPACE + SPACE[SPACE.index("[[study]]"):].replace('"lanes"', '"again"')
    points = read(_space(tmp_path, text)).points()
    who = Fake()
    rows = [row for _, row in measured(points, who, Store(tmp_path / "cache"))]
    assert len(rows) == 12 and len(who.asked) == 6
    assert sorted(row["study"] for row in rows) == ["again"] * 6 + ["lanes"] * 6


def test_search_stops_at_its_trials_and_goes_on(tmp_path):
    text = SPACE.replace("[[study]]", 'objectives = {cycles_per_row = "min", "ecp5.luteq" = "min"}'
                         "\n[[study]]").replace("[1, 2, 4]", "{from = 1, to = 64}")
    text = text.replace('["cycles"]', '["cycles", "ecp5"]')
    space, store, who = read(_space(tmp_path, text)), Store(tmp_path / "cache"), Fake({7: True})
    rows = search(space, who, store, tmp_path, 6, batch=2)
    assert 1 <= len(rows) <= 6 and len(who.asked) == len(set(who.asked)) == len(rows)
    more = search(space, who, store, tmp_path, 10, batch=2)
    assert {row["point"] for row in rows} <= {row["point"] for row in more}
    assert len(who.asked) == len(set(who.asked)) == len(more) <= 10
    kept = search(space, Fake(stop=0), store, tmp_path, 10, batch=2)
    assert {row["point"] for row in kept} == set(who.asked)


def _worker(tmp_path, monkeypatch, body):
    """Replace the worker by a script that answers each task with `body`."""
    script = tmp_path / "worker.py"
    script.write_text("import json, os, signal, sys\nfor line in sys.stdin:\n"
                      "    point = json.loads(line)['point']\n"
                      "    lanes = point['values']['lanes']\n"
                      f"    {body}\n"
                      "    print(json.dumps({'status': 'ok', 'lanes': lanes, 'point': point,"
                      " 'study': 's', 'reason': ''}), flush=True)\n")
    monkeypatch.setattr(pool, "WORKER", [sys.executable, str(script)])


def test_process_that_is_killed_takes_only_its_point_with_it(tmp_path, monkeypatch):
    _worker(tmp_path, monkeypatch, "lanes == 2 and os.kill(os.getpid(), signal.SIGKILL)")
    points = read(_space(tmp_path)).points()
    rows = {p.id: row for p, row in Local(2, tmp_path).run(points)}
    for point in points:
        if point.values["lanes"] == 2:
            assert rows[point.id]["status"] == "failed" and not rows[point.id]["lasting"]
            assert rows[point.id]["reason"] == \
                "the process was killed by signal 9 (out of memory?)"
            assert rows[point.id]["config.lanes"] == 2
        else:
            assert rows[point.id]["lanes"] == point.values["lanes"]


def test_full_disk_stops_everything_and_says_so(tmp_path, monkeypatch, capsys):
    _worker(tmp_path, monkeypatch,
            "lanes == 2 and (print(json.dumps({'fatal': 'x.json: No space left on device'}), "
            "flush=True), sys.exit())")
    path = _space(tmp_path)
    assert command.main([str(path), "-j", "1", "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "x.json: No space left on device; what was measured is kept: run the same" in error


def test_worker_that_can_not_start_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "WORKER", [sys.executable, "-c", "import sys; sys.exit(3)"])
    rows = [row for _, row in Local(2, tmp_path).run(read(_space(tmp_path)).points())]
    assert {row["reason"] for row in rows} == {"the process was left with 3"}


def test_no_scheduler_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 1)
    with pytest.raises(Stopped, match=r"no Dask scheduler at 127\.0\.0\.1:1:"):
        list(executor("dask://127.0.0.1:1", 1, tmp_path).run(read(_space(tmp_path)).points()))


@pytest.mark.thorough
def test_library_gives_the_table_of_the_command(tmp_path, capsys):
    """The whole way, with real workers, on what needs no tool: the cycle models."""
    path, out = _space(tmp_path), tmp_path / "out"
    assert command.main([str(path), "-j", "2", "-o", str(out)]) == 0
    captured = capsys.readouterr()
    assert "6 points: 6 measured, 0 failed, 0 refused" in captured.out
    assert captured.out.splitlines()[-1] == f"page: {out / 'index.html'}"
    assert captured.err.count(" ok, ") == 6
    table = explore(path, folder=out, jobs=1)
    assert table["seconds_now"].tolist() == [0.0] * 6
    # 64 keys, a word a cycle; the polynomial reads each row twice, and waits between.
    assert table["cycles_per_row"].tolist()[::2] == [64.0, 32.0, 16.0]
    assert table["cycles_per_row"].tolist()[1::2] == [128.0, 65.0, 34.0]
    stored = pandas.read_parquet(out / "results.parquet")
    assert stored["point"].tolist() == table["point"].tolist()
    assert (load(out / "best-softmax.toml").lanes, table["config.lanes"].max()) == (4, 4)
    # Another space that shares the cache measures nothing that this one has.
    other = tmp_path / "other.toml"
    other.write_text(path.read_text())
    again = explore(other, folder=tmp_path / "elsewhere", cache=out / "cache", jobs=1)
    assert again["seconds_now"].tolist() == [0.0] * 6
    assert not (tmp_path / "elsewhere" / "cache").exists()
