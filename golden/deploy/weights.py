# SPDX-License-Identifier: Apache-2.0
"""From a decided weight format to integers that the array multiplies.

A weight on the datapath is a signed integer, with one real step for each output channel and no zero
point. One that was decided at b bits is stored in b bits: ``-(2**(b-1) - 1)`` to ``2**(b-1) - 1``.

- Symmetric codes are these integers.
- What has a zero point, or two scales in a row, is rounded again to symmetric codes of b bits, of
  the steps of least squared error. All methods of `golden.ptq` decide symmetric ones, unless they
  are told to do otherwise.
"""

__all__ = ["Deployed", "deploy_head", "deploy_weights", "folded_embedding"]

from dataclasses import dataclass

import torch
from torch import Tensor

from golden.formats.formats import Uniform
from golden.network.plan import Matrix
from golden.ptq.formats import TensorFormat, weight_grid
from golden.ptq.weights import channel_symmetric, common_weights

_ROUNDED = "the array has one step a row and no zero point, so weights are rounded once more"


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
    code = (weight / scale + 0.5).floor()
    return code.maximum(item.low - zero).minimum(item.high - zero), scale


def _signed(codes: Tensor, scale: Tensor, bits: int, why: str = "") -> Deployed:
    return Deployed(Matrix(codes=codes.to(torch.int64), scale=scale),
                    Uniform(scale=scale[:, None] if scale.ndim else float(scale), bits=bits,
                            signed=True), why)


def _within(weight: Tensor, item: TensorFormat) -> Tensor:
    """Clip real weights to the range of the decided grid."""
    scale, zero = weight_grid(item)
    return weight.maximum((item.low - zero) * scale).minimum((item.high - zero) * scale)


def deploy_weights(weight: Tensor, item: TensorFormat) -> Deployed:
    """Make integers of real weights ``[N, K]``, float64, of the decided width.

    Parameters
    ----------
    item
        What was decided.
    """
    mantissa, scale = _mantissas(weight, item)
    top = (1 << item.bits - 1) - 1
    if bool((scale == scale[:, :1]).all()) and float(mantissa.abs().max()) <= top:
        return _signed(mantissa, scale[:, 0].expand(len(weight)), item.bits)
    values = _within(weight, item)
    step, _ = channel_symmetric(values.T, item.bits)
    found = Uniform(scale=step[:, None], bits=item.bits, signed=True)
    return _signed(found.quantize(values), step, item.bits, _ROUNDED)


def deploy_head(weight: Tensor, item: TensorFormat) -> Deployed:
    """Make integers of the classifier's weights: one step for all, so that logits compare."""
    scale, _ = weight_grid(item)
    if bool((scale == scale.flatten()[0]).all()):
        found = deploy_weights(weight, item)
        if not found.why:
            return _signed(found.matrix.codes, found.matrix.scale[0], item.bits)
    values = _within(weight, item)
    common = common_weights(values, item.bits).exact()
    return _signed(common.quantize(values), torch.as_tensor(common.scale, dtype=torch.float64),
                   item.bits,
                   "logits are accumulators, compared as they are: one step for all classes")


def folded_embedding(weight: Tensor, item: TensorFormat, std: tuple[float, ...]) -> Deployed:
    """Make integers of the patch embedding for pixels that are not divided by `std`.

    Parameters
    ----------
    weight
        ``[N, channels, size, size]``, float64, of the network that takes normalised pixels.
    """
    found = deploy_weights(weight.flatten(1), item)
    if len(set(std)) == 1:
        return _signed(found.matrix.codes, found.matrix.scale / std[0], found.format.bits,
                       found.why)
    # Deviations of the channels are alike, so narrow codes stay what they are.
    divisor = torch.tensor(std, dtype=torch.float64)[:, None, None]
    values = (found.real.reshape(weight.shape) / divisor).flatten(1)
    width = found.format.bits
    top = (1 << width - 1) - 1
    scale = torch.maximum(found.matrix.scale / divisor.mean(), values.abs().amax(1) / (top + 0.49))
    codes = (values / scale[:, None] + 0.5).floor().clamp(-top, top)
    return _signed(codes, scale, width,
                   "pixels come as bytes, so the normalisation is folded into the weights")
