# SPDX-License-Identifier: Apache-2.0
"""A killed ``golden.quantize`` goes on where it was, and only if nothing else has changed."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.ptq.minmax import MinMax
from golden.ptq.record import Record
from golden.ptq.resume import Ledger, key
from tests.sample import leading, thorough


@pytest.fixture
def pictures(tmp_path) -> Path:
    split = mnist.sample().test
    for index in range(30):
        folder = tmp_path / "pictures" / f"digit{split.labels[index]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(split.images[index].numpy()).save(folder / f"{index:03d}.png")
    return tmp_path / "pictures"


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["--method", "minmax", "--model", "mnist_vit", "--checkpoint", str(WEIGHTS),
            "--calibration", str(pictures), "--evaluate", str(pictures), "--batch", "7",
            "--activations", "4", "-o", str(out), *more]


class Killed(BaseException):
    pass


def kill_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Let the run end abruptly after so many evaluated batches of both networks together."""
    real, done = Ledger.counted, []

    def counted(self, name, images, right):
        if not batches:
            raise Killed
        real(self, name, images, right)
        done.append(name)
        if len(done) == batches:
            raise Killed
    monkeypatch.setattr(Ledger, "counted", counted)


def decisions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count the decisions that are made."""
    made: list[object] = []
    real = MinMax.decide

    def decide(self, statistics):
        made.append(self)
        return real(self, statistics)
    monkeypatch.setattr(MinMax, "decide", decide)
    return made


@pytest.mark.parametrize("batches", [
    4, thorough(0), thorough(12),
    *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 6, 10))])
def test_a_killed_run_goes_on(pictures, tmp_path, monkeypatch, capsys, batches):
    plain = tmp_path / "plain.json"
    assert quantize.main(command(pictures, plain)) == 0
    wanted = capsys.readouterr().out
    assert wanted.count("of 30") == 3
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "plain.json"}

    out = tmp_path / "record.json"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, batches)
        quantize.main(command(pictures, out))
    left = json.loads((tmp_path / "record.json.progress").read_text())
    # Three networks, each in four batches of 7 images and one of 2.
    counted = [min(max(batches - 5 * network, 0), 5) for network in range(3)]
    assert sum(done for done, _ in left["counts"].values()) == sum(
        7 * done - 5 * (done == 5) for done in counted)
    capsys.readouterr()

    evaluated: list[int] = []
    made = decisions(monkeypatch)
    real = Ledger.counted
    monkeypatch.setattr(Ledger, "counted", lambda self, name, images, right: (
        evaluated.append(images), real(self, name, images, right))[1])
    assert quantize.main(command(pictures, out)) == 0
    text = capsys.readouterr()
    assert text.out == wanted.replace(str(plain), str(out)) and "goes on with" in text.err
    assert not made and len(evaluated) == 15 - batches
    assert Record.load(out) == Record.load(plain)
    assert not (tmp_path / "record.json.progress").exists()


@pytest.mark.parametrize("change", leading(2, [
    "option", "picture", "checkpoint", "record", "progress"]))
def test_nothing_is_taken_from_another_run(pictures, tmp_path, monkeypatch, capsys, change):
    out, progress = tmp_path / "record.json", tmp_path / "record.json.progress"
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(WEIGHTS.read_bytes())
    more = ["--checkpoint", str(weights)]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        quantize.main(command(pictures, out, *more))
    if change == "option":
        more += ["--set", "stream=6"]
    elif change == "checkpoint":
        model = checkpoint.load(weights)
        model.head.bias.data[0] += 1
        checkpoint.save(weights, model, {})
    elif change == "picture":
        picture = next(pictures.rglob("*.png"))
        Image.fromarray(mnist.sample().test.images[40].numpy()).save(picture)
        os.utime(picture, (1, 1))
    elif change == "record":
        out.write_text(out.read_text().replace('"bits": 4', '"bits": 5', 1))
    else:
        progress.write_text(progress.read_text()[:-20])
    capsys.readouterr()
    made = decisions(monkeypatch)
    assert quantize.main(command(pictures, out, *more)) == 0
    assert len(made) == 1 and "goes on" not in capsys.readouterr().err
    assert not progress.exists()


def test_parameters_belong_to_the_record(tmp_path):
    out = tmp_path / "record.json"
    value = torch.arange(4.0)
    record = Record(method="x", settings={}, formats={}, parameters={"w": value})
    ledger = Ledger(out, "k")
    ledger.decided(record)
    ledger.counted("float", 5, 3)
    found = Ledger.open(out, "k")
    assert found.record == record and found.counts == {"float": (5, 3)}
    assert Ledger.open(out, "other").record is None
    Record(method="x", settings={}, formats={}, parameters={"w": value + 1}).save(out)
    assert Ledger.open(out, "k").record is None
    # A new decision forgets what was counted with the old one.
    ledger.decided(record)
    assert Ledger.open(out, "k").counts == {}


def test_key_depends_on_options_contents_and_listed_files(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("1")
    other.write_text("1")
    before = key({"x": 1}, [file], [other])
    assert key({"x": 1}, [file], [other]) == before
    assert key({"x": 2}, [file], [other]) != before
    os.utime(file, (1, 1))
    assert key({"x": 1}, [file], [other]) == before
    file.write_text("2")
    assert key({"x": 1}, [file], [other]) != before
    file.write_text("1")
    os.utime(other, (1, 1))
    assert key({"x": 1}, [file], [other]) != before


