# SPDX-License-Identifier: Apache-2.0
"""Whether a mutant is the unit: proved for every run of any length, or a run in which it isn't."""

__all__ = ["equal", "graph_of"]

from formal.mutants.cut import differs, read
from formal.mutants.netlist import Mutated
from formal.options import Verdict
from formal.prove import decided, solved

#: Registers that always agree become one (`&scorr`), so most of the mutant is the unit; `pdr`
#: decides what is left.
_COMMANDS = ("read_aiger {name}; fold; strash; zero; scleanup; &get -n; &scl; &lcorr; &scorr; "
             "&put; pdr -T {limit}")
#: Whether an output can be 1, of a graph without registers.
_CUT = "read_aiger {name}; strash; iprove"
#: Whether it can be in a run.
_REACHED = "read_aiger {name}; strash; scleanup; pdr -T {limit}"
_UNSATISFIABLE = "UNSATISFIABLE"


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


def _alike(made: Mutated, number: int, limit: int) -> bool:
    """Whether it is proved that in a cycle a mutant does what the unit does from the same state.

    First from any state, then from those that the unit reaches.
    """
    path = made.cut.with_name(f"cut-{number}.aig")
    unit, mutant = ({place: chosen >> bit & 1 for bit, place in enumerate(made.choice)}
                    for chosen in (0, number))
    graph = read(made.cut.read_bytes())
    try:
        path.write_bytes(differs(graph, unit, mutant, made.compared))
        if _UNSATISFIABLE in (solved(path.parent, _CUT.format(name=path.name), limit) or ""):
            return True
        path.write_bytes(differs(graph, unit, mutant, made.compared, reached=True))
        return decided(path.parent, _REACHED.format(name=path.name, limit=limit),
                       f"mutant {number}", limit).status == "proved"
    finally:
        path.unlink()


def equal(made: Mutated, number: int, limit: int) -> Verdict:
    """Prove that a mutant does on every cycle, with any inputs, what the unit does.

    First of one cycle from the same state (`formal.mutants.cut`), then of all runs.

    Parameters
    ----------
    limit
        Seconds, until it is "undecided".

    Raises
    ------
    ToolchainError
        If there is no ABC.
    """
    if _alike(made, number, limit):
        return Verdict(f"mutant {number}", "proved")
    folder = made.graph.parent
    path = folder / f"mutant-{number}.aig"
    path.write_bytes(graph_of(made.graph.read_bytes(), made.latches, number))
    try:
        script = _COMMANDS.format(name=path.name, limit=limit)
        return decided(folder, script, f"mutant {number}", limit)
    finally:
        path.unlink()
