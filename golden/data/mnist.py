# SPDX-License-Identifier: Apache-2.0
"""MNIST: reading the whole set from a user's file, and the sample that comes with the project.

``python -m golden.mnist`` writes either as folders of pictures.
"""

__all__ = ["DataError", "Sample", "Split", "accuracy", "main", "pixels", "read", "sample"]

import argparse
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from golden.data.options import mnist as command_line
from golden.data.pictures import Splits, write
from vitforge.base.cli import run_command

SAMPLE = Path(__file__).parents[1] / "data" / "mnist_sample.npz"


class DataError(ValueError):
    """A data file that can't be used; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Split:
    """Images uint8, ``[N, H, W]`` or with channels ``[N, C, H, W]``, and labels ``[N]`` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Sample:
    """The shipped images: 300 of the test set and 100 of the training set, classes in turn."""

    test: Split
    calibration: Split


def pixels(images: Tensor) -> Tensor:
    """Images ``[N, H, W]`` uint8 to network input ``[N, 1, H, W]`` float32, ``0..1``.

    Black is exactly 0, so that a pixel is its own uniform code with zero point 0 and scale 1/255.
    """
    return images[:, None].to(torch.float32) / 255


def read(path: str | Path, image_size: int = 28, classes: int = 10) -> tuple[Split, Split]:
    """Read the training and the test split of an ``.npz`` file.

    Parameters
    ----------
    path
        File with the arrays ``x_train``, ``x_test`` (uint8, ``[N, image_size, image_size]``) and
        ``y_train``, ``y_test`` (integers below `classes`, ``[N]``).

    Raises
    ------
    DataError
        If the file can't be read, lacks an array, or an array has another type, shape or range.
    """
    arrays = _arrays(path)
    return (_split(path, arrays, "x_train", "y_train", image_size, classes),
            _split(path, arrays, "x_test", "y_test", image_size, classes))


def sample(path: str | Path = SAMPLE) -> Sample:
    """Read the shipped sample.

    Raises
    ------
    DataError
        As `read`.
    """
    arrays = _arrays(path)
    return Sample(_split(path, arrays, "images", "labels", 28, 10),
                  _split(path, arrays, "calibration_images", "calibration_labels", 28, 10))


def accuracy(model: Callable[[Tensor], Tensor], split: Split, batch: int = 500,
             prepare: Callable[[Tensor], Tensor] = pixels) -> float:
    """Share of the images that `model` (network input to logits) classifies as labelled.

    `prepare` makes network input of images.
    """
    right = 0
    with torch.inference_mode():
        for start in range(0, len(split), batch):
            logits = model(prepare(split.images[start:start + batch]))
            right += int((logits.argmax(1) == split.labels[start:start + batch]).sum())
    return right / len(split)


def _arrays(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with Path(path).open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError("a single array")
            return {name: arrays[name] for name in arrays.files}
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile):
        raise DataError(f"{path} is not an .npz file of plain arrays, or is damaged") from None


def _split(path: str | Path, arrays: dict[str, np.ndarray], images_name: str, labels_name: str,
           size: int, classes: int) -> Split:
    for name in (images_name, labels_name):
        if name not in arrays:
            raise DataError(f"{path}: no array {name!r}; it has {', '.join(arrays) or 'none'}")
    images, labels = arrays[images_name], arrays[labels_name]
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (size, size):
        raise DataError(f"{path}: {images_name} must be uint8 images of {size}x{size}, "
                        f"not {images.dtype} of shape {list(images.shape)}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or not len(labels):
        raise DataError(f"{path}: {labels_name} must be {len(images)} integers (at least one), "
                        f"not {labels.dtype} of shape {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{path}: {labels_name} must lie in 0..{classes - 1}, "
                        f"not {labels.min()}..{labels.max()}")
    return Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _run(args: argparse.Namespace) -> int:
    def splits() -> Splits:
        if args.data is None:
            found = sample()
            return {"calibration": (found.calibration.images, found.calibration.labels),
                    "test": (found.test.images, found.test.labels)}
        train, test = read(args.data)
        chosen = np.random.default_rng(args.seed).permutation(len(train))[:args.calibration]
        return {"calibration": (train.images[chosen], train.labels[chosen]),
                "test": (test.images, test.labels)}

    if args.calibration < 1:
        raise ValueError(f"--calibration must be at least 1, not {args.calibration}")
    return write(args.output, [str(digit) for digit in range(10)], splits)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the pictures are written, 2 for input that can't be used."""
    return run_command(_run, command_line(), argv)
