# SPDX-License-Identifier: Apache-2.0
"""Calibration of the LayerNorm input formats: power-of-two factor (PTF) and outlier scale (O-2SF).

Both give every channel of a layer the step ``scale << shift`` and one zero point, so that a code
decodes to ``(code - zero_point) << shift`` whatever the method. This is calibration code: floating
point in, integers out; `torch.round` rounds half to even here, as in the published code.
"""

__all__ = ["PowerOfTwoFactor", "outlier_two_scale", "power_of_two_factor"]

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PowerOfTwoFactor:
    """Format of a LayerNorm input: ``value = ((code - zero_point) << shift[c]) * scale``.

    Attributes
    ----------
    scale
        Step of the finest channel, float32.
    zero_point
        Shared by all channels, 0 to ``2**bits - 1``.
    shift
        int64 ``[C]``.
    bits
        Width of a code.
    """

    scale: float
    zero_point: int
    shift: Tensor
    bits: int = 8

    @property
    def channel_scale(self) -> Tensor:
        """Step of every channel, float32 ``[C]``."""
        return torch.tensor(self.scale) * 2.0 ** self.shift

    def quantize(self, x: Tensor) -> Tensor:
        """Return int64 codes of real values ``[..., C]``."""
        code = (x / self.channel_scale + self.zero_point).round()
        return code.clamp(0, 2**self.bits - 1).to(torch.int64)

    def mantissa(self, code: Tensor) -> Tensor:
        """Return ``code - zero_point``, which LayerNorm takes beside `shift`."""
        return code - self.zero_point

    def dequantize(self, code: Tensor) -> Tensor:
        """Return the real values of codes ``[..., C]``."""
        return self.mantissa(code) * self.channel_scale


def _real(x: Tensor) -> Tensor:
    """Return `x` as float32, or refuse it."""
    if not x.is_floating_point():
        raise TypeError(f"x must be real values, not {x.dtype}")
    if not x.numel() or not bool(torch.stack(x.aminmax()).isfinite().all()):
        raise ValueError(f"x must be finite and not empty, not {list(x.shape)} from "
                         f"{x.flatten()[:1].tolist()}")
    return x.to(torch.float32)


def _layer(x: Tensor, bits: int) -> tuple[Tensor, int]:
    """Step and zero point of a whole layer, asymmetric min-max."""
    top = 2**bits - 1
    low, high = x.aminmax()
    step = ((high - low) / top).clamp_min(torch.finfo(torch.float32).eps)
    zero_point = (0 - (low / step).round()).clamp(0, top)
    return step, int(zero_point)


#: Values at a time: few stay in the caches, many leave Python to other threads.
_CHUNK = 1 << 20


def _errors(x: Tensor, bits: int, zero_point: int, step: float) -> Tensor:
    """Sum of squared errors of every channel ``[C]``, without integers in between."""
    found = torch.zeros(x.shape[-1], dtype=torch.float64, device=x.device)
    for part in x.split(max(1, _CHUNK // x.shape[-1])):
        code = (part / step).add_(zero_point).round_().clamp_(0, 2**bits - 1)
        found += code.sub_(zero_point).mul_(step).sub_(part).square_().sum(0)
    return found


def power_of_two_factor(x: Tensor, bits: int = 8, levels: int = 4, *, again: Tensor | None = None,
                        copies: int = 1) -> PowerOfTwoFactor:
    """Calibrate FQ-ViT's power-of-two factor (arXiv 2111.13824, section 4.1).

    The layer's step is ``(max - min) / (2**bits - 1)`` for the largest shift ``levels - 1``, and
    halved for every smaller one; the zero point comes from the layer's step and is shared; each
    channel takes the shift of the least squared error, the smaller one of equals.

    Parameters
    ----------
    x
        float32 ``[..., C]``, the values of one calibration batch.
    bits
        Width of a code.
    levels
        Number of shifts; 4 in the paper.
    again
        More values ``[..., C]``, of which each counts as `copies`.
    """
    parts = [(_real(part).reshape(-1, part.shape[-1]), count)
             for part, count in ((x, 1), (again, copies)) if part is not None]
    step, zero_point = _layer(torch.cat([torch.stack(part.aminmax()) for part, _ in parts]), bits)
    scale = float(step / 2 ** (levels - 1))
    errors = torch.stack([
        sum((count * _errors(part, bits, zero_point, scale * 2**shift) for part, count in parts),
            start=torch.zeros(())) for shift in range(levels)])
    # argmin promises no order among equals; the first minimum is wanted.
    first = (errors == errors.min(0).values).to(torch.int64).argmax(0)
    return PowerOfTwoFactor(scale, zero_point, first, bits)


def outlier_two_scale(x: Tensor, bits: int = 8, threshold: float = 4.0,
                      max_shift: int = 6) -> PowerOfTwoFactor:
    """Calibrate an outlier-aware second scale, O-2SF; a reconstruction.

    TSPTQ-ViT (arXiv 2305.12901) says that outlier channels get a scale of their own, a power of two
    times that of the others. Which channels, and how the ratio is found, is reconstructed here:

    * outliers are the channels whose largest magnitude exceeds `threshold` times the median
      channel's;
    * ``m = round(log2(largest outlier / largest other))``, 1 to `max_shift`;
    * scale and zero point cover the channels divided by ``2**m`` where they are outliers.

    Parameters
    ----------
    x
        float32 ``[..., C]``.
    bits
        Width of a code.
    threshold
        In multiples of the median.
    max_shift
        Largest m: norm_bits minus mantissa_bits of the configuration.

    Returns
    -------
    PowerOfTwoFactor
        With ``shift = m * flag``; without outliers all shifts are 0.
    """
    x = _real(x)
    peak = x.reshape(-1, x.shape[-1]).abs().amax(0)
    flag = peak > threshold * peak.median()
    shift = torch.zeros(x.shape[-1], dtype=torch.int64)
    if bool(flag.any()):
        ratio = float(peak[flag].max() / peak[~flag].max().clamp_min(1e-30))
        m = round(torch.tensor(ratio).log2().item())
        shift = flag * min(max(m, 1), max_shift)
    step, zero_point = _layer(x / 2.0 ** shift, bits)
    return PowerOfTwoFactor(float(step), zero_point, shift, bits)
