# SPDX-License-Identifier: Apache-2.0
"""The integer network that a command names: the project's own, a checkpoint's, or a random one."""

__all__ = ["codes", "fold", "quantized"]

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from gen.program_compile import supported
from gen.program_options import MNIST, NAMES
from golden import checkpoint, mnist, models
from golden.calibrate import calibrate
from golden.evaluate import WEIGHTS
from golden.imagenet import Folder
from golden.models import Preprocessing
from golden.network import Network
from golden.vit import Vit, VitSpec
from hw.config import Config


def fold(model: Vit, how: Preprocessing) -> Vit:
    """Return the network that takes pixels of 0..1: the normalisation goes into its first layer.

    ``w * (x - mean) / std + b == (w / std) * x + (b - sum(w * mean / std))``; a patch has no
    padding, so this is exact but for float rounding.
    """
    weight = model.patch_embed.proj.weight.detach().double()
    scaled = weight / torch.tensor(how.std, dtype=torch.float64)[:, None, None]
    shift = (scaled * torch.tensor(how.mean, dtype=torch.float64)[:, None, None]).sum((1, 2, 3))
    bias = model.patch_embed.proj.bias
    assert bias is not None
    with torch.no_grad():
        model.patch_embed.proj.weight.copy_(scaled)
        bias.copy_(bias.double() - shift)
    return model


def codes(folder: Path, name: str, count: int) -> Tensor:
    """Read pictures as a named network takes them: pixels, uint8 ``[N, channels, H, W]``.

    They are drawn at random, resized and cropped.
    """
    return _codes(folder, models.lookup(name).preprocessing, count)


def _codes(folder: Path, how: Preprocessing, count: int) -> Tensor:
    plain = dataclasses.replace(how, mean=tuple(0.0 for _ in how.mean),
                                std=tuple(1.0 for _ in how.std))
    chosen = Folder.open(folder).choose(count, seed=0)
    batches = [images for images, _ in chosen.batches(plain, 10)]
    return (torch.cat(batches) * 255).round().to(torch.uint8)


def quantized(name: str, config: Config, *, file: Path | None = None,
              calibration: Path | None = None, images: int = 10, seed: int | None = None,
              weight_bits: int | None = None) -> Network:
    """Calibrate a named network for a configuration.

    Parameters
    ----------
    name
        One of `NAMES`.
    file, calibration
        Its state dict, and a folder of class folders with pictures, of which `images` are drawn.
        "mnist" needs neither.
    seed
        Takes random parameters and random pictures instead: cycles and sizes are the same.
    weight_bits
        Width of the weights of all layers; None is the configuration's.

    Raises
    ------
    ValueError
        If there is no such network, a file or folder is missing or can't be used, or the
        configuration can't run it.
    """
    if name not in NAMES:
        raise ValueError(f"the network must be one of {', '.join(NAMES)}, not {name!r}")
    if images < 1:
        raise ValueError(f"images must be at least 1, not {images}")
    if name == MNIST and calibration is None and seed is None:
        return calibrate(checkpoint.load(file or WEIGHTS), mnist.sample().calibration.images,
                         config, weight_bits)
    named = models.lookup("mnist_vit" if name == MNIST else name)
    assert isinstance(named.spec, VitSpec)
    supported(named.spec, config)   # calibration may take minutes
    if seed is not None:
        model = named.build()
        assert isinstance(model, Vit)
        spec, generator = model.spec, torch.Generator().manual_seed(seed)
        size = (2, spec.in_channels, spec.image_size, spec.image_size)
        codes = torch.randint(256, size, generator=generator).to(torch.uint8)
        return calibrate(model.initialize(seed).eval(), codes, config, weight_bits)
    if file is None or calibration is None:
        raise ValueError(f"{name} needs --checkpoint and --calibration, or --random")
    loaded = models.load(named.name, file)
    assert isinstance(loaded, Vit)
    how = named.preprocessing
    return calibrate(fold(loaded, how), _codes(calibration, how, images), config, weight_bits)
