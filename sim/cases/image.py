# SPDX-License-Identifier: Apache-2.0
"""Cases with the tensors of a real image: what the integer network hands to each unit.

The network is calibrated for the configuration at hand, so that its integers fit its widths.
"""

__all__ = ["all_cases", "image_calls", "image_cases"]

import functools
import importlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.data.mnist_inputs import read_image
from golden.float import checkpoint
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.inference import Call
from golden.network.integers import Network
from sim.cases.case import Case
from vitforge.spec.config import Config
from vitforge.spec.elements import Element

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


@functools.cache
def _network(config: Config) -> Network:
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
    inference.run(_network(config), read_image(image), record=calls.append)
    return tuple(calls)


def _first(value: Any) -> Any:
    """Take the first image, and the first head, of a tensor: a matrix is left."""
    while isinstance(value, Tensor) and value.ndim > 2:
        value = value[0]
    return value


def image_cases(unit: str, config: Config, image: str = "0") -> Iterator[Case]:
    """Cases of `unit` with the tensors of an image; none where `config` can't run the network."""
    if unit == "systolic" and not Element(config).single:
        return      # the image's weights are single ones
    try:
        _network(config)
    except ValueError:
        return
    calls = image_calls(config, image)
    module = importlib.import_module(f"sim.cases.{unit}")
    for call in calls:
        if call.unit == unit and call.name in CALLS[unit]:
            inputs = {name: _first(value) for name, value in call.inputs.items()}
            case = module.image_case(inputs, config)
            case.name = f"image {image}, {call.name}"
            yield case


def all_cases(unit: str, config: Config, seed: int, image: str = "0") -> list[Case]:
    """Return the cases of a unit's bench: the made ones, then those of a real image."""
    module = importlib.import_module(f"sim.cases.{unit}")
    return [*module.cases(config, seed), *image_cases(unit, config, image)]
