# SPDX-License-Identifier: Apache-2.0
"""Latencies of the accelerator's engines, asked of the gateware itself."""

__all__ = ["Timing"]

import gc
import warnings
from dataclasses import dataclass
from typing import Self

from amaranth.hdl import UnusedElaboratable

from hw.config import Config
from hw.core import Core


@dataclass(frozen=True)
class Timing:
    """Constants of the gateware, in cycles.

    Attributes
    ----------
    depth
        Steps from a word's issue by the feeder to its offer to the array.
    sums
        From a word taken by the array to its sums.
    early
        Groups that a drain has left when it releases its accumulators.
    landed
        From a drain's last group to the pulse that all it wrote is there.
    revisit
        Between the starts of two drains with statistics, at least.
    """

    depth: int
    sums: int
    early: int
    landed: int
    revisit: int

    #: From a pass's last sums to the pulse that they are in the accumulators.
    collect = 4
    #: From a drain's start to its first group.
    first_group = 1

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return those of the core of a configuration."""
        with warnings.catch_warnings():
            # It is only asked.
            warnings.simplefilter("ignore", UnusedElaboratable)
            core = Core(config)
            found = cls(depth=core.depth, sums=core.array.latency, early=core.drain.early,
                        landed=core.drain.latency, revisit=core.drain.revisit)
            del core
            gc.collect()
        return found
