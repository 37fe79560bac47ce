# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: the yardstick's closed forms, and the tables of networks and of methods."""

import csv
import dataclasses
import json
import re
import shlex

import pytest
import torch

from benchmarks import (
    every,
    every_record,
    every_verilog,
    exported,
    methods,
    networks,
    quantization,
    scalesim,
)
from benchmarks.every_record import BLOCK, WHOLE, Ran
from gen.compiler.compile import compile_network
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.data.imagenet import Folder
from golden.float import checkpoint, models
from golden.machine.cycles import predict
from golden.network.ops import products
from golden.network.topology import operations
from golden.onnx.export import model as as_onnx
from golden.ptq import METHODS, reconstruction
from sim.run import SimulationError

#: SCALE-Sim 3.0.0's own totals without stalls, for the three dataflows.
TOTALS = {8: (21_265_028, 21_889_486, 21_747_406), 16: (5_953_720, 6_123_442, 6_200_950),
          32: (1_838_114, 1_861_750, 1_972_714)}


@pytest.mark.parametrize("side", TOTALS)
def test_closed_forms_give_what_the_tool_gave(side):
    spec = models.lookup("deit_tiny_patch16_224").spec
    assert tuple(scalesim.cycles(spec, side, side).values()) == TOTALS[side]
    assert scalesim.best(spec, side, side) <= min(TOTALS[side])


def test_products_of_a_network():
    assert products(operations(models.lookup("deit_tiny_patch16_224").spec)) == 1_253_683_200


@pytest.mark.thorough
def test_a_swin_gets_the_memories_that_it_needs(tmp_path, capsys):
    assert networks.main(["cifar10_swin", "--arrays", "8x8", "-o", str(tmp_path / "out")]) == 0
    [row] = csv.DictReader((tmp_path / "out" / "networks.csv").read_text().splitlines())
    spec = models.lookup("cifar10_swin").spec
    assert int(row["products"]) == products(operations(spec)) <= 64 * int(row["cycles"])
    # Every region is a product of its own there.
    assert int(row["cycles"]) < min(scalesim.cycles(spec, 8, 8).values()) \
        == int(row["scalesim_best_dataflow"])


@pytest.mark.thorough
def test_what_becomes_of_two_networks(tmp_path, monkeypatch):
    """`odd_1` has patches of 7 pixels: one lane, and an array of 16 columns has two at least."""
    page, record = tmp_path / "page.md", tmp_path / "verilog.csv"
    page.write_text(f"# Title\n\n{networks.MARK}\nstale\n")
    run = Ran(network="odd_2", part=WHOLE, array="8x8", cycles=5, command="what ran")
    every_record.write([run], record)
    names = ["odd_2", "odd_1"]
    assert networks.main(["--every", *names, "--page", str(page), "--record", str(record),
                          "-o", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "every.csv").read_text().splitlines()))
    assert [(row["network"], row["array"]) for row in rows] == [
        (name, array) for name in names for array in networks.ARRAYS]
    for row in rows[:2]:
        size = int(row["array"].split("x")[0])
        spec = every.odd(2)
        network = every.integers(spec, configuration := every.suited(
            spec, networks.configuration(size, size, networks.Setting())))[0]
        compiled = compile_network(every.fitted(network, configuration))
        exact = predict(compiled.program, compiled.config).cycles
        assert int(row["cycles"]) == exact and not row["refusal"]
        assert float(row["utilisation"]) == network.products / exact / size**2
        assert int(row["scratchpad"]) >= size * sum(compiled.needed.values())
        assert int(row["memory"]) > len(compiled.program)
        assert 10**8 < int(row["peak"]) < 6 * 10**9 and float(row["seconds"]) > 0
    assert "patch_size must be a multiple of lanes" in rows[3]["refusal"]
    text = page.read_text()
    assert text.startswith(f"# Title\n\n{networks.MARK}\n`python -m benchmarks.networks --every "
                           "odd_2 odd_1`:\n")
    assert "stale" not in text and "| whole |" in text and "| not yet |" in text
    assert "| `odd_2` | whole | 8x8 | 5 | `what ran` |" in text
    # A second run measures nothing again.
    monkeypatch.setattr(every, "_measured", None)
    assert networks.main(["--every", *names, "--page", str(page), "--record", str(record),
                          "-o", str(tmp_path / "out")]) == 0
    assert page.read_text() == text
    block = dataclasses.replace(run, network="vit_base_patch16_224", part=BLOCK)
    for name, verdict in (("deit_base_patch16_224", BLOCK), ("deit_tiny_patch16_224", "not yet"),
                          ("deit_base_distilled_patch16_224", "not yet")):
        assert every_record.verdict(name, every.shape(name), [block], every.shape) == verdict


@pytest.mark.rtl
@pytest.mark.thorough
def test_a_run_on_the_verilog_is_noted(tmp_path, capsys, monkeypatch):
    record = tmp_path / "verilog.csv"
    short = ["--every", "odd_2", "--arrays", "8x8", "--verilog", "a block"]
    command = [*short, "--record", str(record), "-o", "build/sim"]
    assert networks.main(command) == 0
    [run] = every_record.read(record)
    assert (run.network, run.part, run.array) == ("odd_2", BLOCK, "8x8") and run.cycles > 1000
    assert run.command == "python -m benchmarks.networks " + shlex.join(short)
    assert every_record.verdict("odd_2", every.odd(2), [run], every.shape) == BLOCK

    def broken(*given, **more):
        raise SimulationError("byte 3 is 1, not 2")

    monkeypatch.setattr(every_verilog, "check", broken)
    assert networks.main([*command[:1], "odd_1", *command[2:]]) == 1
    assert "byte 3 is 1" in capsys.readouterr().err and every_record.read(record) == [run]


@pytest.mark.slow
def test_the_table_of_networks(tmp_path, capsys):
    assert networks.main(["deit_tiny_patch16_224", "-o", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "networks.csv").read_text().splitlines()))
    assert [row["array"] for row in rows] == ["8x8", "8x16", "16x16", "16x32", "32x32"]
    for row in rows:
        assert int(row["cycles"]) < int(row["scalesim_best_by_layer"])
    assert float(rows[1]["utilisation"]) >= 0.987 and float(rows[2]["utilisation"]) >= 0.98
    assert float(rows[3]["utilisation"]) >= 0.967
    assert int(rows[2]["bytes"]) <= 7_000_000


@pytest.mark.slow
def test_narrow_weights_are_faster_in_pairs(tmp_path):
    assert networks.main(["deit_tiny_patch16_224", "--arrays", "16x16", "--weights", "4",
                          "--gelu", "uniform", "--modes", "single", "single+pair",
                          "-o", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "networks.csv").read_text().splitlines()))
    assert [row["modes"] for row in rows] == ["single", "single+pair"]
    assert int(rows[0]["cycles"]) == 4_984_030 and int(rows[1]["cycles"]) <= 2_950_000


@pytest.mark.parametrize(("arguments", "message"), [
    (["resnet"], "the network must be one of"), (["--clock", "0"], "clock must be above 0, not 0"),
    (["--every", "resnet"], "model must be one of"),
    (["--verilog", "whole"], "--verilog goes with --every"),
    (["--arrays", "9x9"], "arrays must be of 8x8, 8x16, 16x16, 16x32, 32x32, not '9x9'"),
    (["--arrays", "8x8", "--lanes", "8"], "lanes must be a power of two from cols / 8 to rows / 2"),
])
def test_bad_input_gets_one_line(arguments, message, tmp_path, capsys):
    assert networks.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def digits(tmp_path_factory, write_digits):
    folder, sample = tmp_path_factory.mktemp("digits"), mnist.sample()
    write_digits(folder / "calibration", sample.calibration, 20)
    write_digits(folder / "test", sample.test, 30)
    return ["--model", "mnist_vit", "--checkpoint", str(WEIGHTS), "--calibration",
            str(folder / "calibration"), "--evaluate", str(folder / "test"), "--images", "20"]


def test_pictures_are_read_once_if_they_fit(digits, monkeypatch):
    folder = Folder.open(digits[7])
    read, batches = [], Folder.batches

    def counted(*args, **more):
        read.append(1)
        return batches(*args, **more)

    monkeypatch.setattr(Folder, "batches", counted)
    how = models.lookup("mnist_vit").preprocessing
    for most, times in ((1 << 30, 1), (1000, 2)):
        monkeypatch.setattr(methods, "_KEPT", most)
        read.clear()
        found = methods._Batches(folder, how, 8, True)
        first, again = list(found), list(found)
        assert len(read) == times and [len(labels) for _, labels in first] == [8, 8, 8, 6]
        assert all(torch.equal(a, b) for one, other in zip(first, again, strict=True)
                   for a, b in zip(one, other, strict=True))


def rows(out):
    with (out / "methods.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_of_methods(digits, tmp_path, capsys):
    out = tmp_path / "out"
    assert methods.main([*digits, "--settings", "8/8,6/5/4", "--methods", "minmax,fq-vit", "-o",
                         str(out)]) == 0
    found = rows(out)
    assert [(row["method"], row["setting"]) for row in found] == [
        ("minmax", "8/8"), ("fq-vit", "8/8"), ("minmax", "6/5/4"), ("fq-vit", "6/5/4")]
    split = mnist.sample().test
    few = mnist.Split(split.images[:30], split.labels[:30])
    model = checkpoint.load(WEIGHTS)
    right = round(mnist.accuracy(model, few) * 30)
    assert {row["float_right"] for row in found} == {str(right)}
    for row in found:
        assert right - 1 <= int(row["simulated_right"]) <= 30
        assert right - 1 <= int(row["integer_right"]) <= 30 and int(row["alike"]) >= 29
    assert [row["datapath"].split(";")[0] for row in found] == [
        "attention uniform 8 bits", "attention log2 4 bits", "attention uniform 4 bits",
        "attention log2 4 bits"]
    page = (out / "methods.md").read_text()
    assert page.count("\n| ") == 6 and f"30 images, {right} right in float" in page
    assert page in capsys.readouterr().out


def test_a_killed_run_goes_on(digits, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = [*digits, "--methods", "minmax", "--variants", "", "stream=0", "-o", str(out)]
    assert methods.main([*command, "--no-integers"]) == 0
    assert [row["integer_right"] for row in rows(out)] == ["", ""]
    # The simulation is not done again, the integers are.
    file = out / "rows" / "minmax_8_8.json"
    plain = json.loads(file.read_text())
    file.write_text(json.dumps({**plain, "simulated_right": 17, "classes": [10] * 30}))
    assert methods.main(command) == 0
    assert (rows(out)[0]["simulated_right"], rows(out)[0]["alike"]) == ("17", "0")
    before = (out / "methods.csv").read_bytes()
    monkeypatch.setattr(METHODS["minmax"], "decide", None)   # nothing is decided any more
    assert methods.main(command) == 0
    assert (out / "methods.csv").read_bytes() == before
    # Other images, another row.
    monkeypatch.undo()
    assert methods.main([*command, "--limit", "5", "--no-integers"]) == 0
    assert {row["images"] for row in rows(out)} == {"5"}


def test_changed_code_is_measured_again(digits, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = [*digits, "--methods", "minmax", "--limit", "8", "-o", str(out)]
    assert methods.main(command) == 0
    made = []
    real = METHODS["minmax"].decide
    monkeypatch.setattr(METHODS["minmax"], "decide",
                        lambda self, statistics: (made.append(1), real(self, statistics))[1])
    classified = []
    simulate = methods._Bench.classes
    monkeypatch.setattr(methods._Bench, "classes", lambda *arguments: (
        classified.append(arguments), simulate(*arguments))[1])
    assert methods.main(command) == 0 and not made and not classified
    # Code that makes integers: they alone are measured again.
    plain = methods.digest
    monkeypatch.setattr(methods, "digest", lambda *modules: plain(*modules) + (
        "+" if "golden.deploy.network" in modules else ""))
    assert methods.main(command) == 0 and len(made) == 1 and len(classified) == 1
    # The method's own: everything is.
    monkeypatch.setattr(methods, "digest", lambda *modules: plain(*modules) + (
        "+" if "golden.ptq.minmax" in modules else ""))
    assert methods.main(command) == 0 and len(made) == 2 and len(classified) == 3
    assert methods.main(command) == 0 and len(made) == 2 and len(classified) == 3
    assert methods._codes(METHODS["minmax"]()) != methods._codes(METHODS["erq"]())


def test_rows_say_how_sure_they_are(digits, tmp_path, capsys):
    out = tmp_path / "out"
    assert methods.main([*digits, "--methods", "minmax", "--no-integers", "-o", str(out)]) == 0
    found = rows(out)[0]
    assert re.fullmatch(r"[+-]\d+\.\d\d \([+-]\d+\.\d\d to [+-]\d+\.\d\d\)",
                        found["simulated_loss"]) and found["integer_loss"] == ""
    assert re.search(r"\| \d+\.\d\d \(\d+\.\d to \d+\.\d\) \|", capsys.readouterr().out)


@pytest.mark.thorough
def test_a_reconstructed_row_takes_all_images(digits, tmp_path):
    out = tmp_path / "out"
    assert methods.main([*digits, "--methods", "fima-q", "--settings", "3/8", "--no-integers",
                         "--variants", "reconstruct=no", "steps=3 probes=2", "--limit", "10",
                         "-o", str(out)]) == 0
    found = [json.loads(path.read_text()) for path in sorted((out / "rows").glob("fima*.json"))]
    assert len(found) == 2 and found[0]["code"] != found[1]["code"]


@pytest.mark.thorough
def test_integers_of_a_reconstructed_row_are_measured_without_training_again(digits, tmp_path,
                                                                             monkeypatch):
    out = tmp_path / "out"
    command = [*digits, "--methods", "fima-q", "--settings", "4/4", "--variants",
               "steps=3 probes=2", "--limit", "10", "-o", str(out)]
    assert methods.main([*command, "--no-integers"]) == 0
    monkeypatch.setattr(reconstruction._Training, "run", None)
    assert methods.main(command) == 0
    row = json.loads((out / "rows" / "fima-q_4_4_steps=3_probes=2.json").read_text())
    assert len(row["classes"]) == len(row["integer_classes"]) == 10
    gap = row["simulated_right"] - row["integer_right"]
    assert row["alike"] <= 10 and row["gap"].startswith(f"{10 * gap:+.2f} (")


def test_a_refused_setting_is_a_row_and_the_others_follow(digits, tmp_path, monkeypatch, capsys):
    class Refuses(METHODS["fq-vit"]):
        def decide(self, statistics):
            raise ValueError("no step fits")

    monkeypatch.setitem(METHODS, "fq-vit", Refuses)
    out = tmp_path / "out"
    command = [*digits, "--methods", "fq-vit,minmax", "--no-integers", "-o", str(out)]
    for _ in range(2):   # the second time it comes from the file
        assert methods.main(command) == 0
        assert [(row["refused"], bool(row["simulated_right"])) for row in rows(out)] \
            == [("no step fits", False), ("", True)]
        assert "| refused: no step fits |" in capsys.readouterr().out
        monkeypatch.setattr(Refuses, "observe", None)


def test_widths_of_a_setting():
    widths = methods.Setting("8/6").widths
    assert widths("minmax") == {"weights": 8, "activations": 6, "stream": 6}
    assert widths("erq") == {"weights": 8, "activations": 6}
    assert methods.Setting("4/6/5/8").widths("erq") == {
        "weights": 4, "activations": 6, "attention": 5, "stream": 8}


@pytest.mark.parametrize(("arguments", "message"), [
    (["--methods", "magic"], "a method must be one of minmax"),
    (["--settings", "8"], "a setting must be WEIGHTS/ACTIVATIONS"),
    (["--settings", "8/2"], "activations must be 3 to 8 bits"),
    (["--variants", "ptf=false"], "--set must be one of reconstruct"),
    (["--limit", "0"], "must be at least 1"),
])
def test_bad_methods_get_one_line(digits, arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert methods.main([*digits, "--methods", "minmax", *arguments, "-o", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()


def test_a_setting_that_the_datapath_refuses_keeps_its_simulation(digits, tmp_path, monkeypatch,
                                                                  capsys):
    def refuses(*arguments, **more):
        raise ValueError("no such codes")

    monkeypatch.setattr(methods, "deploy", refuses)
    out = tmp_path / "out"
    command = [*digits, "--methods", "minmax", "--settings", "8/8,6/6", "-o", str(out)]
    for _ in range(2):   # the second time it comes from the file
        assert methods.main(command) == 0
        for row in rows(out):
            assert int(row["simulated_right"]) > 25
            assert (row["integer_right"], row["refused"]) == ("", "no such codes")
        monkeypatch.setattr(METHODS["minmax"], "decide", None)
    assert capsys.readouterr().out.count("| refused: no such codes |") == 4


@pytest.mark.thorough
def test_where_the_time_of_a_method_goes(digits, tmp_path, capsys):
    out = tmp_path / "out"
    assert quantization.main([*digits, "--setting", "8/8", "--limit", "12", "--batch", "5",
                              "--runs", "2", "--operators", "2", "-o", str(out)]) == 0
    page = (out / "quantization.md").read_text()
    assert page in capsys.readouterr().out
    table = [line.strip("|").split("|") for line in page.splitlines()
             if line.startswith("| ") and not line.startswith("| ---")]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table[1:9]}
    assert tuple(cells) == quantization.STAGES
    assert all(float(row[0]) >= float(row[1]) >= 0 for row in cells.values())
    images = {"read": "20", "observe": "20", "float": "12", "simulated": "12", "integer": "12"}
    assert {name: row[2] for name, row in cells.items() if row[2]} == images
    assert cells["float"][4] == "1.00"
    shares = [row[1].split(", ") for row in table[10:]]
    assert [len(row) for row in shares] == [2, 2, 2]
    assert all(row[0].endswith("%") for row in shares)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--runs", "0"], "must be at least 1"), (["--method", "best"], "invalid choice: 'best'"),
    (["--setting", "8"], "a setting must be WEIGHTS/ACTIVATIONS"),
])
def test_bad_input_of_the_time_table_gets_one_line(digits, arguments, message, tmp_path, capsys):
    assert quantization.main([*digits, *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_exported_network_beside_its_simulation(digits, capsys):
    given = [*digits, "--method", "minmax", "--batch", "7"]
    assert exported.main([*given, "--limit", "12"]) == 0
    line = capsys.readouterr().out
    found = re.fullmatch(r"mnist_vit, minmax at 8/8: the same class of (\d+) of 12 pictures; all "
                         r"logits alike of (\d+); the largest difference of a logit is (\S+), the "
                         r"largest logit (\S+)\n", line)
    assert found is not None and int(found[1]) == 12 and int(found[2]) >= 6
    assert float(found[3]) < 0.5 < float(found[4])
    assert exported.main([*given, "--limit", "0"]) == 2
    # It is a comparison: other weights have other logits.
    method = METHODS["minmax"]()
    model = checkpoint.load(WEIGHTS)
    picture = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    record = method.decide(method.observe(model, [picture]))
    simulated = method.apply(model, record)
    made = as_onnx(simulated, record)
    with torch.no_grad():
        simulated.head.bias[3] += 100
    other = exported.compare(made, simulated, [picture])
    assert other.same == other.alike == 0 and other.images == 3 and 99 < other.apart < 101
