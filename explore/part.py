# SPDX-License-Identifier: Apache-2.0
"""Verilog of a part of the accelerator that is no unit of its own, to see what it costs."""

__all__ = ["part"]

import importlib
from typing import Any

from gen.convert import convert
from vitforge.spec.config import Config


def part(module: str, name: str, top: str, config: Config) -> str:
    """Return the Verilog of a component `name` of a module, with a top module `top`."""
    component: Any = getattr(importlib.import_module(module), name)(config)
    return convert(component, top)
