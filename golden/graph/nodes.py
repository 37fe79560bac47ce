# SPDX-License-Identifier: Apache-2.0
"""The nodes of a graph that was read, and which of them makes an element."""

__all__ = ["Graph", "Stop"]

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golden.graph.values import PROBES, Node, Reals, View


@dataclass(frozen=True)
class Stop:
    """Where reading ended early: the operator, its name, and why."""

    operator: str
    name: str
    why: str = ""


class Graph:
    """Nodes in order, and the result if the whole graph could be read."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.stop: Stop | None = None
        self.result: View | None = None
        self._starts: list[int] = []
        self._next = 1   # 0 is the number of a zero

    def add(self, kind: str, source: tuple[str, str], sources: Sequence[View],
            shape: Sequence[int], **data: Any) -> View:
        """Add a node of an operator and a name, and return its result."""
        node = Node(kind, *source, tuple(sources), tuple(int(size) for size in shape), self._next,
                    data)
        found = node.view
        self.nodes.append(node)
        self._starts.append(self._next)
        self._next += node.size
        return found

    def node(self, number: int) -> Node:
        """Return the node that computes an element."""
        return self.nodes[bisect_right(self._starts, number) - 1]

    def makers(self, view: View) -> list[Node]:
        """Return the nodes that compute elements of a tensor."""
        if view.start is not None:
            first, last = (bisect_right(self._starts, number) - 1
                           for number in (view.start, view.start + max(view.size, 1) - 1))
            return self.nodes[max(first, 0):last + 1]
        found = np.unique(np.searchsorted(self._starts, view.ids, side="right") - 1)
        return [self.nodes[index] for index in found.tolist() if index >= 0]

    def whole(self, view: View) -> Node | None:
        """Return the node of whose result a tensor is all, in order and in shape."""
        if view.start is None or not view.start:
            return None
        node = self.node(view.start)
        return node if node.start == view.start and node.shape == view.shape else None

    def only(self, view: View) -> Node | None:
        """Return the node that computes all elements of a tensor; None if there are more."""
        makers = self.makers(view)
        literal = view.start == 0 or (view.start is None and bool((view.ids == 0).any()))
        return makers[0] if len(makers) == 1 and not literal else None

    def through(self, view: View) -> tuple[View, Reals]:
        """Return what functions of each element are of, and their values at `PROBES`."""
        samples = PROBES
        node = self.only(view)
        if node is not None and node.kind == "function":
            samples, source = node.data["samples"], node.sources[0]
            if view.start == node.start and view.size == node.size:
                return source.reshaped(view.shape), samples
            return View(view.shape, source.ids.reshape(-1)[view.ids - node.start]), samples
        return view, samples

    def live(self) -> list[Node]:
        """Return the nodes that the result needs, without functions; of a part, what may matter."""
        nodes = [node for node in self.nodes if not node.absorbed]
        if self.result is not None:
            wanted: set[int] = set()
            waiting = [self.result]
            while waiting:
                for node in self.makers(waiting.pop()):
                    if node.start not in wanted:
                        wanted.add(node.start)
                        waiting.extend(node.sources)
            nodes = [node for node in self.nodes if node.start in wanted]
        return [node for node in nodes if node.kind not in ("function", "constant", "image")]
