# SPDX-License-Identifier: Apache-2.0
"""Number formats: what a code means, as a real number and as the integer that the array multiplies.

What a format knows is in `golden.formats.format`. Quantizing a real value is calibration and
evaluation; the deployed path only decodes.

Real values are rounded half up, ``floor(x + 0.5)``, like every integer of the datapath.
"""

__all__ = ["LEVELS", "Probability", "Format", "Log2", "LogSqrt2", "Shifted", "Table", "TwoScale",
           "Uniform", "lowest"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from golden.formats.format import LEAST, Format, Probability, peaks, real, rounded
from golden.units.arithmetic import integers
from vitforge.spec.formats import CODE_BITS, FORMATS
from vitforge.spec.probability_levels import SLOPES, Levels, root_integers


def lowest(bits: int, signed: bool, symmetric: bool) -> int:
    """Return the lowest uniform code: symmetric ones leave two's complement's lowest out."""
    return symmetric - (1 << bits - 1) if signed else 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Uniform(Probability):
    """``value = (code - zero_point) * scale``; unsigned codes, or two's complement if `signed`.

    Weights are signed with zero point 0, and symmetric: ``-(2**(bits-1) - 1)`` is their lowest
    code. Their `scale` is per output channel.
    """

    kind = "uniform"

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
        low = lowest(self.bits, self.signed, self.zero_point == 0)
        codes = rounded(real(x) / self.scale) + self.zero_point
        return codes.clamp(low, (1 << self.bits - self.signed) - 1)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        mantissa = code.to(torch.int64) - self.zero_point
        return mantissa, torch.zeros_like(mantissa)

    @property
    def details(self) -> str:
        return f", zero at {self.zero_point}" if self.zero_point else ""

    def operand_fields(self) -> dict[str, int]:
        if self.signed:
            return super().operand_fields()
        return {"operand_zero_point": self.zero_point, "operand_bits": self.bits}

    @classmethod
    def of_levels(cls, scale: float, m: int, levels: Levels) -> Self:
        return cls(scale=scale, bits=levels.width)

    def level(self, levels: Levels) -> int:
        if self.signed or self.zero_point:
            raise ValueError("attention's uniform codes must be unsigned with zero_point 0, not "
                             f"{self.zero_point}")
        return 0

    @classmethod
    def candidates(cls, seen: Tensor, levels: Levels) -> Iterator[Self]:
        peak = max(float(seen.max()), LEAST)
        yield cls(scale=peak / ((1 << levels.width) - 1), bits=levels.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shifted(Format):
    """``value = ((code - zero_point) << shift[c]) * scale``: PTF and O-2SF (`formats.ptf`)."""

    kind = "shifted"

    zero_point: int
    shift: Tensor

    def quantize(self, x: Tensor) -> Tensor:
        codes = rounded(real(x) / (self.scale * 2.0**self.shift.double())) + self.zero_point
        return codes.clamp(0, (1 << self.bits) - 1)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        mantissa = code.to(torch.int64) - self.zero_point
        return mantissa, self.shift.expand(mantissa.shape)

    @property
    def details(self) -> str:
        zero = f", zero at {self.zero_point}" if self.zero_point else ""
        return f"{zero}, shifts up to {int(self.shift.max())}"


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoScale(Probability):
    """V-2SF of TSPTQ-ViT (arXiv 2305.12901), a reconstruction: a region bit above ``bits - 1``.

    ``value = (u << m * region) * scale``; u is unsigned, or two's complement if `signed`. A value
    is in region 0 exactly if it fits there.
    """

    kind = "two-scale"

    m: int
    signed: bool = False

    def quantize(self, x: Tensor) -> Tensor:
        width = self.bits - 1
        offset = 1 << width - 1 if self.signed else 0
        mask = (1 << width) - 1
        x = real(x) / self.scale
        low = rounded(x) + offset
        high = (rounded(x / 2**self.m) + offset).clamp(0, mask)
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

    @property
    def details(self) -> str:
        return f", m = {self.m}"

    def operand_fields(self) -> dict[str, int]:
        return {"operand_format": FORMATS["two-scale"], "operand_m": self.m,
                "operand_signed": int(self.signed), "operand_bits": self.bits}

    @classmethod
    def of_levels(cls, scale: float, m: int, levels: Levels) -> Self:
        return cls(scale=scale, bits=levels.width, m=m)

    def level(self, levels: Levels) -> int:
        most = levels.config.operand_bits - 1 - levels.bits
        if self.signed or not 0 <= self.m <= most:
            raise ValueError(f"m of the attention's two-scale codes must be 0 to {most}, and they "
                             "unsigned")
        return self.m

    @classmethod
    def candidates(cls, seen: Tensor, levels: Levels) -> Iterator[Self]:
        peak, top = max(float(seen.max()), LEAST), (1 << levels.bits) - 1
        for m in range(1, min(7, levels.config.operand_bits - 1 - levels.bits) + 1):
            for percent in range(100, 60, -5):
                yield cls(scale=peak * percent / 100 / (top << m), bits=levels.width, m=m)


@dataclass(frozen=True, kw_only=True, eq=False)
class LogSqrt2(TwoScale):
    """``value = 2**(-c/2) * peak`` as two-scale codes of 8 bits; RepQ-ViT's (arXiv 2212.08254).

    c is 0 to ``4 * m - 1``, the first half of them in region 1; u is ``127 * 2**(-c/2)`` rounded,
    for the c of its region. `scale` is ``peak / (127 << m)``. Less than half a c behind the last
    one is 0.
    """

    kind = "log-sqrt2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits != 8 or self.signed or self.m not in (2, 4):
            raise ValueError(f"log-sqrt2 codes must have 8 unsigned bits and m 2 or 4, not "
                             f"{self.bits} and {self.m}")

    @classmethod
    def of_peak(cls, peak: float, bits: int = 4) -> Self:
        """Return the format with ``2**bits`` values of c, 3 or 4 bits."""
        m = 1 << bits - 2
        return cls(scale=peak / (127 << m), m=m)

    @property
    def code_bits(self) -> int:
        """Width of c."""
        return self.m.bit_length() + 1

    def quantize(self, x: Tensor) -> Tensor:
        half = 2 * self.m
        ratio = real(x).clamp_min(2.0**-300) / (float(self.scale) * (127 << self.m))
        code = rounded(-2 * ratio.log2()).clamp(0, 2 * half)
        mantissas = torch.tensor([*root_integers(self.m), 0])
        low = torch.where(code < half, code, code - half)
        return mantissas[low] | (code < half).to(torch.int64) << 7

    @property
    def details(self) -> str:
        return ""

    @classmethod
    def of_levels(cls, scale: float, m: int, levels: Levels) -> Self:
        return cls(scale=scale, m=m)

    @classmethod
    def candidates(cls, seen: Tensor, levels: Levels) -> Iterator[Self]:
        for peak in peaks(seen):
            yield cls.of_peak(peak, levels.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Log2(Format):
    """``value = 2**-code``, but 0 for the highest code; FQ-ViT's attention (arXiv 2111.13824).

    `scale` is ``2**-depth``, the shift ``depth - code``; the depth is ``2**bits - 1``, or less:
    then codes beyond it are 0 as well.
    """

    kind = "log2"

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
        exponent = -real(x).clamp_min(2.0**-300).log2()
        return rounded(exponent).clamp(0, top)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        code = code.to(torch.int64)
        lives = (code <= self.depth) & (code < (1 << self.bits) - 1)
        return lives.to(torch.int64), (self.depth - code).clamp_min(0)

    @property
    def step(self) -> str:
        return ""

    def operand_fields(self) -> dict[str, int]:
        # Of wider codes those of this width are powers of two, and the others 0.
        return {"operand_format": FORMATS["log2"], "operand_bits": self.depth.bit_length()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(Probability):
    """``value = values[code] * scale``: any ascending table of ``2**bits`` integers."""

    kind = "table"

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
        return torch.searchsorted(levels, real(x).contiguous(), right=True)

    def decode(self, code: Tensor) -> tuple[Tensor, Tensor]:
        integers(code=code)
        mantissa = torch.tensor(self.values, dtype=torch.int64)[code]
        return mantissa, torch.zeros_like(mantissa)

    def probability_fields(self) -> dict[str, int]:
        # The table that the hardware looks up gives mantissas.
        return {"operand_format": FORMATS["table"], "operand_bits": CODE_BITS}

    @classmethod
    def of_levels(cls, scale: float, m: int, levels: Levels) -> Self:
        return cls(scale=scale, bits=levels.width, values=levels.values(m % levels.tables))

    def level(self, levels: Levels) -> int:
        tables = [levels.values(number) for number in range(levels.tables)]
        if self.values not in tables:
            slopes = " or ".join(f"{low} and {high}" for low, high in SLOPES)
            raise ValueError("values of the attention's table must be those of a tangent of slopes "
                             f"{slopes}, not {self.values}")
        return tables.index(self.values)

    @classmethod
    def candidates(cls, seen: Tensor, levels: Levels) -> Iterator[Self]:
        for peak in peaks(seen):
            for number in range(levels.tables):
                yield cls.of_levels(peak / levels.full, number, levels)


#: Formats of `vitforge.spec.probability_levels`, by their kind.
LEVELS: dict[str, type[Probability]] = {
    item.kind: item for item in (Uniform, TwoScale, LogSqrt2, Table)}
