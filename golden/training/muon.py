# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan et al., 2024): momentum whose matrix is replaced by the nearest orthogonal one.

All directions of a weight matrix then learn equally fast, which takes fewer steps than AdamW. Only
for the matrices of the blocks; embeddings, vectors and the head stay with AdamW.
"""

__all__ = ["Muon", "orthogonal"]

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

#: Coefficients of the published quintic step: five steps bring singular values to about 0.7..1.2.
_STEP = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of a matrix near 1, its singular vectors unchanged."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found = wide / (wide.norm() + 1e-7)   # singular values of at most 1
    a, b, c = _STEP
    for _ in range(steps):
        gram = found @ found.T
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found if wide is matrix else found.T


class Muon(torch.optim.Optimizer):
    """Nesterov momentum 0.95, orthogonalized, with decoupled weight decay.

    Parameters
    ----------
    parameters
        Matrices. One of ``3 * n`` times ``n``, Q, K and V in one, is taken as three.
    decay
        Share of a weight that is taken away, times the rate.
    scores
        What the steps of Q and K are multiplied with.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], decay: float,
                 scores: float = 1.0) -> None:
        super().__init__(parameters, {"lr": 0.0, "decay": decay, "momentum": 0.95,
                                      "scores": scores})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:   # type: ignore[override]
        """Change every matrix."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(group["momentum"]).add_(weight.grad)
                direction = weight.grad + group["momentum"] * momentum
                rows, columns = weight.shape
                if rows == 3 * columns:
                    q, k, v = map(orthogonal, direction.split(columns))
                    change = torch.cat((group["scores"] * q, group["scores"] * k, v))
                else:
                    # A tall matrix has few columns: larger steps change its outputs as much.
                    change = orthogonal(direction) * max(1, rows / columns) ** 0.5
                weight.mul_(1 - group["lr"] * group["decay"]).add_(change, alpha=-group["lr"])
