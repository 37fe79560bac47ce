# SPDX-License-Identifier: Apache-2.0
"""Number formats in ONNX: QuantizeLinear and DequantizeLinear where it has them, else operators.

QuantizeLinear rounds halves to the even code, and this project up; all other nodes here round up.
Codes of less than 8 bits are those of 8, clipped before they are dequantized ("QCDQ"); from opset
21 on unsigned ones of 4 bits, and all weights of up to 4, have a type of their own.
"""

__all__ = ["quantized", "weight"]

import math
from collections.abc import Callable

import torch
from onnx import TensorProto
from torch import Tensor

from golden.formats.tangent import tangent_levels, tangent_thresholds
from golden.onnx.graph import Graph
from golden.ptq.formats import TensorFormat

#: First version with types of 4 bits.
_FOUR = 21


def quantized(graph: Graph, x: str, item: TensorFormat) -> str:
    """Quantize and dequantize a value, as `golden.ptq.formats.simulate` does but for halves.

    Raises
    ------
    ValueError
        If there is nothing for the format.
    """
    if item.kind not in _MAKE:
        raise ValueError(f"ONNX has nothing for {item.kind} codes of activations")
    return _MAKE[item.kind](graph, x, item)


def _steps(item: TensorFormat) -> Tensor:
    scale = torch.tensor(item.scale, dtype=torch.float32)
    return scale * 2.0 ** torch.tensor(item.shift) if item.kind == "shifted" else scale


def _linear(graph: Graph, x: str, item: TensorFormat) -> str:
    """Uniform codes, of one step or one a channel."""
    scale, zero = _steps(item), torch.tensor(item.zero_point)
    low, high = item.low, item.high
    narrow = graph.opset >= _FOUR and (low, high) == (0, 15)
    kind = TensorProto.INT8 if item.signed else \
        TensorProto.UINT4 if narrow else TensorProto.UINT8
    least, most = (-128, 127) if item.signed else (0, 15) if narrow else (0, 255)
    if int(zero.min()) < least or int(zero.max()) > most:
        return _rounded(graph, x, item)
    given = {"axis": item.axis} if scale.ndim else {}
    ends = (graph.constant(scale, "scale"),
            graph.constant(zero.expand(scale.shape), "zero_point", kind))
    code = graph("QuantizeLinear", x, *ends, **given)
    if (low, high) != (least, most):
        code = graph("Clip", code, graph.constant(torch.tensor(low), "low", kind),
                     graph.constant(torch.tensor(high), "high", kind))
    return graph("DequantizeLinear", code, *ends, **given)


def _up(graph: Graph, x: str) -> str:
    """Round halves up."""
    return graph("Floor", graph("Add", x, graph.constant(0.5)))


def _between(graph: Graph, x: str, low: float, high: float) -> str:
    return graph("Clip", x, graph.constant(float(low)), graph.constant(float(high)))


def _rounded(graph: Graph, x: str, item: TensorFormat) -> str:
    """Uniform codes by operators: zero points that no code has."""
    scale, zero = graph.constant(_steps(item), "scale"), torch.tensor(item.zero_point).float()
    code = _up(graph, graph("Div", x, scale))
    code = graph("Max", code, graph.constant(item.low - zero))
    return graph("Mul", graph("Min", code, graph.constant(item.high - zero)), scale)


def _two_scale(graph: Graph, x: str, item: TensorFormat) -> str:
    width = item.bits - 1
    bottom = -(1 << width - 1) if item.signed else 0
    top = bottom + (1 << width) - 1
    scale, ratio = graph.constant(_steps(item), "scale"), graph.constant(2.0**item.m, "ratio")
    x = graph("Div", x, scale)
    low = _up(graph, x)
    high = graph("Mul", _between(graph, _up(graph, graph("Div", x, ratio)), bottom, top), ratio)
    fits = graph("Equal", low, _between(graph, low, bottom, top))
    return graph("Mul", graph("Where", fits, low, high), scale)


def _logarithm(graph: Graph, x: str, per_octave: int) -> str:
    """Return ``floor(-per_octave * log2(x) + 0.5)``; of 0, infinity."""
    log = graph("Log", graph("Max", x, graph.constant(0.0)))
    return _up(graph, graph("Mul", log, graph.constant(-per_octave / math.log(2))))


def _power(graph: Graph, code: str, per_octave: int, zero: str) -> str:
    """Return ``2**(-code / per_octave)``, 0 where `zero`."""
    exponent = graph("Mul", code, graph.constant(-1.0 / per_octave))
    power = graph("Pow", graph.constant(2.0), exponent)
    return graph("Where", zero, graph.constant(0.0), power)


def _log2(graph: Graph, x: str, item: TensorFormat) -> str:
    top = graph.constant(float((1 << item.bits) - 1), "zero_code")
    code = _between(graph, _logarithm(graph, x, 1), 0, (1 << item.bits) - 1)
    return _power(graph, code, 1, graph("Equal", code, top))


def _log_sqrt2(graph: Graph, x: str, item: TensorFormat) -> str:
    scale = graph.constant(_steps(item), "scale")
    code = _logarithm(graph, graph("Div", x, scale), 2)
    code = _between(graph, code, 0, 1 << item.bits)
    top = graph.constant(float(1 << item.bits), "zero_code")
    return graph("Mul", _power(graph, code, 2, graph("Equal", code, top)), scale)


def _levels(graph: Graph, x: str, levels: Tensor, thresholds: Tensor, bits: int) -> str:
    """Level of the last threshold that is not above x, by bisection: a bit of the code a time."""
    code, ends = graph.constant(torch.tensor(0)), graph.constant(thresholds, "thresholds")
    for bit in reversed(range(bits)):
        middle = graph("Add", code, graph.constant(torch.tensor((1 << bit) - 1)))
        above = graph("GreaterOrEqual", x, graph("Gather", ends, middle))
        more = graph("Where", above, graph.constant(torch.tensor(1 << bit)),
                     graph.constant(torch.tensor(0)))
        code = graph("Add", code, more)
    return graph("Gather", graph.constant(levels, "levels"), code)


def _table(graph: Graph, x: str, item: TensorFormat) -> str:
    values, scale = torch.tensor(item.values, dtype=torch.float32), _steps(item)
    return _levels(graph, x, values * scale, (values[1:] + values[:-1]) / 2 * scale, item.bits)


def _tangent(graph: Graph, x: str, item: TensorFormat) -> str:
    levels, thresholds = (
        torch.tensor(make(item.bits, item.slope, item.end_slope), dtype=torch.float32)
        * _steps(item) for make in (tangent_levels, tangent_thresholds))
    return _levels(graph, x, levels, thresholds, item.bits)


_MAKE: dict[str, Callable[[Graph, str, TensorFormat], str]] = {
    "uniform": _linear, "shifted": _linear, "two-scale": _two_scale, "log2": _log2,
    "log-sqrt2": _log_sqrt2, "table": _table, "tangent": _tangent}


def weight(graph: Graph, value: Tensor, item: TensorFormat | None, *, transposed: bool) -> str:
    """Add the weights of a layer: codes and DequantizeLinear, or real values without a format.

    Parameters
    ----------
    value
        Quantized real values ``[N, ...]``, float32.
    transposed
        Whether a matrix product takes them, ``[K, N]``.

    Raises
    ------
    ValueError
        If ONNX has no such codes.
    """
    def turned(x: Tensor) -> Tensor:
        return x.T.contiguous() if transposed else x

    if item is None:
        return graph.constant(turned(value), "weight")
    if item.kind != "uniform" or (isinstance(item.scale, tuple) and item.axis != 0):
        raise ValueError(f"ONNX has no {item.kind} codes of weights with a step for each row")
    scale, zero = _steps(item), torch.tensor(item.zero_point)
    along = (-1, *(1,) * (value.ndim - 1)) if scale.ndim else ()
    rows = zero.expand(scale.shape).reshape(along)
    code = (value / scale.reshape(along) + rows + 0.5).floor().to(torch.int64)
    if graph.opset >= _FOUR and item.bits <= 4:
        kind = TensorProto.INT4 if item.signed else TensorProto.UINT4
    else:
        kind = TensorProto.INT8 if item.signed else TensorProto.UINT8
    given = {"axis": value.ndim - 1 if transposed else 0} if scale.ndim else {}
    return graph("DequantizeLinear", graph.constant(turned(code), "weight", kind),
                 graph.constant(scale, "scale"),
                 graph.constant(zero.expand(scale.shape), "zero_point", kind), **given)
