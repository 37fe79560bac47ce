# SPDX-License-Identifier: Apache-2.0
"""``--method examples.own_method.mean_range:MeanRange``: a method in forty lines."""

__all__ = ["MeanRange", "MeanRangeSettings"]

from dataclasses import dataclass, field
from typing import ClassVar

from golden.ptq.formats import TensorFormat
from golden.ptq.method import Method, Settings, weight_formats
from golden.ptq.ranges import affine
from golden.ptq.record import Record
from golden.ptq.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class MeanRangeSettings(Settings):
    """Widths, and ``margin``: ranges are so much wider than the mean of the batches'."""

    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.margin <= 4:
            raise ValueError(f"margin must be above 0, 4 at most, not {self.margin}")


@dataclass(frozen=True)
class MeanRange(Method):
    """Activations uniform over the mean of the batches' ranges, weights per output channel.

    One batch with an outlier widens a range less than it does in min-max, and is clipped.
    """

    name: ClassVar[str] = "mean-range"
    settings: MeanRangeSettings = field(default_factory=MeanRangeSettings)

    def decide(self, statistics: Statistics) -> Record:
        found: dict[str, TensorFormat] = {}
        for site in statistics.sites:
            if bits := self.settings.bits(site.role):
                seen = statistics.observed[site.name]
                low, high = (self.settings.margin * float(ends.mean())
                             for ends in (seen.low, seen.high))
                found[site.name] = affine(low, high, bits)
        return self.record(found | weight_formats(statistics.model, self.settings.weights))
