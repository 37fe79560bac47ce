# SPDX-License-Identifier: Apache-2.0
"""What is proved of each design, a function a design from a configuration to its checker."""

__all__ = ["DESIGNS"]

from collections.abc import Callable, Mapping

from formal.checker import Checker
from formal.designs import axi_lite, bus, lib, reader, runs, units, writer
from vitforge.spec.config import Config

_ROOMS = (lib, bus, axi_lite, reader, writer, runs, units)
DESIGNS: Mapping[str, Callable[[Config], Checker]] = {
    name: build for room in _ROOMS for name, build in room.DESIGNS.items()}
