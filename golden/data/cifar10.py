# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10: reading the whole set from a user's files, and writing it as folders of pictures.

None of its images come with the project. Two forms are read: the official binary version
(``cifar-10-batches-bin``), and JPEG pictures of the training set in an archive with the test set
as arrays. The folders are what `golden.quantize` and `gen.program` take.
"""

__all__ = ["CLASSES", "main", "pixels", "read"]

import argparse
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from golden.data.mnist import DataError, Split
from golden.data.options import cifar10 as command_line
from golden.data.pictures import TOO_LARGE, Splits, opened, write
from golden.float import models
from vitforge.base.cli import run_command

SIZE, CHANNELS = 32, 3
#: In the order of the labels, which is that of the alphabet: folders get the same labels.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Of the binary version.
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
RECORD = 1 + CHANNELS * SIZE * SIZE
_PICTURE = re.compile(r"(?:[^/]+/)*(\w+)/[^/]+\.(?:jpe?g|png)", re.IGNORECASE)
#: A picture of 32x32 that is larger than this is none.
_LARGEST = 100_000


def pixels(images: Tensor) -> Tensor:
    """Images ``[N, 3, 32, 32]`` uint8 to network input float32, normalised channel by channel."""
    how = models.lookup("cifar10_vit").preprocessing
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (how.mean, how.std))
    return (images.to(torch.float32) / 255 - mean) / std


def read(paths: Sequence[str | Path]) -> tuple[Split, Split]:
    """Read the training and the test split, images ``[N, 3, 32, 32]`` uint8.

    Parameters
    ----------
    paths
        Either the folder of the binary version, or an archive and a file of arrays in any order:
        a ``.zip`` of the training set, ``<class>/<picture>.jpg`` in any folder, and an ``.npz`` of
        the test set, ``x`` (uint8, ``[N, 32, 32, 3]``) and ``y`` (integers below 10, ``[N]``).

    Raises
    ------
    DataError
        If it is something else, or a file can't be read or is damaged; the message names it.
    """
    found = [Path(path) for path in paths]
    if len(found) == 1 and found[0].is_dir():
        return (_joined([_batch(found[0] / name) for name in TRAIN]), _batch(found[0] / TEST))
    by_suffix = {path.suffix.lower(): path for path in found}
    if len(found) != 2 or set(by_suffix) != {".zip", ".npz"}:
        raise DataError("CIFAR-10 is read from the folder cifar-10-batches-bin, or from a .zip of "
                        "training pictures and an .npz of test images, not from "
                        + (" and ".join(map(str, paths)) or "nothing"))
    return _archive(by_suffix[".zip"]), _arrays(by_suffix[".npz"])


def _joined(splits: Sequence[Split]) -> Split:
    return Split(torch.cat([split.images for split in splits]),
                 torch.cat([split.labels for split in splits]))


def _batch(path: Path) -> Split:
    """Read a file of the binary version: a label, then red, green and blue, row by row."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from None
    if not len(content) or len(content) % RECORD:
        raise DataError(f"{path} must be records of {RECORD} bytes, not {len(content)} bytes")
    records = content.reshape(-1, RECORD)
    return _split(path, records[:, 1:].reshape(-1, CHANNELS, SIZE, SIZE), records[:, 0])


def _archive(path: Path) -> Split:
    """Read the pictures in the order of their names."""
    images, labels, name = [], [], ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                match = _PICTURE.fullmatch(name)
                if match is None:
                    continue
                if match[1] not in CLASSES:
                    raise DataError(f"{path}: {name}: {match[1]!r} is none of the classes")
                if archive.getinfo(name).file_size > _LARGEST:
                    raise DataError(f"{path}: {name} is too large")
                with opened(io.BytesIO(archive.read(name))) as picture:
                    if picture.size != (SIZE, SIZE):
                        raise DataError(f"{path}: {name} must be {SIZE}x{SIZE}, "
                                        f"not {picture.size[0]}x{picture.size[1]}")
                    images.append(np.asarray(picture.convert("RGB")))
                labels.append(CLASSES.index(match[1]))
    except DataError:
        raise
    except (UnidentifiedImageError, SyntaxError):
        raise DataError(f"{path}: {name} is not a picture") from None
    except zipfile.BadZipFile:
        raise DataError(f"{path} is not a .zip archive, or is damaged") from None
    # A RuntimeError is an encrypted archive, or one with a compression that Python doesn't have.
    except (OSError, ValueError, RuntimeError, *TOO_LARGE) as error:
        at = f": {name}" if name else ""
        raise DataError(f"can't read {path}{at}: {getattr(error, 'strerror', None) or error}"
                        ) from None
    if not images:
        raise DataError(f"{path} holds no pictures in class folders")
    return _split(path, np.stack(images).transpose(0, 3, 1, 2), np.array(labels))


def _arrays(path: Path) -> Split:
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            images, labels = arrays["x"], arrays["y"]
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, TypeError, KeyError, IndexError, zipfile.BadZipFile):
        raise DataError(f"{path} is not an .npz file with the arrays x and y, or is damaged"
                        ) from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, CHANNELS):
        raise DataError(f"{path}: x must be uint8 images of {SIZE}x{SIZE}x{CHANNELS}, "
                        f"not {images.dtype} of shape {list(images.shape)}")
    return _split(path, images.transpose(0, 3, 1, 2), labels)


def _split(path: Path, images: np.ndarray, labels: np.ndarray) -> Split:
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or not len(labels):
        raise DataError(f"{path}: there must be {len(images)} integer labels (at least one), "
                        f"not {labels.dtype} of shape {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{path}: labels must lie in 0..{len(CLASSES) - 1}, "
                        f"not {labels.min()}..{labels.max()}")
    return Split(torch.from_numpy(np.ascontiguousarray(images)),
                 torch.from_numpy(labels.astype(np.int64)))


def _run(args: argparse.Namespace) -> int:
    def splits() -> Splits:
        train, test = read(args.data)
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(args.seed))
        chosen = chosen[:args.train]
        return {"train": (train.images[chosen], train.labels[chosen]),
                "test": (test.images, test.labels)}

    if args.train < 1:
        raise ValueError(f"--train must be at least 1, not {args.train}")
    return write(args.output, CLASSES, splits)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the pictures are written, 2 for input that can't be used."""
    return run_command(_run, command_line(), argv)
