# SPDX-License-Identifier: Apache-2.0
"""Two-scale requantizer, bit by bit: from accumulators to codes of any activation format.

Three steps, in integers, each rounding half up:

1. ``v = clamp(round_shift((acc + bias) * multiplier, shift))``, to ``+-(2**(value_bits-1)-1)``;
2. ``y = v``, ``gelu(v) * multiplier2`` or ``v + residual * multiplier2``;
3. the codes of y in the layer's format (`golden.units.encoding`).

`golden.units.requant_parameters` makes the integers from real scales.
"""

__all__ = ["Encoding", "Requantization", "RequantizerModel", "encode", "gelu", "operate",
           "requantize", "scale_values"]

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.units.arithmetic import integers, round_shift, saturate
from golden.units.encoding import Encoding, encode
from golden.units.stream import PipelineModel
from vitforge.spec.config import Config
from vitforge.spec.gelu import bump_drop, bump_table
from vitforge.spec.requant_fields import OPERATIONS

#: Registers between the input and the skid buffer of the unit.
STAGES = 30


@dataclass(frozen=True, kw_only=True)
class Requantization:
    """Integers of one layer's requantization.

    Attributes
    ----------
    bias, multiplier, shift
        Per channel ``[C]``, or one for all: ``acc_bits`` signed, ``multiplier_bits`` unsigned,
        0 to 63.
    operation
        "linear", "gelu" or "residual".
    encoding
        Format of the codes.
    parts
        Where equal parts of the channels have formats of their own, those, all uniform; `encoding`
        is the first part's.
    encode_shift
        Per channel or one for all, 0 to 15; with PTF the channel's alpha is in it. One for all in
        the two-scale format.
    multiplier2
        Unsigned fixed-point factor of GeLU's result, with ``factor_bits`` fraction bits, or of
        the residual, with ``factor_bits + norm_bits - value_bits`` of them.
    """

    bias: Tensor | int = 0
    multiplier: Tensor | int = 1
    shift: Tensor | int = 0
    operation: str = "linear"
    encoding: Encoding
    encode_shift: Tensor | int = 0
    multiplier2: int = 0
    parts: tuple[Encoding, ...] = ()

    def __post_init__(self) -> None:
        if self.parts and (self.encoding != self.parts[0]
                           or any(part.kind != "uniform" for part in self.parts)):
            raise ValueError("parts must be uniform, and encoding the first of them")
        if self.operation not in OPERATIONS:
            raise ValueError(f"operation must be one of {', '.join(OPERATIONS)}, "
                             f"not {self.operation!r}")


def _bounded(name: str, value: Tensor | int, low: int, high: int) -> Tensor:
    tensor = torch.as_tensor(value)
    integers(**{name: tensor})
    tensor = tensor.to(torch.int64)
    if tensor.numel() and (tensor.min() < low or tensor.max() > high):
        raise ValueError(f"{name} must lie in {low}..{high}, not "
                         f"{tensor.min()}..{tensor.max()}")
    return tensor


def _signed(name: str, value: Tensor | int, bits: int) -> Tensor:
    return _bounded(name, value, -(1 << bits - 1), (1 << bits - 1) - 1)


def scale_values(acc: Tensor, bias: Tensor | int, multiplier: Tensor | int, shift: Tensor | int,
                 config: Config) -> Tensor:
    """Add the bias, multiply, shift with rounding, saturate to ``+-(2**(value_bits-1)-1)``.

    ``|acc + bias| <= 2**acc_bits``, so the product takes ``acc_bits + multiplier_bits + 1`` <= 59
    bits and the rounding constant at most 63: all of it is exact in int64.
    """
    integers(acc=acc)
    total = _signed("acc", acc, config.acc_bits) + _signed("bias", bias, config.acc_bits)
    factor = _bounded("multiplier", multiplier, 0, (1 << config.multiplier_bits) - 1)
    top = (1 << config.value_bits - 1) - 1
    return saturate(round_shift(total * factor, _bounded("shift", shift, 0, 63)), -top, top)


@functools.cache
def _bump(config: Config) -> Tensor:
    return torch.tensor(bump_table(config), dtype=torch.int64)


def gelu(value: Tensor, config: Config) -> Tensor:
    """GeLU of a value in steps of ``2**-(value_bits-5)``, in the same steps.

    ``relu(v) - bump(|v|)`` with the table of `vitforge.spec.gelu`; off by less than 1.3 steps plus
    1.3e-4.
    """
    integers(value=value)
    table = _bump(config)
    index = (value.abs() >> bump_drop(config)).clamp_max(len(table) - 1)
    return value.clamp_min(0) - table[index]


def operate(value: Tensor, layer: Requantization, config: Config,
            residual: Tensor | None = None) -> Tensor:
    """Second step: nothing, GeLU, or the addition of a residual.

    The result has ``value_bits + 1`` bits: a factor of GeLU is below 1, and a residual of
    `norm_bits` times its factor is below ``2**(value_bits-1)``.
    """
    if (residual is not None) != (layer.operation == "residual"):
        raise ValueError("a residual must be given for the operation residual, and only for it")
    factor = _bounded("multiplier2", layer.multiplier2, 0, (1 << config.factor_bits) - 1)
    if layer.operation == "gelu":
        return round_shift(gelu(value, config) * factor, config.factor_bits)
    if residual is not None:
        integers(residual=residual)
        product = _signed("residual", residual, config.norm_bits) * factor
        drop = config.factor_bits + config.norm_bits - config.value_bits
        return value + round_shift(product << max(0, -drop), max(0, drop))
    return value


def requantize(acc: Tensor, layer: Requantization, config: Config,
               residual: Tensor | None = None) -> Tensor:
    """Requantize accumulators.

    Parameters
    ----------
    acc
        ``[..., C]``, signed, of `acc_bits`.
    layer
        The integers; per-channel ones are ``[C]``.
    config
        Widths.
    residual
        ``[..., C]``, decoded operands of `norm_bits`, for the operation "residual".

    Returns
    -------
    Tensor
        Codes ``[..., C]``, int64, of ``layer.encoding.bits`` bits.

    Raises
    ------
    TypeError
        If a tensor isn't of integers.
    ValueError
        If a value or a parameter doesn't fit its width.
    """
    value = scale_values(acc, layer.bias, layer.multiplier, layer.shift, config)
    result = operate(value, layer, config, residual)
    if not layer.parts:
        return encode(result, layer.encoding, layer.encode_shift, config)
    shift = torch.as_tensor(layer.encode_shift).expand(result.shape[-1])
    count = len(layer.parts)
    return torch.cat([encode(*pair, config) for pair in zip(
        result.chunk(count, -1), layer.parts, shift.chunk(count), strict=True)], -1)


class RequantizerModel(PipelineModel):
    """Cycles of `hw.requant.unit.Requantizer`: initiation interval 1, whatever the formats."""

    def __init__(self) -> None:
        super().__init__(STAGES)
