# SPDX-License-Identifier: Apache-2.0
"""How the MNIST network is trained.

AdamW with weight decay 0.05, one epoch of warm-up and a cosine to zero, cross-entropy with label
smoothing 0.05, and random shifts of up to two pixels.
"""

__all__ = ["MnistTask", "learning_rate"]

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from golden.commands.options import PLANS, Plan
from golden.data import mnist
from golden.float.vit import Vit, VitSpec
from golden.training.task import Task, grouped, shifted


def learning_rate(plan: Plan, step: int, steps: int) -> float:
    """Linear warm-up over the first epoch's `steps`, then a cosine to zero at the last step."""
    warm, total = steps, steps * plan.epochs
    if step < warm and plan.epochs > 1:
        return plan.rate * (step + 1) / warm
    return plan.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


class MnistTask(Task[Vit]):
    """See the module."""

    network = "mnist_vit"
    plan = PLANS["mnist"]
    data = "MNIST, all 60000 training images"
    example = "--data mnist.npz"

    def read(self, paths: Sequence[Path]) -> tuple[mnist.Split, mnist.Split]:
        if len(paths) != 1:
            raise ValueError(f"MNIST is read from one .npz file, not from {len(paths)}")
        return mnist.read(paths[0])

    def build(self, seed: int) -> Vit:
        return Vit(VitSpec()).initialize(seed)

    def optimizers(self, model: Vit) -> list[Optimizer]:
        return [torch.optim.AdamW(grouped(list(model.parameters())), fused=True)]

    def rate(self, plan: Plan, step: int, steps: int) -> float:
        return learning_rate(plan, step, steps)

    def loss(self, model: Vit, images: Tensor, labels: Tensor, share: float,
             generator: torch.Generator) -> Tensor:
        logits = model(mnist.pixels(shifted(images, generator)))
        return functional.cross_entropy(logits, labels, label_smoothing=0.05)

    def accuracy(self, model: Vit, split: mnist.Split) -> float:
        return mnist.accuracy(model, split)
