# SPDX-License-Identifier: Apache-2.0
"""The integer network that a command names: the project's own, a checkpoint's, or a random one."""

__all__ = ["Reading", "codes", "fold", "quantized"]

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from gen.compiler.compile import supported
from gen.compiler.options import MNIST, NAMES
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.data.imagenet import Folder
from golden.float import checkpoint, models
from golden.float.models import Preprocessing
from golden.float.preprocessing import usual
from golden.float.preprocessing_options import ANY
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit
from golden.graph.opened import open_network
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from golden.network.topology import Spec
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS

Net = TypeVar("Net", Vit, Swin, Vit | Swin)


def fold(model: Net, how: Preprocessing) -> Net:
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


def codes(folder: Path, how: Preprocessing, count: int) -> Tensor:
    """Read pictures as a network takes them: pixels, uint8 ``[N, channels, H, W]``.

    They are drawn at random, resized and cropped, and not normalised.
    """
    plain = dataclasses.replace(how, mean=tuple(0.0 for _ in how.mean),
                                std=tuple(1.0 for _ in how.std))
    chosen = Folder.open(folder).choose(count, seed=0)
    batches = [images for images, _ in chosen.batches(plain, 10)]
    return (torch.cat(batches) * 255).round().to(torch.uint8)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a checkpoint and its pictures do not say.

    Attributes
    ----------
    heads, token, quick
        Number of heads, a distilled DeiT's token, and whether there is QuickGELU
        (`golden.graph.opened.open_network`).
    how
        Changes the usual preprocessing.
    suit
        Gives the configuration for a shape.
    say
        Is told the shape that was found in a file.
    """

    heads: int | None = None
    token: str | None = None
    quick: bool = False
    how: Callable[[Preprocessing], Preprocessing] = lambda usual: usual
    suit: Callable[[Spec, Config], Config] = lambda spec, config: config
    say: Callable[[str], object] = lambda text: None


_AS_NAMED = Reading()


def quantized(name: str, config: Config, *, file: Path | None = None,
              calibration: Path | None = None, images: int = 10, seed: int | None = None,
              weight_bits: int | None = None, gelu: str | None = None,
              activation_bits: int = CODE_BITS, reading: Reading = _AS_NAMED) -> Network:
    """Calibrate a named network, or any from a file, for a configuration.

    Parameters
    ----------
    name
        One of `NAMES`, or `golden.float.shape.ANY`.
    file, calibration
        Its state dict, and a folder of class folders with pictures, of which `images` are drawn.
        "mnist" needs neither.
    reading
        How the state dict and the pictures are read.
    seed
        Takes random parameters and random pictures instead: cycles and sizes are the same.
    weight_bits
        Width of the weights of all layers; None is the configuration's.
    gelu, activation_bits
        Codes of GeLU's result, and the width of uniform codes (`golden.network.calibrate`).

    Raises
    ------
    ValueError
        If there is no such network, a file or folder is missing or can't be used, or the
        configuration can't run it.
    """
    if name not in (*NAMES, ANY):
        if "distilled" in name:
            models.lookup(name)
        raise ValueError(f"the network must be one of {', '.join(NAMES)}, or {ANY}, not {name!r}")
    if images < 1:
        raise ValueError(f"images must be at least 1, not {images}")
    if name == MNIST and calibration is None and seed is None:
        digits = checkpoint.load(file or WEIGHTS)
        config = reading.suit(digits.spec, config)
        supported(digits.spec, config)
        return calibrate(digits, mnist.sample().calibration.images, config, weight_bits,
                         gelu=gelu, activation_bits=activation_bits)
    name = "mnist_vit" if name == MNIST else name
    if seed is not None and name != ANY:
        model = models.lookup(name).build()
        config = reading.suit(spec := model.spec, config)
        supported(spec, config)
        size = (2, spec.in_channels, spec.image_size, spec.image_size)
        noise = torch.randint(256, size, generator=torch.Generator().manual_seed(seed))
        return calibrate(model.initialize(seed).eval(), noise.to(torch.uint8), config, weight_bits,
                         gelu=gelu, activation_bits=activation_bits)
    if file is None or calibration is None or seed is not None:
        raise ValueError(f"{name} needs --checkpoint and --calibration"
                         + ("" if name == ANY else ", or --random"))
    if name != ANY and isinstance((spec := models.lookup(name).spec), SwinSpec):
        if reading.heads is not None:
            raise ValueError(f"--heads does not go with {name}, whose shape goes by its name")
        config = reading.suit(spec, config)
        supported(spec, config)
        how = reading.how(usual(spec, name))
        return calibrate(fold(models.load(name, file), how), codes(calibration, how, images),
                         config, weight_bits, gelu=gelu)
    found = open_network(file, name, reading.heads, reading.token, reading.quick)
    if name == ANY:
        reading.say(f"{file}: {found}")
    config = reading.suit(found.model.spec, config)
    supported(found.model.spec, config)   # calibration may take minutes
    how = reading.how(usual(found.model.spec, name))
    return calibrate(fold(found.model, how), codes(calibration, how, images), config,
                     weight_bits, gelu=gelu, activation_bits=activation_bits)
