# SPDX-License-Identifier: Apache-2.0
"""Formats of tensors as plain, comparable data, and their float simulation.

A `TensorFormat` says what `golden.formats` needs to build a format, but holds nothing that torch
owns: it compares with ``==`` and is written as JSON. `simulate` gives the values that
quantizing and dequantizing give there, in the precision of its input, at a fraction of the cost.
What goes beyond `golden.formats` is what papers have and the datapath has not: uniform zero points
per channel, "log-sqrt2", "tangent" with real levels, and "dual" with a free ratio of its scales.
"""

__all__ = ["KINDS", "TensorFormat", "simulate", "weight_grid"]

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from golden.formats import formats
from golden.formats.tangent import tangent_levels, tangent_thresholds

KINDS = ("uniform", "shifted", "two-scale", "log2", "log-sqrt2", "table", "tangent", "dual")


@dataclass(frozen=True, kw_only=True)
class TensorFormat:
    """Number format of one tensor.

    Attributes
    ----------
    kind
        "uniform"; "shifted" (PTF, O-2SF: uniform with a power of two per channel); "two-scale"
        (V-2SF, a reconstruction); "log2" (the highest code is 0); "log-sqrt2"; "table";
        "tangent" (TanQ, a reconstruction: `golden.formats.tangent`); "dual" (of weights, ERQ's dual
        uniform quantization: some columns have a scale and a zero point of their own in each row).
    bits
        Width of a code, 2 to 8.
    scale
        Real value of an operand of 1, or one per channel. "log2" codes are powers of two, and
        theirs is ``2**-(2**bits-1)``; of "log-sqrt2" it is the value of code 0, of "tangent" that
        of the highest code.
    zero_point
        Code of 0, or one per channel.
    axis
        The dimension of the channels, 0 or -1.
    signed
        Two's complement codes. Those of "uniform" with zero point 0, which weights have, are
        symmetric: the lowest is ``-(2**(bits-1) - 1)``.
    shift
        Of "shifted": per channel.
    m
        Of "two-scale": log2 of the ratio of the two scales.
    values
        Of "table": ascending integers.
    slope, end_slope
        Of "tangent", at 0 and at `scale`: above 0 (almost uniform), below pi/2.
    group
        Of "dual": for every column, 1 if it is one of those apart.
    group_scale, group_zero_point
        Of "dual": scale and zero point of those columns in every row.
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
    slope: float = 0.0
    end_slope: float = 0.0
    group: tuple[int, ...] = ()
    group_scale: tuple[float, ...] = ()
    group_zero_point: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, not {self.bits}")
        if self.axis not in (0, -1):
            raise ValueError(f"axis must be 0 or -1, not {self.axis}")
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        scales += self.group_scale
        if not scales or not all(math.isfinite(s) and s > 0 for s in scales):
            raise ValueError(f"scale of {self.kind} must be positive and finite")
        if isinstance(self.scale, tuple) and self.kind not in ("uniform", "dual"):
            raise ValueError(f"{self.kind} codes must have one scale, not one per channel")
        if self.kind == "tangent":
            tangent_levels(self.bits, self.slope, self.end_slope)   # refuses impossible slopes
        if self.kind == "dual":
            self._check_dual()

    def _check_dual(self) -> None:
        parts = (self.scale, self.zero_point, self.group_scale, self.group_zero_point)
        rows = {len(part) if isinstance(part, tuple) else 0 for part in parts}
        if self.axis != 0 or 0 in rows or len(rows) != 1:
            raise ValueError("dual codes must have two scales and zero points for every row")
        if {*self.group} != {0, 1}:
            raise ValueError("group must be 0 or 1 for every column, and both must occur")

    @property
    def low(self) -> int:
        """The lowest code, of uniform ones."""
        return formats.lowest(self.bits, self.signed, self.zero_point == 0)

    @property
    def high(self) -> int:
        """The highest code, of uniform ones."""
        return (1 << self.bits - self.signed) - 1

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
            For what the datapath does not have: zero points that differ among channels,
            "log-sqrt2", "tangent" with its real levels, and "dual" unless all zero points are in
            the middle and the scales of a row differ by a power of two.
        """
        if self.kind == "dual":
            return self._exact_dual()
        scale = torch.tensor(self.scale, dtype=torch.float64) \
            if isinstance(self.scale, tuple) else self.scale
        if isinstance(self.zero_point, tuple) or self.kind in ("log-sqrt2", "tangent"):
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

    def _exact_dual(self) -> formats.Format:
        scale, zero = weight_grid(self)
        base = scale.amin(1, keepdim=True)
        shift = (scale / base).log2()
        middle = 1 << self.bits - 1
        if bool((zero != middle).any()) or bool((shift % 1).any()):
            raise ValueError("the datapath has no dual codes with these parameters")
        return formats.Shifted(scale=base, bits=self.bits, zero_point=middle, shift=shift.long())


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
    low, high = item.low, item.high
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


def _tangent(x: Tensor, item: TensorFormat) -> Tensor:
    levels, thresholds = (
        torch.tensor(make(item.bits, item.slope, item.end_slope), dtype=x.dtype,
                     device=x.device) * _one(item)
        for make in (tangent_levels, tangent_thresholds))
    return levels[torch.searchsorted(thresholds, x.contiguous(), right=True)]


def weight_grid(item: TensorFormat) -> tuple[Tensor, Tensor]:
    """Scale and zero point of weights ``[N, C]``, uniform per row or dual, float64.

    Both ``[N, C]`` or, where all columns of a row have the same, ``[N, 1]``; one scale of all
    weights gives ``[1, 1]``.
    """
    def column(value: float | tuple[float, ...] | tuple[int, ...]) -> Tensor:
        return torch.tensor(value, dtype=torch.float64).reshape(-1, 1)

    if item.kind != "dual":
        return column(item.scale), column(item.zero_point)
    apart = torch.tensor(item.group, dtype=torch.bool)
    return (torch.where(apart, column(item.group_scale), column(item.scale)),
            torch.where(apart, column(item.group_zero_point), column(item.zero_point)))


def _dual(x: Tensor, item: TensorFormat) -> Tensor:
    scale, zero = (value.to(x) for value in weight_grid(item))
    code = (x / scale).add_(0.5).floor_()
    return code.maximum(-zero).minimum((1 << item.bits) - 1 - zero).mul_(scale)


_SIMULATED: dict[str, Callable[[Tensor, TensorFormat], Tensor]] = {
    "uniform": _uniform, "shifted": _uniform, "two-scale": _two_scale, "log2": _log2,
    "log-sqrt2": _log_sqrt2, "table": _table, "tangent": _tangent, "dual": _dual}


def simulate(x: Tensor, item: TensorFormat) -> Tensor:
    """Quantize and dequantize real values ``[..., C]``; rounding half up, as the datapath.

    In double precision equal to ``dequantize(quantize(x))`` of `golden.formats`. In single
    precision a value within its rounding error of a threshold may take the neighbouring code.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be real values, not {x.dtype}")
    return _SIMULATED[item.kind](x, item)
