# SPDX-License-Identifier: Apache-2.0
"""What the training loop asks of a network's own recipe, and what both recipes are made of."""

__all__ = ["Task", "descend", "grouped", "shifted"]

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from golden.commands.options import Plan
from golden.data.mnist import Split
from golden.float.swin import Swin
from golden.float.vit import Vit

_Net = TypeVar("_Net", Vit, Swin)


class Task(ABC, Generic[_Net]):
    """One network's data, start, augmentation, loss and optimizers.

    Attributes
    ----------
    network
        Name of the network in `golden.float.models`.
    plan
        What is trained with if the user says nothing else.
    data
        What the weights were made from, for their metadata.
    example
        The arguments of the command that makes them, for network and data.
    interval
        Epochs from one measurement of the accuracy to the next; the last epoch has one.
    """

    network: str
    plan: Plan
    data: str
    example: str
    interval: int = 1

    @abstractmethod
    def read(self, paths: Sequence[Path]) -> tuple[Split, Split]:
        """Read the training and the test split.

        Raises
        ------
        ValueError
            If the files can't be used.
        """

    @abstractmethod
    def build(self, seed: int) -> _Net:
        """Return the network with its first parameters."""

    @abstractmethod
    def optimizers(self, model: _Net) -> list[Optimizer]:
        """Return what changes the parameters.

        A group's ``ratio``, 1 without one, multiplies the plan's rate.
        """

    @abstractmethod
    def rate(self, plan: Plan, step: int, steps: int) -> float:
        """Learning rate of a step, of `steps` an epoch."""

    @abstractmethod
    def loss(self, model: _Net, images: Tensor, labels: Tensor, share: float,
             generator: torch.Generator) -> Tensor:
        """Mean loss of a batch of raw images; `share` is how much of the epochs is done, 0..1."""

    @abstractmethod
    def accuracy(self, model: _Net, split: Split) -> float:
        """Share of the images that are classified as labelled."""


def grouped(parameters: Sequence[torch.nn.Parameter]) -> list[dict[str, object]]:
    """Group parameters for AdamW: weight decay for matrices and filters only."""
    return [{"params": [p for p in parameters if p.ndim in (2, 4)], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim not in (2, 4)], "weight_decay": 0.0}]


def descend(model: Vit | Swin, loss: Tensor, optimizers: Sequence[Optimizer], rate: float) -> None:
    """Take one step down a loss, with gradients of a norm of 1 at most.

    A group's ``ratio``, 1 without one, multiplies the rate.
    """
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("ratio", 1)
        optimizer.step()


def shifted(images: Tensor, generator: torch.Generator, reach: int = 2) -> Tensor:
    """Shift every image ``[B, ..., H, W]`` by up to `reach` pixels each way, filling with 0."""
    batch, height, width = len(images), *images.shape[-2:]
    padded = functional.pad(images, (reach, reach, reach, reach)).reshape(
        batch, -1, height + 2 * reach, width + 2 * reach)
    dy, dx = torch.randint(0, 2 * reach + 1, (2, batch, 1, 1, 1), generator=generator)
    rows = torch.arange(height).reshape(1, 1, -1, 1) + dy
    columns = torch.arange(width).reshape(1, 1, 1, -1) + dx
    channels = torch.arange(padded.shape[1]).reshape(1, -1, 1, 1)
    return padded[torch.arange(batch).reshape(-1, 1, 1, 1), channels, rows,
                  columns].reshape(images.shape)
