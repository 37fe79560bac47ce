# SPDX-License-Identifier: Apache-2.0
"""How the CIFAR-10 network is trained: as few operations as a good result takes.

Attention starts as in trained networks (`golden.training.mimetic`), and the matrices learn with
Muon (`golden.training.muon`), the rest with AdamW; the rate warms up for a short time and falls to
zero in a line. Every image is shifted by up to four pixels and half of them are mirrored. In the
first epochs the network sees a window of 6x6 of the 8x8 patches, with the positions that these
have: almost half of the time is saved, and it is one more augmentation. The last epochs have all
patches.
"""

__all__ = ["QUIET", "WINDOWED", "Cifar10Task", "line", "mirrored", "windowed", "with_muon"]

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer

from golden.commands.options import PLANS, Plan
from golden.data import cifar10, mnist
from golden.float import models
from golden.float.vit import Vit, VitSpec
from golden.training.mimetic import mimetic
from golden.training.muon import Muon
from golden.training.task import Task, grouped, shifted

#: Patches of a window's side, and the share of the epochs that have windows.
WINDOW, WINDOWED = 6, 0.8
#: Share of the steps in which the rate rises.
WARM = 0.04
#: Rate of Q and K, as a share of that of the other matrices: they start well.
SCORES = 0.2
#: AdamW's rate, as a share of Muon's.
RATIO = 0.1
#: What the outputs of the MLPs are scaled with at first, so that positions stay visible.
QUIET = 0.4


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image ``[B, C, H, W]`` left to right or not."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def windowed(model: Vit, images: Tensor, row: int, column: int, side: int) -> Tensor:
    """Logits of a square of patches, `side` by `side` from `row` and `column` on.

    The tokens that are computed are those of the whole image, but fewer.
    """
    size, whole = model.spec.patch_size, model.spec.image_size // model.spec.patch_size
    part = images[..., size * row:size * (row + side), size * column:size * (column + side)]
    token, patches = model.pos_embed.split((1, whole * whole), dim=1)
    patches = patches.unflatten(1, (whole, whole))[:, row:row + side, column:column + side]
    positions = torch.cat((token, patches.flatten(1, 2)), dim=1)
    logits: Tensor = functional_call(model, {"pos_embed": positions}, (part,))
    return logits


def with_muon(model: nn.Module, matrices: Sequence[nn.Parameter]) -> list[Optimizer]:
    """Return Muon for `matrices`, and AdamW for all other parameters."""
    known = set(map(id, matrices))
    others = grouped([p for p in model.parameters() if id(p) not in known])
    return [Muon(matrices, decay=0.05, scores=SCORES),
            torch.optim.AdamW([{**group, "ratio": RATIO} for group in others],
                              betas=(0.9, 0.98), fused=True)]


def line(plan: Plan, step: int, steps: int) -> float:
    """Learning rate that rises for a share `WARM` of the steps, and falls to zero in a line."""
    total = plan.epochs * steps
    return plan.rate * min((step + 1) / max(1, WARM * total),
                           (total - step) / max(1, (1 - WARM) * total))


class Cifar10Task(Task[Vit]):
    """See the module."""

    network = "cifar10_vit"
    plan = PLANS["cifar10"]
    data = "CIFAR-10, all 50000 training images, JPEG re-encodings"
    example = "--network cifar10 --data cifar10_train_jpeg.zip cifar10_test.npz"
    interval = 5   # a measurement takes a tenth of an epoch's time

    def read(self, paths: Sequence[Path]) -> tuple[mnist.Split, mnist.Split]:
        return cifar10.read(paths)

    def build(self, seed: int) -> Vit:
        spec = models.lookup(self.network).spec
        assert isinstance(spec, VitSpec)
        model = mimetic(Vit(spec).initialize(seed), seed)
        with torch.no_grad():
            for name, parameter in model.blocks.named_parameters():
                if name.endswith("mlp.fc2.weight"):
                    parameter.mul_(QUIET)
            model.head.weight.mul_(0.1)   # no class is preferred
        return model

    def optimizers(self, model: Vit) -> list[Optimizer]:
        matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
        return with_muon(model, matrices)

    def rate(self, plan: Plan, step: int, steps: int) -> float:
        return line(plan, step, steps)

    def loss(self, model: Vit, images: Tensor, labels: Tensor, share: float,
             generator: torch.Generator) -> Tensor:
        seen = cifar10.pixels(mirrored(shifted(images, generator, 4), generator))
        if share < WINDOWED:
            reach = model.spec.image_size // model.spec.patch_size - WINDOW + 1
            row, column = torch.randint(0, reach, (2,), generator=generator).tolist()
            return functional.cross_entropy(windowed(model, seen, row, column, WINDOW), labels)
        return functional.cross_entropy(model(seen), labels)

    def accuracy(self, model: Vit, split: mnist.Split) -> float:
        return mnist.accuracy(model, split, prepare=cifar10.pixels)
