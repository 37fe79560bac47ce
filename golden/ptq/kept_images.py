# SPDX-License-Identifier: Apache-2.0
"""Methods on RepQ-ViT's formats that need the images once more when these are known."""

__all__ = ["KeepsImages", "SeenImages"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.repqvit import RepqVit
from golden.ptq.statistics import Statistics, collect


@dataclass(frozen=True, eq=False)
class SeenImages(Statistics):
    """Statistics with the images, which are needed again when the formats are known."""

    batches: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class KeepsImages(RepqVit):
    """RepQ-ViT, whose statistics have the calibration images."""

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        kept = tuple(batches)
        found = collect(model, kept, most=self.settings.kept, advance=advance)
        return SeenImages(model, found.sites, found.observed, class_token=found.class_token,
                          batches=kept)
