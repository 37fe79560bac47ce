# SPDX-License-Identifier: Apache-2.0
"""The training program: same seed same weights, resumed or not, and what bad input gets."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from golden.data import mnist
from golden.float import checkpoint
from golden.training import mnist as train_mnist
from golden.training import task as train_task
from golden.training import train

ARGUMENTS = ["--epochs", "2", "--batch", "20"]


pytestmark = pytest.mark.usefixtures("global_switches")


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    sample = mnist.sample()
    return {"x_train": sample.calibration.images.numpy(),
            "y_train": sample.calibration.labels.numpy().astype(np.uint8),
            "x_test": sample.test.images[:20].numpy(), "y_test": sample.test.labels[:20].numpy()}


@pytest.fixture
def data(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = tmp_path / "data" / "digits.npz"
    path.parent.mkdir()
    np.savez(path, allow_pickle=True, **arrays)
    return path


def run(data: Path, output: Path, *more: str) -> int:
    return train.main(["--data", str(data), "-o", str(output), *ARGUMENTS, *more])


def test_interrupted_run_ends_with_the_same_weights(
        tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    whole, parts, other = (tmp_path / name / "net.safetensors" for name in ("whole", "parts", "o"))
    for path in (whole, parts, other):
        path.parent.mkdir()
    assert run(data, whole) == 0
    assert str(whole) in capsys.readouterr().out
    assert sorted(p.name for p in whole.parent.iterdir()) == ["net.csv", "net.safetensors"]

    batches = 0
    shifted = train_task.shifted

    def interrupted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        nonlocal batches
        batches += 1
        if batches == 8:   # in the second epoch
            raise KeyboardInterrupt
        return shifted(images, generator)

    monkeypatch.setattr(train_mnist, "shifted", interrupted)
    assert run(data, parts) == 130
    assert [p.name for p in parts.parent.iterdir()] == ["net.safetensors.partial"]
    assert run(data, parts) == 0
    assert batches == 8 + 5   # the first epoch was not repeated
    assert sorted(p.name for p in parts.parent.iterdir()) == ["net.csv", "net.safetensors"]
    expected, resumed = load_file(whole), load_file(parts)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    assert checkpoint.read(parts)[1] == checkpoint.read(whole)[1]

    assert run(data, other, "--seed", "2") == 0
    assert not torch.equal(load_file(other)["head.weight"], expected["head.weight"])


def test_every_epoch_has_its_own_order(tmp_path: Path, data: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[torch.Tensor] = []
    shifted = train_task.shifted

    def recorded(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batches.append(images)
        return shifted(images, generator)

    monkeypatch.setattr(train_mnist, "shifted", recorded)
    assert run(data, tmp_path / "net.safetensors") == 0
    first, second = torch.cat(batches[:5]), torch.cat(batches[5:])
    assert len(batches) == 10 and not torch.equal(first, second)
    every = [set(map(bytes, epoch.numpy())) for epoch in (first, second)]
    assert every[0] == every[1] and len(every[0]) == 100   # each image once


def test_training_learns(tmp_path: Path, data: Path) -> None:
    output = tmp_path / "net.safetensors"
    assert train.main(["--data", str(data), "-o", str(output), "--epochs", "12", "--batch", "20",
                       "--rate", "2e-3"]) == 0
    rows = (tmp_path / "net.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,test_accuracy,seconds"
    assert [row.split(",")[0] for row in rows[1:]] == [str(n) for n in range(1, 13)]
    losses = [float(row.split(",")[1]) for row in rows[1:]]
    assert losses[0] > 2.3 and losses[-1] < 1.9


def test_interrupted_run_of_another_plan_is_refused(
        tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "net.safetensors"
    partial = tmp_path / "net.safetensors.partial"
    monkeypatch.setattr(train, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(data, output) == 130
    capsys.readouterr()
    for damage, message in ((False, "run with another network, seed"), (True, "is damaged")):
        if damage:
            partial.write_bytes(partial.read_bytes()[:500])
        assert run(data, output, "--seed", "9") == 2
        assert message in one_line(capsys)
    assert partial.exists() and not output.exists()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err.lstrip("\n")   # of an empty progress bar
    assert error.startswith("golden.train: error: ") and error.count("\n") == 1
    return error.removeprefix("golden.train: ").rstrip("\n")


@pytest.mark.parametrize(("kind", "message"), [
    ("missing file", "No such file"),
    ("truncated", "is not an .npz file of plain arrays, or is damaged"),
    ("text", "is not an .npz file of plain arrays, or is damaged"),
    ("objects", "is not an .npz file of plain arrays, or is damaged"),
    ("lone array", "is not an .npz file of plain arrays, or is damaged"),
    ("no array", "no array 'y_test'; it has x_train, y_train, x_test"),
    ("size", "x_train must be uint8 images of 28x28, not uint8 of shape [100, 14, 14]"),
    ("type", "x_test must be uint8 images of 28x28, not float64 of shape [20, 28, 28]"),
    ("labels", "y_train must lie in 0..9, not 0..10"),
    ("count", "y_train must be 100 integers (at least one), not uint8 of shape [99]"),
])
def test_unusable_data_is_one_line_and_exit_2(
        tmp_path: Path, data: Path, arrays: dict[str, np.ndarray], kind: str, message: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    match kind:
        case "missing file":
            data.unlink()
        case "truncated":
            data.write_bytes(data.read_bytes()[:3000])
        case "text":
            data.write_text("x_train")
        case "objects":
            arrays["y_test"] = np.array([None] * 20)
        case "lone array":
            with data.open("wb") as file:
                np.save(file, arrays["x_train"])
        case "no array":
            del arrays["y_test"]
        case "size":
            arrays["x_train"] = arrays["x_train"][:, ::2, ::2]
        case "type":
            arrays["x_test"] = arrays["x_test"] / 255
        case "labels":
            arrays["y_train"] = arrays["y_train"] + np.uint8(1)
            arrays["y_train"][0] = 0
        case "count":
            arrays["y_train"] = arrays["y_train"][1:]
    if kind not in ("missing file", "truncated", "text", "lone array"):
        np.savez(data, allow_pickle=True, **arrays)
    assert run(data, tmp_path / "net.safetensors") == 2
    line = one_line(capsys)
    assert message in line and "\n" not in line and data.name in line
    assert [item.name for item in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--epochs", "0"], "epochs must be between 1 and 1000, not 0"),
    (["--rate", "2"], "rate must lie between 0 and 1, not 2.0"),
    (["-o", "net.onnx"], "the output must be a .safetensors file, not net.onnx"),
    (["-o", "nowhere/net.safetensors"], "there is no folder nowhere to write into"),
])
def test_unusable_arguments_are_one_line_and_exit_2(
        data: Path, tmp_path: Path, arguments: list[str], message: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path / "net.safetensors", *arguments) == 2
    assert one_line(capsys) == f"error: {message}"


def test_shifts_move_whole_images() -> None:
    images = mnist.sample().test.images[:200]
    moved = train_task.shifted(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for image, result in zip(padded, moved, strict=True):
        places = [(y, x) for y in range(5) for x in range(5)
                  if torch.equal(image[y:y + 28, x:x + 28], result)]
        assert places
        seen.add(places[0])
    assert len(seen) == 25


def test_rate_warms_up_then_falls_to_zero() -> None:
    plan = train_task.Plan(epochs=4, rate=0.5)
    rates = [train_mnist.learning_rate(plan, step, 10) for step in range(40)]
    assert rates[9] == rates[10] == 0.5
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.002
