# SPDX-License-Identifier: Apache-2.0
"""``golden.quantize --reconstruct``: stopped at any moment and resumed, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from golden.commands import quantize
from golden.commands.options import WEIGHTS
from golden.data import mnist
from golden.ptq import reconstruction, reconstruction_run
from golden.ptq.formats import TensorFormat
from golden.ptq.losses import Squared
from golden.ptq.reconstruction_run import Kept
from golden.ptq.record import Record


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, write_digits) -> Path:
    return write_digits(tmp_path_factory.mktemp("pictures"), mnist.sample().calibration, 12)


def command(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["--method", "minmax", "--model", "mnist_vit", "--checkpoint", str(WEIGHTS),
            "--calibration", str(pictures), "--weights", "4", "--reconstruct", "quick",
            "--set", "steps=2", "-o", str(out), *more]


class Killed(BaseException):
    pass


@pytest.mark.thorough
def test_a_run_that_is_killed_between_units_goes_on(pictures, tmp_path, monkeypatch):
    plain, out = tmp_path / "plain.json", tmp_path / "record.json"
    assert quantize.main(command(pictures, plain)) == 0
    trained = []
    real = reconstruction._Training.run

    def run(self):
        if len(trained) == 3:
            raise Killed
        trained.append(self.unit.name)
        return real(self)
    monkeypatch.setattr(reconstruction._Training, "run", run)
    with pytest.raises(Killed):
        quantize.main(command(pictures, out))
    units = tmp_path / "record.json.units"
    assert sorted(path.stem for path in units.iterdir()) == ["blocks.0", "blocks.1", "patch_embed"]
    assert not out.exists()
    monkeypatch.setattr(reconstruction._Training, "run", lambda self: (
        trained.append(self.unit.name), real(self))[1])
    assert quantize.main(command(pictures, out)) == 0
    assert trained[-3:] == ["blocks.2", "blocks.3", "head"] and len(trained) == 3 + 3
    assert Record.load(out) == Record.load(plain) and not units.exists()


def test_an_interrupt_is_one_line_and_keeps_what_is_done(pictures, tmp_path, monkeypatch, capsys):
    out = tmp_path / "record.json"
    real = Kept.save

    def save(self, unit, found):
        real(self, unit, found)
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "save", save)
        assert quantize.main(command(pictures, out)) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "record.json.units").iterdir()] \
        == ["patch_embed.safetensors"]


def test_a_record_is_whole_at_every_moment(tmp_path, monkeypatch):
    """A process that ends while it writes leaves the record that was there."""
    path = tmp_path / "record.json"
    item = TensorFormat(kind="uniform", bits=4, scale=0.5)
    records = [Record(method=str(n), settings={}, formats={"a": item},
                      parameters={"a.weight": torch.full((3,), float(n))}) for n in range(3)]
    records[0].save(path)
    real = Path.replace
    for count in (1, 2):
        left = [count]

        def replace(self, target, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(self, target)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Path, "replace", replace)
            records[1].save(path)
        assert Record.load(path) == records[0]
    for record in (records[1], records[2], records[2], records[0]):
        record.save(path)
        assert Record.load(path) == record
        assert len(list(tmp_path.iterdir())) == 2
    Record(method="", settings={}, formats={"a": item}).save(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.thorough
def test_a_finished_record_is_not_replaced_by_one_that_diverged(pictures, tmp_path, monkeypatch,
                                                                capsys):
    out = tmp_path / "record.json"
    assert quantize.main(command(pictures, out)) == 0
    before = Record.load(out)
    monkeypatch.setattr(Squared, "__call__", lambda self, a, b: (a - b).sum() * float("nan"))
    capsys.readouterr()
    assert quantize.main(command(pictures, out, "--set", "rate=0.9")) == 2
    error = capsys.readouterr().err
    assert "patch_embed diverged at step 0 of 2" in error and "keeps its best weights" in error
    assert f"error: {out} holds a record already, which stays" in error
    assert "Traceback" not in error and Record.load(out) == before
    other = tmp_path / "other.json"
    assert quantize.main(command(pictures, other, "--set", "rate=0.9")) == 0
    assert all(bool(value.isfinite().all()) for value in Record.load(other).parameters.values())


@pytest.mark.parametrize(("more", "line"), [
    (["--images", "3"], "takes 4 images a step, and there are 3 to calibrate with: give more, or"),
    (["--set", "step_images=13"], "takes 13 images a step, and there are 12"),
    (["--set", "rate=7"], "rate must lie between 0 and 1"),
    (["--set", "loss=mae"], "loss must be one of mse, perturbation, fisher")])
def test_bad_input_is_one_line(pictures, tmp_path, capsys, more, line):
    out = tmp_path / "record.json"
    assert quantize.main(command(pictures, out, *more)) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_too_little_memory_says_how_much(pictures, tmp_path, capsys, monkeypatch):
    free = tmp_path / "meminfo"
    free.write_text("MemAvailable:  1024 kB\n")
    monkeypatch.setattr(reconstruction_run, "_FREE", str(free))
    assert quantize.main(command(pictures, tmp_path / "out.json")) == 2
    error = capsys.readouterr().err
    assert "GiB of memory for 12 images" in error and error.strip().count("\n") == 0


def test_a_picture_that_can_not_be_read_is_named(pictures, tmp_path, capsys, write_digits):
    folder = write_digits(tmp_path / "digits", mnist.sample().calibration, 6)
    broken = sorted(folder.glob("*/*.png"))[2]
    broken.write_bytes(b"no picture")
    assert quantize.main(command(folder, tmp_path / "out.json")) == 2
    error = capsys.readouterr().err
    assert str(broken) in error and error.strip().count("\n") == 0


def test_the_record_says_what_was_done(pictures, tmp_path):
    out = tmp_path / "record.json"
    assert quantize.main(command(pictures, out)) == 0
    settings = json.loads(out.read_text())["settings"]
    assert settings["reconstruct"] == "quick" and settings["steps"] == 2
