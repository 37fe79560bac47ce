# SPDX-License-Identifier: Apache-2.0
"""What the systolic array computes, exactly, and on which cycles it moves.

A weight-stationary array (H. T. Kung, *Why systolic architectures?*, 1982, and, for the second
register that hides the loading of weights, Jouppi et al., *In-datacenter performance analysis of a
tensor processing unit*, 2017, section 2) multiplies rows of operands by a tile of weights::

    acc[t, n] = sum over k of (mantissa[t, k] << shift[t, k]) * weights[k, n]

Where an element takes several products, every one of them is this formula for one of its weights
and one of its tokens; `golden.units.packed` has the arithmetic of their packing. On which cycles
the array moves doesn't depend on the mode of a word, so tiles of different modes follow each
other as any do.
"""

__all__ = ["SystolicModel", "matmul"]

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from golden.units.arithmetic import integers
from golden.units.stream import CycleModel, Flags, SkidModel
from vitforge.spec.config import Config
from vitforge.spec.elements import array_latency


def matmul(mantissa: Tensor, shift: Tensor | int, weights: Tensor) -> Tensor:
    """Multiply shifted operands by weights, exactly.

    No rounding and no saturation. ``|acc| <= K * max|operand| * max|weight|``, so the width of an
    accumulator is `vitforge.spec.config.Config.partial_sum_bits` of K; the same bound chooses the
    integer type that is used inside.

    Parameters
    ----------
    mantissa : ``[..., T, K]``
        Signed mantissas, of any integer type.
    shift : ``[..., T, K]`` or int
        Left shifts >= 0; broadcast against `mantissa`.
    weights : ``[..., K, N]``
        Signed weights; leading dimensions broadcast.

    Returns
    -------
    Tensor
        int64 ``[..., T, N]``.

    Raises
    ------
    TypeError
        If an argument isn't of an integer type.
    ValueError
        If K differs, a shift is negative, or a sum could leave 64 bits.
    """
    amount = torch.as_tensor(shift)
    integers(mantissa=mantissa, shift=amount, weights=weights)
    if mantissa.dim() < 2 or weights.dim() < 2 or mantissa.shape[-1] != weights.shape[-2]:
        raise ValueError(f"mantissa[..., T, K] and weights[..., K, N] must have the same K, not "
                         f"shapes {tuple(mantissa.shape)} and {tuple(weights.shape)}")
    if amount.numel() and int(amount.min()) < 0:
        raise ValueError(f"shift must be >= 0, not {int(amount.min())}")
    largest = int(amount.max()) if amount.numel() else 0
    if _magnitude(mantissa) << largest >= 1 << 63:
        raise ValueError(f"mantissa << shift must fit 64 bits, not {_magnitude(mantissa)} << "
                         f"{largest}")
    operand = mantissa.to(torch.int64) << amount if largest else mantissa.to(torch.int64)
    bound = operand.shape[-1] * _magnitude(operand) * _magnitude(weights)
    if bound >= 1 << 63:
        raise ValueError(f"sums must fit 64 bits, but may reach {bound}")
    # 32 bits are twice as fast as 64, and exact wherever they hold every sum.
    exact = torch.int32 if bound < 1 << 31 else torch.int64
    return (operand.to(exact) @ weights.to(exact)).to(torch.int64)


def _magnitude(tensor: Tensor) -> int:
    """Largest absolute value, as a Python integer; 0 of nothing."""
    if not tensor.numel():
        return 0
    low, high = tensor.aminmax()
    return max(-int(low), int(high))


class SystolicModel(CycleModel):
    """Handshake of `hw.array.systolic.SystolicArray`.

    Three facts move it: whether the shadow tile is complete, whether the next activation word
    is the first of a tile, and which stages of the pipeline hold a word.

    Parameters
    ----------
    config
        Its array shape and latency are used.
    by_column
        `by_column` of every weight word, in order.
    last
        `last` of every activation word, in order.
    """

    sinks = ("w", "a")
    sources = ("o",)

    def __init__(self, config: Config, by_column: Sequence[bool], last: Sequence[bool]) -> None:
        self.rows, self.cols = config.rows, config.cols
        self.by_column, self.last = list(by_column), list(last)
        self.weight_words = self.activation_words = 0   # accepted so far
        self.missing = 0                                # words that the tile being loaded lacks
        self.complete = False
        self.first = True
        self.stages = deque([False] * (array_latency(config) - 1))
        self.skid = SkidModel()

    def settle(self, valid: Flags, ready: Flags) -> tuple[Flags, Flags]:
        advance = self.skid.ready
        take = advance and (not self.first or self.complete)
        swap = take and self.first and valid["a"]
        return ({"w": advance and (not self.complete or swap), "a": take},
                {"o": self.skid.valid})

    def clock(self, valid: Flags, ready: Flags) -> None:
        takes, _ = self.settle(valid, ready)
        advance = self.skid.ready
        leaving = self.stages[-1]
        if advance:
            self.stages.pop()
            self.stages.appendleft(valid["a"] and takes["a"])
        self.skid.clock(advance and leaving, ready["o"])
        if valid["a"] and takes["a"]:
            if self.first:
                self.complete = False
            self.first = self.last[self.activation_words]
            self.activation_words += 1
        if valid["w"] and takes["w"]:
            if not self.missing:
                self.missing = self.cols if self.by_column[self.weight_words] else self.rows
            self.missing -= 1
            self.weight_words += 1
            self.complete = not self.missing
