# SPDX-License-Identifier: Apache-2.0
"""The drain's encoder as it is built: codes for any thresholds and shifts, those of no format too.

`golden.units.encoding` says what a code is; here is what the search and the one shifter of
`hw.requant.encode` do, which is the same for the thresholds and shifts that a format has.
"""

__all__ = ["encode_any"]

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from golden.units.arithmetic import round_shift
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS


def _cut(values: Sequence[int], bits: int) -> Tensor:
    """Take the low bits as two's complement."""
    half = 1 << bits - 1
    return torch.tensor([(value + half & (1 << bits) - 1) - half for value in values])


def _search(y: Tensor, thresholds: Sequence[int], config: Config) -> tuple[Tensor, Tensor]:
    """Return the count of four steps, and whether y is outside of thresholds 3 and 11.

    Numbers 3, 7 and 11 are compared with ``value_bits + 1`` bits, the others with `value_bits`.
    """
    wide, narrow = (_cut(thresholds, config.value_bits + more) for more in (1, 0))
    lower, middle, upper = (y >= wide[number] for number in (3, 7, 11))
    found = 2 * middle + torch.where(middle, upper, lower)
    found = 2 * found + (y >= narrow[4 * found + 1])
    return 2 * found + (y >= narrow[2 * found]), ~lower | upper


def encode_any(y: Tensor, fields: Mapping[str, int], thresholds: Sequence[int], shift: Tensor,
               config: Config) -> Tensor:
    """Encode integers ``[..., C]`` of ``value_bits + 1`` bits.

    Parameters
    ----------
    fields
        Of a PASS: `format`, `bits`, `zero_point`, `m`, `signed`, `lowest`.
    thresholds
        15 integers; only their low bits count.
    shift
        `encode_shift` of each channel, 0 to 15. With m added it is taken modulo 16.
    """
    return _codes(y, fields, thresholds, shift, config) + fields["lowest"] & 255


def _codes(y: Tensor, fields: Mapping[str, int], thresholds: Sequence[int], shift: Tensor,
           config: Config) -> Tensor:
    """Return the codes before `lowest` is added."""
    kind = fields["format"]
    if kind >= FORMATS["log2"]:
        count, _ = _search(y, thresholds, config)
        top = (1 << fields["bits"]) - 1
        count = count.clamp_max(top)
        return top - count if kind == FORMATS["log2"] else count
    if kind == FORMATS["uniform"]:
        return (round_shift(y, shift.expand(y.shape)) + fields["zero_point"]).clamp(
            0, (1 << fields["bits"]) - 1)
    _, high = _search(y, thresholds, config)
    width = fields["bits"] - 1
    half = 1 << width - 1 if fields["signed"] else 0
    amount = shift + fields["m"] * high & 15
    u = (round_shift(y, amount) + half).clamp(0, (1 << width) - 1) ^ half
    return high.to(torch.int64) << width | u
