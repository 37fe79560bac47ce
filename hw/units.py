# SPDX-License-Identifier: Apache-2.0
"""The units that can be generated and simulated on their own, by their name."""

__all__ = ["UNITS", "create", "words"]

import importlib
from typing import Any

from hw.config import Config
from hw.words import Word

#: Name on the command line, and in every room, to the component's class in ``hw/<name>.py``.
UNITS = {
    "systolic": "SystolicArray",
    "softmax": "LogSoftmax",
    "requant": "Requantizer",
    "layernorm": "LayerNorm",
}


def _component(unit: str) -> Any:
    if unit not in UNITS:
        raise ValueError(f"no unit {unit!r}: give one of {', '.join(UNITS)}")
    return getattr(importlib.import_module(f"hw.{unit}"), UNITS[unit])


def create(unit: str, config: Config) -> Any:
    """Construct the component of a unit: a `wiring.Component` with a `latency`."""
    return _component(unit)(config)


def words(unit: str, config: Config) -> dict[str, Word]:
    """Return the word of every stream of a unit, by port name."""
    return _component(unit).words(config)
