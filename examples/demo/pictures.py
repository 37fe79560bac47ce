# SPDX-License-Identifier: Apache-2.0
"""The pictures of the demo's page, as SVG text."""

__all__ = ["digit", "logits", "timeline"]

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from sim.cases.trace import Cycle
from vitforge.base.svg import text

INK, MOVE, WAIT = "#1f2933", "#2a9d8f", "#e9c46a"


def digit(image: npt.NDArray[np.uint8]) -> str:
    """Draw a grey image, `[height, width]`."""
    figure = Figure(figsize=(2.4, 2.4))
    axes = figure.add_subplot()
    axes.imshow(image, cmap="gray_r", interpolation="nearest")
    axes.set_axis_off()
    return text(figure)


def logits(exact: Sequence[float], integer: Sequence[float]) -> str:
    """Draw the float network's and the integer network's logits of every class as bars."""
    figure = Figure(figsize=(5.2, 2.4))
    axes = figure.add_subplot()
    place = np.arange(len(exact))
    axes.bar(place - 0.2, exact, 0.4, label="float", color="#8d99ae")
    axes.bar(place + 0.2, integer, 0.4, label="integer", color=MOVE)
    axes.set_xticks(place)
    axes.set_xlabel("class")
    axes.set_ylabel("logit")
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return text(figure)


def timeline(cycles: Sequence[Cycle]) -> str:
    """Draw what every stream of a unit does in each cycle: a word moves, or waits, or nothing."""
    streams = {name: [(cycle.offer[name], cycle.ready[name]) for cycle in cycles]
               for name in cycles[0].offer}
    streams |= {name: [(cycle.valid[name], cycle.accept[name]) for cycle in cycles]
                for name in cycles[0].valid}
    figure = Figure(figsize=(9.6, 0.5 * len(streams) + 0.6))
    axes = figure.add_subplot()
    for row, flags in enumerate(streams.values()):
        for colour, wanted in ((MOVE, (True, True)), (WAIT, (True, False))):
            bars = [(cycle, 1) for cycle, flag in enumerate(flags) if flag == wanted]
            axes.broken_barh(bars, (row - 0.35, 0.7), facecolors=colour, edgecolor="white",
                             linewidth=0.3)
    axes.set_yticks(range(len(streams)), list(streams))
    axes.set_xlim(0, len(cycles))
    axes.set_ylim(len(streams) - 0.4, -0.6)
    axes.set_xlabel("clock cycle")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return text(figure)
