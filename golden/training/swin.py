# SPDX-License-Identifier: Apache-2.0
"""How the project's Swin is trained on CIFAR-10, in the few operations that its ViT taught.

As `golden.training.cifar10`: mimetic attention, Muon for the matrices and AdamW for the rest, a
rate that falls in a line. What is Swin's own:

- a head starts with a bias that prefers tokens at one place beside the query (drawn, at most a
  token and a half away), so that attention begins as a convolution would, after Cordonnier et al.
  (arXiv 1911.03584) and ConViT (arXiv 2103.10697); a reconstruction;
- in the first epochs the network sees a square of three quarters of the side, in windows of three
  quarters of the side: there are as many windows, each with the middle of the bias table.
"""

__all__ = ["SwinTask", "inner"]

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer

from golden.commands.options import PLANS, Plan
from golden.data import cifar10, mnist
from golden.float import models
from golden.float.swin import Swin, SwinSpec
from golden.training.cifar10 import QUIET, WINDOWED, line, mirrored, with_muon
from golden.training.mimetic import attend
from golden.training.task import Task, shifted

#: How fast a head's preference falls with the square of the distance, and how far its place lies.
FALL, REACH = 0.5, 1.5
#: The least bias at first: far tokens are not forgotten, and the range of scores stays small.
FLOOR = -5.0
#: Of the side that is seen at first, and of the windows.
PART = (3, 4)
_TABLE = "relative_position_bias_table"


def inner(table: Tensor, window: int) -> Tensor:
    """Return the rows of a position bias table that a smaller window has."""
    whole = round(len(table) ** 0.5)
    edge, side = whole // 2 + 1 - window, 2 * window - 1
    rows = table.unflatten(0, (whole, whole))
    return rows[edge:edge + side, edge:edge + side].flatten(0, 1)


class SwinTask(Task[Swin]):
    """See the module."""

    network = "cifar10_swin"
    plan = PLANS["swin"]
    data = "CIFAR-10, all 50000 training images, JPEG re-encodings"
    example = "--network swin --data cifar10_train_jpeg.zip cifar10_test.npz"
    interval = 2

    def __init__(self) -> None:
        spec = models.lookup(self.network).spec
        assert isinstance(spec, SwinSpec)
        some, whole = PART
        self.spec = spec
        self.part = dataclasses.replace(spec, image_size=spec.image_size * some // whole,
                                        window=spec.window * some // whole)
        self.small: Swin | None = None   # computes with the parameters of the whole network

    def read(self, paths: Sequence[Path]) -> tuple[mnist.Split, mnist.Split]:
        return cifar10.read(paths)

    def build(self, seed: int) -> Swin:
        model = Swin(self.spec).initialize(seed)
        generator = torch.Generator().manual_seed(seed)
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for number, stage in enumerate(self.spec.stages):
                offset = torch.arange(2 * stage.window - 1) - (stage.window - 1.0)
                for block in range(stage.depth):
                    name = f"layers.{number}.blocks.{block}"
                    attend(parameters[f"{name}.attn.qkv.weight"],
                           parameters[f"{name}.attn.proj.weight"], stage.heads, generator)
                    y, x = REACH * (2 * torch.rand(2, 1, stage.heads, generator=generator) - 1)
                    away = ((offset[:, None] - y) ** 2)[:, None] + (offset[:, None] - x) ** 2
                    bias = (-FALL * away).clamp_min(FLOOR)
                    parameters[f"{name}.attn.{_TABLE}"][:] = bias.flatten(0, 1)
                    parameters[f"{name}.mlp.fc2.weight"].mul_(QUIET)
            parameters["head.fc.weight"].mul_(0.1)   # no class is preferred
        return model

    def optimizers(self, model: Swin) -> list[Optimizer]:
        return with_muon(model, [p for name, p in model.layers.named_parameters()
                                 if p.ndim == 2 and not name.endswith(_TABLE)])

    def rate(self, plan: Plan, step: int, steps: int) -> float:
        return line(plan, step, steps)

    def loss(self, model: Swin, images: Tensor, labels: Tensor, share: float,
             generator: torch.Generator) -> Tensor:
        seen = cifar10.pixels(mirrored(shifted(images, generator, 4), generator))
        if share < WINDOWED:
            side, patch = self.part.image_size, self.part.patch_size
            reach = (self.spec.image_size - side) // patch + 1
            row, column = (patch * torch.randint(0, reach, (2,), generator=generator)).tolist()
            seen = seen[..., row:row + side, column:column + side]
            return functional.cross_entropy(self.partly(model, seen), labels)
        return functional.cross_entropy(model(seen), labels)

    def partly(self, model: Swin, images: Tensor) -> Tensor:
        """Logits of images of `part`'s size, in its windows."""
        self.small = self.small or Swin(self.part)
        shapes = {name: len(value) for name, value in self.small.named_parameters()
                  if name.endswith(_TABLE)}
        parameters = {
            name: inner(value, (round(shapes[name] ** 0.5) + 1) // 2) if name in shapes else value
            for name, value in model.named_parameters()}
        logits: Tensor = functional_call(self.small, parameters, (images,))
        return logits

    def accuracy(self, model: Swin, split: mnist.Split) -> float:
        return mnist.accuracy(model, split, prepare=cifar10.pixels)
