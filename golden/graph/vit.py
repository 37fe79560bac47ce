# SPDX-License-Identifier: Apache-2.0
"""A plain ViT or DeiT in a graph: patches, class token, pre-norm blocks, a norm, a classifier."""

__all__ = ["vit"]

from typing import Any

import numpy as np

from golden.graph.attention import added, attention, mlp
from golden.graph.cursor import Cursor
from golden.graph.found import Found, block
from golden.graph.values import Node, Reals, View


def embedded(cursor: Cursor, view: View, patches: Node, reader: Node) -> tuple[Reals, int]:
    """Return what is added to the tokens ``[T, dim]``, and how many have no patch.

    Tokens without patches come first, then the patches row by row.
    """
    what = "patches row by row behind the class token, with positions added"
    dim = patches.shape[1]
    if view.shape[-1] != dim or view.size % dim:
        cursor.refuse(reader, f"{what}, of {dim} channels")
    constant, ids = np.zeros(view.size), view.ids.reshape(-1).copy()
    while True:
        makers = {node.start: node for node in cursor.graph.makers(View(ids.shape, ids))}
        pending = [node for node in makers.values() if node.kind in ("shifted", "constant")]
        if not pending:
            break
        for node in pending:
            inside = (ids >= node.start) & (ids < node.start + node.size)
            number = ids[inside] - node.start
            if node.kind == "constant":
                constant[inside] += node.data["values"].reshape(-1)[number]
                ids[inside] = 0
            else:
                constant[inside] += node.data["constant"].reshape(-1)[number]
                ids[inside] = node.sources[0].ids.reshape(-1)[number]
    rows = ids.reshape(-1, dim)
    first = int((rows == 0).all(1).sum())
    # Of a convolution [1, dim, h, w]: patch by patch.
    order = np.arange(patches.size).reshape(dim, -1).T + patches.start
    if bool((rows[:first] != 0).any()) or not np.array_equal(rows[first:], order):
        cursor.refuse(reader, what)
    return constant.reshape(-1, dim), first


def _square(cursor: Cursor, patches: Node) -> dict[str, Any]:
    """Return the fields of a `VitSpec` that the first layer shows."""
    weight = patches.data["weight"]
    image = patches.sources[0]
    if image.shape[2] != image.shape[3] or weight.shape[2] != weight.shape[3]:
        cursor.refuse(patches, f"square patches of a square image, not {list(weight.shape[2:])} of "
                               f"{list(image.shape[2:])}")
    return {"image_size": image.shape[2], "patch_size": weight.shape[2],
            "in_channels": weight.shape[1], "dim": weight.shape[0]}


def vit(cursor: Cursor) -> Found:
    """Go over the whole network.

    Raises
    ------
    NotUnderstoodError
        At the first node that a plain ViT has not there.
    """
    patches = cursor.take("convolution", "the embedding of patches")
    fields = _square(cursor, patches)
    while (node := cursor.peek()) is not None and node.kind == "shifted":
        cursor.take("shifted", "positions")
    node = cursor.peek()
    if node is None or node.kind != "norm":
        cursor.refuse(node, "class token and positions, then the norm of the first block")
    stream = cursor.plain(node, node.sources[0], "the tokens")
    constant, first = embedded(cursor, stream, patches, node)
    if not first:
        cursor.refuse(node, "a class token before the patches")
    dim, tokens = fields["dim"], len(constant)
    state: dict[str, Reals] = {
        "patch_embed.proj.weight": patches.data["weight"],
        "patch_embed.proj.bias": patches.data["bias"],
        "cls_token": np.zeros((1, 1, dim)), "pos_embed": constant[None]}
    epsilons, shapes, depth = set(), set(), 0
    before = cursor.peek(1)
    if first_norm := before is not None and before.kind == "norm":
        cursor.take("norm", "a norm before the blocks")
        epsilons.add(node.data["epsilon"])
        state |= {"norm_pre.weight": node.data["weight"], "norm_pre.bias": node.data["bias"]}
        stream = node.view
    while True:
        name = f"block {depth}"
        norm1 = cursor.take("norm", f"the norm before {name}, or before the classifier")
        epsilons.add(norm1.data["epsilon"])
        source = cursor.plain(norm1, norm1.sources[0], f"the tokens before {name}")
        if not source.same(stream) or _classifies(cursor, norm1):
            break
        found = attention(cursor, norm1, f"the attention of {name}")
        if len(found.tokens) != 1 or found.bias.any():
            cursor.refuse(found.node, f"attention of all {tokens} tokens without a bias in {name}")
        middle = added(cursor, stream, found.node, found.order,
                       f"the attention of {name}")
        norm2 = cursor.take("norm", f"the second norm of {name}")
        epsilons.add(norm2.data["epsilon"])
        cursor.all_rows(norm2, norm2.sources[0], middle, f"the tokens in {name}")
        layers = mlp(cursor, norm2, f"the MLP of {name}")
        end = added(cursor, middle.view, layers.node, None, f"the MLP of {name}")
        state |= block(f"blocks.{depth}", (norm1, norm2), found, layers)
        shapes.add((found.heads, len(layers.first[0]), layers.gelu))
        if len(shapes) > 1:
            cursor.refuse(layers.node, "the heads, MLP channels and GELU of the blocks before")
        stream, depth = end.view, depth + 1
    if not depth:
        cursor.refuse(cursor.peek(), "a block")
    if len(epsilons) != 1:
        cursor.refuse(norm1, f"one epsilon of all norms, not {sorted(epsilons)}")
    state |= _classifier(cursor, stream, norm1)
    heads, hidden, gelu = next(iter(shapes))
    return Found("vit", {**fields, "classes": len(state["head.weight"]), "depth": depth,
                         "heads": heads, "mlp_hidden": hidden,
                         "registers": first - 1, "norm_pre": first_norm,
                         "norm_eps": epsilons.pop(), "gelu": gelu}, state)


def _classifies(cursor: Cursor, norm: Node) -> bool:
    """Whether what follows a norm of all tokens reads some of them only."""
    node = cursor.peek()
    if node is None or node.kind != "linear":
        return node is not None and node.kind == "mean"
    found, _ = cursor.graph.through(node.sources[0])
    return found.size < norm.size


def _classifier(cursor: Cursor, stream: View, norm: Node) -> dict[str, Reals]:
    """Go over the classifier of the class token."""
    what = "the last norm, of the class token or of all"
    dim = norm.shape[-1]
    source = cursor.plain(norm, norm.sources[0], what)
    token = View((dim,), stream.ids.reshape(-1, dim)[0])
    if not source.same(stream) and not source.same(token):
        cursor.refuse(norm, what)
    what = "a classifier of the class token"
    head = cursor.take("linear", what)
    if cursor.rows(head, head.sources[0], norm, what).tolist() != [0]:
        cursor.refuse(head, what)
    cursor.end(head.view)
    return {"norm.weight": norm.data["weight"], "norm.bias": norm.data["bias"],
            "head.weight": head.data["weight"].T, "head.bias": head.data["bias"]}
