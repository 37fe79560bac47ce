# SPDX-License-Identifier: Apache-2.0
"""The one rounding and the one saturation of the deployed path, on int64 tensors."""

__all__ = ["integers", "round_shift", "saturate"]

import torch
from torch import Tensor


def integers(**tensors: Tensor) -> None:
    """Refuse floating-point tensors by name.

    Raises
    ------
    TypeError
        If a tensor isn't of an integer type.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            raise TypeError(f"{name} must be integers, not {tensor.dtype}")


def round_shift(value: Tensor, amount: Tensor | int) -> Tensor:
    """Shift right by `amount` >= 0, rounding half up: ``(value + (1 << amount-1)) >> amount``.

    `amount` broadcasts against `value`; an amount of 0 returns `value`.
    """
    integers(value=value)
    value = value.to(torch.int64)
    shift = torch.as_tensor(amount, dtype=torch.int64)
    half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp_min(0), 0)
    return (value + half) >> shift


def saturate(value: Tensor, low: int, high: int) -> Tensor:
    """Clamp `value` to ``low..high``, both included."""
    integers(value=value)
    return value.clamp(low, high)
