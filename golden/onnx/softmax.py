# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT's log-integer-softmax in ONNX's plain operators (arXiv 2111.13824, section 4.2)."""

__all__ = ["integer_softmax"]

import torch

from golden.network.fast_polynomial import FastPolynomial
from golden.onnx.graph import Graph
from golden.ptq.integer_softmax import LogIntSoftmax
from golden.units.softmax import PolynomialScale


def integer_softmax(graph: Graph, scores: str, module: LogIntSoftmax, keys: int) -> str:
    """Return probabilities ``2**-code`` of quantized scores ``[..., keys]``.

    The exponential is a table of the distance to the row's largest score, whose integers double
    precision holds, and the code counts the bounds of
    `golden.units.softmax_polynomial.polynomial_log_softmax` that the sum reaches.

    Raises
    ------
    ValueError
        If the exponential is the shift-based one, or exactness can't be proved.
    """
    if not isinstance(module.scale, PolynomialScale):
        raise ValueError("ONNX has no shift-based softmax: --set softmax=polynomial, or float")
    powers = FastPolynomial(module.scale, module.config, keys).powers
    code = graph("Floor", graph("Add", graph("Div", scores, graph.constant(module.step)),
                                graph.constant(0.5)))
    # Below the lowest code are masked keys.
    masked = graph("Less", code, graph.constant(float(module.lowest)))
    code = graph("Clip", code, graph.constant(float(module.lowest)),
                 graph.constant(float(module.lowest + len(powers) - 1)))
    axis = graph.constant(torch.tensor([-1]))
    highest = graph("ReduceMax", code, axis, keepdims=1) if graph.opset >= 18 else \
        graph("ReduceMax", code, axes=[-1], keepdims=1)
    distance = graph("Cast", graph("Sub", highest, code), to=7)   # int64
    power = graph("Gather", graph.constant(powers, "powers", 11), distance)   # double
    power = graph("Where", masked, graph.constant(torch.tensor(0.0), kind=11), power)
    total = graph("ReduceSum", power, axis, keepdims=1)
    double = graph("Add", total, total)

    def reached(operator: str, bound: int) -> str:
        share = graph("Mul", power, graph.constant(torch.tensor(float(bound)), kind=11))
        return graph("Cast", graph(operator, double, share), to=7)

    top = (1 << module.config.attention_bits) - 1
    count = graph("Add", reached("GreaterOrEqual", 3), reached("Greater", 5))
    for level in range(3, top + 1):
        count = graph("Add", count, reached("GreaterOrEqual", 3 * (1 << level - 1) - 1))
    values = torch.exp2(-torch.arange(top + 1, dtype=torch.float32))
    values[top] = 0
    return graph("Gather", graph.constant(values, "probabilities"), count)
