# SPDX-License-Identifier: Apache-2.0
"""Two or four products of one multiplication, exactly (`vitforge.spec.elements` has the layout).

    A = (w1 << 2s) + w0,  B = (a1 << s) + a0
    sum over G rows of A * B  =  sum over fields f of (sum of their products) << f * s

The packing of two products is that of Xilinx (*Deep learning with INT8 optimization on Xilinx
devices*, white paper WP486, 2017), the carry that makes up for a negative field as there. The
spacing for four signed products in 18 bits by 18, and packed weights without their least value, are
this project's own; they need no correction but that carry.
"""

__all__ = ["matmul_packed", "pack_operands", "pack_weights", "segments", "split_fields",
           "split_segments"]

import torch
from torch import Tensor

from golden.units.arithmetic import integers
from vitforge.spec.elements import MODES, Element


def _fits(name: str, tensor: Tensor, low: int, high: int) -> None:
    if tensor.numel() and (int(tensor.min()) < low or int(tensor.max()) > high):
        raise ValueError(f"{name} must lie in {low}..{high}, not {int(tensor.min())}.."
                         f"{int(tensor.max())}")


def pack_weights(weights: Tensor, element: Element) -> Tensor:
    """Return ``A = (w1 << upper) + w0`` of weights ``[..., 2]``, as int64 ``[...]``.

    Raises
    ------
    TypeError
        If they aren't integers.
    ValueError
        If one is beyond ``+-(2**(packed_bits-1) - 1)``; the least value of its width is one.
    """
    integers(weights=weights)
    top = (1 << element.packed_bits - 1) - 1
    _fits("packed weights", weights, -top, top)
    return (weights[..., 1].to(torch.int64) << element.upper) + weights[..., 0]


def pack_operands(operands: Tensor, mode: str, element: Element) -> Tensor:
    """Return ``B = (a1 << s) + a0`` of operands ``[..., tokens]``, or a0 alone in `pair`.

    Raises
    ------
    TypeError
        If they aren't integers.
    ValueError
        If an operand doesn't fit the mode's signed width.
    """
    integers(operands=operands)
    half = 1 << element.operand_bits[mode] - 1
    _fits(f"operands of {mode}", operands, -half, half - 1)
    value = operands[..., 0].to(torch.int64)
    if mode == "quad":
        value = value + (operands[..., 1].to(torch.int64) << element.spacing)
    return value


def split_fields(total: Tensor, mode: str, element: Element) -> Tensor:
    """Take the fields of packed sums ``[...]`` apart: int64 ``[..., fields]``.

    ``lo = sext(P[:s])``, ``hi = P[s:] + P[s-1]``, field after field: the bit below a field is the
    sign of what is below it, which had borrowed one if it is negative.
    """
    count = element.fields(mode)
    bits = element.segments // count * element.spacing
    rest, found = total, []
    for _ in range(count - 1):
        low = rest & (1 << bits) - 1
        low = low - (low >> bits - 1 << bits)
        found.append(low)
        rest = (rest >> bits) + (low < 0)
    return torch.stack([*found, rest], -1)


def matmul_packed(operands: Tensor, weights: Tensor, mode: str, element: Element) -> Tensor:
    """Multiply as the array does: packed, `group` rows at a time, then field by field.

    Equal to ``matmul(operands[..., t], weights[..., w])`` in field ``w * tokens + t``: a test shows
    it for every weight and operand of an element, and for sums at both ends.

    Parameters
    ----------
    operands : ``[T, K, tokens]``
        Signed operands after their shift.
    weights : ``[K, N, 2]``
        Signed weights.
    mode
        ``pair`` (one token) or ``quad`` (two).
    element
        The layout.

    Returns
    -------
    Tensor
        int64 ``[T, N, fields]``.

    Raises
    ------
    TypeError
        If an argument isn't of an integer type.
    ValueError
        If a weight or an operand doesn't fit, or a mode isn't there.
    """
    if mode not in element.modes or mode == "single":
        raise ValueError(f"the array packs {' and '.join(element.modes)}, not {mode}")
    if operands.shape[-1] != MODES[mode][1]:
        raise ValueError(f"operands of {mode} must be of {MODES[mode][1]} tokens, "
                         f"not {operands.shape[-1]}")
    left, right = pack_operands(operands, mode, element), pack_weights(weights, element)
    result = torch.zeros(*left.shape[:-1], right.shape[-1], element.fields(mode),
                         dtype=torch.int64)
    for row in range(0, left.shape[-1], element.group):
        rows = slice(row, row + element.group)
        result += split_fields(left[..., rows] @ right[rows], mode, element)
    return result


def segments(sums: Tensor, mode: str, element: Element) -> Tensor:
    """Return what leaves the array of sums ``[..., fields]``: int64 ``[..., segments]``.

    A field's segments below its last are `spacing` bits without a sign; the last is what is above.
    """
    length = element.segments // sums.shape[-1]
    if sums.shape[-1] != element.fields(mode):
        raise ValueError(f"sums of {mode} must have {element.fields(mode)} fields, "
                         f"not {sums.shape[-1]}")
    parts = []
    for field in range(sums.shape[-1]):
        value = sums[..., field]
        for _ in range(length - 1):
            parts.append(value & (1 << element.spacing) - 1)
            value = value >> element.spacing
        parts.append(value)
    return torch.stack(parts, -1)


def split_segments(parts: Tensor, mode: str, element: Element) -> Tensor:
    """Invert `segments`: ``[..., segments]`` to sums ``[..., fields]``."""
    length = element.segments // element.fields(mode)
    weights = torch.tensor([1 << place * element.spacing for place in range(length)])
    return (parts.unflatten(-1, (-1, length)) * weights).sum(-1)
