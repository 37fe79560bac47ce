# SPDX-License-Identifier: Apache-2.0
"""What every engine of the accelerator does when, as a picture."""

__all__ = ["draw"]

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gen.compiler.compile import Compiled
from golden.machine.cycles import Prediction
from vitforge.base.svg import text

#: Engines of `Prediction.spans`, from the memory to the results.
ENGINES = {"load": "LOAD", "weights": "weights from\nmemory", "keys": "stationary\nK and V",
           "array": "systolic\narray", "drain": "requantizer,\nstatistics"}
#: What is left between two bars, as a share of the picture's width: thinner gaps can't be seen.
_FINE = 1 / 4000


def _kind(layer: str) -> str:
    return layer.split(".", 2)[-1] if layer.startswith("blocks.") else layer


def _bars(axes: Any, found: Prediction, compiled: Compiled, colours: dict[str, Any],
          first: int, last: int) -> None:
    fine = (last - first) * _FINE
    for row, engine in enumerate(ENGINES):
        bars: dict[str, list[tuple[int, int]]] = {}
        for name, begin, end, number in found.spans:
            if name != engine or end < first or begin > last:
                continue
            kind = _kind(compiled.steps[min(number, len(compiled.steps) - 1)].layer)
            parts = bars.setdefault(kind if engine != "load" else "load", [])
            # Bars that touch are one: a long program is a small picture.
            if parts and begin - sum(parts[-1]) <= fine:
                parts[-1] = parts[-1][0], end + 1 - parts[-1][0]
            else:
                parts.append((begin, end + 1 - begin))
        for kind, parts in bars.items():
            axes.broken_barh(parts, (row - 0.38, 0.76), facecolors=colours[kind], linewidth=0)
    axes.set_yticks(range(len(ENGINES)), list(ENGINES.values()))
    axes.set_ylim(len(ENGINES) - 0.5, -0.5)
    axes.set_xlim(first, last)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw(found: Prediction, compiled: Compiled) -> str:
    """Draw a run as SVG text: all of it, and the first encoder block.

    Parameters
    ----------
    found
        With its spans; they are those of the gateware, to the cycle.
    """
    kinds = list(dict.fromkeys(_kind(step.layer) for step in compiled.steps))
    palette = mpl.colormaps["tab20"]
    colours = {kind: palette(number % 20) for number, kind in enumerate([*kinds, "load"])}
    passes = {number for number, step in enumerate(compiled.steps)
              if step.layer.startswith("blocks.0.")}
    ends = [cycle for name, *span, number in found.spans
            if number in passes and name == "array" for cycle in span]
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    whole, block = figure.subplots(2)
    _bars(whole, found, compiled, colours, 0, found.cycles)
    whole.set_title(f"{compiled.config.name}: {found.cycles:,} cycles, array busy in "
                    f"{found.array_busy / found.cycles:.2%}", loc="left", fontsize=10)
    _bars(block, found, compiled, colours, min(ends, default=0), max(ends, default=found.cycles))
    block.set_title("the first encoder block", loc="left", fontsize=10)
    block.set_xlabel("clock cycle")
    figure.legend(handles=[Patch(color=colour, label=kind) for kind, colour in colours.items()],
                  loc="outside right upper", frameon=False, fontsize=8)
    return text(figure)
