# SPDX-License-Identifier: Apache-2.0
"""Real values as integers of a layer: biases in steps of its sums, codes in their container."""

__all__ = ["around_middle", "each", "in_steps"]

import torch
from torch import Tensor

from golden.formats.formats import Uniform
from golden.units.encoding import Encoding


def around_middle(item: Uniform, bits: int) -> Encoding:
    """Return the encoding whose codes have their zero in the middle of `bits` bits.

    Raises
    ------
    ValueError
        If some of the format's codes don't fit there.
    """
    lowest = (1 << bits - 1) - item.zero_point
    if not 0 <= lowest <= (1 << bits) - (1 << item.bits):
        raise ValueError(f"codes of {item.bits} bits with zero at {item.zero_point} don't fit "
                         f"{bits} bits with zero in the middle")
    return Encoding(bits=item.bits, zero_point=item.zero_point, lowest=lowest)


def each(scale: Tensor | float, channels: int) -> Tensor:
    """Return the real step of each channel, of those or of the one of all."""
    return scale if isinstance(scale, Tensor) \
        else torch.full((channels,), scale, dtype=torch.float64)


def in_steps(name: str, real: Tensor) -> Tensor:
    """Round a bias in steps of its sums to integers, half up.

    Raises
    ------
    ValueError
        If the requantizer's 32 bits don't hold it; the message names it.
    """
    steps = (real + 0.5).floor()
    if not bool((steps.abs() < 1 << 31).all()):
        raise ValueError(f"{name} reaches {float(real.abs().max()):.3g} steps of the sums that it "
                         "is added to, which 32 bits don't hold: the layer's weights are too small "
                         "beside it")
    return steps.to(torch.int64)
