# SPDX-License-Identifier: Apache-2.0
"""How pictures become the input of a network: by its name, its shape, and options."""

__all__ = ["chosen", "dump", "of_text", "one_deviation", "usual"]

import argparse
import copy
import dataclasses
import json

import torch

from golden.float import models
from golden.float.models import Preprocessing
from golden.float.preprocessing_options import ANY
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec


def usual(spec: VitSpec | SwinSpec, name: str) -> Preprocessing:
    """Return the preprocessing of a named network, of any other DeiT's, for a shape.

    With one channel, unless the named network has one too, pixels of 0..1 are the input.

    Raises
    ------
    ValueError
        If pictures don't have that many channels.
    """
    if spec.in_channels not in (1, 3):
        raise ValueError(f"pictures have 1 or 3 channels, not the network's {spec.in_channels}")
    how = models.IMAGENET if name == ANY else models.lookup(name).preprocessing
    if len(how.mean) != spec.in_channels:
        how = models.DIGITS if spec.in_channels == 1 else models.IMAGENET
    return dataclasses.replace(how, size=spec.image_size)


def chosen(args: argparse.Namespace, how: Preprocessing) -> Preprocessing:
    """Return a preprocessing with what `golden.float.preprocessing_options` change.

    Raises
    ------
    ValueError
        The message names the option.
    """
    changes: dict[str, object] = {}
    for name in ("mean", "std"):
        values = getattr(args, name)
        if values is None:
            continue
        if len(values) not in (1, len(how.mean)):
            raise ValueError(f"--{name} must have one value, or one for each of the "
                             f"{len(how.mean)} channels, not {len(values)}")
        changes[name] = values if len(values) > 1 else values * len(how.mean)
    if args.std is not None and min(args.std) <= 0:
        raise ValueError(f"--std must be above 0, not {min(args.std)}")
    if args.crop is not None:
        if not 0 < args.crop <= 1:
            raise ValueError(f"--crop must be above 0 and at most 1, not {args.crop}")
        changes["crop"] = args.crop
    if args.interpolation is not None:
        changes["interpolation"] = args.interpolation
    return dataclasses.replace(how, **changes)   # type: ignore[arg-type]


def one_deviation(model: Vit | Swin, how: Preprocessing) -> tuple[Vit | Swin, Preprocessing]:
    """Return a network for pictures whose channels are all divided by the mean of their deviations.

    It computes the same: the weights of its first layer make up for the difference, and are
    quantized with it. An integer network reads pictures as bytes, of one step for all channels;
    what deviations differ by can't go into weights of few bits afterwards.
    """
    if len(set(how.std)) == 1:
        return model, how
    std = torch.tensor(how.std, dtype=torch.float64)
    mean = float(std.mean())
    changed = copy.deepcopy(model)
    weight = changed.patch_embed.proj.weight
    with torch.no_grad():
        weight.copy_(weight.double() * (mean / std)[:, None, None])
    return changed, dataclasses.replace(how, std=(mean,) * len(std))


def dump(how: Preprocessing) -> str:
    """Return a preprocessing as JSON."""
    return json.dumps(dataclasses.asdict(how))


def of_text(text: str) -> Preprocessing:
    """Read what `dump` made.

    Raises
    ------
    ValueError
        If it is something else.
    """
    try:
        values = json.loads(text)
        return Preprocessing(**values | {name: tuple(values[name]) for name in ("mean", "std")})
    except (TypeError, KeyError) as error:
        raise ValueError(f"no preprocessing ({error}): {text!r}") from None
