# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph as nodes that compute, with everything that only moves elements gone.

Constants are computed (`golden.graph.fold`), moves are done to numbers of elements
(`golden.graph.values`), functions of each element are known by their values
(`golden.graph.functions`), and biases and factors of channels join the layer before them. What is
left are the few kinds of `golden.graph.values.Node`.
"""

__all__ = ["read"]

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from golden.graph.fold import FOLDED, MOVES, run
from golden.graph.functions import BINARY, UNARY, tanh_gelu
from golden.graph.nodes import Graph, Stop
from golden.graph.norms import centred, normalised, of_squares
from golden.graph.values import PROBES, NotUnderstoodError, Reals, View

Value = View | Reals | None


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = Graph()
        self.opsets = {item.domain: item.version for item in model.opset_import}
        self.values: dict[str, Value] = {"": None}
        self.table: dict[str, Callable[..., View]] = {
            "Conv": self.convolution, "MatMul": self.multiply, "Gemm": self.gemm,
            "LayerNormalization": self.norm, "Softmax": self.softmax, "ReduceMean": self.mean,
            "GlobalAveragePool": self.pool, "Attention": self.attention}

    def place(self, node: onnx.NodeProto) -> tuple[str, str]:
        return node.op_type, node.name or node.output[0]

    def step(self, node: onnx.NodeProto) -> None:
        """Compute the outputs of an operator."""
        given = [self.values[name] for name in node.input]
        if node.domain not in ("", "ai.onnx"):
            raise NotUnderstoodError(f"it is of {node.domain}, not of ONNX")
        views = [index for index, value in enumerate(given) if isinstance(value, View)]
        if node.op_type == "Constant":
            made: list[Value] = [_constant(node)]
        elif node.op_type == "Shape" and views:
            made = [_shape_of(given[0], _attributes(node))]
        elif not views:
            if node.op_type not in FOLDED:
                raise NotUnderstoodError("")
            made = list(run(node, given, self.opsets))   # type: ignore[arg-type]
        elif node.op_type == "IsNaN" and self.never_nan(given[0]):
            made = [np.zeros(given[0].shape, np.bool_)]   # type: ignore[union-attr]
        elif node.op_type == "Where" and isinstance(given[0], np.ndarray):
            made = [self.either(node, given[0], *given[1:])]
        elif node.op_type in MOVES:
            made = list(self.moved(node, given, views))
        elif node.op_type in ("Identity", "Dropout", "Cast"):
            if node.op_type == "Cast" and _attributes(node)["to"] not in _REAL:
                raise NotUnderstoodError("of real numbers it makes others")
            made = [given[0]]
        elif node.op_type in UNARY:
            made = [self.unary(node, given[0])]   # type: ignore[arg-type]
        elif node.op_type in BINARY and len(given) == 2:
            made = [self.binary(node, *given)]   # type: ignore[arg-type]
        elif node.op_type in self.table:
            made = [self.table[node.op_type](node, *given)]
        else:
            raise NotUnderstoodError("")
        self.values.update(zip(node.output, made, strict=False))

    def never_nan(self, value: Value) -> bool:
        """Whether a tensor is of probabilities: exporters guard them against rows of masks."""
        maker = self.graph.only(value) if isinstance(value, View) else None
        return maker is not None and maker.kind == "softmax"

    def either(self, node: onnx.NodeProto, condition: Reals, a: Value, b: Value) -> View:
        """Take elements of one tensor or of another."""
        parts = [self.numbered(value, node) for value in (a, b)]
        shape = np.broadcast_shapes(condition.shape, *(part.shape for part in parts))
        for chosen, part in zip((condition, ~condition), parts, strict=True):
            if part.shape == shape and chosen.all():
                return part
        View(shape, 0)   # refuses a large one
        return View(shape, np.where(condition, parts[0].ids, parts[1].ids))

    def numbered(self, value: Value, node: onnx.NodeProto) -> View:
        """Give the elements of a constant numbers."""
        if isinstance(value, View):
            return value
        assert value is not None
        real = value.astype(np.float64)
        if not real.any():
            return View(real.shape, np.zeros(real.shape, np.int64))
        return self.graph.add("constant", self.place(node), (), real.shape, values=real)

    def moved(self, node: onnx.NodeProto, given: Sequence[Value],
              views: Sequence[int]) -> list[View]:
        """Do to numbers what is done to elements."""
        count = MOVES[node.op_type] if MOVES[node.op_type] >= 0 else len(given)
        if any(index >= count for index in views):
            raise NotUnderstoodError("what it moves depends on the image")
        if node.op_type == "Pad":
            mode = _attributes(node).get("mode", b"constant")
            value = given[2] if len(given) > 2 else None
            if mode != b"constant" or isinstance(value, View) or (value is not None
                                                                  and value.any()):
                raise NotUnderstoodError("it pads with other values than zero")
            given = given[:2]
        first = given[0]
        if node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten") and \
                isinstance(first, View) and first.start is not None:
            rest = [value for value in given[1:] if not isinstance(value, View)]
            shape = run(node, [np.broadcast_to(np.int64(0), first.shape), *rest],
                        self.opsets)[0].shape
            return [first.reshaped(shape)]
        moved = [self.numbered(value, node).ids if index < count else value
                 for index, value in enumerate(given)]
        return [View(made.shape, made.astype(np.int64))
                for made in run(node, moved, self.opsets)]   # type: ignore[arg-type]

    def function(self, node: onnx.NodeProto, source: View, samples: Reals) -> View:
        """Apply a function to each element."""
        if np.array_equal(samples, PROBES):
            return source
        return self.graph.add("function", self.place(node), [source], source.shape, samples=samples)

    def unary(self, node: onnx.NodeProto, x: View) -> View:
        source, samples = self.graph.through(x)
        function = UNARY[node.op_type]
        if node.op_type == "Gelu" and _attributes(node).get("approximate", b"none") == b"tanh":
            function = tanh_gelu
        with np.errstate(all="ignore"):
            return self.function(node, source, function(samples))

    def binary(self, node: onnx.NodeProto, a: View | Reals, b: View | Reals) -> View:
        operate = BINARY[node.op_type]
        if isinstance(a, View) and isinstance(b, View):
            (one, left), (other, right) = self.graph.through(a), self.graph.through(b)
            if one.shape == other.shape and one.same(other):
                with np.errstate(all="ignore"):
                    return self.function(node, one, operate(left, right))
            norm = centred(self.graph, self.place(node), a, b) if node.op_type == "Sub" else \
                normalised(self.graph, self.place(node), node.op_type, a, b)
            if norm is not None:
                return norm
            if node.op_type != "Add" or a.shape != b.shape:
                raise NotUnderstoodError("")
            return self.graph.add("add", self.place(node), [a, b], a.shape)
        constant, x = (b, a) if isinstance(a, View) else (a, b)
        assert isinstance(x, View) and not isinstance(constant, View)
        layer = self.graph.whole(x)
        joins = (layer is not None and layer.kind in ("linear", "norm")
                 and constant.size == x.shape[-1] > 1)
        if constant.size and (constant == constant.reshape(-1)[0]).all() and not joins and \
                np.broadcast_shapes(constant.shape, x.shape) == x.shape:
            source, samples = self.graph.through(x)
            value = np.full_like(PROBES, float(constant.reshape(-1)[0]))
            with np.errstate(all="ignore"):
                return self.function(node, source, operate(samples, value) if isinstance(a, View)
                                     else operate(value, samples))
        return self.by_channel(node, x, constant.astype(np.float64), first=isinstance(a, View))

    def by_channel(self, node: onnx.NodeProto, x: View, constant: Reals, *, first: bool) -> View:
        """Add or multiply values that differ among elements."""
        operator = node.op_type
        if operator in ("Sub", "Div") and first:
            constant = -constant if operator == "Sub" else 1 / constant
            operator = {"Sub": "Add", "Div": "Mul"}[operator]
        before = self.graph.whole(x)
        if operator in ("Add", "Mul") and before is not None and \
                before.kind in ("linear", "norm") and constant.size == x.shape[-1] \
                and constant.shape[-1] == x.shape[-1]:
            flat, data = constant.reshape(-1), dict(before.data)
            data["bias"] = data["bias"] + flat if operator == "Add" else data["bias"] * flat
            if operator == "Mul":
                data["weight"] = data["weight"] * flat   # [K, N], or gamma
            before.absorbed = True
            return self.graph.add(before.kind, (before.operator, before.name), before.sources,
                                  before.shape, **data)
        if operator != "Add":
            raise NotUnderstoodError("")
        shape = np.broadcast_shapes(constant.shape, x.shape)
        wide = x if shape == x.shape else View(shape, np.broadcast_to(x.ids, shape))
        return self.graph.add("shifted", self.place(node), [wide], shape,
                              constant=np.broadcast_to(constant, shape))

    def convolution(self, node: onnx.NodeProto, x: View, weight: Value = None,
                    bias: Value = None) -> View:
        """Embed patches."""
        given = _attributes(node)
        if not isinstance(weight, np.ndarray) or weight.ndim != 4 or isinstance(bias, View):
            raise NotUnderstoodError("its weights are not constants of 4 dimensions")
        kernel = list(weight.shape[2:])
        if (list(given.get("strides", [1, 1])) != kernel or any(given.get("pads", []))
                or given.get("group", 1) != 1 or any(d != 1 for d in given.get("dilations", []))
                or given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")):
            raise NotUnderstoodError("its patches overlap, or are padded")
        if len(x.shape) != 4 or x.shape[1] != weight.shape[1] or any(
                size % side for size, side in zip(x.shape[2:], kernel, strict=True)):
            raise NotUnderstoodError(f"patches of {kernel} don't divide {list(x.shape)}")
        rows, columns = (size // side for size, side in zip(x.shape[2:], kernel, strict=True))
        return self.graph.add("convolution", self.place(node), [x],
                              (1, weight.shape[0], rows, columns), weight=weight,
                              bias=np.zeros(len(weight)) if bias is None else bias)

    def multiply(self, node: onnx.NodeProto, a: Value, b: Value) -> View:
        if isinstance(a, View) and isinstance(b, View):
            if len(a.shape) < 2 or len(a.shape) != len(b.shape) or a.shape[:-2] != b.shape[:-2] \
                    or a.shape[-1] != b.shape[-2]:
                raise NotUnderstoodError(f"it multiplies {list(a.shape)} by {list(b.shape)}")
            return self.graph.add("product", self.place(node), [a, b], (*a.shape[:-1], b.shape[-1]))
        if not isinstance(a, View) or not isinstance(b, np.ndarray) or b.ndim != 2 \
                or a.shape[-1:] != b.shape[:1]:
            raise NotUnderstoodError("its second factor is no matrix of weights that fits")
        return self.linear(node, a, b, np.zeros(b.shape[1]))

    def linear(self, node: onnx.NodeProto, x: View, weight: Reals, bias: Reals) -> View:
        return self.graph.add("linear", self.place(node), [x], (*x.shape[:-1], weight.shape[1]),
                              weight=weight.astype(np.float64), bias=bias.astype(np.float64))

    def gemm(self, node: onnx.NodeProto, x: Value, weight: Value, bias: Value = None) -> View:
        given = _attributes(node)
        if not isinstance(x, View) or not isinstance(weight, np.ndarray) or given.get("transA") \
                or isinstance(bias, View) or weight.ndim != 2:
            raise NotUnderstoodError("its second factor is no matrix of weights")
        weight = weight.T if given.get("transB") else weight
        if x.shape[-1] != len(weight) or (bias is not None and bias.size not in (
                1, weight.shape[1])):
            raise NotUnderstoodError(f"{list(x.shape)} does not fit weights {list(weight.shape)}")
        added = np.zeros(1) if bias is None else bias.reshape(-1)
        return self.linear(node, x, weight * given.get("alpha", 1.0), np.broadcast_to(
            added * given.get("beta", 1.0), weight.shape[1:]))

    def norm(self, node: onnx.NodeProto, x: View, gamma: Value, beta: Value = None) -> View:
        given, channels = _attributes(node), x.shape[-1]
        if given.get("axis", -1) not in (-1, len(x.shape) - 1) or len(node.output) > 1 or \
                not isinstance(gamma, np.ndarray) or gamma.size != channels or isinstance(
                    beta, View) or (beta is not None and beta.size != channels):
            raise NotUnderstoodError("it is not of the last dimension")
        zero = np.zeros(channels) if beta is None else beta.reshape(-1)
        return self.graph.add("norm", self.place(node), [x], x.shape, weight=gamma.reshape(-1),
                              bias=zero,
                              epsilon=float(str(np.float32(given.get("epsilon", 1e-5)))))

    def softmax(self, node: onnx.NodeProto, x: View) -> View:
        if _attributes(node).get("axis", -1) not in (-1, len(x.shape) - 1):
            raise NotUnderstoodError("it is not of the last dimension")
        return self.graph.add("softmax", self.place(node), [x], x.shape)

    def mean(self, node: onnx.NodeProto, x: View, axes: Value = None) -> View:
        given = _attributes(node)
        along = given.get("axes") if axes is None else axes
        if isinstance(along, View) or along is None:
            raise NotUnderstoodError("its dimensions are not constant")
        chosen = sorted(int(axis) % len(x.shape) for axis in along)
        return self.averaged(node, x, chosen, bool(given.get("keepdims", 1)))

    def pool(self, node: onnx.NodeProto, x: View) -> View:
        return self.averaged(node, x, list(range(2, len(x.shape))), True)

    def averaged(self, node: onnx.NodeProto, x: View, axes: list[int], keep: bool) -> View:
        """Take the mean of some dimensions: sources are those rows side by side."""
        last = axes == [len(x.shape) - 1] and keep
        if last and (spread := of_squares(self.graph, self.place(node), x)) is not None:
            return spread
        rest = [axis for axis in range(len(x.shape)) if axis not in axes]
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)
                 if keep or axis not in axes]
        ids = x.ids.transpose(*axes, *rest)
        return self.graph.add("mean", self.place(node), [View(ids.shape, ids)], shape,
                              count=int(np.prod([x.shape[axis] for axis in axes])),
                              **({"last": x} if last else {}))

    def attention(self, node: onnx.NodeProto, query: View, key: View, value: View,
                  mask: Value = None, *past: Value) -> View:
        """Take ONNX's own attention apart."""
        given = _attributes(node)
        if len(query.shape) != 4 or any(item is not None for item in past) or isinstance(
                mask, View) or given.get("is_causal") or given.get("softcap") or len(
                    node.output) > 1 or query.shape[:2] != key.shape[:2]:
            raise NotUnderstoodError("expected plain attention of [batch, heads, tokens, channels]")
        scale = float(given.get("scale", query.shape[-1] ** -0.5))
        ids = key.ids.swapaxes(-1, -2)
        scores = self.multiply(node, query, View(ids.shape, ids))
        scores = self.function(node, scores, PROBES * scale)
        if mask is not None:
            if mask.dtype == np.bool_:
                raise NotUnderstoodError("its mask leaves tokens out")
            added = helper.make_node("Add", ["", ""], [node.output[0]], name=node.name)
            scores = self.binary(added, scores, mask)
        return self.multiply(node, self.graph.add("softmax", self.place(node), [scores],
                                                  scores.shape), value)


_REAL = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _constant(node: onnx.NodeProto) -> Reals:
    given = _attributes(node)
    if "value" in given:
        return numpy_helper.to_array(given["value"])
    for name, kind in (("value_float", np.float32), ("value_int", np.int64),
                       ("value_floats", np.float32), ("value_ints", np.int64)):
        if name in given:
            return np.asarray(given[name], kind)
    raise NotUnderstoodError("it holds no numbers")


def _shape_of(value: Value, given: dict[str, Any]) -> Reals:
    assert isinstance(value, View)
    return np.array(value.shape[given.get("start", 0):given.get("end")], np.int64)


def _image(model: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    """Return the name and the shape of the only input, with a batch of one."""
    stored = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in stored]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise NotUnderstoodError(f"the graph has {len(inputs)} inputs and "
                                 f"{len(model.graph.output)} outputs: expected an image and logits")
    sizes = [item.dim_value for item in inputs[0].type.tensor_type.shape.dim]
    if len(sizes) != 4 or min(sizes[1:]) < 1 or sizes[0] > 1:
        raise NotUnderstoodError(f"the input {inputs[0].name!r} has shape {sizes}: expected one "
                                 "image, or any number, of a fixed size, [batch, channels, H, W]")
    return inputs[0].name, (1, *sizes[1:])


def read(model: onnx.ModelProto) -> Graph:
    """Read a graph as far as its operators are understood.

    Raises
    ------
    NotUnderstoodError
        If it is not from one image to one result.
    """
    reader = _Reader(model)
    graph = reader.graph
    name, shape = _image(model)
    for item in model.graph.initializer:
        try:
            reader.values[item.name] = numpy_helper.to_array(item)
        except Exception:   # what a hostile file may hold has no end
            raise NotUnderstoodError(f"the constant {item.name!r} can't be read") from None
    reader.values[name] = graph.add("image", ("input", name), (), shape)
    for node in model.graph.node:
        try:
            reader.step(node)
        except Exception as error:   # what a hostile file may hold has no end
            why = str(error) if isinstance(error, NotUnderstoodError) else ""
            graph.stop = Stop(*reader.place(node), why)
            return graph
    result = reader.values.get(model.graph.output[0].name)
    if not isinstance(result, View):
        raise NotUnderstoodError("the result does not depend on the image")
    graph.result = result
    return graph
