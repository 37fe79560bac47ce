# SPDX-License-Identifier: Apache-2.0
"""The networks by name: shape, preprocessing, and the loading of timm's checkpoints.

``vit_*``, ``deit_*`` and ``swin_*`` are timm's names, and a state dict that timm saved for one of
them loads as it is. So do Microsoft's Swin checkpoints, with patch merging at the end of a stage.
"""

__all__ = ["MODELS", "Model", "Preprocessing", "create", "filled", "load", "lookup"]

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from golden.float import checkpoint
from golden.float.checkpoint import CheckpointError
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec

Net = TypeVar("Net", Vit, Swin, Vit | Swin)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a picture to network input: resize the shorter side, crop the centre, normalise.

    Attributes
    ----------
    size
        Rows and columns of the network input.
    crop
        Share of the resized shorter side that the crop keeps, as timm's ``crop_pct``.
    interpolation
        Filter of the resizing: ``bicubic``, ``bilinear`` or ``nearest``.
    mean, std
        Per channel, subtracted from and divided into pixels of 0..1.
    """

    size: int
    crop: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def resize(self) -> int:
        """Pixels of the shorter side before the crop, rounded down as timm does."""
        return floor(self.size / self.crop)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A named network: its shape decides the family."""

    name: str
    spec: VitSpec | SwinSpec
    preprocessing: Preprocessing

    def build(self) -> Vit | Swin:
        """Build the network with unspecified parameters."""
        return Swin(self.spec) if isinstance(self.spec, SwinSpec) else Vit(self.spec)


IMAGENET = Preprocessing(size=224, crop=0.9, interpolation="bicubic",
                         mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
INCEPTION = Preprocessing(size=224, crop=0.9, interpolation="bicubic",
                          mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DIGITS = Preprocessing(size=28, crop=1.0, interpolation="bicubic", mean=(0.0,), std=(1.0,))


SMALL_PICTURES = Preprocessing(size=32, crop=1.0, interpolation="bicubic",
                               mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))


def _larger(how: Preprocessing) -> Preprocessing:
    """Return the same for 384x384 pixels: timm's networks of that size see the whole side."""
    return replace(how, size=384, crop=1.0)


def _vit(dim: int, depth: int, heads: int, size: int = 224) -> VitSpec:
    return VitSpec(image_size=size, patch_size=16, in_channels=3, classes=1000, dim=dim,
                   depth=depth, heads=heads, mlp_hidden=4 * dim)


def _swin(dim: int, third: int, heads: int) -> SwinSpec:
    return SwinSpec(dim=dim, depths=(2, 2, third, 2), heads=tuple(heads << n for n in range(4)))


MODELS: Mapping[str, Model] = {
    name: Model(name=name, spec=spec, preprocessing=preprocessing)
    for name, spec, preprocessing in (
        ("mnist_vit", VitSpec(), DIGITS),
        ("vit_small_patch16_224", _vit(384, 12, 6), INCEPTION),
        ("vit_base_patch16_224", _vit(768, 12, 12), INCEPTION),
        ("vit_large_patch16_224", _vit(1024, 24, 16), INCEPTION),
        ("deit_tiny_patch16_224", _vit(192, 12, 3), IMAGENET),
        ("deit_small_patch16_224", _vit(384, 12, 6), IMAGENET),
        ("deit_base_patch16_224", _vit(768, 12, 12), IMAGENET),
        ("vit_small_patch16_384", _vit(384, 12, 6, 384), _larger(INCEPTION)),
        ("vit_base_patch16_384", _vit(768, 12, 12, 384), _larger(INCEPTION)),
        ("vit_large_patch16_384", _vit(1024, 24, 16, 384), _larger(INCEPTION)),
        ("deit_base_patch16_384", _vit(768, 12, 12, 384), _larger(IMAGENET)),
        ("swin_tiny_patch4_window7_224", _swin(96, 6, 3), IMAGENET),
        ("swin_small_patch4_window7_224", _swin(96, 18, 3), IMAGENET),
        ("swin_base_patch4_window7_224", _swin(128, 18, 4), IMAGENET),
        ("cifar10_vit", VitSpec(image_size=32, patch_size=4, in_channels=3, classes=10, dim=128,
                                depth=5, heads=8, mlp_hidden=512), SMALL_PICTURES),
        ("cifar10_swin", SwinSpec(image_size=32, patch_size=2, classes=10, dim=32,
                                  depths=(2, 2, 2), heads=(2, 4, 8), window=4), SMALL_PICTURES),
    )
}
"""Every network that has a name. ``mnist_vit``, ``cifar10_vit`` and ``cifar10_swin`` are the
project's own, the others timm's, whose preprocessing is that of timm's default weights."""


#: What of a distilled DeiT there is.
_DISTILLED = "a distilled DeiT has no name here; without one its file is taken"


def lookup(name: str) -> Model:
    """Find a network by its name.

    Raises
    ------
    ValueError
        If there is none; the message lists the names, or says why timm's name is not among them.
    """
    if re.match(r"deit_.*distilled", name):
        raise ValueError(f"{name}: {_DISTILLED}")
    if name not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, not {name!r}")
    return MODELS[name]


def create(name: str, seed: int = 0) -> Vit | Swin:
    """Build a named network with random parameters, in evaluation mode.

    Raises
    ------
    ValueError
        As `lookup`.
    """
    return lookup(name).build().initialize(seed).eval()


def load(name: str, path: str | Path) -> Vit | Swin:
    """Build a named network with the parameters of a checkpoint, in evaluation mode.

    What old versions of timm and Microsoft's code store beyond parameters, the buffers
    ``relative_position_index`` and ``attn_mask`` of Swin, is compared with what is computed here
    and not kept.

    Raises
    ------
    ValueError
        As `lookup`.
    CheckpointError
        As `golden.float.checkpoint.load`, or if a buffer has other values than this network needs.
    """
    return filled(lookup(name).build(), checkpoint.read(path)[0], path)


def filled(model: Net, state: dict[str, Tensor], path: str | Path) -> Net:
    """Fill a network with a state dict that `load` takes, and return it in evaluation mode.

    Raises
    ------
    CheckpointError
        As `load`.
    """
    if isinstance(model, Swin):
        state = _parameters(model, _renamed(state), path)
    checkpoint.fill(model, state, path)
    model.eval()
    return model


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name parameters as timm does today: patch merging starts the next stage."""
    if "layers.0.downsample.reduction.weight" not in state:
        return state

    def following(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) + 1}.downsample."

    return {re.sub(r"^head\.(?=weight|bias)", "head.fc.",
                   re.sub(r"^layers\.(\d+)\.downsample\.", following, name)): value
            for name, value in state.items()}


def _parameters(model: Swin, state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Leave the stored buffers out, after a comparison with the model's own."""
    buffers = dict(model.named_buffers())
    for name, value in buffers.items():
        if name in state and not torch.equal(state[name].to(value.dtype), value):
            raise CheckpointError(f"{path}: buffer {name!r} of shape {list(state[name].shape)} "
                                  "differs from what this network computes")
    return {name: value for name, value in state.items() if name not in buffers}
