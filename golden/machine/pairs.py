# SPDX-License-Identifier: Apache-2.0
"""Two weights in an element of the program's stream, and what a pass of such may hold."""

__all__ = ["check_pair", "join_pairs", "split_pairs"]

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vitforge.spec.config import Config

Weights = npt.NDArray[np.int8]


def join_pairs(weights: Weights, config: Config) -> Weights:
    """Return the elements of weights ``[..., channels]``, int8 ``[..., min(channels, cols)]``.

    Element c is ``(w1 << packed_weight_bits) + w0``: of channel c, and of channel ``cols + c`` or 0
    if there is none.

    Raises
    ------
    ValueError
        If a weight is beyond ``+-(2**(packed_weight_bits-1) - 1)``.
    """
    top = (1 << config.packed_weight_bits - 1) - 1
    if weights.size and not -top <= weights.min() <= weights.max() <= top:
        raise ValueError(f"weights of pairs must lie in {-top}..{top}, not "
                         f"{weights.min()}..{weights.max()}")
    lower, upper = weights[..., :config.cols], weights[..., config.cols:]
    result = lower.copy()
    result[..., :upper.shape[-1]] += upper << config.packed_weight_bits
    return result


def split_pairs(elements: Weights, channels: int, config: Config) -> Weights:
    """Invert `join_pairs` for any elements: int8 ``[..., channels]``."""
    bits = config.packed_weight_bits
    half = 1 << bits - 1
    lower = (elements & 2 * half - 1 ^ half) - half
    # Of an element that is wider than its weights the bits above count too: it is no pair.
    upper = elements.astype(np.int64) - lower >> bits
    return np.concatenate((lower, upper), -1)[..., :channels].astype(np.int8)


def check_pair(operands: Tensor, weights: Tensor, config: Config) -> None:
    """Refuse what doesn't fit the fields of a pair.

    Raises
    ------
    ValueError
        If a weight or an operand is too wide: what the array makes of them has no meaning.
    """
    half, top = 1 << config.mantissa_bits - 1, (1 << config.packed_weight_bits - 1) - 1
    if int(weights.abs().max()) > top:
        raise ValueError(f"weights of pairs must lie in {-top}..{top}")
    if int(operands.min()) < -half or int(operands.max()) >= half:
        raise ValueError(f"operands of pairs must fit {config.mantissa_bits} bits")
