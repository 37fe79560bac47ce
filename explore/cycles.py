# SPDX-License-Identifier: Apache-2.0
"""Cycles of a unit at its work, from its cycle model, which the bench holds to the Verilog.

The work is that of DeiT: softmax over rows of 197 keys, LayerNorm and requantization of rows of 192
channels, the array over tiles of 197 tokens. Words are always offered and results always taken.
"""

__all__ = ["KEYS", "CHANNELS", "unit_cycles"]

from golden.units.layernorm_cycles import LayerNormModel
from golden.units.requant import RequantizerModel
from golden.units.softmax_cycles import LogSoftmaxModel
from golden.units.stream import CycleModel
from golden.units.systolic import SystolicModel
from vitforge.spec.config import Config
from vitforge.spec.elements import Element

#: Keys of an attention row, and tokens of a tile.
KEYS = 197
CHANNELS = 192
#: Rows until the pipeline has settled, and rows that are measured after them.
BEFORE, AFTER = 8, 8
#: A row of the slowest unit takes far less.
LIMIT = 1_000_000


def _ends(model: CycleModel, words: dict[str, int], lengths: list[int]) -> tuple[int, list[int]]:
    """Run a model: the cycle of the first result, and of the last one of every row."""
    left = dict(words)
    marks: list[int] = []
    first, number, row = -1, 0, 0
    for cycle in range(LIMIT):
        offer = {name: left[name] > 0 for name in model.sinks}
        accept = dict.fromkeys(model.sources, True)
        ready, valid = model.settle(offer, accept)
        if valid["o"]:
            first = cycle if first < 0 else first
            number += 1
            if number == lengths[row]:
                marks.append(cycle)
                number, row = 0, row + 1
                if row == len(lengths):
                    return first, marks
        model.clock(offer, accept)
        for name in model.sinks:
            left[name] -= offer[name] and ready[name]
    raise RuntimeError("the model does not come to an end")


def unit_cycles(unit: str, config: Config) -> dict[str, float]:
    """Measure a unit at its work.

    Returns
    -------
    dict
        ``row_elements``, elements of a row (of the array: multiplications of a tile); ``latency``,
        cycles from the first word offered to the first result; ``cycles_per_row`` in the long
        run; ``elements_per_cycle``.
    """
    rows = BEFORE + AFTER
    if unit == "systolic":
        lengths = [KEYS] * rows
        model: CycleModel = SystolicModel(
            config, [False] * (config.rows * rows),
            [token == KEYS - 1 for _ in range(rows) for token in range(KEYS)])
        words = {"w": config.rows * rows, "a": KEYS * rows}
        # Of packed modes the one with most products.
        elements = KEYS * config.rows * config.cols * Element(config).segments
    else:
        elements = min(KEYS, config.max_keys) if unit == "softmax" else \
            min(CHANNELS, config.max_channels)
        lengths = [-(-elements // config.lanes)] * rows
        words = dict.fromkeys(("i", "p"), sum(lengths))
        model = {"softmax": LogSoftmaxModel, "layernorm": LayerNormModel}[unit](config, lengths) \
            if unit != "requant" else RequantizerModel()
    first, marks = _ends(model, words, lengths)
    cycles = (marks[-1] - marks[BEFORE - 1]) / AFTER
    return {"row_elements": elements, "latency": first, "cycles_per_row": cycles,
            "elements_per_cycle": elements / cycles}
