# SPDX-License-Identifier: Apache-2.0
"""Methods in a space: decided once, run on every machine, with the user's network and pictures."""

import dataclasses
import itertools
import json
import re
import shutil
from xml.etree import ElementTree

import pytest

from explore import __main__ as command
from explore import recorded
from explore.data import identified
from explore.measure import measure
from explore.picture import picture
from explore.pictures import Pictures, given
from explore.point import Point
from explore.space import SpaceError
from explore.space_file import changed, read, ready
from explore.table import completed, frame
from gen.compiler.compile import compile_network
from golden.data import mnist
from golden.ptq import METHODS
from vitforge.spec import limits
from vitforge.spec.config import Config, load

SPACE = """
title = "Two machines"
base = "edge8"
design = "network"
network = "mnist"
fit = true
measure = ["cycles", "accuracy"]
[[study]]
name = "W4A8"
set = {weights = 4, activations = 8, cols = 16}
axes = {modes = ["single", "single+pair"], method = ["minmax"]}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


def test_a_record_is_made_once_and_priced_on_every_machine(space, tmp_path):
    cache = tmp_path / "cache"
    single, pair = (measure(point, cache) for point in read(space).points())
    assert single["status"] == pair["status"] == "ok", (single["reason"], pair["reason"])
    assert len(list((cache / "recorded").glob("*.json"))) == 1
    assert len(list((cache / "classified").glob("*.json"))) == 1
    # What the method decides is the machine's: uniform attention, where edge8 has log2 codes.
    assert (pair["config.attention"], pair["config.attention_bits"]) == ("uniform", 8)
    assert (pair["weight_mean_bits"], pair["operand_mean_bits"]) == (4.0, 8.0)
    # Half the passes of wide layers, and the same integers.
    assert pair["cycles"] < 0.85 * single["cycles"] and pair["top1"] == single["top1"] > 95
    # Memories are the network's, on both, and so are codes, operands and accumulators.
    assert pair["config.max_tokens"] == 50 and pair["config.scratch_words"] < 4096
    assert pair["config.formats"] == "uniform" and pair["config.operand_bits"] == 9
    assert single["config.acc_bits"] == pair["config.acc_bits"] == 22
    assert pair["simulated_top1"] - 2 < pair["top1"] <= pair["float_top1"] == 100


@pytest.mark.thorough
def test_a_record_that_somebody_removed_is_made_again(space, tmp_path):
    cache, point = tmp_path / "cache", read(space).points()[0]
    first = measure(point, cache)
    folder, = (path for path in (cache / "recorded").iterdir() if path.is_dir())
    shutil.rmtree(folder)
    for stage in ("fitted", "cycles"):
        shutil.rmtree(cache / stage)
    again = measure(point, cache)
    assert again["cycles"] == first["cycles"] and (folder / "record.json").exists()


def test_a_machine_that_has_no_mode_for_a_record_is_refused(space, tmp_path):
    space.write_text(SPACE.replace('["single", "single+pair"]', '["pair"]'))
    row = measure(read(space).points()[0], tmp_path / "cache")
    assert row["status"] == "refused" and "modes" in row["reason"], row


@pytest.mark.thorough
def test_a_machine_without_two_scale_codes_gives_gelu_uniform_ones(space, tmp_path):
    text = SPACE.replace('"minmax"', '"tsptq-vit"').replace('["cycles", "accuracy"]', '["cycles"]')
    space.write_text(text)
    wide = measure(read(space).points()[1], tmp_path / "cache")
    space.write_text(text.replace("cols = 16", 'cols = 16, formats = "uniform"'))
    plain = measure(read(space).points()[1], tmp_path / "cache")
    # What the format costs: fc2 at single rate.
    assert plain["cycles"] < wide["cycles"]
    assert wide["config.formats"] == "uniform+two-scale" and plain["config.formats"] == "uniform"
    assert wide["config.operand_bits"] == plain["config.operand_bits"] == load("edge8").operand_bits


def test_a_narrower_accumulator_would_be_refused(space, tmp_path):
    point = read(space).points()[1]
    row = measure(point, tmp_path / "cache")
    folder, = (path for path in (tmp_path / "cache" / "recorded").iterdir() if path.is_dir())
    fields = {name: row[f"config.{name}"] for name in point.values if name != "name"}
    config = Config(**fields)
    assert fields["acc_bits"] > config.sum_bits
    compile_network(recorded.network(folder, config))
    with pytest.raises(ValueError, match="acc_bits must be more than 21 for "):
        compile_network(recorded.network(folder, dataclasses.replace(config, acc_bits=21)))


def test_what_a_method_is_told():
    options = {"weights": 4, "activations": 4, "stream_bits": 8, "reconstruct": "no"}
    told = {name: recorded._method({"method": name, **options}).settings for name in METHODS}
    assert {item.activations for item in told.values()} == {4}
    assert {item.reconstruct for item in told.values()} == {"no"}
    # Methods that leave the residual stream in floating point keep doing so.
    assert {name for name, item in told.items() if item.stream == 8} \
        == {"minmax", "fq-vit", "tsptq-vit", "mptq-vit"}
    assert {item.stream for item in told.values()} == {0, 8}
    narrow = recorded._method({"method": "minmax", **options, "stream_bits": 0}).settings
    assert narrow.stream == 4


def test_fit_needs_a_method(space, tmp_path, capsys):
    space.write_text(SPACE.replace(', method = ["minmax"]', ""))
    assert command.main([str(space), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "fit needs a network and a method" in error and error.count("\n") == 1
    space.write_text(SPACE.replace("fit = true", "fit = 1"))
    assert command.main([str(space), "-o", str(tmp_path / "out")]) == 2
    assert "fit can't be 1" in capsys.readouterr().err


def test_ready_space_has_every_method_at_every_width():
    for study in read("bits-to-speed").studies:
        assert set(study.axes["method"]) == set(METHODS)
        assert study.name == f"W{study.options['weights']}A{study.options['activations']}"


def test_ready_space_of_codes_has_machines_that_can_be_built():
    for point in read("codes").points():
        limits.check(point.config())


@pytest.mark.thorough
def test_a_command_line_chooses_values_and_measurements(space, tmp_path, capsys):
    """In the place of the space's; what has no gates is not generated."""
    found = changed(read(space), {"method": ["minmax", "erq"], "cols": ["8"]}, ["cycles"])
    study, = found.studies
    assert study.axes == {"modes": ("single", "single+pair"), "method": ("minmax", "erq")}
    assert study.base["cols"] == 8 and study.measure == ("cycles",)
    assert changed(read("bits-to-speed"), {}, ["accuracy"]).objectives == {"top1": "max"}
    narrow = changed(read("units"), {"lanes": ["2"], "cols": ["4"]}, ())
    assert all("cols" not in item.tie and item.point({}) for item in narrow.studies[:1])
    space.write_text(SPACE.replace('"network"', '"accelerator"', 1))
    out = tmp_path / "out"
    assert command.main([str(space), "--set", "modes=single", "--measure", "cycles", "-j", "1",
                         "-o", str(out)]) == 0
    assert "1 points: 1 measured" in capsys.readouterr().out
    assert not (out / "cache" / "generate").exists()


@pytest.mark.parametrize(("options", "words"), [
    (["--set", "method"], "--set must be NAME=VALUE or NAME=VALUE,VALUE, not 'method'"),
    (["--set", "metod=erq"], "parameter 'metod' is unknown: give "),
    (["--set", "method=erc"], "method must be one of "),
    (["--set", "weights=four"], "weights must be one of 0, 2, "),
    (["--set", "rows=8,8"], "rows has a value twice"),
    (["--measure", "speed"], "measure 'speed' is unknown: give exact, "),
])
def test_bad_choices_are_one_line(tmp_path, capsys, options, words):
    out = tmp_path / "out"
    assert command.main(["bits-to-speed", *options, "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1
    assert not out.exists()


def test_a_walk_takes_one_value():
    assert changed(read("bits"), {"lanes": ["2"]}, ()).studies
    with pytest.raises(SpaceError, match="walks the widths of layers, and takes one value of lan"):
        changed(read("bits"), {"lanes": ["2", "4"]}, ())


# -- the user's network


def _folders(root, write_digits):
    sample = mnist.sample()
    write_digits(root / "calibration", sample.calibration, 20)
    write_digits(root / "evaluation", sample.test, 30)
    return root / "calibration", root / "evaluation"


def test_pictures_are_known_by_what_they_are(tmp_path, write_digits, capsys):
    keys = []
    for root in (tmp_path / "one", tmp_path / "two"):
        calibration, evaluation = _folders(root, write_digits)
        pictures = _given("cifar10_vit", calibration, evaluation)
        keys.append(pictures.key)
    assert keys[0] == keys[1]
    (evaluation / "digit0" / "000.png").unlink()
    assert _given("cifar10_vit", calibration, evaluation).key != keys[0]
    point = read("bits-to-speed").points()[0]
    moved = [Point.from_dict(point.to_dict() | {"pictures": {"checkpoint": path, "key": "a"}})
             for path in ("here", "there")]
    assert moved[0].id == moved[1].id != point.id


def _given(network, calibration, evaluation, *more) -> Pictures:
    args = command._parser().parse_args(["bits-to-speed", "--network", network, "--calibration",
                                         str(calibration), "--evaluate", str(evaluation), *more])
    found = given(args)
    assert found is not None
    return identified(found)


@pytest.mark.parametrize(("options", "words"), [
    (["--network", "cifar10_vit"], "--network cifar10_vit needs --calibration"),
    (["--network", "deit_tiny_patch16_224"], "--network deit_tiny_patch16_224 needs --checkpoint"),
    (["--evaluate", "x"], "--evaluate needs --network, one of vit_small"),
    (["--network", "resnet50"], "one of vit_small_patch16_224, "),
    (["--network", "mnist"], "not 'mnist'"),
    (["--network", "cifar10_vit", "--calibration", "no", "--evaluate", "no"], "can't read "),
])
def test_bad_pictures_are_one_line_before_anything_is_measured(tmp_path, capsys, options, words):
    out = tmp_path / "out"
    assert command.main(["bits-to-speed", *options, "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1
    assert not out.exists()


def test_pictures_for_a_space_without_methods_are_refused(tmp_path, write_digits):
    pictures = _given("cifar10_vit", *_folders(tmp_path, write_digits))
    assert "bits-to-speed" in ready()
    with pytest.raises(SpaceError, match="no study lets a method decide"):
        read("edge").shown(pictures)
    with pytest.raises(SpaceError, match="walks widths of mnist alone"):
        read("bits").shown(pictures)
    shown = read("bits-to-speed").shown(pictures)
    assert {study.network for study in shown.studies} == {"cifar10_vit"}
    assert shown.points()[0].pictures["key"] == pictures.key


# -- columns and the picture


def test_products_by_cell_of_the_whole_design():
    row = completed({"cycles": 1000, "macs": 64000, "ecp5.luteq": 2000, "ecp5.dsp": 80}, 100.0)
    assert row["fps"] == 1e5 and row["products_per_s"] == 6.4e9
    assert row["ecp5.products_per_cycle_dsp"] == 0.8 and row["ecp5.products_per_s_lut"] == 3.2e6
    assert "xilinx.products_per_cycle_dsp" not in row


def _row(method, study, cycles, top1, status="ok", **more):
    return {"point": f"{method}{study}", "study": study, "status": status, "method": method,
            "cycles": cycles, "macs": 10, "top1": top1, "float_top1": 90.0, "images": 300,
            "network": "deit_tiny_patch16_224", "design": "network", "task": json.dumps({}), **more}


def _texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_picture_has_a_line_a_method_and_a_column_a_width():
    one, four = {"config.modes": "single"}, {"config.modes": "single+pair+quad"}
    rows = [_row("erq", "W8A8", 20_000, 89.0, **one, **{"ecp5.luteq": 34_000, "ecp5.dsp": 156}),
            _row("minmax", "W8A8", 20_000, 88.0, **one),
            _row("erq", "W4A4", 10_000, 86.0, **four), _row("minmax", "W4A4", 8_000, 1.5, **four),
            _row("tsptq-vit", "W4A4", 9_000, 2.5, **four),
            _row("dopq-vit", "W8A8", 20_000, 87.5, reconstruct="no", **one),
            _row("repq-vit", "W8A8", 100, 99.0, "failed")]
    text = picture(frame(rows), "Bits & <speed>")
    assert text is not None and text == picture(frame(rows), "Bits & <speed>")
    parsed = ElementTree.fromstring(text)
    assert parsed.tag.endswith("svg") and "prefers-color-scheme" in text
    words = _texts(text)
    assert {"Bits &amp; &lt;speed&gt;", "W8A8", "W4A4", "one product a multiplier",
            "four products a multiplier", "34,000 LUTeq, 156 multipliers"} <= set(words)
    assert any(line.startswith("top-1 of 300 images") and line.endswith(
        "deit_tiny_patch16_224 at 100 MHz (assumed)") for line in words)
    # Names as high as the ends of their lines; one that ends before the fastest study says where.
    names = [line for line in words if line in (
        "float", "erq", "minmax", "tsptq-vit", "dopq-vit, formats", "repq-vit")]
    assert names == ["float", "dopq-vit, formats", "erq", "tsptq-vit", "minmax"]
    assert {"86.0 %", "1.5 %", "W8A8: 87.5 %", "90.0 %", "less"} <= set(words)
    # 196 * sqrt(0.9 * 0.1 / 300)
    assert "of a share: ±3.4" in words
    hovers = re.findall("<title>([^<]*)</title>", text)
    assert "erq W8A8: 89.00 %, 5000.00 images/s, 34,000 LUT equivalents" in hovers
    assert len(hovers) == 6


def test_picture_keeps_what_it_draws_inside_and_names_apart():
    """Ten methods at one accuracy and two speeds: the hardest to tell apart."""
    rows = [_row(method, study, cycles, 90.0) for study, cycles in (("W8A8", 2000), ("W4A4", 1000))
            for method in METHODS]
    text = picture(frame(rows), "Digits")
    assert text is not None and "less" not in _texts(text)
    heights = [float(y) for y in re.findall(
        rf'<text x="[\d.]+" y="([\d.]+)"[^>]*>(?:{"|".join(METHODS)})</text>', text)]
    assert len(heights) == len(METHODS)
    assert all(after - before >= 20 for before, after in itertools.pairwise(heights))
    width, height = (float(found) for found in re.search(
        r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups())
    for x, y in re.findall(r"translate\(([\d.-]+) ([\d.-]+)\)", text):
        assert 0 < float(x) < width and 0 < float(y) < height


def test_picture_of_rows_without_accuracy_is_none():
    rows = [_row("erq", "W8A8", 20_000, 89.0)]
    assert picture(frame(rows), "Bits") is not None
    assert picture(frame(rows).drop(columns="top1"), "Bits") is None
    assert picture(frame([_row("", "W8A8", 10, 80.0)]), "Bits") is None
