# SPDX-License-Identifier: Apache-2.0
"""What both families of networks are made of, in ONNX: layers, norms, MLP, attention."""

__all__ = ["Layers", "check", "check_settings"]

import torch
from torch import Tensor, nn

from golden.float.swin import Swin
from golden.float.vit import QuickGelu, Vit
from golden.onnx.codes import quantized, weight
from golden.onnx.graph import Graph
from golden.onnx.softmax import integer_softmax
from golden.ptq.integer_softmax import LogIntSoftmax
from golden.ptq.record import Record


def check_settings(settings: object) -> None:
    """Refuse options of a method whose decisions ONNX can't hold: calibration may take minutes.

    Raises
    ------
    ValueError
        The message names the option.
    """
    if getattr(settings, "dual", False):
        raise ValueError("--onnx: all layers' weights have two scales in a row, for which ONNX has "
                         "no codes: --set dual=false")
    if getattr(settings, "softmax", "") == "shift":
        raise ValueError("--onnx: all attention has a shift-based softmax, which ONNX's operators "
                         "don't have: --set softmax=polynomial, or float")


def check(record: Record) -> None:
    """Refuse formats of weights that ONNX has not.

    Raises
    ------
    ValueError
        The message names the layer.
    """
    for name, item in record.formats.items():
        if not name.endswith(".weight"):
            continue
        if item.kind == "dual":
            raise ValueError(f"--onnx: {name} has two scales in a row, for which ONNX has no "
                             "codes: --set dual=false")
        if item.kind != "uniform" or (isinstance(item.scale, tuple) and item.axis != 0):
            raise ValueError(f"--onnx: {name} has {item.kind} codes, and ONNX has those of weights "
                             "with one step, or one a row, only")


class Layers:
    """Adds the parts of a simulated network, by the names of its modules.

    Parameters
    ----------
    graph
        Where to.
    model, record
        The simulated network (`golden.ptq.method.apply`), and what it was made by.
    """

    def __init__(self, graph: Graph, model: Vit | Swin, record: Record) -> None:
        self.graph, self.record = graph, record
        self.state = {name: value.detach().float() for name, value in model.named_parameters()}
        self.modules = dict(model.named_modules())

    def site(self, name: str, x: str) -> str:
        """Quantize what leaves a module, if it has a format."""
        item = self.record.formats.get(name)
        if item is None or isinstance(self.modules.get(name), LogIntSoftmax):
            return x
        with self.graph.at(name):
            return quantized(self.graph, x, item)

    def shaped(self, x: str, *shape: int) -> str:
        """Reshape; a dimension of 0 stays."""
        return self.graph("Reshape", x, self.graph.constant(torch.tensor(shape), "shape"))

    def turned(self, x: str, *order: int) -> str:
        """Transpose."""
        return self.graph("Transpose", x, perm=list(order))

    def part(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """Slice one axis."""
        ends = (self.graph.constant(torch.tensor([value])) for value in (start, stop, axis, step))
        return self.graph("Slice", x, *ends)

    def rolled(self, x: str, axis: int, size: int, shift: int) -> str:
        """Move everything up by `shift`, 0 to `size`, around the end."""
        return self.graph("Concat", self.part(x, axis, shift, size), self.part(x, axis, 0, shift),
                          axis=axis)

    def weight(self, name: str, *, transposed: bool) -> str:
        """Add a layer's weights."""
        full = f"{name}.weight"
        return weight(self.graph, self.state[full], self.record.formats.get(full),
                      transposed=transposed)

    def linear(self, name: str, x: str) -> str:
        """Multiply by a layer's weights ``[N, K]``, and add its bias if there is one."""
        with self.graph.at(name):
            y = self.graph("MatMul", x, self.weight(name, transposed=True))
            if f"{name}.bias" in self.state:
                y = self.graph("Add", y, self.graph.constant(self.state[f"{name}.bias"], "bias"))
            return y

    def patches(self, name: str, x: str) -> str:
        """Embed patches: ``[B, channels, H, W]`` to ``[B, dim, h, w]``."""
        size = self.state[f"{name}.weight"].shape[-1]
        with self.graph.at(name):
            return self.graph("Conv", x, self.weight(name, transposed=False),
                              self.graph.constant(self.state[f"{name}.bias"], "bias"),
                              kernel_shape=[size, size], strides=[size, size])

    def norm(self, name: str, x: str) -> str:
        """Normalise the last dimension."""
        module = self.modules[name]
        assert isinstance(module, nn.LayerNorm)
        with self.graph.at(name):
            y = self.graph("LayerNormalization", x,
                           *(self.graph.constant(self.state[f"{name}.{part}"], part)
                             for part in ("weight", "bias")), axis=-1, epsilon=module.eps)
        return self.site(name, y)

    def mlp(self, name: str, x: str) -> str:
        """Add two layers with GELU, or ReLU, between them."""
        hidden, active = self.linear(f"{name}.fc1", x), f"{name}.act"
        with self.graph.at(active):
            module = self.modules[active]
            hidden = self.graph("Relu", hidden) if isinstance(module, nn.ReLU) \
                else self.quick_gelu(hidden) if isinstance(module, QuickGelu) \
                else self.gelu(hidden)
        return self.linear(f"{name}.fc2", self.site(active, hidden))

    def quick_gelu(self, x: str) -> str:
        """Add ``x sigmoid(1.702 x)``."""
        graph = self.graph
        return graph("Mul", x, graph("Sigmoid", graph("Mul", x, graph.constant(1.702))))

    def gelu(self, x: str) -> str:
        """Add the exact GELU, of operators where the version has none."""
        graph = self.graph
        if graph.opset >= 20:
            return graph("Gelu", x)
        erf = graph("Erf", graph("Mul", x, graph.constant(0.5**0.5)))
        half = graph("Mul", x, graph.constant(0.5))
        return graph("Mul", half, graph("Add", erf, graph.constant(1.0)))

    def attention(self, name: str, x: str, tokens: int, heads: int, dim: int,
                  bias: tuple[Tensor, Tensor | None] | None = None) -> str:
        """Add self-attention of rows ``[B, tokens, dim]``.

        Parameters
        ----------
        bias
            In windows: what is added to the scores of each head, ``[heads, tokens, tokens]``, and
            the masks of windows, ``[windows, tokens, tokens]``; then B counts windows.
        """
        graph, parts = self.graph, []
        y = self.linear(f"{name}.qkv", x)
        with graph.at(name):
            y = self.turned(self.shaped(y, 0, tokens, 3, heads, dim // heads), 2, 0, 3, 1, 4)
            for index, part in enumerate("qkv"):
                one = graph("Gather", y, graph.constant(torch.tensor(index)), axis=0)
                parts.append(self.site(f"{name}.{part}", one))
            query, key, value = parts
            scores = graph("Mul", graph("MatMul", query, self.turned(key, 0, 1, 3, 2)),
                           graph.constant((dim // heads) ** -0.5))
            scores = self.site(f"{name}.scores", scores)
            if bias is not None:
                scores = self.biased(name, scores, tokens, *bias)
            module = self.modules[f"{name}.softmax"]
            if isinstance(module, LogIntSoftmax):
                with graph.at(f"{name}.softmax"):
                    chance = integer_softmax(graph, scores, module, tokens)
            else:
                chance = self.site(f"{name}.softmax", graph("Softmax", scores, axis=-1))
            context = self.turned(graph("MatMul", chance, value), 0, 2, 1, 3)
            context = self.site(f"{name}.context", self.shaped(context, 0, tokens, dim))
        return self.linear(f"{name}.proj", context)

    def biased(self, name: str, scores: str, tokens: int, position: Tensor,
               masks: Tensor | None) -> str:
        """Add the position bias and the masks of windows."""
        graph, heads = self.graph, len(position)
        added = self.site(f"{name}.position", graph.constant(position, "position"))
        scores = self.site(f"{name}.biased", graph("Add", scores, added))
        if masks is None:
            return scores
        scores = self.shaped(scores, -1, len(masks), heads, tokens, tokens)
        scores = graph("Add", scores, graph.constant(masks[:, None], "masks"))
        return self.shaped(scores, -1, heads, tokens, tokens)
