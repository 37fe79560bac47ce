# SPDX-License-Identifier: Apache-2.0
"""Formats of a network's constants: codes of 8 bits around zero, as the residual's are."""

__all__ = ["around_zero", "symmetric"]

import torch
from torch import Tensor

from golden.formats.formats import Shifted
from vitforge.spec.config import Config
from vitforge.spec.formats import MIDDLE


def symmetric(constant: Tensor) -> Shifted:
    """Return the format of a constant, symmetric and of one step."""
    return Shifted(scale=max(float(constant.abs().max()), 1e-9) / (MIDDLE - 1), zero_point=MIDDLE,
                   shift=torch.tensor(0))


def around_zero(constant: Tensor, config: Config) -> Shifted:
    """Return the format of a constant ``[tokens, dim]``, with a shift for each channel.

    The scale and, channel by channel, the shift of the least squared error.
    """
    shifts = config.norm_bits - config.mantissa_bits + 1
    widest = max(float(constant.abs().max()), 1e-9) / (MIDDLE - 1 << shifts - 1)
    best, least = None, float("inf")
    for percent in range(100, 45, -5):
        scale = widest * percent / 100
        errors = torch.stack([
            (found.dequantize(found.quantize(constant)) - constant).square().sum(0)
            for found in (Shifted(scale=scale, zero_point=MIDDLE, shift=torch.tensor(shift))
                          for shift in range(shifts))])
        if (error := float(errors.amin(0).sum())) < least:
            best, least = Shifted(scale=scale, zero_point=MIDDLE, shift=errors.argmin(0)), error
    assert best is not None
    return best
