# SPDX-License-Identifier: Apache-2.0
"""Cases with the tensors of a real image: what the integer network hands to each unit.

The network is calibrated for the configuration at hand, so that its integers fit its widths.
"""

__all__ = ["all_cases", "image_calls", "image_cases", "read_image"]

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import checkpoint, mnist, network
from golden.calibrate import calibrate
from golden.evaluate import WEIGHTS
from golden.network import Call
from hw.config import Config
from sim.case import Case

#: The calls of every unit that are replayed: every operand format, operation and encoding of the
#: network is among them.
CALLS = {
    "systolic": ("patch_embed.proj", "blocks.0.attn.qkv", "blocks.0.attn.scores",
                 "blocks.0.attn.context", "blocks.0.mlp.fc2"),
    "softmax": ("blocks.0.attn.softmax", "blocks.3.attn.softmax"),
    "requant": ("embedding", "blocks.0.attn.qkv", "blocks.0.attn.scores", "blocks.0.mlp.fc1",
                "blocks.0.residual2"),
    "layernorm": ("blocks.0.norm1", "blocks.3.norm2", "norm"),
}


def read_image(source: str) -> Tensor:
    """Return an image as uint8 ``[1, H, W]``: a shipped one by its number, or a ``.npy`` file's.

    Raises
    ------
    ValueError
        If there is no such image or file, or the file holds something else.
    """
    test = mnist.sample().test
    if source.isdecimal():
        if int(source) >= len(test):
            raise ValueError(f"the image must be one of 0 to {len(test) - 1}, not {source}")
        return test.images[int(source):int(source) + 1]
    try:
        array = np.load(source, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"can't read the image {source}: {error.strerror or error}") from None
    except (ValueError, EOFError):
        raise ValueError(f"{source} is not a .npy file of numbers") from None
    if array.dtype != np.uint8 or array.ndim != 2:
        raise ValueError(f"{source} must be a grey image of uint8, [height, width], not "
                         f"{array.dtype} of shape {list(array.shape)}")
    return torch.from_numpy(array)[None]


@functools.cache
def _network(config: Config) -> network.Network:
    return calibrate(checkpoint.load(WEIGHTS), mnist.sample().calibration.images, config)


@functools.cache
def image_calls(config: Config, image: str) -> tuple[Call, ...]:
    """Return every use of a unit on one image (see `read_image`), in order.

    Raises
    ------
    ValueError
        If the image can't be had or has the wrong size, or `config` can't run the network.
    """
    calls: list[Call] = []
    network.run(_network(config), read_image(image), record=calls.append)
    return tuple(calls)


def _first(value: Any) -> Any:
    """Take the first image, and the first head, of a tensor: a matrix is left."""
    while isinstance(value, Tensor) and value.ndim > 2:
        value = value[0]
    return value


def image_cases(unit: str, config: Config, image: str = "0") -> Iterator[Case]:
    """Cases of `unit` with the tensors of an image; none where `config` can't run the network."""
    try:
        _network(config)
    except ValueError:
        return
    calls = image_calls(config, image)
    module = importlib.import_module(f"sim.{unit}")
    for call in calls:
        if call.unit == unit and call.name in CALLS[unit]:
            inputs = {name: _first(value) for name, value in call.inputs.items()}
            case = module.image_case(inputs, config)
            case.name = f"image {image}, {call.name}"
            yield case


def all_cases(unit: str, config: Config, seed: int, image: str = "0") -> list[Case]:
    """Return the cases of a unit's bench: the made ones, then those of a real image."""
    module = importlib.import_module(f"sim.{unit}")
    return [*module.cases(config, seed), *image_cases(unit, config, image)]
