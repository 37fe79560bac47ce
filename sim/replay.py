# SPDX-License-Identifier: Apache-2.0
"""A program that replays a unit's trace on its Verilog, and nothing else: no Python in it.

It is the player (`sim.player`) below a clock, built once. A run takes a tenth of a second and stops
at the first difference, so one model can be asked many things: which of many mutants is alive, what
its lines were worth (`formal.mutants`, `sim.coverage`).
"""

__all__ = ["Replayed", "program", "replay"]

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.lines import Layout
from sim.player import TOP, player
from sim.run import SimulationError
from sim.toolchain import Toolchain
from vitforge.base.stamps import filling

#: Name of the module on top.
REPLAY = "replay"
_SAID = re.compile(r"^replayed (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)
#: Where a model is built.
_MODEL = "model"


@dataclass(frozen=True)
class Replayed:
    """What came of a trace.

    Attributes
    ----------
    failed
        Whether an output differed, on line number `lines` of the trace, the first being 0.
    lines
        How many were played.
    cycles, words
        Of them that were compared and equal, and the output words that moved in those.
    """

    failed: bool
    lines: int
    cycles: int
    words: int


def _top(fields: Layout) -> str:
    """Return a clock around the player, which plays and says what it found."""
    idle = "".join(f", .{port.name}({port.bits}'d0)" for port in fields.inputs)
    return f"""\
module {REPLAY};
  reg clk = 0;
  wire done, failed;
  wire [31:0] lines, cycles, words;
  always #1 clk = ~clk;
  {TOP} player(.clk(clk), .play(1'b1), .done(done), .failed(failed), .lines(lines),
    .cycles(cycles), .words(words){idle});
  always @(posedge clk) if (done) begin
    $display("replayed %0d %0d %0d %0d", failed, lines, cycles, words);
    $finish;
  end
endmodule
"""


def program(tools: Toolchain, unit: str, verilog: str, fields: Layout, folder: Path,
            options: Sequence[str] = ()) -> Path:
    """Build the program that replays traces on a unit, unless it is there.

    Parameters
    ----------
    unit, verilog
        The unit's module, and the text that has it.
    options
        More arguments for Verilator.

    Raises
    ------
    SimulationError
        If it doesn't build.
    """
    text = verilog + player(unit, fields) + _top(fields)
    inputs = [text, [*options], tools.options, tools.version_text, tools.environment["MAKEFLAGS"]]
    built = folder / _MODEL / f"V{REPLAY}"
    with filling(folder, inputs) as missing:
        if missing:
            source = folder / f"{unit}.v"
            source.write_text(text, encoding="utf-8")
            # The netlist of another tool has warnings of its own, and none of them stops a build.
            command = [str(tools.verilator), "--binary", "--timing", "-Wno-fatal", "-Wno-lint",
                       "-Wno-style", *tools.options, *options, "--top-module", REPLAY,
                       "-Mdir", str(built.parent.resolve()), source.name]
            done = subprocess.run(command, cwd=folder, env={**os.environ, **tools.environment},
                                  capture_output=True, text=True, check=False)
            log = folder / "build.log"
            log.write_text(done.stdout + done.stderr, encoding="utf-8")
            if done.returncode:
                raise SimulationError(f"{unit} does not build; see {log}")
    return built


def replay(built: Path, folder: Path, *arguments: str) -> Replayed:
    """Run a program of `program` in a folder with ``trace.hex`` (`sim.lines.write`).

    Parameters
    ----------
    arguments
        Plusargs, for what is in the Verilog that reads them.

    Raises
    ------
    SimulationError
        If it ends in another way.
    """
    done = subprocess.run([str(built.resolve()), *arguments], cwd=folder, capture_output=True,
                          text=True, check=False)
    said = _SAID.search(done.stdout)
    if said is None:
        last = (done.stdout + done.stderr).strip().splitlines() or ["nothing was said"]
        raise SimulationError(f"{built}: {last[-1]}")
    failed, lines, cycles, words = map(int, said.groups())
    return Replayed(bool(failed), lines, cycles, words)
