# SPDX-License-Identifier: Apache-2.0
"""What every engine of the accelerator does when, as a picture."""

__all__ = ["ENGINES", "busy", "draw"]

import re
from collections.abc import Mapping

from gen.compiler.compile import Compiled
from golden.machine.cycles import Prediction
from vitforge.base.vector import COLOURS, bar, legend, picture, write

#: Engines of `Prediction.spans`, from the memory to the results, in words.
ENGINES = {"load": ("pixels", "to the scratchpad"), "weights": ("weights", "from the memory"),
           "keys": ("keys and values", "as weights"), "array": ("systolic array",),
           "drain": ("requantizer", "and statistics")}
#: What layers do, in words, by the end of their names; others are called by that.
LAYERS = {"patch_embed.proj": "patches", "attn.qkv": "Q, K and V", "attn.scores": "scores",
          "attn.context": "context", "attn.proj": "projection", "mlp.fc1": "MLP 1",
          "mlp.fc2": "MLP 2", "downsample.reduction": "merging", "head": "classes"}
LOAD = "pixels"
_WIDTH, _LEFT, _RIGHT = 1000, 132, 12
_ROW, _BAR = 34, 26
#: What is left between two bars, as a share of the picture's width: thinner gaps can't be seen.
_FINE = 1 / 3000
#: Bars on which their names are written.
_NAMED = ("weights", "array")


def _kind(layer: str) -> str:
    end = re.sub(r"^(layers\.\d+\.)?(blocks\.\d+\.)?", "", layer)
    return LAYERS.get(end, end)


def busy(found: Prediction, *engines: str) -> int:
    """Return in how many cycles one of some `ENGINES` works, at one pass or at several."""
    total, last = 0, -1
    for begin, end in sorted(span[1:3] for span in found.spans if span[0] in engines):
        total += max(0, end - max(begin, last + 1) + 1)
        last = max(last, end)
    return total


def _spans(found: Prediction, compiled: Compiled, first: int, last: int) \
        -> dict[str, list[tuple[str, int, int]]]:
    """Return the bars of every engine: layer, first and last cycle."""
    fine = (last - first) * _FINE
    rows: dict[str, list[tuple[str, int, int]]] = {engine: [] for engine in ENGINES}
    for name, begin, end, number in found.spans:
        if name not in rows or end < first or begin > last:
            continue
        layer = LOAD if name == "load" else \
            compiled.steps[min(number, len(compiled.steps) - 1)].layer
        parts = rows[name]
        # Bars that touch are one: a long program is a small picture.
        if parts and parts[-1][0] == layer and begin - parts[-1][2] - 1 <= fine:
            parts[-1] = layer, parts[-1][1], max(end, parts[-1][2])
        else:
            parts.append((layer, begin, end))
    return rows


def _step(cycles: int) -> int:
    """Return the distance of the marks of an axis: 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, len(str(cycles)) - 2)
    return next(factor * power for factor in (1, 2, 5, 10) if cycles <= 10 * factor * power)


def _panel(top: float, title: str, found: Prediction, compiled: Compiled,
           colours: Mapping[str, str], first: int, last: int) -> list[str]:
    """Draw the cycles from first to last; the panel is `_height` high."""
    scale = (_WIDTH - _LEFT - _RIGHT) / max(1, last - first)
    parts = [write(6, top + 14, title, kind="bold", size=14)]
    top += 26
    bottom = top + _ROW * len(ENGINES)
    for mark in range(-(-first // _step(last - first)) * _step(last - first), last + 1,
                      _step(last - first)):
        x = _LEFT + (mark - first) * scale
        parts += [f'<path class="rule" opacity=".4" d="M{x:.1f} {top:g}V{bottom + 4:g}"/>',
                  write(round(x, 1), bottom + 18, f"{mark:,}", kind="soft",
                        anchor="middle" if x < _WIDTH - 40 else "end")]
    for row, (engine, spans) in enumerate(_spans(found, compiled, first, last).items()):
        y = top + row * _ROW
        words = ENGINES[engine]
        parts += [write(6, y + _ROW / 2 + 5 + 14 * (line - (len(words) - 1) / 2), word)
                  for line, word in enumerate(words)]
        for layer, begin, end in spans:
            left, right = max(begin, first), min(end + 1, last)
            parts.append(bar(_LEFT + (left - first) * scale, y + (_ROW - _BAR) / 2,
                             max((right - left) * scale, 0.4), _BAR, colours[_kind(layer)],
                             f"{layer}: cycles {begin:,} to {end:,}, {end + 1 - begin:,}",
                             _kind(layer) if engine in _NAMED else ""))
    return parts


_HEIGHT = 26 + _ROW * len(ENGINES) + 36


def draw(found: Prediction, compiled: Compiled) -> str:
    """Draw a run as SVG text: all of it, and the first encoder block.

    Every bar says its layer and its cycles under the mouse.

    Parameters
    ----------
    found
        With its spans; they are those of the gateware, to the cycle.
    """
    kinds = list(dict.fromkeys([LOAD, *(_kind(step.layer) for step in compiled.steps)]))
    # What is between the first and the last has colours; these two are single bars.
    colours = {kind: COLOURS[number % (len(COLOURS) - 1)] for number, kind in enumerate(kinds[1:])}
    colours |= {LOAD: COLOURS[-1], kinds[-1]: "ink"}
    passes = {number for number, step in enumerate(compiled.steps)
              if step.layer.startswith(("blocks.0.", "layers.0.blocks.0."))}
    ends = [cycle for name, *span, number in found.spans
            if number in passes and name == "array" for cycle in span]
    title = (f"{compiled.config.name}: {found.cycles:,} cycles, array busy in "
             f"{found.array_busy / found.cycles:.2%}")
    parts = _panel(0, title, found, compiled, colours, 0, found.cycles)
    height = float(_HEIGHT)
    if ends:
        parts += _panel(height, "the first encoder block", found, compiled, colours,
                        min(ends), max(ends))
        height += _HEIGHT
    parts += legend(_LEFT, height + 12, _WIDTH - _LEFT, colours.items())
    return picture(_WIDTH, height + 46, parts, f"What every engine does in each cycle. {title}")
