# SPDX-License-Identifier: Apache-2.0
"""Methods in a space: decided once, run on every machine, with the user's network and pictures."""

import json
import shutil

import pytest

from explore import __main__ as command
from explore.data import identified
from explore.measure import measure
from explore.picture import picture
from explore.pictures import Pictures, given
from explore.point import Point
from explore.space import SpaceError
from explore.space_file import read, ready
from explore.table import completed, frame
from golden.data import mnist
from golden.ptq import METHODS

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
    # Memories are the network's, on both.
    assert pair["config.max_tokens"] == 50 and pair["config.scratch_words"] < 4096
    assert pair["simulated_top1"] - 2 < pair["top1"] <= pair["float_top1"] == 100


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


def test_a_machine_without_two_scale_codes_gives_gelu_uniform_ones(space, tmp_path):
    text = SPACE.replace('"minmax"', '"tsptq-vit"').replace('["cycles", "accuracy"]', '["cycles"]')
    space.write_text(text)
    wide = measure(read(space).points()[1], tmp_path / "cache")
    space.write_text(text.replace("cols = 16", 'cols = 16, formats = "uniform"'))
    plain = measure(read(space).points()[1], tmp_path / "cache")
    # What the format costs: fc2 at single rate.
    assert plain["cycles"] < wide["cycles"]


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


def test_picture_has_every_method_and_names_the_best():
    def row(method, study, cycles, top1, status="ok"):
        return {"point": f"{method}{study}", "study": study, "status": status, "method": method,
                "cycles": cycles, "macs": 10, "top1": top1, "float_top1": 90.0, "images": 300,
                "network": "deit_tiny_patch16_224", "design": "network",
                "task": json.dumps({})}
    rows = [row("fima-q", "W4A4", 10_000, 80.0), row("minmax", "W8A8", 20_000, 85.0),
            row("erq", "W8A8", 30_000, 84.0), row("repq-vit", "W3A3", 100, 99.0, "failed")]
    text = picture(frame(rows), "Bits")
    assert text is not None and text.startswith("<svg")
    # On the front; beaten in both, in the legend alone; failed, nowhere.
    assert "fima-q W4A4" in text and "minmax W8A8" in text and ">erq<" in text
    assert "erq W8A8" not in text and "repq-vit" not in text
    assert "images a second of deit_tiny_patch16_224" in text
    assert text == picture(frame(rows), "Bits")
    assert picture(frame(rows).drop(columns="top1"), "Bits") is None
    assert picture(frame([row("", "W8A8", 10, 80.0)]), "Bits") is None
