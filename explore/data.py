# SPDX-License-Identifier: Apache-2.0
"""What `explore.pictures.Pictures` names, read: a float network and its images."""

__all__ = ["BATCH", "Data", "identified"]

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from explore.pictures import Pictures
from golden.commands.options import WEIGHTS
from golden.data import mnist
from golden.data.imagenet import Folder, read_classes
from golden.float import checkpoint, models
from golden.float.preprocessing import one_deviation
from golden.float.vit import Vit
from vitforge.base import stamps

#: Images at a time.
BATCH = 25


def identified(pictures: Pictures) -> Pictures:
    """Read what there is, and return it with its key.

    Raises
    ------
    ValueError
        If the checkpoint is no such network, or a folder or a file can't be used.
    """
    models.load(pictures.network, Path(pictures.checkpoint))
    classes = read_classes(pictures.classes) if pictures.classes else ()
    folders = {name: Folder.open(getattr(pictures, name), classes)
               for name in ("calibration", "evaluation")}
    plain = dataclasses.asdict(pictures) | {
        "checkpoint": hashlib.sha256(Path(pictures.checkpoint).read_bytes()).hexdigest(),
        "classes": list(classes),
        **{name: [[str(path.relative_to(getattr(pictures, name))), path.stat().st_size]
                  for path in folder.files] for name, folder in folders.items()}}
    return dataclasses.replace(pictures, key=stamps.key(plain)[:16])


class Data:
    """A float network, its calibration images, and the images that it is measured with.

    Attributes
    ----------
    model
        The network, which takes normalised images.
    how
        Its preprocessing, of one deviation for all channels.
    """

    def __init__(self, pictures: Mapping[str, Any]) -> None:
        self.pictures = Pictures(**pictures) if pictures else None
        if self.pictures is None:
            self.model: Vit = checkpoint.load(WEIGHTS)
            self.how = models.lookup("mnist_vit").preprocessing
            return
        model, self.how = one_deviation(
            models.load(self.pictures.network, Path(self.pictures.checkpoint)),
            models.lookup(self.pictures.network).preprocessing)
        if not isinstance(model, Vit):
            raise ValueError(f"{self.pictures.network} has no integers on this datapath")
        self.model = model

    @functools.cached_property
    def _classes(self) -> tuple[str, ...]:
        assert self.pictures is not None
        return read_classes(self.pictures.classes) if self.pictures.classes else ()

    def calibration(self, count: int) -> Tensor:
        """Return `count` normalised images, or all if there are fewer."""
        if self.pictures is None:
            return mnist.pixels(mnist.sample().calibration.images)[:count]
        folder = Folder.open(self.pictures.calibration, self._classes)
        drawn = folder.choose(self.pictures.images or count, 0)
        return torch.cat([images for images, _ in drawn.batches(self.how, BATCH)])

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels."""
        if self.pictures is None:
            split = mnist.sample().test
            return zip(mnist.pixels(split.images).split(BATCH), split.labels.split(BATCH),
                       strict=True)
        folder = Folder.open(self.pictures.evaluation, self._classes)
        if self.pictures.limit:
            folder = folder.choose(self.pictures.limit, 0)
        return folder.batches(self.how, BATCH, resize=self.pictures.resize)
