# SPDX-License-Identifier: Apache-2.0
"""The operand path's decoder as it is built: operands of any codes, those of no format too."""

__all__ = ["decode_any"]

from collections.abc import Mapping

import torch
from torch import Tensor

from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS

_BYTE = 255


def decode_any(codes: Tensor, fields: Mapping[str, int], config: Config) -> Tensor:
    """Return the operands of bytes, as `hw.operand.decode` makes them of masks.

    What `golden.formats` says of codes that fit their format; other widths and codes, too.

    Parameters
    ----------
    fields
        Of a PASS: `operand_format`, `operand_bits`, `operand_zero_point`, `operand_m`,
        `operand_signed`. A table of probabilities gives mantissas, which are uniform codes.

    Raises
    ------
    ValueError
        If an operand is wider than `operand_bits` of the configuration: what the array makes of it
        depends on its style.
    """
    kind, two_scale, log2 = fields["operand_format"], FORMATS["two-scale"], FORMATS["log2"]
    if kind not in (two_scale, log2):
        return codes - fields["operand_zero_point"]
    width = fields["operand_bits"] - (kind == two_scale) & 15
    top = 1 << width & 2 * _BYTE + 1
    low, region = top - 1 & _BYTE, top & _BYTE
    places = (1 << config.shift_bits) - 1
    if kind == log2:
        rest = ~codes & low
        one = (rest != 0) & (codes & ~low & _BYTE == 0)
        return one.to(torch.int64) << (rest & places)
    sign = top >> 1 & _BYTE if fields["operand_signed"] else 0
    negative = (codes & sign != 0).to(torch.int64)
    mantissa = (codes & low) + negative * ((~low & _BYTE) - (_BYTE + 1))
    found = mantissa << torch.where(codes & region != 0, fields["operand_m"] & places, 0)
    half = 1 << config.operand_bits - 1
    if found.numel() and not -half <= int(found.min()) <= int(found.max()) < half:
        raise ValueError(f"operands must fit {config.operand_bits} bits")
    return found
