# SPDX-License-Identifier: Apache-2.0
"""A float-simulated quantized network as ONNX with QuantizeLinear and DequantizeLinear.

The graph computes what `golden.ptq.method.apply` makes, node by node, in single precision; weights
are the very codes. QuantizeLinear rounds halves to even, and this project up: an activation that
lies on a half exactly has the neighbouring code.
"""

__all__ = ["model", "write"]

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch

from golden.float.swin import Swin, attention_mask
from golden.float.vit import Vit
from golden.onnx.graph import Graph
from golden.onnx.layers import Layers, check
from golden.onnx.options import OPSET
from golden.ptq.record import Record
from golden.ptq.sites import INPUT
from vitforge.base.files import replace

#: Names of the input and of the result.
IMAGE, LOGITS = "image", "logits"


def model(simulated: Vit | Swin, record: Record, opset: int = OPSET,
          notes: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Make an ONNX model of a simulated network.

    Parameters
    ----------
    simulated
        What a method's `apply` has made of a network and the record.
    record
        Its formats.
    opset
        Version of the operators: from 21 on codes of 4 bits have their type.
    notes
        Metadata.

    Returns
    -------
    onnx.ModelProto
        From ``image``, float32 ``[batch, channels, H, W]`` normalised as the float network's, to
        ``logits`` ``[batch, classes]``.

    Raises
    ------
    ValueError
        If ONNX has nothing for a format (the message names the tensor), or no such version.
    """
    check(record)
    graph, spec = Graph(opset), simulated.spec
    layers = Layers(graph, simulated, record)
    image = layers.site(INPUT, IMAGE)
    logits = _swin(layers, simulated, image) if isinstance(simulated, Swin) \
        else _vit(layers, simulated, image)
    return graph.model(
        (IMAGE, ["batch", spec.in_channels, spec.image_size, spec.image_size]),
        (LOGITS, ["batch", spec.classes]), logits, {"method": record.method, **(notes or {})})


def write(path: Path, made: onnx.ModelProto) -> None:
    """Write a model, whole or not at all."""
    replace(path, lambda temporary: temporary.write_bytes(made.SerializeToString()))


def _vit(layers: Layers, simulated: Vit, image: str) -> str:
    graph, spec, state = layers.graph, simulated.spec, layers.state
    x = layers.patches("patch_embed.proj", image)
    x = layers.turned(layers.shaped(x, 0, spec.dim, spec.patches), 0, 2, 1)
    # Rows of zeros for the class token and registers, which are added with the positions.
    x = graph("Pad", x, graph.constant(torch.tensor([0, spec.first, 0, 0, 0, 0])))
    rows = state["pos_embed"][0].clone()
    rows[0] += state["cls_token"][0, 0]
    x = layers.site("embedding", graph("Add", x, graph.constant(rows, "pos_embed")))
    if spec.norm_pre:
        x = layers.norm("norm_pre", x)
    for number in range(spec.depth):
        name = f"blocks.{number}"
        y = layers.attention(f"{name}.attn", layers.norm(f"{name}.norm1", x), spec.tokens,
                             spec.heads, spec.dim)
        x = layers.site(f"{name}.residual1", graph("Add", x, y))
        y = layers.mlp(f"{name}.mlp", layers.norm(f"{name}.norm2", x))
        x = layers.site(f"{name}.residual2", graph("Add", x, y))
    if spec.pool == "mean":
        x = layers.site("pool", _mean(graph, layers.part(x, 1, spec.first, spec.tokens), keep=1))
    x = layers.norm("norm", x)
    if spec.classified > 1:
        x = layers.shaped(layers.part(x, 1, 0, spec.classified), 0, spec.classified * spec.dim)
    else:
        x = graph("Gather", x, graph.constant(torch.tensor(0)), axis=1)
    return layers.linear("head", x)


def _mean(graph: Graph, x: str, keep: int) -> str:
    """Mean of all tokens."""
    if graph.opset >= 18:
        return graph("ReduceMean", x, graph.constant(torch.tensor([1])), keepdims=keep)
    return graph("ReduceMean", x, axes=[1], keepdims=keep)


def _swin(layers: Layers, simulated: Swin, image: str) -> str:
    graph, spec = layers.graph, simulated.spec
    x = layers.turned(layers.patches("patch_embed.proj", image), 0, 2, 3, 1)
    x = layers.norm("patch_embed.norm", layers.site("patch_embed.tokens", x))
    for number, stage in enumerate(spec.stages):
        layer = f"layers.{number}"
        if number:
            x = _merged(layers, f"{layer}.downsample", x)
        for block in range(stage.depth):
            name, shift = f"{layer}.blocks.{block}", stage.shift(block)
            y = _window_attention(layers, simulated, f"{name}.attn",
                                  layers.norm(f"{name}.norm1", x), number, shift)
            x = layers.site(f"{name}.residual1", graph("Add", x, y))
            y = layers.mlp(f"{name}.mlp", layers.norm(f"{name}.norm2", x))
            x = layers.site(f"{name}.residual2", graph("Add", x, y))
    x = layers.shaped(layers.norm("norm", x), 0, -1, spec.stages[-1].dim)
    return layers.linear("head.fc", layers.site("head.pool", _mean(graph, x, keep=0)))


def _merged(layers: Layers, name: str, x: str) -> str:
    """Patch merging."""
    corners = [layers.part(layers.part(x, 1, row, 1 << 31, 2), 2, column, 1 << 31, 2)
               for column in (0, 1) for row in (0, 1)]
    x = layers.site(f"{name}.merged", layers.graph("Concat", *corners, axis=3))
    x = layers.linear(f"{name}.reduction", layers.norm(f"{name}.norm", x))
    return layers.site(f"{name}.reduction", x)


def _window_attention(layers: Layers, simulated: Swin, name: str, x: str, number: int,
                      shift: int) -> str:
    """Attention within the windows of ``[B, size, size, dim]``."""
    stage = simulated.spec.stages[number]
    size, window, dim, count = stage.size, stage.window, stage.dim, stage.size // stage.window
    module = simulated.get_submodule(name)
    table = layers.state[f"{name}.relative_position_bias_table"]
    position = table[module.get_buffer("relative_position_index")].permute(2, 0, 1)
    masks = attention_mask(size, window, shift) if shift else None
    if shift:
        x = layers.rolled(layers.rolled(x, 1, size, shift), 2, size, shift)
    x = layers.turned(layers.shaped(x, -1, count, window, count, window, dim), 0, 1, 3, 2, 4, 5)
    x = layers.shaped(x, -1, window**2, dim)
    x = layers.attention(name, x, window**2, stage.heads, dim, (position, masks))
    x = layers.shaped(x, -1, count, count, window, window, dim)
    x = layers.shaped(layers.turned(x, 0, 1, 3, 2, 4, 5), -1, size, size, dim)
    if shift:
        x = layers.rolled(layers.rolled(x, 1, size, size - shift), 2, size, size - shift)
    return x
