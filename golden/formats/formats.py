# SPDX-License-Identifier: Apache-2.0
"""Number formats: what a code means, as a real number and as the integer that the array multiplies.

Every format knows four things: `quantize` (real to code), `decode` (code to mantissa and left
shift), `dequantize` (code to real) and its `scale`, with
``dequantize(code) == operand(code) * scale`` exactly, where ``operand = mantissa << shift``.
Quantizing a real value is calibration and evaluation; the deployed path only decodes.

Real values are rounded half up, ``floor(x + 0.5)``, like every integer of the datapath.
"""

__all__ = ["Format", "Log2", "LogSqrt2", "Shifted", "Table", "TwoScale", "Uniform", "tangent_table"]

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from golden.formats.tangent import tangent_levels
from golden.units.arithmetic import integers
from vitforge.spec.probability_levels import root_integers


def _round(x: Tensor) -> Tensor:
    return (x + 0.5).floor().to(torch.int64)


def _real(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise TypeError(f"x must be real values, not {x.dtype}")
    if not bool(x.isfinite().all()):
        raise ValueError("x must be finite")
    return x.double()


def _positive(scale: Tensor | float) -> None:
    values = torch.as_tensor(scale, dtype=torch.float64)
    if not bool(((values > 0) & values.isfinite()).all()):
        raise ValueError(f"scale must be positive and finite, not {scale}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Format(ABC):
    """A code of `bits` bits with a real step.

    Attributes
    ----------
    scale
        Real value of an operand of 1: a number, or per channel, broadcast against the codes.
    bits
        Width of a code.
    """

    scale: Tensor | float
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, not {self.bits}")
        _positive(self.scale)

    @abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """Return the int64 codes of real values; TypeError for integers."""

    @abstractmethod
    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mantissa, shift), both int64 and of the shape of `code`."""

    def operand(self, code: Tensor) -> Tensor:
        """Return the integer operand ``mantissa << shift``."""
        mantissa, shift = self.decode(code)
        return mantissa << shift

    def dequantize(self, code: Tensor) -> Tensor:
        """Return float64 ``operand * scale``."""
        return self.operand(code).double() * self.scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Uniform(Format):
    """``value = (code - zero_point) * scale``; unsigned codes, or two's complement if `signed`.

    Symmetric weights are signed with zero point 0; their `scale` is per output channel.
    """

    zero_point: int = 0
    signed: bool = False

    @classmethod
    def of_range(cls, low: float, high: float, bits: int = 8) -> "Uniform":
        """Cover ``low..high`` and 0 with unsigned codes: asymmetric min-max."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-9) / (2**bits - 1)
        return cls(scale=scale, bits=bits, zero_point=math.floor(-low / scale + 0.5))

    @classmethod
    def symmetric(cls, peak: Tensor | float, bits: int = 8, *, zero_point: int = 0) -> "Uniform":
        """Cover ``-peak..peak``; signed for zero point 0, else unsigned around it."""
        scale = torch.as_tensor(peak, dtype=torch.float64).clamp_min(1e-9) / (2 ** (bits - 1) - 1)
        return cls(scale=scale if scale.ndim else float(scale), bits=bits, zero_point=zero_point,
                   signed=zero_point == 0)

    def quantize(self, x: Tensor) -> Tensor:
        low = -(1 << self.bits - 1) if self.signed else 0
        codes = _round(_real(x) / self.scale) + self.zero_point
        return codes.clamp(low, low + (1 << self.bits) - 1)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        mantissa = code.to(torch.int64) - self.zero_point
        return mantissa, torch.zeros_like(mantissa)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shifted(Format):
    """``value = ((code - zero_point) << shift[c]) * scale``: PTF and O-2SF (`formats.ptf`)."""

    zero_point: int
    shift: Tensor

    def quantize(self, x: Tensor) -> Tensor:
        codes = _round(_real(x) / (self.scale * 2.0**self.shift.double())) + self.zero_point
        return codes.clamp(0, (1 << self.bits) - 1)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        mantissa = code.to(torch.int64) - self.zero_point
        return mantissa, self.shift.expand(mantissa.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoScale(Format):
    """V-2SF of TSPTQ-ViT (arXiv 2305.12901), a reconstruction: a region bit above ``bits - 1``.

    ``value = (u << m * region) * scale``; u is unsigned, or two's complement if `signed`. A value
    is in region 0 exactly if it fits there.
    """

    m: int
    signed: bool = False

    def quantize(self, x: Tensor) -> Tensor:
        width = self.bits - 1
        offset = 1 << width - 1 if self.signed else 0
        mask = (1 << width) - 1
        x = _real(x) / self.scale
        low = _round(x) + offset
        high = (_round(x / 2**self.m) + offset).clamp(0, mask)
        fits = (low >= 0) & (low <= mask)
        u = torch.where(fits, low, high) - offset & mask
        return (~fits).to(torch.int64) << width | u

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        width = self.bits - 1
        code = code.to(torch.int64)
        u = code & (1 << width) - 1
        if self.signed:
            u = u - (u >> width - 1 << width)
        return u, self.m * (code >> width)


@dataclass(frozen=True, kw_only=True, eq=False)
class LogSqrt2(TwoScale):
    """``value = 2**(-c/2) * peak`` as two-scale codes of 8 bits; RepQ-ViT's (arXiv 2212.08254).

    c is 0 to ``4 * m - 1``, the first half of them in region 1; u is ``127 * 2**(-c/2)`` rounded,
    for the c of its region. `scale` is ``peak / (127 << m)``. Less than half a c behind the last
    one is 0.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits != 8 or self.signed or self.m not in (2, 4):
            raise ValueError(f"log-sqrt2 codes must have 8 unsigned bits and m 2 or 4, not "
                             f"{self.bits} and {self.m}")

    @classmethod
    def of_peak(cls, peak: float, bits: int = 4) -> "LogSqrt2":
        """Return the format with ``2**bits`` values of c, 3 or 4 bits."""
        m = 1 << bits - 2
        return cls(scale=peak / (127 << m), m=m)

    @property
    def code_bits(self) -> int:
        """Width of c."""
        return self.m.bit_length() + 1

    def quantize(self, x: Tensor) -> Tensor:
        half = 2 * self.m
        ratio = _real(x).clamp_min(2.0**-300) / (float(self.scale) * (127 << self.m))
        code = _round(-2 * ratio.log2()).clamp(0, 2 * half)
        mantissas = torch.tensor([*root_integers(self.m), 0])
        low = torch.where(code < half, code, code - half)
        return mantissas[low] | (code < half).to(torch.int64) << 7


@dataclass(frozen=True, kw_only=True, eq=False)
class Log2(Format):
    """``value = 2**-code``, but 0 for the highest code; FQ-ViT's attention (arXiv 2111.13824).

    `scale` is ``2**-depth``, the shift ``depth - code``; the depth is ``2**bits - 1``, or less:
    then codes beyond it are 0 as well.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        exponent = -math.log2(float(self.scale))
        if not 0 < exponent < 1 << self.bits or exponent % 1:
            raise ValueError(f"scale of log2 codes of {self.bits} bits must be 2**-1 to "
                             f"2**-{(1 << self.bits) - 1}, not {self.scale}")

    @classmethod
    def of_bits(cls, bits: int = 4, depth: int | None = None) -> "Log2":
        """Return the format of `bits` bits; its scale follows from them, or from a depth."""
        return cls(scale=2.0 ** -((1 << bits) - 1 if depth is None else depth), bits=bits)

    @property
    def depth(self) -> int:
        """Shift of the code 0."""
        return round(-math.log2(float(self.scale)))

    def quantize(self, x: Tensor) -> Tensor:
        top = (1 << self.bits) - 1
        exponent = -_real(x).clamp_min(2.0**-300).log2()
        return _round(exponent).clamp(0, top)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        code = code.to(torch.int64)
        lives = (code <= self.depth) & (code < (1 << self.bits) - 1)
        return lives.to(torch.int64), (self.depth - code).clamp_min(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(Format):
    """``value = values[code] * scale``: any ascending table of ``2**bits`` integers."""

    values: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != 1 << self.bits or list(self.values) != sorted(set(self.values)):
            raise ValueError(f"values must be {1 << self.bits} ascending integers, "
                             f"not {self.values}")

    def thresholds(self) -> Sequence[float]:
        """Return the real values from which on each code but the first is the nearest."""
        return [(low + high) / 2 * float(self.scale) for low, high in pairwise(self.values)]

    def quantize(self, x: Tensor) -> Tensor:
        levels = torch.tensor(self.thresholds(), dtype=torch.float64)
        return torch.searchsorted(levels, _real(x).contiguous(), right=True)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        mantissa = torch.tensor(self.values, dtype=torch.int64)[code]
        return mantissa, torch.zeros_like(mantissa)


def tangent_table(bits: int = 4, slope: float = 1.4, top: int = 255) -> Table:
    """Make a tangent format for values in 0..1, after TanQ of DopQ-ViT (arXiv 2408.03291).

    A reconstruction: `golden.formats.tangent.tangent_levels`, rounded to ``1/top``. A value gets
    the code of the nearest level.

    Parameters
    ----------
    slope
        Between 0 (uniform) and pi/2 (all at the ends), both excluded.
    top
        Integer of the value 1; at most 255, so that it is a mantissa.
    """
    return Table(scale=1 / top, bits=bits, values=tuple(
        math.floor(value * top + 0.5) for value in tangent_levels(bits, slope)))
