# SPDX-License-Identifier: Apache-2.0
"""What parameters must be for a network to be quantized: said of a tensor by its name, before."""

__all__ = ["LARGEST", "check_parameters"]

from torch import nn

#: Magnitude whose square, in a sum of two, float32 still holds.
LARGEST = 2.0**63


def check_parameters(model: nn.Module) -> None:
    """Refuse parameters of which no integers can be made.

    Raises
    ------
    ValueError
        If a parameter is not finite, or as large as `LARGEST`, so that its products overflow; or
        if the weights of a layer are all zero, so that they have no step. The message names it.
    """
    for name, value in model.named_parameters():
        low, high = (float(end) for end in value.detach().aminmax())
        peak = max(-low, high)
        if not peak < LARGEST:   # nor is NaN
            raise ValueError(f"parameter {name!r} holds {peak:.3g}: quantization needs finite "
                             f"values below {LARGEST:.3g}")
        if peak == 0 and value.ndim > 1 and name.endswith(".weight"):
            raise ValueError(f"parameter {name!r} is zero throughout: weights that are all zero "
                             "have no step")
