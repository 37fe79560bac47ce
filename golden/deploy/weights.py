# SPDX-License-Identifier: Apache-2.0
"""From a decided weight format to integers that the array multiplies.

A weight on the datapath is a signed integer of at most `weight_bits` bits, with one real step for
each output channel. Everything whose integers fit is taken as it is, however a paper writes it:

- symmetric codes are these integers;
- asymmetric ones are, less their zero point, which takes a bit more;
- of the two scales of a dual format that differ by a power of two, the larger is a left shift.

What does not fit, asymmetric codes of 8 bits and scales of any ratio, is rounded once more, to
symmetric codes of `weight_bits` bits.
"""

__all__ = ["Deployed", "deploy_head", "deploy_weights", "folded_embedding"]

from dataclasses import dataclass

import torch
from torch import Tensor

from golden.formats.formats import Uniform
from golden.network.plan import Matrix
from golden.ptq.formats import TensorFormat, weight_grid

_ROUNDED = "the integers don't fit, so weights are rounded once more"


@dataclass(frozen=True, eq=False)
class Deployed:
    """Weights of a layer ``[N, K]``, their format, and why it isn't the decided one, if so."""

    matrix: Matrix
    format: Uniform
    why: str = ""

    @property
    def real(self) -> Tensor:
        """Values that the integers stand for, float64 ``[N, K]``."""
        scale = self.matrix.scale
        return self.matrix.codes.double() * (scale[:, None] if scale.ndim else scale)


def _mantissas(weight: Tensor, item: TensorFormat) -> tuple[Tensor, Tensor]:
    """Codes less their zero point, and the step of each weight; float64."""
    scale, zero = weight_grid(item)
    low = -(1 << item.bits - 1) if item.signed else 0
    high = low + (1 << item.bits) - 1
    code = (weight / scale + 0.5).floor()
    return code.maximum(low - zero).minimum(high - zero), scale


def _width(codes: Tensor) -> int:
    """Bits of the narrowest signed integers that hold all codes, at least 2."""
    low, high = codes.aminmax()
    return max(2, max(int(high), -int(low) - 1).bit_length() + 1)


def _signed(codes: Tensor, scale: Tensor, bits: int, why: str = "") -> Deployed:
    return Deployed(Matrix(codes=codes.to(torch.int64), scale=scale),
                    Uniform(scale=scale[:, None] if scale.ndim else float(scale), bits=bits,
                            signed=True), why)


def _rounded(values: Tensor, bits: int, why: str, *, common: bool = False) -> Deployed:
    """Symmetric min-max, per row or with one step for all."""
    peak = values.abs().amax() if common else values.abs().amax(1, keepdim=True)
    found = Uniform.symmetric(peak, bits)
    scale = torch.as_tensor(found.scale, dtype=torch.float64)
    return _signed(found.quantize(values), scale if common else scale[:, 0], bits, why)


def _source(weight: Tensor, item: TensorFormat, bits: int) -> Tensor:
    """Values to round to `bits` bits.

    Those of the decided grid if it is the coarser one, because a deployed weight must not be
    better than the decided one; else the real weights within its range.
    """
    mantissa, scale = _mantissas(weight, item)
    if item.bits < bits:
        return mantissa * scale
    top = (1 << item.bits) - 1
    zero = weight_grid(item)[1] + ((1 << item.bits - 1) if item.signed else 0)
    return weight.maximum(-zero * scale).minimum((top - zero) * scale)


def deploy_weights(weight: Tensor, item: TensorFormat, bits: int) -> Deployed:
    """Make integers of real weights ``[N, K]``, float64.

    Parameters
    ----------
    item
        What was decided.
    bits
        Width of a weight on the datapath.
    """
    mantissa, scale = _mantissas(weight, item)
    scale = scale.expand(len(weight), scale.shape[1])
    base = scale.amin(1, keepdim=True)
    shift = (scale / base).log2()
    if not bool((shift % 1).any()):
        codes = mantissa * 2.0**shift
        if (needed := _width(codes)) <= bits:
            why = "zero points and shifts are part of the stored integers" \
                if needed > item.bits else ""
            return _signed(codes, base[:, 0], max(needed, item.bits), why)
    return _rounded(_source(weight, item, bits), bits, _ROUNDED)


def deploy_head(weight: Tensor, item: TensorFormat, bits: int) -> Deployed:
    """Make integers of the classifier's weights: one step for all, so that logits compare."""
    scale, _ = weight_grid(item)
    if scale.numel() == 1 or bool((scale == scale.flatten()[0]).all()):
        found = deploy_weights(weight, item, bits)
        return _signed(found.matrix.codes, found.matrix.scale[0], found.format.bits, found.why)
    return _rounded(_source(weight, item, bits), bits,
                    "logits are accumulators, compared as they are: one step for all classes",
                    common=True)


def folded_embedding(weight: Tensor, item: TensorFormat, bits: int, std: tuple[float, ...],
                     ) -> Deployed:
    """Make integers of the patch embedding for pixels that are not divided by `std`.

    Parameters
    ----------
    weight
        ``[N, channels, size, size]``, float64, of the network that takes normalised pixels.
    """
    found = deploy_weights(weight.flatten(1), item, bits)
    if len(set(std)) == 1:
        return _signed(found.matrix.codes, found.matrix.scale / std[0], found.format.bits,
                       found.why)
    # Deviations of the channels are alike, so narrow codes stay what they are.
    divisor = torch.tensor(std, dtype=torch.float64)[:, None, None]
    values = (found.real.reshape(weight.shape) / divisor).flatten(1)
    width = found.format.bits
    top = (1 << width - 1) - 1
    scale = torch.maximum(found.matrix.scale / divisor.mean(), values.abs().amax(1) / (top + 0.49))
    codes = (values / scale[:, None] + 0.5).floor().clamp(-top - 1, top)
    return _signed(codes, scale, width,
                   "pixels come as bytes, so the normalisation is folded into the weights")
