# SPDX-License-Identifier: Apache-2.0
"""Walks over the nodes of a graph, and says what was expected where it meets something else."""

__all__ = ["Cursor"]

from typing import NoReturn

import numpy as np

from golden.graph.functions import ratio, words
from golden.graph.nodes import Graph
from golden.graph.values import Ints, Node, NotUnderstoodError, Reals, View


class Cursor:
    """The next node, and what its sources must be.

    Parameters
    ----------
    graph
        Read whole, or up to an operator that was not understood: then what was expected there is
        known when all before it is used up.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._nodes = graph.live()
        self._at = 0

    def peek(self, ahead: int = 0) -> Node | None:
        """Return a node that follows, if there is one."""
        return self._nodes[self._at + ahead] if self._at + ahead < len(self._nodes) else None

    def refuse(self, node: Node | None, expected: str) -> NoReturn:
        """Say that something else was expected in the place of a node, or of the graph's end."""
        if node is not None:
            raise NotUnderstoodError(f"operator {node.operator} at {node.name!r} is not understood "
                                     f"there: expected {expected}")
        stop = self.graph.stop
        if stop is None:
            raise NotUnderstoodError(f"the graph ends: expected {expected}")
        why = f" ({stop.why})" if stop.why else ""
        raise NotUnderstoodError(f"operator {stop.operator} at {stop.name!r} is not "
                                 f"understood{why}: expected {expected}")

    def take(self, kind: str, expected: str) -> Node:
        """Go over the next node, which must be of a kind."""
        node = self.peek()
        if node is None or node.kind != kind:
            self.refuse(node, expected)
        self._at += 1
        return node

    def end(self, view: View) -> None:
        """Refuse anything behind the result."""
        expected = "nothing behind the logits"
        if (node := self.peek()) is not None or self.graph.stop is not None:
            self.refuse(node, expected)
        assert self.graph.result is not None
        found, samples = self.graph.through(self.graph.result)
        if not found.same(view) or ratio(samples) != 1:
            self.refuse(self.graph.makers(self.graph.result)[-1], expected)

    def plain(self, node: Node, view: View, expected: str) -> View:
        """Return what a tensor is, if no function of each element was taken of it."""
        found, samples = self.graph.through(view)
        if (name := words(samples)) != "nothing":
            self.refuse(node, f"{expected}, not {name} of it")
        return found

    def rows(self, node: Node, view: View, of: Node, expected: str, *,
             function: str = "nothing") -> Ints:
        """Return which rows of the result of `of` a tensor has, ``[..., channels]``."""
        found, samples = self.graph.through(view)
        if self.graph.only(found) is not of:
            self.refuse(node, expected)
        if (name := words(samples)) != function:
            self.refuse(node, f"{expected} behind {function}, not {name}")
        wide = of.shape[-1]
        if found.start is not None and (found.start - of.start) % wide == 0 \
                and found.size % wide == 0:
            first = (found.start - of.start) // wide
            return np.arange(first, first + found.size // wide)
        if found.size % wide:
            self.refuse(node, expected)
        ids = found.ids.reshape(-1, wide) - of.start
        if bool((ids != ids[:, :1] + np.arange(wide)).any()) or bool((ids[:, 0] % wide).any()):
            self.refuse(node, f"{expected}, with all channels in order")
        return ids[:, 0] // wide

    def all_rows(self, node: Node, view: View, of: Node, expected: str, *,
                 function: str = "nothing") -> None:
        """Refuse a tensor that is not the whole result of `of`, row by row."""
        rows = self.rows(node, view, of, expected, function=function)
        if not np.array_equal(rows, np.arange(of.size // of.shape[-1])):
            self.refuse(node, f"{expected}, row by row")

    def constants(self, node: Node, view: View, base: Node, expected: str) -> tuple[Reals, float]:
        """Return what was added to the whole result of `base`, and by what it was multiplied.

        Of ``factor * base + constant``; the constant has the shape of the tensor.
        """
        added, factor = np.zeros(view.shape), 1.0
        while True:
            view, samples = self.graph.through(view)
            if (share := ratio(samples)) is None:
                self.refuse(node, f"{expected}, not {words(samples)} of it")
            factor *= share
            maker = self.graph.only(view)
            if maker is not None and maker.kind == "shifted":
                inside = view.ids - maker.start
                added = added + factor * maker.data["constant"].reshape(-1)[inside]
                view = View(view.shape, maker.sources[0].ids.reshape(-1)[inside])
                continue
            if not view.same(base.view):
                self.refuse(node, expected)
            return added, factor
