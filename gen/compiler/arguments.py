# SPDX-License-Identifier: Apache-2.0
"""What the options of `gen.compiler.options` name: a network, its configuration, its pictures."""

__all__ = ["configuration", "network", "pictures"]

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from gen.compiler.model import Reading, codes, quantized
from gen.compiler.options import MNIST, NAMES
from gen.compiler.stored import is_file, stored
from golden.data import mnist
from golden.data.mnist_inputs import read_image
from golden.float.models import Preprocessing
from golden.float.preprocessing import chosen, of_text, usual
from golden.float.preprocessing_options import ANY
from golden.network import file as network_file
from golden.network.integers import Network
from golden.network.topology import Spec
from vitforge.spec.config import Config, load
from vitforge.spec.formats import CODE_BITS


def _stored(args: argparse.Namespace) -> bool:
    return args.model not in (*NAMES, ANY) and is_file(args.model)


def _refuse(args: argparse.Namespace, names: Iterable[str], why: str) -> None:
    for name in names:
        if (given := getattr(args, name)) is not None and given is not False:
            raise ValueError(f"--{name.replace('_', '-')} does not go with {why}")


def configuration(args: argparse.Namespace) -> Config:
    """Return the configuration that the options name, or that of a network from a file."""
    if args.config is None and _stored(args):
        return network_file.load(args.model).config
    return load(args.config or "edge16")


def network(args: argparse.Namespace, config: Config,
            suit: Callable[[Spec, Config], Config] = lambda spec, config: config) -> Network:
    """Return the integer network that the options name.

    Parameters
    ----------
    suit
        Gives the configuration for a network that is still to be quantized.

    Raises
    ------
    ValueError
        If there is none, or an option does not go with it.
    """
    if _stored(args):
        _refuse(args, ("checkpoint", "calibration", "random", "weights", "activations", "heads",
                       "token", "quick_gelu", "mean", "std"), f"{args.model}: it is quantized")
        return stored(Path(args.model), config)
    if args.checkpoint is None:
        _refuse(args, ("heads", "token", "quick_gelu", "mean", "std"),
                f"{args.model} without --checkpoint")
    return quantized(args.model, config, file=args.checkpoint, calibration=args.calibration,
                     images=args.images, seed=args.random, weight_bits=args.weights,
                     activation_bits=CODE_BITS if args.activations is None else args.activations,
                     reading=Reading(heads=args.heads, token=args.token, quick=args.quick_gelu,
                                     how=lambda how: chosen(args, how), suit=suit,
                                     say=lambda text: print(text, file=sys.stderr)))


def _name(args: argparse.Namespace) -> str:
    """Name of the network."""
    return network_file.about(args.model)["model"] if _stored(args) else str(args.model)


def _how(args: argparse.Namespace, spec: Spec) -> Preprocessing:
    """How pictures are read: as they were for calibration, unless options say otherwise."""
    about = network_file.about(args.model) if _stored(args) else {}
    name = _name(args)
    return chosen(args, of_text(about["preprocessing"]) if "preprocessing" in about
                  else usual(spec, "mnist_vit" if name == MNIST else name))


def pictures(args: argparse.Namespace, spec: Spec, count: int) -> Tensor:
    """Return `count` inputs, uint8 ``[N, channels, H, W]`` or ``[N, H, W]``.

    Raises
    ------
    ValueError
        If there are less, or `count` is none.
    """
    if count < 1:
        raise ValueError(f"the number of inputs must be at least 1, not {count}")
    if args.image is not None:
        found = read_image(args.image)
    elif args.pictures is not None:
        found = codes(args.pictures, _how(args, spec), count)
    elif _name(args) in (MNIST, "mnist_vit") and args.random is None:
        found = mnist.sample().test.images[:count]
    else:
        shape = (count, spec.in_channels, spec.image_size, spec.image_size)
        generator = torch.Generator().manual_seed(args.random or 0)
        found = torch.randint(256, shape, generator=generator).to(torch.uint8)
    if len(found) < count:
        raise ValueError(f"there are {len(found)} inputs, not {count}")
    return found
