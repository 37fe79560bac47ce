# SPDX-License-Identifier: Apache-2.0
"""A Swin in a graph: attention in windows, shifted and masked, position biases, patch merging."""

__all__ = ["swin"]

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from golden.float.swin import attention_mask, position_index
from golden.graph.attention import Attention, added, attention, mlp
from golden.graph.cursor import Cursor
from golden.graph.found import Found, block
from golden.graph.values import Ints, Node, Reals, View


@dataclass
class _Stages:
    """Sizes of the stages so far."""

    depths: list[int]
    heads: list[int]
    windows: list[int]


def _windows(size: int, window: int, shift: int) -> Ints:
    """Return the tokens of each window, ``[windows, T]``."""
    place = np.roll(np.arange(size**2).reshape(size, size), (-shift, -shift), (0, 1))
    count = size // window
    return place.reshape(count, window, count, window).transpose(0, 2, 1, 3).reshape(
        -1, window**2)


def _table(cursor: Cursor, found: Attention, size: int, block_number: int, name: str,
           ) -> tuple[int, Reals]:
    """Return the window's side and the table of position biases ``[distances, heads]``."""
    window = isqrt(found.tokens.shape[-1])
    shift = window // 2 if block_number % 2 and size > window else 0
    if window**2 != found.tokens.shape[-1] or size % window or not np.array_equal(
            found.tokens, _windows(size, window, shift)):
        cursor.refuse(found.node, f"windows of {window}x{window} of {size}x{size} tokens, shifted "
                                  f"by {shift}, in {name}")
    mask = attention_mask(size, window, shift).double().numpy() if shift else np.zeros(
        (len(found.tokens), window**2, window**2))
    seen = mask == 0
    index = position_index(window).numpy()
    table = np.zeros(((2 * window - 1) ** 2, found.heads))
    for at in range(found.heads):
        head = found.bias[:, at]
        where = seen[0] if seen[0].all() else seen.any(0)
        first = np.argmax(seen, 0)   # a window in which a pair is not masked
        values = np.take_along_axis(head, first[None], 0)[0]
        table[index[where], at] = values[where]
        # An exporter may add mask and bias in single precision before.
        if not np.allclose(head, table[index, at] + mask, rtol=0, atol=1e-4):
            cursor.refuse(found.node, f"scores with a bias by relative position, and shifted "
                                      f"windows masked, in {name}")
    return window, table


def _merging(cursor: Cursor, name: str, stream: View, size: int) -> tuple[dict[str, Reals], Node]:
    """Go over a patch merging: 2x2 tokens side by side, a norm, a layer."""
    what = f"2x2 tokens side by side, normalised, before {name}"
    norm = cursor.take("norm", what)
    rows = stream.ids.reshape(size, size, -1)
    corners = np.concatenate([rows[row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
    if not cursor.plain(norm, norm.sources[0], what).same(View(corners.shape, corners)):
        cursor.refuse(norm, what)
    layer = cursor.take("linear", f"the layer that merges patches before {name}")
    cursor.all_rows(layer, layer.sources[0], norm, "the merged tokens")
    if layer.data["bias"].any():
        cursor.refuse(layer, "a layer without a bias")
    return {f"{name}.downsample.norm.weight": norm.data["weight"],
            f"{name}.downsample.norm.bias": norm.data["bias"],
            f"{name}.downsample.reduction.weight": layer.data["weight"].T}, layer


def swin(cursor: Cursor) -> Found:
    """Go over the whole network.

    Raises
    ------
    NotUnderstoodError
        At the first node that a Swin has not there.
    """
    patches = cursor.take("convolution", "the embedding of patches")
    weight, image = patches.data["weight"], patches.sources[0]
    if image.shape[2] != image.shape[3] or weight.shape[2] != weight.shape[3]:
        cursor.refuse(patches, "square patches of a square image")
    size, dim = patches.shape[2], len(weight)
    norm = cursor.take("norm", "the norm of the patches")
    rows = patches.view.ids.reshape(dim, -1).T
    if not cursor.plain(norm, norm.sources[0], "patches").same(View(rows.shape, rows)):
        cursor.refuse(norm, "the patches row by row")
    state: dict[str, Reals] = {
        "patch_embed.proj.weight": weight, "patch_embed.proj.bias": patches.data["bias"],
        "patch_embed.norm.weight": norm.data["weight"], "patch_embed.norm.bias": norm.data["bias"]}
    stages, stream, ratio = _Stages([0], [0], [0]), norm.view, set[float]()
    while True:
        if _merges(cursor, stream):
            layer = f"layers.{len(stages.depths)}"
            more, merged = _merging(cursor, layer, stream, size)
            state |= more
            size, dim, stream = size // 2, merged.shape[-1], merged.view
            stages = _Stages([*stages.depths, 0], [*stages.heads, 0], [*stages.windows, 0])
        last = len(stages.depths) - 1
        place = f"block {stages.depths[-1]} of stage {last}"
        norm1 = cursor.take("norm", f"the norm before {place}, or before the mean of all tokens")
        if not cursor.plain(norm1, norm1.sources[0], "the tokens").same(stream):
            cursor.refuse(norm1, f"the norm of all tokens before {place}")
        if (node := cursor.peek()) is None or node.kind == "mean":
            break
        more, stream, hidden = _block(cursor, stages, norm1, stream, size, place)
        state |= more
        ratio.add(hidden / dim)
    state |= _classifier(cursor, norm1)
    return Found("swin", _fields(cursor, patches, stages, ratio, norm1, state), state)


def _merges(cursor: Cursor, stream: View) -> bool:
    """Whether the next norm is that of merged tokens."""
    node = cursor.peek()
    return node is not None and node.kind == "norm" and node.size == stream.size \
        and node.shape[-1] == 4 * stream.shape[-1]


def _block(cursor: Cursor, stages: _Stages, norm1: Node, stream: View, size: int, place: str,
           ) -> tuple[dict[str, Reals], View, int]:
    """Go over a block; return its parameters, what it makes, and the channels of its MLP."""
    found = attention(cursor, norm1, f"the attention of {place}")
    number, stage = stages.depths[-1], len(stages.depths) - 1
    window, table = _table(cursor, found, size, number, place)
    before = stages.heads[-1], stages.windows[-1]
    if number and before != (found.heads, window):
        cursor.refuse(found.node, f"{before[0]} heads and windows of {before[1]} as in the blocks "
                                  "before")
    stages.depths[-1], stages.heads[-1], stages.windows[-1] = number + 1, found.heads, window
    middle = added(cursor, stream, found.node, found.order, f"the attention of {place}")
    norm2 = cursor.take("norm", f"the second norm of {place}")
    cursor.all_rows(norm2, norm2.sources[0], middle, f"the tokens in {place}")
    layers = mlp(cursor, norm2, f"the MLP of {place}")
    if layers.gelu != "exact":
        cursor.refuse(layers.node, f"the exact GELU in {place}")
    end = added(cursor, middle.view, layers.node, None, f"the MLP of {place}")
    name = f"layers.{stage}.blocks.{number}"
    state = block(name, (norm1, norm2), found, layers)
    state[f"{name}.attn.relative_position_bias_table"] = table
    return state, end.view, len(layers.first[0])


def _classifier(cursor: Cursor, norm: Node) -> dict[str, Reals]:
    """Go over the mean of all tokens and the classifier."""
    what = "the mean of all tokens behind the last norm"
    mean = cursor.take("mean", what)
    found = cursor.plain(mean, mean.sources[0], what)
    dim = norm.shape[-1]
    if mean.data["count"] * dim != norm.size or cursor.graph.only(found) is not norm or \
            not np.array_equal(np.sort((found.ids.reshape(-1, dim) - norm.start), 0),
                               np.arange(norm.size).reshape(-1, dim)):
        cursor.refuse(mean, what)
    head = cursor.take("linear", "a classifier of the mean")
    if not cursor.plain(head, head.sources[0], "the mean").same(mean.view):
        cursor.refuse(head, "a classifier of the mean")
    cursor.end(head.view)
    return {"norm.weight": norm.data["weight"], "norm.bias": norm.data["bias"],
            "head.fc.weight": head.data["weight"].T, "head.fc.bias": head.data["bias"]}


def _fields(cursor: Cursor, patches: Node, stages: _Stages, ratio: set[float], norm: Node,
            state: dict[str, Reals]) -> dict[str, Any]:
    """Return the fields of a `SwinSpec`."""
    if len(ratio) != 1 or not (most := ratio.pop()).is_integer():
        cursor.refuse(norm, "MLPs that are as many times as wide as their blocks in all stages")
    weight = patches.data["weight"]
    return {"image_size": patches.sources[0].shape[2], "patch_size": weight.shape[2],
            "in_channels": weight.shape[1], "classes": len(state["head.fc.weight"]),
            "dim": len(weight), "depths": tuple(stages.depths), "heads": tuple(stages.heads),
            "window": max(stages.windows), "mlp_ratio": int(most)}
