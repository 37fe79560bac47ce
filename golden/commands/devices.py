# SPDX-License-Identifier: Apache-2.0
"""Where networks are measured."""

__all__ = ["device_of", "placed"]

import copy

import torch

from golden.float.swin import Swin
from golden.float.vit import Vit


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" is the GPU if there is one.

    Raises
    ------
    ValueError
        If a GPU is asked for, and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here")
    return torch.device(name)


def placed(model: Vit | Swin, device: torch.device) -> Vit | Swin:
    """Return a network on a device: itself on the processor, else a copy."""
    return model if device.type == "cpu" else copy.deepcopy(model).to(device)
