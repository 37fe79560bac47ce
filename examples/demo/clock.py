# SPDX-License-Identifier: Apache-2.0
"""Clocks that were measured, for times of a run."""

__all__ = ["MEASURED", "PART", "measured"]

from vitforge.spec.config import Config, load

#: MHz of accelerators as presets, placed and routed by
#: ``python -m gen.synth --unit accelerator --config NAME --place``; docs/measurements.md has how.
MEASURED = {"edge8": 108.1}
PART = "an LFE5U-85F of speed grade 6, the slowest"


def measured(config: Config) -> float | None:
    """Return the clock of a configuration, in MHz, or None if nobody measured it."""
    return MEASURED.get(config.name) if config.name in MEASURED and config == load(config.name) \
        else None
