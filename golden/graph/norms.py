# SPDX-License-Identifier: Apache-2.0
"""LayerNorm as operators before opset 17 say it: mean, difference, variance, root, quotient."""

__all__ = ["centred", "normalised", "of_squares"]

import numpy as np

from golden.graph.nodes import Graph
from golden.graph.values import PROBES, View


def centred(graph: Graph, place: tuple[str, str], x: View, mean: View) -> View | None:
    """Return a tensor less the mean of its last dimension, if it is that."""
    node = graph.whole(mean)
    if node is None or node.kind != "mean" or "last" not in node.data or \
            not node.data["last"].same(x):
        return None
    node.absorbed = True
    return graph.add("centred", place, [x], x.shape)


def of_squares(graph: Graph, place: tuple[str, str], x: View) -> View | None:
    """Return the mean of the last dimension, if it is that of a centred tensor's squares."""
    source, samples = graph.through(x)
    node = graph.whole(source)
    if node is None or node.kind != "centred" or not np.allclose(samples, PROBES**2):
        return None
    return graph.add("variance", place, [source], (*x.shape[:-1], 1))


def normalised(graph: Graph, place: tuple[str, str], operator: str, x: View,
               by: View) -> View | None:
    """Return a centred tensor divided by its deviation, if it is that: a norm."""
    centre, (source, samples) = graph.whole(x), graph.through(by)
    spread = graph.whole(source)
    if operator not in ("Div", "Mul") or centre is None or centre.kind != "centred" or \
            spread is None or spread.kind != "variance" or not spread.sources[0].same(x):
        return None
    real = PROBES > 0
    squares = samples[real] ** (2 if operator == "Div" else -2)
    epsilon = float(np.median(squares - PROBES[real]))
    if not np.allclose(squares, PROBES[real] + epsilon, rtol=1e-12) or epsilon < 0:
        return None
    centre.absorbed = spread.absorbed = True
    channels = x.shape[-1]
    return graph.add("norm", place, list(centre.sources), x.shape, weight=np.ones(channels),
                     bias=np.zeros(channels), epsilon=float(f"{epsilon:.3g}"))
