# SPDX-License-Identifier: Apache-2.0
"""Cycles of a plain systolic array, by SCALE-Sim 3.0.0's closed forms, as a yardstick.

The forms are those of its compute cycles without stalls, equal to the tool's own output on every
layer of DeiT-Tiny (8x8, 16x16, 32x32; three dataflows). Softmax, LayerNorm, GeLU and the residual
additions cost nothing there.
"""

__all__ = ["best", "cycles"]

from golden.network.ops import Multiply, RegionContext, RegionScores
from golden.network.topology import Spec, operations


def _layers(spec: Spec) -> list[tuple[int, int, int, int]]:
    """Return (how often, rows of operands, inner length, columns) of every product.

    Attention within regions has one of each region.
    """
    found = []
    for item in operations(spec):
        if isinstance(item, RegionScores | RegionContext):
            for rows, columns in item.regions:
                keys = rows * columns
                inner, made = (item.inner, keys) if isinstance(item, RegionScores) \
                    else (keys, item.columns)
                found.append((item.count, keys, inner, made))
        elif isinstance(item, Multiply):
            found.append((item.count, item.rows, item.inner, item.columns))
    return found


def _layer(m: int, k: int, n: int, rows: int, cols: int) -> dict[str, int]:
    """Cycles of ``[m, k] @ [k, n]`` with outputs, weights or inputs stationary."""
    return {
        "output": -(-m // rows) * -(-n // cols) * (k + rows + cols - 2) - 1,
        "weight": -(-k // rows) * -(-n // cols) * (m + 2 * rows + cols - 2) - 1,
        "input": -(-k // rows) * -(-m // cols) * (n + 2 * rows + cols - 2) - 1,
    }


def cycles(spec: Spec, rows: int, cols: int) -> dict[str, int]:
    """Return the cycles of an image by dataflow."""
    found = dict.fromkeys(("output", "weight", "input"), 0)
    for count, m, k, n in _layers(spec):
        for dataflow, cost in _layer(m, k, n, rows, cols).items():
            found[dataflow] += count * cost
    return found


def best(spec: Spec, rows: int, cols: int) -> int:
    """Return the cycles of an image if every layer had its best dataflow."""
    return sum(count * min(_layer(m, k, n, rows, cols).values())
               for count, m, k, n in _layers(spec))
