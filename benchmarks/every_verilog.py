# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.networks --every --verilog``: networks on the generated Verilog.

All of a call run on one design, whose memories hold each of them, and go into the record.
"""

__all__ = ["ran", "union"]

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.every import fitted, integers, shape, suited
from benchmarks.every_record import BLOCK, Ran, block
from sim.accelerator.check import check
from vitforge.spec.config import Config

_LARGEST = ("max_keys", "max_channels", "max_tokens", "table_tokens", "stream_tokens",
            "scratch_words", "residual_words", "stationary_words")


def union(configs: Iterable[Config]) -> Config:
    """Return an array with memories that hold what each of several holds, and the fewest lanes."""
    found = list(configs)
    return dataclasses.replace(
        found[0], lanes=min(item.lanes for item in found),
        **{name: max(getattr(item, name) for item in found) for name in _LARGEST})


def ran(names: Sequence[str], part: str, config: Config, command: str, directory: Path,
        ) -> Iterator[Ran]:
    """Run networks of random parameters on one random picture each.

    Raises
    ------
    ValueError
        If one does not compile, or has no such part.
    SimulationError
        If a byte or a counter differs.
    """
    specs = [block(shape(name)) if part == BLOCK else shape(name) for name in names]
    configs = [suited(spec, config) for spec in specs]
    made = [integers(spec, one) for spec, one in zip(specs, configs, strict=True)]
    common = union(fitted(network, one).config
                   for (network, _), one in zip(made, configs, strict=True))
    for name, (network, picture) in zip(names, made, strict=True):
        found = check(dataclasses.replace(network, config=common), picture, directory=directory)
        yield Ran(network=name, part=part, array=f"{config.rows}x{config.cols}",
                  cycles=found.counters[0]["cycles"], command=command)
