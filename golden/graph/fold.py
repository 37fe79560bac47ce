# SPDX-License-Identifier: Apache-2.0
"""Operators on constants, and those that only move elements, by ONNX's own reference.

A file can claim any size, so results are measured before they are made.
"""

__all__ = ["FOLDED", "MOVES", "run"]

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from golden.graph.values import LARGEST, NotUnderstoodError, Reals

#: Operators that move elements, and the number of inputs that are moved (the others say where to).
MOVES = {"Concat": -1, "Expand": 1, "Flatten": 1, "Gather": 1, "Pad": 1, "Reshape": 1, "Slice": 1,
         "Split": 1, "Squeeze": 1, "Transpose": 1, "Unsqueeze": 1}
#: Operators that are computed where all they read is constant: shapes mostly.
FOLDED = frozenset({
    *MOVES, "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Exp",
    "Floor", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceProd", "Shape", "Size",
    "Sqrt", "Sub",
    "Where"})


def _size(node: onnx.NodeProto, values: Sequence[Reals | None]) -> int:
    """Return how many elements an operator makes at most."""
    given = [value for value in values if value is not None]
    first, last = given[0], given[-1]
    if node.op_type == "ConstantOfShape":
        return prod(int(size) for size in first)
    if node.op_type == "Expand":
        return prod(np.broadcast_shapes(first.shape, tuple(int(size) for size in last)))
    if node.op_type == "Range":
        start, limit, delta = (float(value) for value in given)
        return int(abs(limit - start) / max(abs(delta), 1e-9)) + 1
    if node.op_type == "Pad":
        pads = [abs(int(value)) for value in given[1].reshape(-1)]
        return prod(size + sum(pads) for size in first.shape)
    if node.op_type == "Gather":
        axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
        return first.size // max(1, first.shape[axis]) * last.size
    if node.op_type in MOVES:
        return sum(value.size for value in given)
    return prod(np.broadcast_shapes(*(value.shape for value in given)))


def run(node: onnx.NodeProto, values: Sequence[Reals | None],
        opsets: Mapping[str, int]) -> list[Reals]:
    """Compute a node's results.

    Raises
    ------
    NotUnderstoodError
        If a result would be too large, or the reference refuses the inputs.
    """
    try:
        if _size(node, values) > LARGEST:
            raise NotUnderstoodError("its result is too large")
        clone = helper.make_node(node.op_type, [str(n) if v is not None else ""
                                                for n, v in enumerate(values)], node.output)
        clone.attribute.extend(node.attribute)
        found = ReferenceEvaluator(clone, opsets=dict(opsets)).run(
            None, {str(n): v for n, v in enumerate(values) if v is not None})
    except NotUnderstoodError:
        raise
    except Exception as error:   # what a hostile file may make of the reference has no end
        why = str(error).partition("\n")[0]
        raise NotUnderstoodError(f"its inputs don't fit: {why}") from None
    return [np.asarray(value) for value in found]
