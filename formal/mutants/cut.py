# SPDX-License-Identifier: Apache-2.0
"""Whether a mutant does in a cycle what the unit does from the same state: and-inverter graphs.

Unit and mutant share inputs and registers, and gates that have the same inputs are one (`_Gates`):
what is left is what the change reaches. If from any state, reachable or not, both give the same
outputs and the same next state, they do so in every run, as both begin with the same. So they do if
it is so from every state that the unit reaches: then registers go on with what the unit says.
"""

__all__ = ["Graph", "differs", "read"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Graph:
    """A binary AIGER: literals are twice a variable's number, and one more if inverted.

    Variable 0 is 0; then come `inputs`, then registers, of which `nexts` has a literal each, then
    gates, each the AND of two literals.
    """

    inputs: int
    nexts: Sequence[int]
    outputs: Sequence[int]
    gates: Sequence[tuple[int, int]]


def read(data: bytes) -> Graph:
    """Read a binary AIGER."""
    head, rest = data.split(b"\n", 1)
    _, inputs, latches, outputs, gates = map(int, head.split()[1:6])
    *lines, rest = rest.split(b"\n", latches + outputs)
    firsts = [int(line.split()[0]) for line in lines]
    place, found = 0, []

    def delta() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = rest[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    for index in range(gates):
        left = 2 * (inputs + latches + index + 1) - delta()
        found.append((left, left - delta()))
    return Graph(inputs, firsts[:latches], firsts[latches:], found)


class _Gates:
    """Gates over shared inputs, none of them twice."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.made: dict[tuple[int, int], int] = {}

    def both(self, left: int, right: int) -> int:
        """Return the literal of an AND."""
        if left < right:
            left, right = right, left
        if right == 0 or left == right ^ 1:
            return 0
        if right == 1 or left == right:
            return left
        return self.made.setdefault((left, right), 2 * (self.inputs + len(self.made) + 1))

    def either(self, left: int, right: int) -> int:
        """Return the literal of an OR."""
        return self.both(left ^ 1, right ^ 1) ^ 1

    def unlike(self, left: int, right: int) -> int:
        """Return the literal of an XOR."""
        return self.either(self.both(left, right ^ 1), self.both(left ^ 1, right))

    def copy(self, graph: Graph, fixed: Mapping[int, int]) -> list[int]:
        """Return the literal of each variable of a graph, with some inputs, from 0 on, fixed."""
        values = [0, *(fixed.get(index, 2 * (index + 1)) for index in range(graph.inputs)),
                  *(2 * (graph.inputs + index + 1) for index in range(len(graph.nexts)))]
        for left, right in graph.gates:
            values.append(self.both(values[left >> 1] ^ left & 1, values[right >> 1] ^ right & 1))
        return values

    def aiger(self, output: int, nexts: Sequence[int] = ()) -> bytes:
        """Return a binary AIGER, the last inputs of which are registers if `nexts` are given."""
        text = bytearray(f"aig {self.inputs + len(self.made)} {self.inputs - len(nexts)} "
                         f"{len(nexts)} 1 {len(self.made)}\n".encode())
        text += b"".join(b"%d\n" % literal for literal in (*nexts, output))
        for (left, right), literal in self.made.items():
            for delta in (literal - left, left - right):
                while delta >= 128:
                    text.append(delta & 127 | 128)
                    delta >>= 7
                text.append(delta)
        return bytes(text)


def differs(graph: Graph, one: Mapping[int, int], other: Mapping[int, int],
            compared: Sequence[tuple[int, int | None]], *, reached: bool = False) -> bytes:
    """Return a binary AIGER whose output is 1 where two of a graph differ in a cycle.

    It has no registers, and the graph's are inputs; with `reached` it has the graph's registers,
    which begin with 0 and take what the first of the two says.

    Parameters
    ----------
    one, other
        Fixed inputs, as literals 0 and 1: what makes the two.
    compared
        Outputs by number, each with the output that must be 1 for it to count, or None.
    """
    gates = _Gates(graph.inputs + len(graph.nexts))
    first, second = gates.copy(graph, one), gates.copy(graph, other)

    def of(values: Sequence[int], literal: int) -> int:
        return values[literal >> 1] ^ literal & 1

    found = 0
    nexts = [of(first, literal) for literal in graph.nexts]
    for mine, literal in zip(nexts, graph.nexts, strict=True):
        found = gates.either(found, gates.unlike(mine, of(second, literal)))
    for index, counts in compared:
        literal = graph.outputs[index]
        bad = gates.unlike(of(first, literal), of(second, literal))
        if counts is not None:
            bad = gates.both(bad, of(first, graph.outputs[counts]))
        found = gates.either(found, bad)
    return gates.aiger(found, nexts if reached else ())
