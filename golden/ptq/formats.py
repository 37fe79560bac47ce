# SPDX-License-Identifier: Apache-2.0
"""Formats of tensors as plain, comparable data, and their float simulation.

A `TensorFormat` says what `golden.formats` needs to build a format, but holds nothing that torch
owns: it compares with ``==`` and is written as JSON. `simulate` gives the values that
quantizing and dequantizing give there, in the precision of its input, at a fraction of the cost.
Two things go beyond `golden.formats`: uniform zero points per channel, and ``log-sqrt2``.
"""

__all__ = ["KINDS", "TensorFormat", "simulate"]

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from golden import formats

KINDS = ("uniform", "shifted", "two-scale", "log2", "log-sqrt2", "table")


@dataclass(frozen=True, kw_only=True)
class TensorFormat:
    """Number format of one tensor.

    Attributes
    ----------
    kind
        "uniform"; "shifted" (PTF, O-2SF: uniform with a power of two per channel); "two-scale"
        (V-2SF, a reconstruction); "log2" (the highest code is 0); "log-sqrt2"; "table".
    bits
        Width of a code, 2 to 8.
    scale
        Real value of an operand of 1, or one per channel. "log2" codes are powers of two, and
        theirs is ``2**-(2**bits-1)``; of "log-sqrt2" it is the value of code 0.
    zero_point
        Code of 0, or one per channel.
    axis
        The dimension of the channels, 0 or -1.
    signed
        Two's complement codes.
    shift
        Of "shifted": per channel.
    m
        Of "two-scale": log2 of the ratio of the two scales.
    values
        Of "table": ascending integers.
    """

    kind: str
    bits: int
    scale: float | tuple[float, ...]
    zero_point: int | tuple[int, ...] = 0
    axis: int = -1
    signed: bool = False
    shift: tuple[int, ...] = ()
    m: int = 0
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, not {self.bits}")
        if self.axis not in (0, -1):
            raise ValueError(f"axis must be 0 or -1, not {self.axis}")
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not scales or not all(math.isfinite(s) and s > 0 for s in scales):
            raise ValueError(f"scale of {self.kind} must be positive and finite")
        if isinstance(self.scale, tuple) and self.kind != "uniform":
            raise ValueError(f"{self.kind} codes must have one scale, not one per channel")

    def to_dict(self) -> dict[str, Any]:
        """Every field that is not at its default, as JSON holds it."""
        return {f.name: value for f in fields(self)
                if (value := asdict(self)[f.name]) != f.default}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "TensorFormat":
        """Read what `to_dict` made.

        Raises
        ------
        ValueError
            If a field is missing, unknown or out of range.
        """
        try:
            given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                     for name, value in plain.items()}
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"not a tensor format: {error}") from None

    def exact(self) -> formats.Format:
        """Build the format of `golden.formats`, whose codes the datapath takes.

        Raises
        ------
        ValueError
            For what the datapath does not have: zero points per channel, and "log-sqrt2".
        """
        scale = torch.tensor(self.scale, dtype=torch.float64) \
            if isinstance(self.scale, tuple) else self.scale
        if isinstance(self.zero_point, tuple) or self.kind == "log-sqrt2":
            raise ValueError(f"the datapath has no {self.kind} codes with these parameters")
        if isinstance(scale, Tensor) and self.axis == 0:
            scale = scale[:, None]
        common: dict[str, Any] = {"scale": scale, "bits": self.bits}
        if self.kind == "shifted":
            return formats.Shifted(**common, zero_point=self.zero_point,
                                   shift=torch.tensor(self.shift))
        if self.kind == "two-scale":
            return formats.TwoScale(**common, m=self.m, signed=self.signed)
        if self.kind == "log2":
            return formats.Log2(**common)
        if self.kind == "table":
            return formats.Table(**common, values=self.values)
        return formats.Uniform(**common, zero_point=self.zero_point, signed=self.signed)


def _one(item: TensorFormat) -> float:
    assert not isinstance(item.scale, tuple)   # refused when the format was made
    return item.scale


def _per_channel(value: float | tuple[float, ...] | tuple[int, ...], axis: int, like: Tensor,
                 ) -> Tensor | float:
    if not isinstance(value, tuple):
        return value
    return torch.tensor(value, dtype=like.dtype, device=like.device).reshape(
        (-1, *(1,) * (like.ndim - 1)) if axis == 0 else (-1,))


def _uniform(x: Tensor, item: TensorFormat) -> Tensor:
    scale = _per_channel(item.scale, item.axis, x)
    zero = _per_channel(item.zero_point, item.axis, x)
    if item.kind == "shifted":
        scale = scale * 2.0 ** torch.tensor(item.shift, dtype=x.dtype, device=x.device)
    low = -(1 << item.bits - 1) if item.signed else 0
    high = low + (1 << item.bits) - 1
    code = (x / scale).add_(0.5).floor_()
    if isinstance(zero, Tensor):
        return code.maximum(low - zero).minimum(high - zero).mul_(scale)
    return code.clamp_(low - zero, high - zero).mul_(scale)


def _two_scale(x: Tensor, item: TensorFormat) -> Tensor:
    width = item.bits - 1
    bottom = -(1 << width - 1) if item.signed else 0
    top = bottom + (1 << width) - 1
    x = x / _one(item)
    low = (x + 0.5).floor_()
    high = (x / 2.0**item.m).add_(0.5).floor_().clamp_(bottom, top).mul_(2.0**item.m)
    return torch.where((low >= bottom) & (low <= top), low, high).mul_(_one(item))


def _log2(x: Tensor, item: TensorFormat) -> Tensor:
    top = (1 << item.bits) - 1
    code = x.clamp_min(0).log2_().neg_().add_(0.5).floor_().clamp_(0, top)
    return torch.exp2(-code).masked_fill_(code == top, 0)


def _log_sqrt2(x: Tensor, item: TensorFormat) -> Tensor:
    code = (x / _one(item)).clamp_min_(0).log2_().mul_(-2).add_(0.5).floor_().clamp_min_(0)
    return torch.exp2(code * -0.5).mul_(_one(item)).masked_fill_(code >= 1 << item.bits, 0)


def _table(x: Tensor, item: TensorFormat) -> Tensor:
    values = torch.tensor(item.values, dtype=x.dtype, device=x.device)
    levels = (values[1:] + values[:-1]) / 2 * _one(item)
    return values[torch.searchsorted(levels, x.contiguous(), right=True)] * _one(item)


_SIMULATED: dict[str, Callable[[Tensor, TensorFormat], Tensor]] = {
    "uniform": _uniform, "shifted": _uniform, "two-scale": _two_scale, "log2": _log2,
    "log-sqrt2": _log_sqrt2, "table": _table}


def simulate(x: Tensor, item: TensorFormat) -> Tensor:
    """Quantize and dequantize real values ``[..., C]``; rounding half up, as the datapath.

    In double precision equal to ``dequantize(quantize(x))`` of `golden.formats`. In single
    precision a value within its rounding error of a threshold may take the neighbouring code.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be real values, not {x.dtype}")
    return _SIMULATED[item.kind](x, item)
