# SPDX-License-Identifier: Apache-2.0
"""Cases with the tensors of a real image: what the integer network hands to each unit.

The network is calibrated for the configuration at hand, so that its integers fit its widths.
"""

__all__ = ["IMAGES", "all_cases", "image_calls", "image_cases"]

import functools
import importlib
from collections.abc import Iterator
from typing import Any

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

#: Images that the project ships for this.
IMAGES = 300


@functools.cache
def image_calls(config: Config, index: int) -> tuple[Call, ...]:
    """Return every use of a unit on the shipped test image `index`, in order.

    Raises
    ------
    ValueError
        If there is no such image, or the configuration can't run the network.
    """
    if not 0 <= index < IMAGES:
        raise ValueError(f"the image must be one of 0 to {IMAGES - 1}, not {index}")
    sample = mnist.sample()
    integers = calibrate(checkpoint.load(WEIGHTS), sample.calibration.images, config)
    calls: list[Call] = []
    network.run(integers, sample.test.images[index:index + 1], record=calls.append)
    return tuple(calls)


def _first(value: Any) -> Any:
    """Take the first image, and the first head, of a tensor: a matrix is left."""
    while isinstance(value, Tensor) and value.ndim > 2:
        value = value[0]
    return value


def image_cases(unit: str, config: Config, index: int = 0) -> Iterator[Case]:
    """Cases of `unit` with the tensors of a shipped image; none where `config` can't run it."""
    try:
        calls = image_calls(config, index)
    except ValueError:
        return
    module = importlib.import_module(f"sim.{unit}")
    for call in calls:
        if call.unit == unit and call.name in CALLS[unit]:
            inputs = {name: _first(value) for name, value in call.inputs.items()}
            case = module.image_case(inputs, config)
            case.name = f"image {index}, {call.name}"
            yield case


def all_cases(unit: str, config: Config, seed: int, image: int = 0) -> list[Case]:
    """Return the cases of a unit's bench: the made ones, then those of a real image."""
    module = importlib.import_module(f"sim.{unit}")
    return [*module.cases(config, seed), *image_cases(unit, config, image)]
