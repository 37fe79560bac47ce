# SPDX-License-Identifier: Apache-2.0
"""Plain min-max quantization: what every other method is measured against."""

__all__ = ["MinMax"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.formats import TensorFormat
from golden.ptq.method import Method, Settings, weight_formats
from golden.ptq.ranges import affine, observed_range
from golden.ptq.record import Record
from golden.ptq.statistics import Statistics, collect


@dataclass(frozen=True)
class MinMax(Method):
    """Every tensor asymmetric uniform over its whole observed range; weights per output channel."""

    name: ClassVar[str] = "minmax"
    settings: Settings = field(default_factory=Settings)

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        # Of what stays in floating point here, the integer network finds formats by its rows.
        floating = () if self.settings.stream else ("stream", "scores")
        return collect(model, batches, kept=floating, advance=advance)

    def decide(self, statistics: Statistics) -> Record:
        found: dict[str, TensorFormat] = {}
        for site in statistics.sites:
            if bits := self.settings.bits(site.role):
                seen = statistics.observed[site.name]
                found[site.name] = affine(*observed_range(seen, "minmax", bits), bits)
        return self.record(found | weight_formats(statistics.model, self.settings.weights))
