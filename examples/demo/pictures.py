# SPDX-License-Identifier: Apache-2.0
"""The pictures of the demo's page."""

__all__ = ["digit", "logits", "timeline"]

import base64
import io
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
from PIL import Image

from sim.cases.trace import Cycle
from vitforge.base.vector import COLOURS, bar, legend, picture, write

FLOAT, INTEGER = COLOURS[7], COLOURS[2]
MOVES, WAITS = COLOURS[2], COLOURS[1]
#: Streams of the systolic array, in words.
_STREAMS = {"w": "weight rows", "a": "activations", "o": "partial sums"}


def digit(image: npt.NDArray[np.uint8]) -> str:
    """Return a grey image, `[height, width]`, as the address of a PNG that holds it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def logits(exact: Sequence[float], integer: Sequence[float]) -> str:
    """Draw the float network's and the integer network's logits of every class as bars."""
    width, height, left, edge = 560, 236, 46, 14
    top, bottom = max(0.0, *exact, *integer), min(0.0, *exact, *integer)
    scale = (height - 76) / ((top - bottom) or 1.0)
    zero, step = edge + top * scale, (width - left) / len(exact)
    parts = []
    mark = next(mark for mark in (1, 2, 5, 10, 20, 50, 10 ** 9) if top - bottom <= 6 * mark)
    for value in range(int(bottom / mark) * mark, int(top) + 1, mark):
        y = zero - value * scale
        parts += [f'<path class="rule" opacity=".35" d="M{left} {y:.1f}H{width}"/>',
                  write(left - 6, round(y + 4, 1), f"{value}", kind="soft", anchor="end")]
    for place, pair in enumerate(zip(exact, integer, strict=True)):
        x = left + place * step
        for at, (value, colour, whose) in enumerate(zip(pair, (FLOAT, INTEGER),
                                                        ("float", "integer"), strict=True)):
            parts.append(bar(x + step * (0.12 + 0.38 * at), round(zero - max(value, 0) * scale, 1),
                             step * 0.36, round(max(abs(value) * scale, 0.5), 1), colour,
                             f"class {place}, {whose}: {value:.2f}"))
        parts.append(write(round(x + step / 2, 1), height - 42, f"{place}", anchor="middle"))
    parts += legend(left, height - 12, width - left, [("logits, float", FLOAT),
                                                      ("integer, of the Verilog", INTEGER)])
    return picture(width, height, parts, "Logits of every class, float and integer")


def _runs(flags: Sequence[tuple[bool, bool]]) -> Iterator[tuple[int, int, tuple[bool, bool]]]:
    """Yield first cycle, last cycle and state of every run of cycles that are alike."""
    place = 0
    for flag, same in groupby(flags):
        count = len(list(same))
        yield place, place + count - 1, flag
        place += count


def timeline(cycles: Sequence[Cycle]) -> str:
    """Draw what every stream of a unit does in each cycle: a word moves, or waits, or nothing."""
    streams = {name: [(cycle.offer[name], cycle.ready[name]) for cycle in cycles]
               for name in cycles[0].offer}
    streams |= {name: [(cycle.valid[name], cycle.accept[name]) for cycle in cycles]
                for name in cycles[0].valid}
    width, left, row = 1000, 132, 34
    scale = (width - left - 12) / len(cycles)
    bottom = 4 + row * len(streams)
    parts = []
    for mark in range(0, len(cycles) + 1, 20):
        x = left + mark * scale
        parts += [f'<path class="rule" opacity=".4" d="M{x:.1f} 4V{bottom + 4}"/>',
                  write(round(x, 1), bottom + 18, f"{mark}", kind="soft", anchor="middle")]
    for number, (name, flags) in enumerate(streams.items()):
        y = 8 + number * row
        parts.append(write(6, y + 18, _STREAMS.get(name, name)))
        for first, last, (offered, taken) in _runs(flags):
            if offered:
                words = "a word moves" if taken else "a word waits"
                parts.append(bar(left + first * scale, y, (last + 1 - first) * scale, 26,
                                 MOVES if taken else WAITS,
                                 f"cycles {first} to {last}: {words}", words))
    parts += legend(left, bottom + 44, width - left, [("a word moves", MOVES),
                                                      ("a word waits", WAITS)])
    return picture(width, bottom + 56, parts, "What every stream of the systolic array does")
