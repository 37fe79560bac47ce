# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.quantize`` on a folder of pictures: figures, records, and refusals."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.commands.methods import ABOUT
from golden.data import mnist
from golden.float import checkpoint
from golden.ptq import METHODS
from golden.ptq.record import Record
from tests.records import differences
from tests.sample import later, thorough


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, write_digits):
    folder, sample = tmp_path_factory.mktemp("pictures"), mnist.sample()
    return (write_digits(folder / "calibration", sample.calibration, 30),
            write_digits(folder / "test", sample.test, 40))


def command(pictures: tuple[Path, Path], *more: str) -> list[str]:
    return ["--model", "mnist_vit", "--checkpoint", str(WEIGHTS), "--calibration",
            str(pictures[0]), "--evaluate", str(pictures[1]), *more]


@pytest.mark.parametrize("method", [
    name if name == "erq" else thorough(name) if name in ("fq-vit", "dopq-vit") else later(name)
    for name in METHODS])
def test_both_accuracies_and_the_record(pictures, tmp_path, capsys, method):
    out = tmp_path / "record.json"
    few_steps = ["--set", "steps=2", "--set", "probes=4"] if ABOUT[method].reconstructs else []
    assert quantize.main(command(pictures, "--method", method, *few_steps, "-o", str(out))) == 0
    text = capsys.readouterr().out
    counts = re.findall(r"^(float|simulated) +(\d+) of 40 +[\d.]+%$", text, re.M)
    assert [name for name, _ in counts] == ["float", "simulated"]
    right = {name: int(count) for name, count in counts}
    split = mnist.sample().test
    few = mnist.Split(split.images[:40], split.labels[:40])
    # The path by pictures gives the network the same pixels as the arrays do.
    model = checkpoint.load(WEIGHTS)
    assert right["float"] == round(mnist.accuracy(model, few) * 40)
    record = Record.load(out)
    assert record.method == method
    assert right["simulated"] == round(mnist.accuracy(METHODS[method]().apply(model, record),
                                                      few) * 40)
    assert right["simulated"] >= right["float"] - 1


def test_options_reach_the_record(pictures, tmp_path, capsys):
    out = tmp_path / "record.json"
    assert quantize.main(command(
        pictures, "--method", "fq-vit", "--weights", "5", "--attention", "3", "--images", "4",
        "--set", "ptf=false", "--set", "sigma=0.5", "--set", "observer=ema", "--no-float", "-o",
        str(out))) == 0
    record = Record.load(out)
    assert record.settings["weights"] == 5 and record.settings["attention"] == 3
    assert record.settings["ptf"] is False and record.settings["sigma"] == 0.5
    assert record.formats["head.weight"].bits == 5
    assert "float" not in capsys.readouterr().out


def test_the_seed_draws_the_calibration_images(pictures, tmp_path):
    found = []
    for seed in ("0", "0", "1"):
        out = tmp_path / "record.json"
        assert quantize.main(command(pictures, "--method", "minmax", "--images", "5", "--seed",
                                     seed, "--no-float", "-o", str(out))) == 0
        found.append(Record.load(out))
    assert found[0] == found[1] and differences(found[0], found[2])


@pytest.mark.thorough
def test_calibration_images_are_as_many_as_the_paper_has(pictures, tmp_path, write_digits):
    many = write_digits(tmp_path / "many", mnist.sample().calibration, 36)
    for method, images in (("minmax", "32"), ("fq-vit", "36"), ("repq-vit", "32")):
        found = []
        for more in ((), ("--images", images), ("--images", "34")):
            out = tmp_path / "record.json"
            assert quantize.main(command((many, pictures[1]), "--method", method, *more,
                                         "--no-float", "-o", str(out))) == 0
            found.append(Record.load(out))
        assert found[0] == found[1] and differences(found[0], found[2])


def test_a_rescaled_network_is_the_same_and_its_record_fits_the_checkpoint(pictures, tmp_path,
                                                                           capsys):
    out = tmp_path / "record.json"
    assert quantize.main(command(pictures, "--method", "minmax", "--activations", "5", "--stream",
                                 "0", "--spread", "40", "-o", str(out))) == 0
    text = capsys.readouterr().out
    right = {name: int(count) for name, count in
             re.findall(r"^(float|simulated) +(\d+) of 40 +[\d.]+%$", text, re.M)}
    model, record = checkpoint.load(WEIGHTS), Record.load(out)
    split = mnist.sample().test
    few = mnist.Split(split.images[:40], split.labels[:40])
    assert right["float"] == round(mnist.accuracy(model, few) * 40)
    assert len(record.parameters) == 3 * 9
    got = mnist.accuracy(METHODS["minmax"]().apply(model, record), few)
    assert right["simulated"] == round(got * 40) < right["float"] - 4


@pytest.mark.parametrize("more, message", [
    (("--method", "magic"), "invalid choice: 'magic'"),
    (("--method", "minmax", "--model", "resnet50"), "model must be one of mnist_vit"),
    (("--method", "minmax", "--model", "deit_tiny_patch16_224"),
     r"tensor 'patch_embed.proj.weight' of shape \[64, 1, 4, 4\] is not of deit_.* is 192"),
    (("--method", "minmax", "--model", "deit_tiny_distilled_patch16_224"), "a distilled DeiT"),
    (("--method", "minmax", "--model", "vit", "--heads", "3"), "--heads must be 4, from the file"),
    (("--method", "minmax", "--heads", "8"), "--heads must be 4, those of mnist_vit, not 8"),
    (("--method", "minmax", "--mean", "0,0,0"), "--mean must have one value, or one for each"),
    (("--method", "minmax", "--mean", "x"), "--mean: invalid list of numbers value: 'x'"),
    (("--method", "minmax", "--std", "0"), "--std must be above 0"),
    (("--method", "minmax", "--interpolation", "cubic"), "invalid choice: 'cubic'"),
    (("--method", "minmax", "--weights", "9"), "weights must be 3 to 8 bits"),
    (("--method", "minmax", "--set", "ptf=true"), "--set must be one of reconstruct"),
    (("--method", "minmax", "--checkpoint", "nowhere.pth"), "can't read nowhere.pth"),
    (("--method", "minmax", "--calibration", "nowhere"), "can't read nowhere"),
    (("--method", "minmax", "--images", "0"), "must be at least 1"),
    (("--method", "minmax", "--crop", "2"), "--crop must be above 0"),
    (("--method", "minmax", "--spread", "0"), "spread must be at least 1"),
    (("--method", "minmax", "--device", "cuda"), "torch finds no GPU here"),
])
def test_bad_input(pictures, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)   # also where there is a GPU
    out = tmp_path / "record.json"
    assert quantize.main(command(pictures, *more, "-o", str(out))) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error
    assert not list(tmp_path.iterdir())


def test_constant_calibration_image(pictures, tmp_path, capsys):
    (tmp_path / "grey" / "a").mkdir(parents=True)
    Image.new("L", (28, 28), 77).save(tmp_path / "grey" / "a" / "a.png")
    assert quantize.main(command(pictures, "--method", "minmax", "--calibration",
                                 str(tmp_path / "grey"))) == 2
    assert "must not be constant" in capsys.readouterr().err
