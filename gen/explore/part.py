# SPDX-License-Identifier: Apache-2.0
"""Verilog of a part of the accelerator that is no unit of its own, to see what it costs."""

__all__ = ["part"]

import importlib
import os
from typing import Any

from amaranth.back import verilog

from hw.config import Config


def part(module: str, name: str, top: str, config: Config) -> str:
    """Return the Verilog of a component `name` of a module, with a top module `top`."""
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    component: Any = getattr(importlib.import_module(module), name)(config)
    return verilog.convert(component, name=top, emit_src=False, strip_internal_attrs=True)
