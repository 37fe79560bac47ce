# SPDX-License-Identifier: Apache-2.0
"""What makes one error of a unit's output worse than another: the losses of reconstruction.

- `Squared`: all errors alike (I&S-ViT, arXiv 2311.10126; DopQ-ViT).
- `Perturbation`: the average-perturbation Hessian of APHQ-ViT (CVPR 2025, section 3.2; official
  code, ``hessian_perturb``). Of the divergence between the float network's classes and those with
  the unit's output moved by ``+e`` and by ``-e`` in all its values, the gradients' difference is
  the sum of a Hessian's row; its size, averaged over images, weighs squared errors.
- `Fisher`: diagonal plus low rank of FIMA-Q (CVPR 2025, sections 3.2 and 3.3; official code,
  ``fisher_dplr``). The gradients' mean sizes G, ``[k, N]``, at k times, and those of the errors D
  then, make ``G^T (D D^T)^-1 G``, and the mean of G the diagonal. The official code has the float
  network before the unit there; here it is the quantized one, as in training.

Both divergences are those of the classes at a temperature of 20, as in both official codes, and
what follows the unit is the float network. The classifier's own loss is that divergence at 1.
"""

__all__ = ["Fisher", "Loss", "Perturbation", "Squared", "View", "divergence"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 20.0
#: The official code's 1e-6 is lost in the rounding of values of size 10 in single precision.
_MOVED = 1e-3
#: Images whose gradients are computed at a time.
_BATCH = 8


@dataclass(frozen=True, eq=False)
class View:
    """What a loss may see of a unit.

    Attributes
    ----------
    targets
        Output of the float network's unit for the probing images.
    outputs
        Gives the same of the quantized network's, as it is trained so far.
    rest
        The float network's classes, as logits, for an output.
    """

    targets: Tensor
    outputs: Callable[[], Tensor]
    rest: Callable[[Tensor], Tensor]


def divergence(logits: Tensor, wanted: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the classes from those of `wanted`, mean of the images."""
    return functional.kl_div((logits / temperature).log_softmax(-1),
                             (wanted / temperature).softmax(-1), reduction="batchmean")


def _gradients(view: View, at: Tensor) -> Tensor:
    """Gradient of the divergence at some outputs, for each image."""
    found: list[Tensor] = []
    for start in range(0, len(at), _BATCH):
        targets = view.targets[start:start + _BATCH]
        with torch.no_grad():
            wanted = view.rest(targets)
        point = at[start:start + _BATCH].detach().requires_grad_(True)
        with torch.enable_grad():
            loss = divergence(view.rest(point), wanted, TEMPERATURE)
            found += torch.autograd.grad(loss, point)
    return torch.cat(found)


class Loss(ABC):
    """The error of a unit's outputs against those of the float network."""

    #: How often it looks at the unit again while that is trained.
    looks = 1

    @abstractmethod
    def look(self, view: View) -> None:
        """Prepare for a unit, at the beginning and then `looks` - 1 times more."""

    @abstractmethod
    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        """Mean of the images, a number; about 1 for the errors at the last look."""


class Squared(Loss):
    """Mean square."""

    def look(self, view: View) -> None:
        self.unit = _scale((view.outputs() - view.targets).square().mean())

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        return (out - target).square().mean() / self.unit


class Perturbation(Loss):
    """Square, weighted by the average-perturbation Hessian."""

    def look(self, view: View) -> None:
        above, below = (_gradients(view, view.targets + move) for move in (_MOVED, -_MOVED))
        self.weight = (above - below).abs().mean(0, keepdim=True)
        self.unit = 1.0
        self.unit = _scale(self(view.outputs(), view.targets))

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        return ((out - target).square() * self.weight).mean() / self.unit


class Fisher(Loss):
    """Square, weighted by the diagonal, and the square of what the low rank sees, alike."""

    def __init__(self, rank: int) -> None:
        self.looks = rank
        self.gradients: list[Tensor] = []
        self.errors: list[Tensor] = []

    def look(self, view: View) -> None:
        out = view.outputs()
        self.gradients.append(_gradients(view, out).abs().mean(0).flatten())
        self.errors.append((out - view.targets).abs().mean(0).flatten())
        errors = torch.stack(self.errors).double()
        self.low = torch.stack(self.gradients)
        # Errors at two looks may be nearly alike; the official code inverts all the same.
        self.inverse = torch.linalg.pinv(errors @ errors.T, hermitian=True, rtol=1e-6).float()
        self.diagonal = self.low.mean(0)
        self.units = (1.0, 1.0)
        low, diagonal = self._parts(out, view.targets)
        self.units = _scale(low), _scale(diagonal)

    def _parts(self, out: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        error = (out - target).abs().flatten(1)
        seen = error @ self.low.T
        return (((seen @ self.inverse) * seen).sum(1).mean() / self.units[0],
                (error.square() * self.diagonal).mean() / self.units[1])

    def __call__(self, out: Tensor, target: Tensor) -> Tensor:
        low, diagonal = self._parts(out, target)
        return (low + diagonal) / 2


def _scale(loss: Tensor) -> float:
    """Make losses about 1; of errors that are 0 they stay 0."""
    return float(loss.detach()) or 1.0
