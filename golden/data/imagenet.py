# SPDX-License-Identifier: Apache-2.0
"""Pictures in an ImageFolder tree, ``DIR/<class>/<picture>``, with timm's preprocessing."""

__all__ = ["Folder", "read_classes", "transform"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from golden.data.mnist import DataError
from golden.data.pictures import TOO_LARGE, opened
from golden.float.models import Preprocessing
from golden.float.preprocessing_options import INTERPOLATIONS

SUFFIXES = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".webp")
_FILTERS = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}


def transform(picture: Image.Image, how: Preprocessing, *, resize: bool = True) -> Tensor:
    """Make network input float32 ``[channels, size, size]`` of a picture.

    As timm's evaluation: the shorter side is resized to ``how.resize`` (the longer one rounded
    down, as torchvision does), the centre is cropped, and ``(pixel / 255 - mean) / std`` is taken.

    Parameters
    ----------
    picture
        Any mode; converted to RGB, or to grey for one channel.
    how
        Its size, crop share, filter, mean and deviation.
    resize
        False: only crop, for pictures that are already scaled.

    Raises
    ------
    ValueError
        If the picture is smaller than the crop, or the filter is unknown.
    """
    if how.interpolation not in _FILTERS:
        raise ValueError(f"interpolation must be one of {', '.join(_FILTERS)}, "
                         f"not {how.interpolation!r}")
    picture = picture.convert("L" if len(how.mean) == 1 else "RGB")
    width, height = picture.size
    if resize:
        short = min(width, height)
        width, height = how.resize * width // short, how.resize * height // short
        picture = picture.resize((width, height), _FILTERS[how.interpolation])
    if min(width, height) < how.size:
        raise ValueError(f"a picture of {width}x{height} is smaller than the crop of {how.size}")
    left, top = round((width - how.size) / 2), round((height - how.size) / 2)
    picture = picture.crop((left, top, left + how.size, top + how.size))
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32)).reshape(
        how.size, how.size, len(how.mean)) / 255
    return ((pixels - torch.tensor(how.mean)) / torch.tensor(how.std)).permute(2, 0, 1).contiguous()


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read class folder names in label order, one a line."""
    try:
        names = tuple(Path(path).read_text().split())
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from None
    if not names or len(set(names)) != len(names):
        raise DataError(f"{path} must hold different class names, one a line")
    return names


@dataclass(frozen=True)
class Folder:
    """The pictures of a tree and their labels, in the order of their paths.

    Attributes
    ----------
    files
        Paths of the pictures.
    labels
        int64 ``[N]``.
    """

    files: tuple[Path, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.files)

    @classmethod
    def open(cls, path: str | Path, classes: Sequence[str] = ()) -> "Folder":
        """List a tree.

        Parameters
        ----------
        path
            Folder of class folders.
        classes
            Class folders in label order; without, the sorted folders of the tree, as torchvision
            labels them.

        Raises
        ------
        DataError
            If the tree can't be read, holds no picture, or has a folder that is no class.
        """
        path = Path(path)
        try:
            folders = sorted(item for item in path.iterdir() if item.is_dir())
        except OSError as error:
            raise DataError(f"can't read {path}: {error.strerror}") from None
        names = list(classes) or [item.name for item in folders]
        label = {name: index for index, name in enumerate(names)}
        files: list[Path] = []
        labels: list[int] = []
        for folder in folders:
            pictures = sorted(item for item in folder.iterdir() if item.suffix.lower() in SUFFIXES)
            if pictures and folder.name not in label:
                raise DataError(f"{folder} is not one of the {len(names)} classes")
            files += pictures
            labels += [label[folder.name]] * len(pictures) if pictures else []
        if not files:
            raise DataError(f"{path} holds no pictures in class folders")
        return cls(tuple(files), torch.tensor(labels))

    def choose(self, count: int, seed: int) -> "Folder":
        """Draw `count` pictures without repetition (all of them if there are fewer)."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Folder(tuple(self.files[i] for i in order.tolist()), self.labels[order])

    def batches(self, how: Preprocessing, size: int, *, resize: bool = True,
                ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield network input ``[B, channels, H, W]`` and labels ``[B]``.

        Raises
        ------
        DataError
            If a picture can't be read or is too small; the message names it.
        """
        for start in range(0, len(self), size):
            images = [self._read(file, how, resize) for file in self.files[start:start + size]]
            yield torch.stack(images), self.labels[start:start + size]

    def _read(self, file: Path, how: Preprocessing, resize: bool) -> Tensor:
        try:
            with opened(file) as picture:
                return transform(picture, how, resize=resize)
        except UnidentifiedImageError:
            raise DataError(f"{file} is not a picture") from None
        except (OSError, SyntaxError, ValueError, *TOO_LARGE) as error:
            raise DataError(f"can't use {file}: {error}") from None
