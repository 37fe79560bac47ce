# SPDX-License-Identifier: Apache-2.0
"""Weight widths layer by layer, where what a layer costs is what the hardware pays for it.

Greedy MP of MPTQ-ViT (arXiv 2401.14895; `golden.ptq.mptq_greedy` reconstructs it) lowers the width
of that layer which loses least for a saved parameter bit. Here it is a saved byte on the memory
bus, or a saved cycle of the exact model; and what is lost is the squared error of the integer
network's logits, not that of a simulated one.
"""

__all__ = ["COSTS", "Greedy", "walk"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from explore.stages import Stages
from explore.store import Store
from vitforge.spec.config import Config

#: What may be saved: a column of `explore.workload.cycles`.
COSTS = ("bytes", "cycles")
Widths = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """How to walk.

    Attributes
    ----------
    cost
        One of `COSTS`.
    bits
        Widths that a layer may have, beside the widest.
    points
        Stops on the way, evenly spaced in steps.
    images
        Calibration images by which layers are judged.
    """

    cost: str = "bytes"
    bits: tuple[int, ...] = (6, 4, 3)
    points: int = 6
    images: int = 40

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, not {self.cost!r}")
        if not self.bits or not all(isinstance(bits, int) and 2 <= bits <= 7 for bits in self.bits):
            raise ValueError(f"bits must be widths from 2 to 7, not {list(self.bits)}")
        for name, most in (("points", 1000), ("images", 100)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be 1 to {most}, not {getattr(self, name)}")


def walk(rises: Mapping[str, Mapping[int, float]], saved: Mapping[str, Mapping[int, float]],
         widest: int) -> list[Widths]:
    """Lower one layer a step, the one that loses least for what it saves, until none can be.

    Parameters
    ----------
    rises, saved
        By layer and width: error gained and cost saved when only this layer is narrowed.
    widest
        Width of every layer at the start.

    Returns
    -------
    list of dict
        Widths of all layers after each step. A layer whose narrowing saves nothing stays.
    """
    widths = dict.fromkeys(rises, widest)
    path: list[Widths] = []
    while True:
        steps = []
        for layer, here in widths.items():
            for bits, rise in rises[layer].items():
                gain = saved[layer][bits] - saved[layer].get(here, 0.0)
                if bits < here and gain > 0:
                    loss = rise - rises[layer].get(here, 0.0)
                    steps.append((loss / gain, layer, bits))
        if not steps:
            return path
        _, layer, bits = min(steps)
        widths[layer] = bits
        path.append(dict(widths))


def stops(path: list[Widths], points: int) -> list[Widths]:
    """Choose `points` of a path, the last one included."""
    count = min(points, len(path))
    return [path[(index + 1) * len(path) // count - 1] for index in range(count)]


def greedy(values: Mapping[str, int | str], how: Greedy, store: Store,
           note: Callable[[int, int], object] = lambda done, total: None) -> list[Widths]:
    """Walk for the project's digits on a configuration.

    Every width of every layer is measured by itself and kept, so the walk may be interrupted.
    `note` is called with how many of them are done, and how many there are.

    Raises
    ------
    Failure
        If the configuration can't run the network.
    """
    fields: dict[str, object] = {**values, "name": "greedy"}
    stages = Stages(store)
    config = Config(**fields)  # type: ignore[arg-type]
    layers = stages.layers(config)
    base = stages.narrowed(config, {}, how.images)
    rises: dict[str, dict[int, float]] = {}
    saved: dict[str, dict[int, float]] = {}
    lower = [bits for bits in how.bits if bits < config.weight_bits]
    total = len(layers) * len(lower)
    for number, layer in enumerate(layers):
        found = {}
        for index, bits in enumerate(lower):
            note(number * len(lower) + index, total)
            found[bits] = stages.narrowed(config, {layer: bits}, how.images)
        rises[layer] = {bits: item["error"] - base["error"] for bits, item in found.items()}
        saved[layer] = {bits: base[how.cost] - item[how.cost] for bits, item in found.items()}
    return stops(walk(rises, saved, config.weight_bits), how.points)
