# SPDX-License-Identifier: Apache-2.0
"""Whether a mutant is the unit: proved for every run of any length, or a run in which it isn't."""

__all__ = ["equal", "graph_of"]

from formal.mutants.netlist import Mutated
from formal.options import Verdict
from formal.prove import decided, solver

#: Registers that always agree become one (`&scorr`), so most of the mutant is the unit; `pdr`
#: decides what is left.
_COMMANDS = ("read_aiger {name}; fold; strash; zero; scleanup; &get -n; &scl; &lcorr; &scorr; "
             "&put; pdr -T {limit}")


def graph_of(graph: bytes, latches: tuple[int, ...], number: int) -> bytes:
    """Return a binary AIGER in which latches keep a number, low bit first, as their first value.

    Each latch is a line of text, of its next literal: here its own. A 1 behind it is what the latch
    begins with.
    """
    head, rest = graph.split(b"\n", 1)
    count = int(head.split()[3])
    *lines, last = rest.split(b"\n", count)
    for bit, latch in enumerate(latches):
        lines[latch] += b" %d" % (number >> bit & 1)
    return b"\n".join([head, *lines, last])


def equal(made: Mutated, number: int, limit: int) -> Verdict:
    """Prove that a mutant does on every cycle, with any inputs, what the unit does.

    Parameters
    ----------
    limit
        Seconds, until it is "undecided".

    Raises
    ------
    ToolchainError
        If there is no ABC.
    """
    folder = made.graph.parent
    path = folder / f"mutant-{number}.aig"
    path.write_bytes(graph_of(made.graph.read_bytes(), made.latches, number))
    try:
        script = _COMMANDS.format(name=path.name, limit=limit)
        return decided(solver(), folder, script, f"mutant {number}", limit)
    finally:
        path.unlink()
