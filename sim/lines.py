# SPDX-License-Identifier: Apache-2.0
"""A trace as lines, one a clock cycle: the values of all inputs, and those expected of all outputs.

A line is two hexadecimal numbers. The fields of the first are `rst` and the unit's inputs, of the
second `check` (0: compare nothing, the unit is in reset) and its outputs, first field in the low
bits. A payload is compared where its `valid` is expected.
"""

from __future__ import annotations

__all__ = ["Layout", "Port", "Run", "layout", "read", "read_lines", "runs", "write"]

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sim.cases.trace import PATTERNS, trace

if TYPE_CHECKING:   # the bench reads lines in a process of its own, which starts without NumPy
    from gen.elaborate import Design
    from sim.cases.case import Case
    from vitforge.spec.words import Word

#: Cycles of reset before each run.
RESET = 2


@dataclass(frozen=True)
class Port:
    """One field of a line: a port of the unit, and its place in the line."""

    name: str
    bits: int
    low: int

    @property
    def slice(self) -> str:
        """The field's bits of a line, in Verilog."""
        return f"[{self.low + self.bits - 1}:{self.low}]"

    def of(self, line: int) -> int:
        """Return the field's value in a line."""
        return line >> self.low & (1 << self.bits) - 1


@dataclass(frozen=True)
class Layout:
    """The fields of both numbers of a line, first one in the low bits."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def widths(self) -> tuple[int, int]:
        """Bits of both numbers."""
        last = self.inputs[-1], self.outputs[-1]
        return last[0].low + last[0].bits, last[1].low + last[1].bits

    @cached_property
    def compared(self) -> tuple[tuple[Port, Port], ...]:
        """Every output that is compared, with the one that says whether it counts.

        First every `ready`, then every `valid`, both of which count where `check` is 1, then every
        payload.
        """
        named = {port.name: port for port in self.outputs}
        return tuple((port, named[f"{stream}__valid"] if wire == "payload" else named["check"])
                     for wire in ("ready", "valid", "payload") for port in self.outputs
                     for stream, _, end in [port.name.rpartition("__")] if end == wire)

    @cached_property
    def sources(self) -> tuple[tuple[Port, Port], ...]:
        """Of every source the `valid`, an output, and the `ready`, an input."""
        named = {port.name: port for port in self.outputs}
        return tuple((named[f"{stream}__valid"], port) for port in self.inputs
                     for stream, _, end in [port.name.rpartition("__")] if end == "ready")

    def difference(self, expected: int, got: Callable[[Port], int]) -> str | None:
        """Say which output of a cycle is the first that differs, and how; None if all are equal."""
        for port, counts in self.compared:
            if counts.of(expected) and got(port) != port.of(expected):
                style = "#x" if port.name.endswith("__payload") else "d"
                return (f"{port.name.replace('__', '.')} is {got(port):{style}}, "
                        f"not {port.of(expected):{style}}")
        return None

    def moved(self, stimulus: int, expected: int) -> int:
        """Count the output words that move in a cycle."""
        return sum(valid.of(expected) & ready.of(stimulus) for valid, ready in self.sources)

    def pack(self, stimulus: Mapping[str, int], expected: Mapping[str, int]) -> tuple[int, int]:
        """Return both numbers; what is not given is 0."""
        return (sum(stimulus.get(port.name, 0) << port.low for port in self.inputs),
                sum(expected.get(port.name, 0) << port.low for port in self.outputs))

    @cached_property
    def digits(self) -> tuple[int, int]:
        """Hexadecimal digits of both numbers."""
        return (self.widths[0] + 3) // 4, (self.widths[1] + 3) // 4

    def text(self, stimulus: int, expected: int) -> str:
        """Return the line; all lines have the same length."""
        return f"{stimulus:0{self.digits[0]}x} {expected:0{self.digits[1]}x}\n"


@dataclass(frozen=True)
class Run:
    """Where a case under one pattern is in a file of lines.

    Attributes
    ----------
    first, lines
        The number of its first line, and how many it has: `RESET` of them in reset, then the
        cycles that are compared.
    words
        Output words that move.
    """

    case: str
    gaps: str
    stalls: str
    first: int
    lines: int
    words: int

    @property
    def cycles(self) -> int:
        """Cycles that are compared."""
        return self.lines - RESET

    def where(self, line: int) -> str:
        """Name the cycle that a line of the file is."""
        return (f"{self.case}, gaps {self.gaps}, stalls {self.stalls}, "
                f"cycle {line - self.first - RESET}")


def _place(ports: Sequence[tuple[str, int]]) -> tuple[Port, ...]:
    placed: list[Port] = []
    for name, bits in ports:
        placed.append(Port(name, bits, placed[-1].low + placed[-1].bits if placed else 0))
    return tuple(placed)


def layout(design: Design) -> Layout:
    """Lay the ports of a unit out."""
    inputs, outputs = [("rst", 1)], [("check", 1)]
    for name, sink, bits in design.ports:
        if bits is None:
            data = [(f"{name}__valid", 1), (f"{name}__payload", design.streams[name].bits)]
            (inputs if sink else outputs).extend(data)
            (outputs if sink else inputs).append((f"{name}__ready", 1))
        else:
            inputs.append((name, bits))
    return Layout(_place(inputs), _place(outputs))


def _lines(case: Case, fields: Layout, streams: Mapping[str, Word], gaps: str,
           stalls: str) -> Iterator[tuple[int, int]]:
    for _ in range(RESET):
        yield fields.pack({"rst": 1, **case.static}, {})
    for cycle in trace(case, streams, gaps, stalls):
        stimulus = dict(case.static)
        expected = {"check": 1}
        for name, offer in cycle.offer.items():
            stimulus |= {f"{name}__valid": offer, f"{name}__payload": cycle.payload[name]}
            expected[f"{name}__ready"] = cycle.ready[name]
        for name, accept in cycle.accept.items():
            stimulus[f"{name}__ready"] = accept
            expected |= {f"{name}__valid": cycle.valid[name],
                         f"{name}__payload": cycle.result.get(name, 0)}
        yield fields.pack(stimulus, expected)


def runs(design: Design, cases: Sequence[Case],
         progress: Callable[[int], None] = lambda done: None, *, resets: bool = False
         ) -> Iterator[tuple[Run, list[tuple[int, int]]]]:
    """Yield every case under every pattern, with the numbers of its lines, pattern by pattern.

    `progress` is called with the number of patterns that are done. With `resets` the first case of
    each pattern runs to its middle before, where the next one's reset ends it.
    """
    fields, first = layout(design), 0
    for done, (gaps, stalls) in enumerate(PATTERNS, 1):
        for number, case in enumerate(cases):
            whole = list(_lines(case, fields, design.streams, gaps, stalls))
            parts = [(case.name, whole)]
            if resets and number == 0:
                parts.insert(0, (f"half of {case.name}", whole[:(RESET + len(whole)) // 2]))
            for name, lines in parts:
                words = sum(fields.moved(*line) for line in lines)
                yield Run(name, gaps, stalls, first, len(lines), words), lines
                first += len(lines)
        progress(done)


def write(folder: Path, design: Design, cases: Sequence[Case], *, resets: bool = False
          ) -> list[Run]:
    """Write ``trace.hex``, the lines of all `runs`, and ``trace.json``, what `read` returns."""
    fields, made = layout(design), []
    with (folder / "trace.hex").open("w", encoding="ascii") as file:
        for run, lines in runs(design, cases, resets=resets):
            made.append(run)
            file.writelines(fields.text(*line) for line in lines)
    (folder / "trace.json").write_text(json.dumps(
        {"inputs": [vars(port) for port in fields.inputs],
         "outputs": [vars(port) for port in fields.outputs],
         "runs": [vars(run) for run in made]}), encoding="utf-8")
    return made


def read(folder: Path) -> tuple[Layout, list[Run]]:
    """Return the layout of the lines in a folder, and what runs they are of."""
    data = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    places = (tuple(Port(**port) for port in data[name]) for name in ("inputs", "outputs"))
    return Layout(*places), [Run(**run) for run in data["runs"]]


def read_lines(folder: Path, fields: Layout, first: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers of some of the lines in a folder."""
    length = len(fields.text(0, 0))
    with (folder / "trace.hex").open(encoding="ascii") as file:
        file.seek(first * length)
        for _ in range(count):
            stimulus, expected = file.readline().split()
            yield int(stimulus, 16), int(expected, 16)
