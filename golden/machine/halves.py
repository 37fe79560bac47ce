# SPDX-License-Identifier: Apache-2.0
"""Two codes of 4 bits in a byte of the scratchpad: results of a pass, operands, keys and values."""

__all__ = ["HALF_BITS", "operand_pairs", "stationary_weights", "store", "tokens_of"]

from collections.abc import Mapping

import torch
from torch import Tensor

from golden.machine.program import Array
from vitforge.spec.config import Config
from vitforge.spec.elements import Element

#: Width of a code.
HALF_BITS = 4
_MASK = (1 << HALF_BITS) - 1


def store(bank: Tensor, target: Tensor, halves: Array, codes: Tensor) -> None:
    """Write the low bits of `codes` ``[..., rows]`` into halves of words; the others stay.

    Parameters
    ----------
    bank
        int64 ``[words, rows]``, changed.
    target, halves
        Word and half of each, ``[...]``: 0 are the low bits of a byte.
    """
    for half in range(2):
        chosen = torch.from_numpy(halves == half)
        place, shift = target[chosen], HALF_BITS * half
        bank[place] = bank[place] & ~(_MASK << shift) | (codes[chosen] & _MASK) << shift


def tokens_of(codes: Tensor) -> Tensor:
    """Return the codes of both tokens of words ``[words, K]``: ``[2 * words, K]``."""
    return torch.stack((codes & _MASK, codes >> HALF_BITS), 1).flatten(0, 1)


def operand_pairs(codes: Tensor, fields: Mapping[str, int], config: Config) -> Tensor:
    """Return the operands of a pass of quad, ``[T, K]``, of words ``[ceil(T / 2), K]``.

    Raises
    ------
    ValueError
        If one doesn't fit the multiplier, be it of the token beyond the last: the array would make
        something of it, and of its neighbours.
    """
    bits = Element(config).operand_bits["quad"]
    operands = tokens_of(codes) - (fields["operand_zero_point"] & _MASK)
    half = 1 << bits - 1
    if int(operands.min()) < -half or int(operands.max()) >= half:
        raise ValueError(f"operands of quad must fit {bits} bits")
    return operands[:fields["tokens"]]


def stationary_weights(words: Tensor, by_column: bool) -> Tensor:
    """Return the weights of packed words ``[..., words, rows]``, lower halves first.

    By column the upper halves are the columns behind, else the words behind: along dimension 2 or
    3 of ``[tiles, columns, rows]`` or ``[tiles, rows, words * rows]``. A code is 8 more than its
    weight, and 0 counts as 1: no packed weight is the least of its width.
    """
    return torch.cat(tuple((part.clamp_min(1) - (1 << HALF_BITS - 1))
                           for part in (words & _MASK, words >> HALF_BITS)),
                     1 if by_column else 2)
