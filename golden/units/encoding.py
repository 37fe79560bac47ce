# SPDX-License-Identifier: Apache-2.0
"""Encoders of the activation formats: from an integer to a code of 2 to 8 bits."""

__all__ = ["SEARCH", "Encoding", "encode", "thresholds"]

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from golden.units.arithmetic import integers, round_shift
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS

#: Thresholds that the unit searches.
SEARCH = 15


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Format of a tensor's codes.

    Attributes
    ----------
    kind
        "uniform" (PTF and O-2SF too: their shift is in the channel's `encode_shift`), "two-scale"
        [R], "log2" or "table".
    bits
        Width of a code: 2 to 8, in the kinds "log2" and "table" 2 to 4.
    zero_point
        Of "uniform", 0 to 255.
    lowest
        Of "uniform", added to the code: codes are `lowest` to ``lowest + 2**bits - 1``, so that
        those of few bits can stand around the middle of a byte, where K and V do.
    m
        log2 of the ratio of the scales of "two-scale"; `m` and `encode_shift` together are at most
        15.
    signed
        Whether "two-scale" codes are two's complement of ``bits - 1`` bits beside the region bit.
    thresholds
        Of "table": ``2**bits - 1`` ascending integers of `value_bits`; a code is the number of
        those that are not above the value.
    """

    kind: str = "uniform"
    bits: int = 8
    zero_point: int = 0
    m: int = 0
    signed: bool = False
    thresholds: tuple[int, ...] = ()
    lowest: int = 0

    def __post_init__(self) -> None:
        if self.kind not in FORMATS:
            raise ValueError(f"kind must be one of {', '.join(FORMATS)}, not {self.kind!r}")
        widest = 4 if self.kind in ("log2", "table") else 8
        if not 2 <= self.bits <= widest:
            raise ValueError(f"bits of {self.kind} codes must be 2 to {widest}, not {self.bits}")
        if not 0 <= self.zero_point <= 255:
            raise ValueError(f"zero_point must be 0 to 255, not {self.zero_point}")
        most = 256 - (1 << self.bits) if self.kind == "uniform" else 0
        if not 0 <= self.lowest <= most:
            raise ValueError(f"lowest of {self.kind} codes of {self.bits} bits must be 0 to "
                             f"{most}, not {self.lowest}")
        if not 0 <= self.m <= 15:
            raise ValueError(f"m must be 0 to 15, not {self.m}")
        wanted = (1 << self.bits) - 1 if self.kind == "table" else 0
        if len(self.thresholds) != wanted:
            raise ValueError(f"{self.kind} codes of {self.bits} bits must have {wanted} "
                             f"thresholds, not {len(self.thresholds)}")
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError("thresholds must be ascending")

    @property
    def offset(self) -> int:
        """What is added before clamping to unsigned: half the range of signed two-scale codes."""
        if self.kind == "uniform":
            return self.zero_point
        return 1 << self.bits - 2 if self.kind == "two-scale" and self.signed else 0


def _one_shift(encode_shift: Tensor | int) -> int:
    shift = torch.as_tensor(encode_shift)
    if shift.numel() != 1:
        raise ValueError("encode_shift of the two-scale format must be one for all channels")
    return int(shift)


def thresholds(encoding: Encoding, encode_shift: Tensor | int, config: Config) -> tuple[int, ...]:
    """Return what the unit's input `thresholds` must hold for an encoding.

    Table: the given ones. log2: the least y of each code, ``2**(F-k-1/2)`` rounded up, with F =
    ``value_bits - 1``. Two-scale: the bounds of the low region, at 3 and 11, with 0 between
    them. Uniform codes need none.

    Returns
    -------
    tuple of int
        15 integers, numbers 3, 7 and 11 of ``value_bits + 1`` bits, the others of `value_bits`;
        ascending, as far as the format uses them.
    """
    # A value that reaches the padding, top - 1, has reached all thresholds: the count is clamped.
    top = 1 << config.value_bits - 1
    if encoding.kind == "table":
        if encoding.thresholds[0] < -top or encoding.thresholds[-1] >= top:
            raise ValueError(f"thresholds must lie in {-top}..{top - 1}, not "
                             f"{encoding.thresholds[0]}..{encoding.thresholds[-1]}")
        return encoding.thresholds + (top - 1,) * (SEARCH - len(encoding.thresholds))
    if encoding.kind == "log2":
        fraction = config.value_bits - 1
        doubled = [2 * (fraction - code) - 1 for code in range((1 << encoding.bits) - 1)]
        least = [isqrt((1 << power) - 1) + 1 if power > 0 else 1 for power in doubled]
        return tuple(reversed(least)) + (top - 1,) * (SEARCH - len(least))
    if encoding.kind == "two-scale":
        shift = _one_shift(encode_shift)
        half = 1 << shift >> 1
        low = -(encoding.offset << shift) - half
        high = ((1 << encoding.bits - 1) - encoding.offset << shift) - half
        return (0, 0, 0, max(low, -2 * top), *(0,) * 7, min(high, 2 * top - 1), 0, 0, 0)
    return (0,) * SEARCH


def _two_scale(y: Tensor, encoding: Encoding, shift: Tensor) -> Tensor:
    width = encoding.bits - 1
    offset, mask = encoding.offset, (1 << width) - 1
    low = round_shift(y, shift) + offset
    high = (round_shift(y, shift + encoding.m) + offset).clamp(0, mask)
    fits = (low >= 0) & (low <= mask)
    u = torch.where(fits, low, high) - offset & mask
    return (~fits).to(torch.int64) << width | u


def encode(y: Tensor, encoding: Encoding, encode_shift: Tensor | int, config: Config) -> Tensor:
    """Encode integers.

    - uniform: ``lowest + clamp(round_shift(y, encode_shift) + zero_point, 0, 2**bits - 1)``;
    - two-scale: region 0 iff ``round_shift(y, encode_shift)`` fits ``bits - 1`` bits, else region 1
      with ``round_shift(y, encode_shift + m)`` clamped; code = ``region << bits-1 | u``;
    - log2: ``round(-log2(y / 2**(value_bits-1)))``, clamped to ``0..2**bits - 1``, which is also
      the code of ``y <= 0``;
    - table: how many thresholds are ``<= y``.

    Parameters
    ----------
    y
        ``[..., C]``, signed, of ``value_bits + 1`` bits.
    encode_shift
        ``[C]`` or one for all, 0 to 15.

    Returns
    -------
    Tensor
        Codes ``[..., C]``, int64.
    """
    integers(y=y)
    shift = torch.as_tensor(encode_shift)
    integers(encode_shift=shift)
    room = 15 - encoding.m * (encoding.kind == "two-scale")
    if shift.numel() and (shift.min() < 0 or shift.max() > room):
        raise ValueError(f"encode_shift must lie in 0..{room}, not {shift.min()}..{shift.max()}")
    if encoding.kind == "two-scale":
        return _two_scale(y, encoding, torch.tensor(_one_shift(shift)))
    top = (1 << encoding.bits) - 1
    if encoding.kind == "uniform":
        return (round_shift(y, shift) + encoding.zero_point).clamp(0, top) + encoding.lowest
    levels = torch.tensor(thresholds(encoding, 0, config), dtype=torch.int64)
    count = torch.searchsorted(levels, y.to(torch.int64).contiguous(), right=True).clamp_max(top)
    return top - count if encoding.kind == "log2" else count
