# SPDX-License-Identifier: Apache-2.0
"""MPTQ-ViT: smoothing with a bias, searched ratios, mixed precision (arXiv 2401.14895).

A reconstruction: the paper's equations and code were not available. Its abstract puts three things
on top of TSPTQ-ViT, whose reconstruction (`golden.ptq.tsptq`) this one extends:

- SQ-b, SmoothQuant with a bias term, at LayerNorm outputs: `golden.ptq.mptq_smooth`;
- OPT-m, a ratio of the two scales after GeLU that the data decide instead of a hand-crafted one:
  here the m of the least Hessian-weighted error, with the scale of the small region on TSPTQ's
  linear grid; m = 0 is one scale, and therefore the uniform format;
- Greedy MP, widths layer by layer: `golden.ptq.mptq_greedy`. The widths it finds are those of the
  record's formats (`golden.ptq.widths` has them as a table).
"""

__all__ = ["Mptq", "MptqSettings", "MptqStatistics"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.formats import TensorFormat
from golden.ptq.mptq_greedy import Unit, allocate, mixed, units
from golden.ptq.mptq_smooth import smooth
from golden.ptq.record import Record
from golden.ptq.sites import layers
from golden.ptq.statistics import Observed, Statistics
from golden.ptq.tsptq import Tsptq, TsptqSettings

Bars = Callable[[str, int], Callable[[int], object]]


@dataclass(frozen=True, kw_only=True)
class MptqSettings(TsptqSettings):
    """Options of MPTQ-ViT beside TSPTQ-ViT's; all defaults are reconstructions.

    Attributes
    ----------
    smooth
        False: no SQ-b.
    bias
        False: plain SmoothQuant, without the bias term.
    alphas
        Migration strengths that SQ-b tries, 0 to 1; SmoothQuant's is 0.5.
    optimal_m
        False: after GeLU, m is `fixed_m`.
    fixed_m
        A hand-crafted log2 of the ratio, 1 to `largest_m`.
    target
        Mean width that Greedy MP lowers weights and operands to, 0 for single precision. It
        starts from `weights` and `activations`.
    least_bits
        The narrowest width it gives.
    joint
        False: a layer's weights and activations get widths of their own.
    rounds
        How often it measures how much each narrower layer costs.
    """

    smooth: bool = True
    bias: bool = True
    alphas: tuple[float, ...] = (0.5,)
    optimal_m: bool = True
    fixed_m: int = 3
    target: float = 0.0
    least_bits: int = 4
    joint: bool = True
    rounds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            raise ValueError(f"alphas must be numbers from 0 to 1, not {self.alphas!r}")
        if not isinstance(self.fixed_m, int) or not 1 <= self.fixed_m <= self.largest_m:
            raise ValueError(f"fixed_m must be 1 to largest_m ({self.largest_m}), "
                             f"not {self.fixed_m!r}")
        if not isinstance(self.least_bits, int) or not 3 <= self.least_bits <= 8:
            raise ValueError(f"least_bits must be 3 to 8, not {self.least_bits!r}")
        if self.target and not self.least_bits <= self.target <= 8:
            raise ValueError(f"target must be 0, or least_bits ({self.least_bits}) to 8, "
                             f"not {self.target}")
        if not isinstance(self.rounds, int) or self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {self.rounds!r}")


@dataclass(frozen=True, eq=False)
class MptqStatistics(Statistics):
    """Statistics, and the images that Greedy MP judges widths by."""

    images: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Mptq(Tsptq):
    """SQ-b, OPT-m and Greedy MP on top of TSPTQ-ViT's two scales and search."""

    name: ClassVar[str] = "mptq-vit"
    settings: MptqSettings = field(default_factory=MptqSettings)

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> MptqStatistics:
        images = tuple(batch for batch in batches if len(batch))
        found = super().observe(model, images, advance)
        return MptqStatistics(found.model, found.sites, found.observed, found.importance,
                              found.class_token, images)

    def decide(self, statistics: Statistics) -> Record:
        return self.decide_visibly(statistics)

    def decide_visibly(self, statistics: Statistics,
                       bars: Bars = lambda text, total: lambda done: None) -> Record:
        settings = self.settings
        images = statistics.images if isinstance(statistics, MptqStatistics) else ()
        if settings.target and not images:
            raise ValueError("Greedy MP needs statistics that this method has observed")
        moved, changed = statistics, dict[str, Tensor]()
        if settings.smooth:
            moved, changed = smooth(statistics, (settings.weights, settings.activations),
                                    settings.alphas, settings.bias)
        single = dict(super().decide(moved).formats)
        if not settings.target:
            return self.record(single, parameters=changed)
        found = units(moved.model, settings.joint)
        menu = self._menu(moved, found, single, bars)
        operands = {name for unit in found for name in unit.tensors}
        fixed = {name: item for name, item in single.items() if name not in operands}
        steps = settings.rounds * sum(len(choices) - 1 for choices in menu.values())
        widths = allocate(moved.model, images, found, menu, fixed, settings.target,
                          settings.rounds, bars("greedy widths", steps))
        return self.record(single | mixed(menu, widths), parameters=changed)

    def _menu(self, statistics: Statistics, found: tuple[Unit, ...],
              single: dict[str, TensorFormat], bars: Bars,
              ) -> dict[str, dict[int, dict[str, TensorFormat]]]:
        """Search the formats of every unit at every width that Greedy MP may give it."""
        roles = {site.name: site for site in statistics.sites}
        weights = {f"{layer}.weight": layer for layer in layers(statistics.model)}
        menu: dict[str, dict[int, dict[str, TensorFormat]]] = {}
        advance = bars("formats of all widths", len(found))
        for unit in found:
            formats = {name: single[name] for name in unit.tensors}
            widest = max(item.bits for item in formats.values())
            menu[unit.name] = {widest: formats}
            for bits in range(widest - 1, self.settings.least_bits - 1, -1):
                # What is as narrow already, by a setting of its own, stays.
                formats = {
                    name: item if item.bits <= bits
                    else self.weight(statistics, weights[name], bits) if name in weights
                    else self.activation(statistics, roles[name], bits)
                    for name, item in formats.items()}
                menu[unit.name][bits] = formats
            advance(1)
        return menu

    def _candidates(self, role: str, seen: Observed, rows: Tensor,
                    bits: int) -> list[TensorFormat]:
        found = super()._candidates(role, seen, rows, bits)
        if role != "gelu" or not self.settings.value_scales:
            return found
        if not self.settings.optimal_m:
            return [item for item in found if item.m == self.settings.fixed_m]
        return super()._candidates("uniform", seen, rows, bits) + found
