# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.operand.path`: the operands of a word of the scratchpad, in every mode.

A word a step; its operands leave `vitforge.spec.timing.OPERAND` steps after its request, and 11
after the word itself. An operand is a signed mantissa of `mantissa_bits` and a shift; where the
shift is None, only ``mantissa << shift`` is defined.
"""

__all__ = ["Keys", "Norm", "Operands", "factors", "keys", "normalised", "plain", "probabilities"]

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from golden.formats.attention import level_format, log2_format
from golden.formats.formats import Format, Log2, TwoScale, Uniform
from golden.units.layernorm import layernorm, reciprocal_root
from golden.units.softmax import ShiftScale, exponents, row_offset, statistics
from golden.units.softmax_levels import level_codes
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.softmax_widths import ShiftWidths

#: Mantissa and shift of every lane.
Operands = list[tuple[int, int | None]]


def _decode(form: Format, codes: Tensor) -> Operands:
    return list(zip(*(part.tolist() for part in form.decode(codes)), strict=True))


def plain(fields: Mapping[str, int], codes: Tensor) -> Operands:
    """Return what codes of at most 8 bits decode to, by the fields of the request.

    ``c - zero point``, or the decoding of `golden.formats`: two-scale codes of `operand_bits` with
    the step `operand_m` between the regions, log2 codes of `operand_bits`.
    """
    form: Format = Uniform(scale=1.0, zero_point=fields["operand_zero_point"])
    if fields["operand_format"] == FORMATS["two-scale"]:
        form = TwoScale(scale=1.0, bits=fields["operand_bits"], m=fields["operand_m"],
                        signed=bool(fields["operand_signed"]))
    elif fields["operand_format"] == FORMATS["log2"]:
        form = Log2.of_bits(fields["operand_bits"])
    return _decode(form, codes)


@dataclass(frozen=True, kw_only=True)
class Norm:
    """What a slot of norm parameters holds of a LayerNorm.

    Attributes
    ----------
    zero_point, to
        Zero points of the codes that come, and of those that are made.
    shift, gamma, beta
        int64 ``[C]``: the power-of-two factors, and the parameters of `golden.units.layernorm`.
    """

    zero_point: int
    to: int
    shift: Tensor
    gamma: Tensor
    beta: Tensor

    @property
    def channels(self) -> int:
        return len(self.shift)


def factors(codes: Tensor, norm: Norm, config: Config) -> dict[str, int]:
    """Return what the drain's statistics find of a token's codes ``[C]``, field by field."""
    x = codes - norm.zero_point << norm.shift
    total = x.sum()
    root, up = reciprocal_root(norm.channels * (x * x).sum() - total * total, config)
    coarse, fine = divmod(int(up), NormFormat(config).coarse_step)
    return {"count": norm.channels << fine, "total": int(total) << fine, "coarse": coarse,
            "root": int(root)}


def normalised(codes: Tensor, norm: Norm, fields: Mapping[str, int], config: Config) -> Operands:
    """Return the operands of all of a token's codes ``[C]``, by the fields of the request.

    LayerNorm to codes of `operand_bits`, less `operand_zero_point`.
    """
    result = layernorm(codes - norm.zero_point, norm.shift, norm.gamma, norm.beta, norm.to, config,
                       fields["operand_bits"])
    return [(value, 0) for value in (result - fields["operand_zero_point"]).tolist()]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A row of scores, with what the drain's statistics find of it.

    Attributes
    ----------
    scores
        int64 ``[K]``, signed.
    multiplier
        Of `golden.units.softmax.ShiftScale`.
    offset
        ``log2`` of the sum of all powers, with `exp_fraction_bits` fraction bits.
    """

    scores: Tensor
    multiplier: int
    offset: int

    def exponents(self, config: Config) -> Tensor:
        """Return the exponents of all keys, with `exp_fraction_bits` fraction bits."""
        return exponents(self.scores, ShiftScale(self.multiplier), ShiftWidths(config))

    def stored(self, config: Config) -> int:
        """Return the offset as the operand path wants it: with a half for log2 codes, modulo."""
        widths = ShiftWidths(config)
        return self.offset + half(config) & (1 << widths.offset) - 1

    def log2_codes(self, config: Config) -> Tensor:
        """Return the distances of all keys, rounded, at most the code of 0."""
        found = self.offset + half(config) - self.exponents(config) >> ShiftWidths(config).fraction
        return found.clamp_max((1 << config.attention_bits) - 1)

    def at(self, here: slice) -> "Keys":
        """Return some of the keys."""
        return replace(self, scores=self.scores[here])


def half(config: Config) -> int:
    """Return what rounds log2 codes: they are the distance rounded half up, all others floor it."""
    return 1 << ShiftWidths(config).fraction - 1 if config.attention == "log2" else 0


def keys(scores: Tensor, multiplier: int, config: Config) -> Keys:
    """Return a row of scores with its offset."""
    found = statistics(scores, torch.ones_like(scores, dtype=torch.bool), ShiftScale(multiplier),
                       config)
    return Keys(scores=scores, multiplier=multiplier,
                offset=int(row_offset(*found, ShiftWidths(config))))


def probabilities(row: Keys, shift: int, m: int, config: Config) -> Operands:
    """Return the operands of the keys of a row: log2 codes, or those of the levels.

    Parameters
    ----------
    row
    shift, m
        Of the format, as in `golden.formats.attention.level_format`; log2 codes have none.
    config
    """
    if config.attention == "log2":
        form = log2_format(config.attention_bits)
        return [(value, None) for value in form.operand(row.log2_codes(config)).tolist()]
    codes = level_codes(row.scores, torch.ones_like(row.scores, dtype=torch.bool),
                        torch.tensor(row.offset), row.multiplier, shift, m, config)
    return _decode(level_format(shift, m, config), codes)
