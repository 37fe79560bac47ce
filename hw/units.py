# SPDX-License-Identifier: Apache-2.0
"""What can be generated: the accelerator, and its units on their own, by their name."""

__all__ = ["DESIGNS", "UNITS", "create", "words"]

import importlib
from typing import Any

from vitforge.spec.config import Config
from vitforge.spec.words import Word

#: Name on the command line, and in every room, to the module and the class of the component.
UNITS = {
    "systolic": ("hw.array.systolic", "SystolicArray"),
    "softmax": ("hw.softmax.unit", "LogSoftmax"),
    "requant": ("hw.requant.unit", "Requantizer"),
    "layernorm": ("hw.layernorm.unit", "LayerNorm"),
}
#: The same with the whole accelerator, which has no streams but two buses.
DESIGNS = {"accelerator": ("hw.accelerator", "Accelerator"), **UNITS}


def _component(unit: str) -> Any:
    if unit not in DESIGNS:
        raise ValueError(f"no unit {unit!r}: give one of {', '.join(DESIGNS)}")
    module, name = DESIGNS[unit]
    return getattr(importlib.import_module(module), name)


def create(unit: str, config: Config) -> Any:
    """Construct a component of `DESIGNS`; a unit has a `latency`."""
    return _component(unit)(config)


def words(unit: str, config: Config) -> dict[str, Word]:
    """Return the word of every stream of a design, by port name."""
    return _component(unit).words(config) if unit in UNITS else {}
