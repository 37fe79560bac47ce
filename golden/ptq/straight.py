# SPDX-License-Identifier: Apache-2.0
"""Quantizers that a network is trained through: rounded values forward, straight gradients back.

Rounding has no gradient, so that of the rounded value is given to the real one, and nothing where
codes saturate (the straight-through estimator, Bengio et al., arXiv 1308.3432). The step of uniform
codes is learnt too (LSQ, Esser et al., arXiv 1902.08153, equation 3): a value in range moves by
``code - x / step`` for a change of the step, one out of range by its code.
"""

__all__ = ["DRAWS", "StraightActivation", "StraightWeight", "straight_uniform"]

import dataclasses
import threading
from typing import Any

import torch
from torch import Tensor, nn

from golden.ptq.formats import TensorFormat, simulate, weight_grid
from golden.ptq.integer_softmax import LogIntSoftmax

#: `generator` of this thread draws what QDrop leaves out.
DRAWS = threading.local()


class _Uniform(torch.autograd.Function):
    """``step * clamp(floor(x / step + 1/2), low, high)``; gradients of x and of the step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: Any, high: Any) -> Tensor:
        value = x / step
        code = (value + 0.5).floor_()
        if isinstance(low, Tensor):
            code = torch.minimum(torch.maximum(code, low), high)
        else:
            code.clamp_(low, high)
        ctx.save_for_backward(value, code, step)
        ctx.ends = low, high
        return code * step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        gradient, = gradients
        value, code, step = ctx.saved_tensors
        low, high = ctx.ends
        inside = (value >= low - 0.5).logical_and_(value <= high + 0.5)
        passed = gradient * inside
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None
        if step.numel() == 1:
            moved = (torch.dot(gradient.flatten(), code.flatten())
                     - torch.dot(passed.flatten(), value.flatten())).reshape(step.shape)
        else:
            moved = (gradient * code - passed * value).sum_to_size(step.shape)
        return passed, moved, None, None


class _Through(torch.autograd.Function):
    """Any format's values forward, the gradient as it is backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantized: Tensor) -> Tensor:
        return quantized

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_uniform(x: Tensor, step: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Round to multiples of a step, half up, between two codes.

    Parameters
    ----------
    x
        Real values.
    step
        Positive; broadcasts against x, and gets a gradient if it needs one.
    low, high
        Least and largest code less the zero point: numbers, or tensors that broadcast.
    """
    out: Tensor = _Uniform.apply(x, step, low, high)  # type: ignore[no-untyped-call]
    return out


def _through(x: Tensor, quantized: Tensor) -> Tensor:
    out: Tensor = _Through.apply(x, quantized)  # type: ignore[no-untyped-call]
    return out


class StraightActivation(nn.Module):
    """A site's quantizer: a forward hook whose step can be learnt.

    Uniform codes of one scale and zero point have a factor of the step, a parameter that starts at
    1 (its logarithm, at 0); every other format stays what it is.

    Attributes
    ----------
    item
        The format that was decided.
    gain
        Logarithm of the factor, ``[]``.
    keep
        Share of the values that are quantized while training; the others pass as they are (QDrop,
        arXiv 2203.05740). 1: all.
    """

    def __init__(self, item: TensorFormat, exponential: TensorFormat | None = None,
                 softmax: str = "float") -> None:
        super().__init__()
        self.item = item
        self.plain = (item.kind == "uniform" and not isinstance(item.scale, tuple)
                      and not isinstance(item.zero_point, tuple))
        self.gain = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.codes = None if exponential is None else LogIntSoftmax(exponential, item.bits, softmax)
        self.keep = 1.0

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """Quantize what leaves the module; `before` is what it has read."""
        if self.codes is not None and before is not None:
            return _through(x, self.codes(before.detach()))
        item = self.item
        if not self.plain:
            return _through(x, simulate(x.detach(), item))
        assert isinstance(item.scale, float) and isinstance(item.zero_point, int)
        step = self.gain.exp() * item.scale
        out = straight_uniform(x, step, item.low - item.zero_point, item.high - item.zero_point)
        if self.keep < 1:
            drawn = torch.rand(x.shape, generator=DRAWS.generator) < self.keep
            out = torch.where(drawn, out, x)
        return out

    def hook(self, _module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """Stand in for the output of the module that this is a forward hook of."""
        quantized: Tensor = self(out, inputs[0])
        return quantized

    def learnt(self) -> TensorFormat:
        """Return the format with the step that was learnt."""
        if not self.plain or not float(self.gain):
            return self.item
        assert isinstance(self.item.scale, float)
        # As `forward` has it: in single precision.
        return dataclasses.replace(
            self.item, scale=float(self.gain.detach().exp() * self.item.scale))


class StraightWeight(nn.Module):
    """A parametrization of a layer's weights ``[N, ...]``: real ones in, those on the grid out.

    Attributes
    ----------
    gain
        Logarithms of factors of the rows' steps, ``[N, 1]``, or of the one step of all, ``[1, 1]``.
    """

    def __init__(self, item: TensorFormat, weight: Tensor) -> None:
        super().__init__()
        self.item = item
        self.uniform = item.kind in ("uniform", "dual")
        rows = len(weight) if isinstance(item.scale, tuple) else 1
        self.gain = nn.Parameter(torch.zeros(rows, 1), requires_grad=False)
        if self.uniform:
            step, zero = (value.float() for value in weight_grid(item))
            self.step = step.expand(rows, -1).clone()
            self.low, self.high = item.low - zero, item.high - zero

    def forward(self, weight: Tensor) -> Tensor:
        """Quantize all weights."""
        flat = weight.flatten(1)
        if not self.uniform:
            return _through(weight, simulate(weight.detach(), self.item))
        return straight_uniform(flat, self.gain.exp() * self.step, self.low,
                                self.high).view_as(weight)

    def learnt(self) -> TensorFormat:
        """Return the format with the steps that were learnt."""
        if not self.uniform or not bool(self.gain.any()):
            return self.item
        step = (self.gain.detach().exp() * self.step).double()
        if not isinstance(self.item.scale, tuple):
            return dataclasses.replace(self.item, scale=float(step))
        if self.item.kind == "uniform":
            return dataclasses.replace(self.item, scale=tuple(step[:, 0].tolist()))
        apart = torch.tensor(self.item.group, dtype=torch.bool)
        return dataclasses.replace(self.item, scale=tuple(step[:, ~apart][:, 0].tolist()),
                                   group_scale=tuple(step[:, apart][:, 0].tolist()))
