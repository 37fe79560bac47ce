# SPDX-License-Identifier: Apache-2.0
"""Attention and MLP of a graph, whatever the order in which an exporter cuts tokens and heads."""

__all__ = ["Attention", "Mlp", "added", "attention", "mlp"]

from dataclasses import dataclass

import numpy as np

from golden.graph.cursor import Cursor
from golden.graph.functions import QUICK, ratio, words
from golden.graph.values import Ints, Node, Reals, View


@dataclass(frozen=True)
class Attention:
    """What was found, in timm's order: heads side by side.

    Attributes
    ----------
    heads
        Their number.
    tokens
        Token of each row of each window, ``[windows, T]``.
    bias
        What is added to the scores, ``[windows, heads, T, T]``.
    qkv, proj
        Weight ``[N, K]`` and bias of each layer.
    node, order
        The node whose rows are the result, and the token of each row.
    """

    heads: int
    tokens: Ints
    bias: Reals
    qkv: tuple[Reals, Reals]
    proj: tuple[Reals, Reals]
    node: Node
    order: Ints


@dataclass(frozen=True)
class Mlp:
    """Two layers: weight ``[N, K]`` and bias of each; the node with the result; what GELU is."""

    first: tuple[Reals, Reals]
    second: tuple[Reals, Reals]
    node: Node
    gelu: str


class _Layers:
    """Layers side by side that read the tokens of a norm."""

    def __init__(self, cursor: Cursor, norm: Node, place: str) -> None:
        self.cursor, self.nodes, self.tokens = cursor, list[Node](), list[Ints]()
        while (node := cursor.peek()) is not None and node.kind == "linear":
            cursor.take("linear", "")
            self.nodes.append(node)
            self.tokens.append(cursor.rows(node, node.sources[0], norm,
                                           f"the tokens of the norm before {place}"))
        if not self.nodes:
            cursor.refuse(node, f"the layers of queries, keys and values of {place}")
        self.weight = np.concatenate([node.data["weight"].T for node in self.nodes])
        self.bias = np.concatenate([node.data["bias"] for node in self.nodes])
        ends = np.cumsum([0, *(node.shape[-1] for node in self.nodes)])
        self.first = ends[:-1]

    def cut(self, node: Node, view: View, expected: str) -> tuple[Ints, Ints, float]:
        """Return token and channel of ``[..., tokens, channels]``: ``[L, T]``, ``[L, D]``.

        And what they are multiplied by.
        """
        found, samples = self.cursor.graph.through(view)
        if (factor := ratio(samples)) is None:
            self.cursor.refuse(node, f"{expected}, not {words(samples)} of them")
        ids = found.ids.reshape(-1, *found.shape[-2:])
        token, column = np.full(ids.shape, -1), np.full(ids.shape, -1)
        for part, tokens, first in zip(self.nodes, self.tokens, self.first, strict=True):
            inside = (ids >= part.start) & (ids < part.start + part.size)
            number = ids[inside] - part.start
            token[inside] = tokens[number // part.shape[-1]]
            column[inside] = first + number % part.shape[-1]
        if bool((token < 0).any()) or bool((token != token[..., :1]).any()) \
                or bool((column != column[:, :1]).any()):
            self.cursor.refuse(node, expected)
        return token[..., 0], column[:, 0], factor


def attention(cursor: Cursor, norm: Node, place: str) -> Attention:
    """Go over the attention that reads a norm, up to the result of its last layer."""
    layers = _Layers(cursor, norm, place)
    what = f"Q K^T of the heads of {place}"
    scores = cursor.take("product", what)
    tokens, queries, by = layers.cut(scores, scores.sources[0], what)
    keys = scores.sources[1]
    same, keys_at, by_keys = layers.cut(
        scores, View((*keys.shape[:-2], keys.shape[-1], keys.shape[-2]),
                     keys.ids.swapaxes(-1, -2)), what)
    if not np.array_equal(same, tokens):
        cursor.refuse(scores, f"{what}, of the same tokens")
    what = f"softmax of the scores of {place}"
    while (node := cursor.peek()) is not None and node.kind == "shifted":
        cursor.take("shifted", what)
    softmax = cursor.take("softmax", what)
    bias, factor = cursor.constants(softmax, softmax.sources[0], scores, what)
    what = f"P V of the heads of {place}"
    context = cursor.take("product", what)
    if not cursor.plain(context, context.sources[0], what).same(softmax.view):
        cursor.refuse(context, what)
    same, values, by_values = layers.cut(context, context.sources[1], what)
    if not np.array_equal(same, tokens):
        cursor.refuse(context, f"{what}, of the same tokens")
    heads = int((tokens == tokens[0]).all(1).sum())
    windows = len(tokens) // heads
    shape, width = (windows, heads, -1), queries.shape[-1]
    grouped = tokens.reshape(*shape)
    columns = [item.reshape(*shape) for item in (queries, keys_at, values)]
    if bool((grouped != grouped[:, :1]).any()) or any(
            bool((item != item[:1]).any()) for item in columns):
        cursor.refuse(context, f"{what}, window by window")
    inside = heads * width
    scale = by * by_keys * factor * width**0.5   # 1, but for rounding
    each = np.concatenate([np.full(inside, 1.0 if abs(scale - 1) < 1e-6 else scale),
                           np.full(inside, 1.0), np.full(inside, by_values)])
    order = np.concatenate([item[0].reshape(-1) for item in columns])
    node, proj, rows = _projection(cursor, context, grouped[:, 0], heads, width, place)
    count = tokens.shape[-1]
    return Attention(heads=heads, tokens=grouped[:, 0],
                     bias=bias.reshape(windows, heads, count, count),
                     qkv=(layers.weight[order] * each[:, None], layers.bias[order] * each),
                     proj=proj, node=node, order=rows)


def _projection(cursor: Cursor, context: Node, tokens: Ints, heads: int, width: int,
                place: str) -> tuple[Node, tuple[Reals, Reals], Ints]:
    """Go over the layer that reads all heads of a token side by side."""
    what = f"the layer that reads all heads of a token of {place}"
    node = cursor.take("linear", what)
    found = cursor.plain(node, node.sources[0], what)
    if cursor.graph.only(found) is not context or found.shape[-1] != heads * width:
        cursor.refuse(node, what)
    number = found.ids.reshape(-1, found.shape[-1]) - context.start
    channel, rest = number % width, number // width
    row, group = rest % tokens.shape[-1], rest // tokens.shape[-1]
    column, token = group % heads * width + channel, tokens[group // heads, row]
    if bool((column != column[:1]).any()) or bool((token != token[:, :1]).any()) \
            or len(set(column[0].tolist())) != heads * width:
        cursor.refuse(node, what)
    weight = np.zeros_like(node.data["weight"].T)
    weight[:, column[0]] = node.data["weight"].T
    return node, (weight, node.data["bias"]), token[:, 0]


def mlp(cursor: Cursor, norm: Node, place: str) -> Mlp:
    """Go over two layers with the exact GELU, or QuickGELU, between them."""
    what = f"the first layer of {place}"
    first = cursor.take("linear", what)
    cursor.all_rows(first, first.sources[0], norm, what)
    what = f"the second layer of {place}"
    second = cursor.take("linear", what)
    quick = words(cursor.graph.through(second.sources[0])[1]) == QUICK
    cursor.all_rows(second, second.sources[0], first, what,
                    function=QUICK if quick else "the exact GELU")
    return Mlp((first.data["weight"].T, first.data["bias"]),
               (second.data["weight"].T, second.data["bias"]), second,
               "quick" if quick else "exact")


def added(cursor: Cursor, stream: View, branch: Node, order: Ints | None, place: str) -> Node:
    """Go over the addition of a branch's rows, in the order of its tokens, to the stream."""
    what = f"{place} added to what it began with"
    node = cursor.take("add", what)
    views = [cursor.plain(node, view, what) for view in node.sources]
    kept = [view for view in views if view.same(stream)]
    if len(kept) != 1:
        cursor.refuse(node, what)
    other = next(view for view in views if view is not kept[0])
    rows = cursor.rows(node, other, branch, what)
    token = rows if order is None else order[rows]
    if not np.array_equal(token, np.arange(stream.size // stream.shape[-1])):
        cursor.refuse(node, f"{what}, token by token")
    return node
