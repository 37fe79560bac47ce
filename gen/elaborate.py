# SPDX-License-Identifier: Apache-2.0
"""From a unit and a configuration to Verilog text, the same bytes on every machine."""

__all__ = ["generate"]

import os

from amaranth.back import verilog

from hw.config import Config
from hw.units import create


def generate(unit: str, config: Config) -> str:
    """Return the Verilog of a unit; its top module has the name of the unit.

    The text depends on the unit, the configuration and the versions of Amaranth and of its Yosys
    alone: the Yosys that comes with Amaranth is used even where the system has another.
    """
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    return verilog.convert(create(unit, config), name=unit, emit_src=False,
                           strip_internal_attrs=True)
