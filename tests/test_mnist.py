# SPDX-License-Identifier: Apache-2.0
"""``python -m golden.mnist``: digits as folders of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from golden.data import mnist
from golden.data.imagenet import Folder
from golden.float import models


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mnist.npz"
    (x_train, y_train), (x_test, y_test) = drawn(50, 1), drawn(20, 2)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def read(folder: Path) -> dict[bytes, int]:
    """Return network inputs and their labels."""
    how = models.lookup("mnist_vit").preprocessing
    batches = Folder.open(folder).batches(how, 7)
    return {image.numpy().tobytes(): int(label) for images, labels in batches
            for image, label in zip(images, labels, strict=True)}


def of(images: np.ndarray, labels: np.ndarray) -> dict[bytes, int]:
    inputs = mnist.pixels(torch.from_numpy(images))
    return {image.numpy().tobytes(): int(label)
            for image, label in zip(inputs, labels, strict=True)}


def test_folders_of_a_users_file(file: Path, tmp_path: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = []
    for more in ([], [], ["--seed", "1"]):
        assert mnist.main(["--data", str(file), "--calibration", "30", "-o", str(out), *more]) == 0
        assert f"50 pictures in {out / 'calibration'} and {out / 'test'}" in capsys.readouterr().out
        assert read(out / "test") == of(*drawn(20, 2))
        found.append(read(out / "calibration"))
    assert len(found[0]) == 30 and found[0].items() <= of(*drawn(50, 1)).items()
    assert found[0] == found[1] != found[2]
    assert sorted(path.name for path in (out / "test").iterdir()) == list("0123456789")


def test_folders_of_the_sample_that_comes_with_the_project(tmp_path: Path) -> None:
    assert mnist.main(["-o", str(tmp_path)]) == 0
    sample = mnist.sample()
    for name, split in (("calibration", sample.calibration), ("test", sample.test)):
        assert read(tmp_path / name) == of(split.images.numpy(), split.labels.numpy())


@pytest.mark.parametrize(("more", "message"), [
    (["--calibration", "0"], "--calibration must be at least 1, not 0"),
    (["--data", "no.npz"], "can't read no.npz"),
])
def test_bad_input_gets_one_line(more: list[str], message: str, tmp_path: Path,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert mnist.main(["-o", str(out), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not out.exists()
