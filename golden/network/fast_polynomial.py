# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT's log-int-softmax at the speed of floating point, with the bits of its definition.

`golden.units.softmax_polynomial` is the definition, and works on integers alone. The exponential of
a score depends on its distance to the row's largest alone, so it is an entry of a table. Sums of a
row are exact in double precision, and a code is the exponent of a quotient there:

- for k >= 3, ``2 * sum >= (3 * 2**(k-1) - 1) * e`` iff ``(2 * sum / e + 1) / 3 >= 2**(k-1)``;
- where it does not hold, the left side of the second is less by more than a ``1 / (4 * sum + 2)``
  part of it. That is checked to be more than ``2**-48``, while the quotient is computed to
  ``2**-50``; so it is taken as a little more than it is, and ties count as above;
- codes 0 to 2 have thresholds of their own: ``2 * sum / e`` below 3, and equal to 5, where the
  quotient of integers is exact.
"""

__all__ = ["FastPolynomial"]

import sys

import torch
from torch import Tensor

from golden.units.softmax_polynomial import PolynomialScale, powers
from vitforge.spec.config import Config

_EXACT = 1 << 47
_MORE = 1 + 2.0**-49
#: Of a double's upper word: bits of the significand, and the exponent of 1.
_SIGNIFICAND, _ONE = 20, 1023
#: Which word that is.
_UPPER = 1 if sys.byteorder == "little" else 0


class FastPolynomial:
    """Log2 codes of rows of scores.

    Parameters
    ----------
    scale
        Of the scores.
    config
        Its `iexp_shift`, `score_bits` and `attention_bits` count.
    keys
        Most keys of a row.

    Raises
    ------
    ValueError
        If exactness can't be proved.
    """

    def __init__(self, scale: PolynomialScale, config: Config, keys: int,
                 device: torch.device | str = "cpu") -> None:
        bound = (2 * keys + 1) * scale.c << config.iexp_shift
        if bound >= _EXACT:
            raise ValueError(f"sums may reach {bound}")
        distance = torch.arange(1 << config.score_bits)
        self.powers = powers(distance, scale, config).double().to(device)
        self.zero = (1 << config.attention_bits) - 1

    def __call__(self, scores: Tensor) -> Tensor:
        """Return codes, int32, of scores ``[..., K]``: integers in floating point, none masked."""
        distance = (scores.amax(-1, keepdim=True) - scores).to(torch.int32)
        power = self.powers.index_select(0, distance.flatten()).reshape(distance.shape)
        doubled = power.sum(-1, keepdim=True).mul_(2)
        ratio = torch.div(doubled, power, out=power)   # infinite for a power of 0: the zero
        low, five = ratio < 3, ratio == 5
        words = ratio.add_(1).mul_(_MORE / 3).view(torch.int32)[..., _UPPER::2]
        code = (words >> _SIGNIFICAND).sub_(_ONE - 1)
        return code.sub_(low.view(torch.uint8)).sub_(five.view(torch.uint8)).clamp_(0, self.zero)
