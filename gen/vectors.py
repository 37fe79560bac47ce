# SPDX-License-Identifier: Apache-2.0
"""``python -m gen.vectors``: stimulus and expected outputs of every cycle, and a plain testbench.

The folder replays a unit's whole bench (every case under every handshake pattern) in any Verilog
simulator, without Python: one line of ``stimulus.hex`` and of ``expected.hex`` a clock cycle.
"""

__all__ = ["Vectors", "main", "vectors"]

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.cli import progress_bar, replace_folder, run_command
from gen.elaborate import Design, elaborate
from hw.config import Config, load, preset_names
from hw.units import UNITS
from hw.words import Word
from sim.case import Case
from sim.trace import PATTERNS, trace


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


@dataclass(frozen=True)
class Vectors:
    """Layout of the lines, first port in the low bits, and the lines themselves."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    lines: list[tuple[int, int]]
    words: int


def _place(ports: Sequence[tuple[str, int]]) -> tuple[Port, ...]:
    placed: list[Port] = []
    for name, bits in ports:
        placed.append(Port(name, bits, placed[-1].low + placed[-1].bits if placed else 0))
    return tuple(placed)


def _width(ports: tuple[Port, ...]) -> int:
    return ports[-1].low + ports[-1].bits


def _layout(design: Design) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    inputs, outputs = [("rst", 1)], [("check", 1)]
    for name, sink, bits in design.ports:
        if bits is None:
            data = [(f"{name}__valid", 1), (f"{name}__payload", design.streams[name].bits)]
            (inputs if sink else outputs).extend(data)
            (outputs if sink else inputs).append((f"{name}__ready", 1))
        else:
            inputs.append((name, bits))
    return _place(inputs), _place(outputs)


def _line(ports: tuple[Port, ...], values: dict[str, int]) -> int:
    return sum(values.get(port.name, 0) << port.low for port in ports)


def _replay(case: Case, streams: Mapping[str, Word], gaps: str,
            stalls: str) -> Iterator[tuple[dict[str, int], dict[str, int], int]]:
    """Yield the inputs, the expected outputs and the number of words taken of every cycle."""
    for _ in range(2):
        yield {"rst": 1, **case.static}, {}, 0
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
        taken = sum(cycle.valid[name] and accept for name, accept in cycle.accept.items())
        yield stimulus, expected, taken


def vectors(design: Design, config: Config, seed: int = 1,
            progress: Callable[[int], None] = lambda done: None) -> Vectors:
    """Replay the golden trace of every case of a design's bench under every handshake pattern.

    `progress` is called with the number of patterns that are done.
    """
    from sim.image import all_cases  # and PyTorch with it

    inputs, outputs = _layout(design)
    lines: list[tuple[int, int]] = []
    moved = 0
    cases = all_cases(design.unit, config, seed)
    for done, (gaps, stalls) in enumerate(PATTERNS, 1):
        for case in cases:
            for stimulus, expected, taken in _replay(case, design.streams, gaps, stalls):
                lines.append((_line(inputs, stimulus), _line(outputs, expected)))
                moved += taken
        progress(done)
    return Vectors(inputs, outputs, lines, moved)


def testbench(unit: str, data: Vectors) -> str:
    """Return the Verilog that replays the vectors and ends with PASS or FAIL."""
    ports = ["    .clk(clk)"]
    ports += [f"    .{port.name}(stimulus{port.slice})" for port in data.inputs]
    ports += [f"    .{port.name}(got{port.slice})" for port in data.outputs[1:]]
    checks = []
    for port in data.outputs[1:]:
        when = ""
        if port.name.endswith("__payload"):
            valid = next(p for p in data.outputs if p.name == port.name[:-7] + "valid")
            when = f" && expected[{valid.low}]"
        checks.append(f"""\
      if (expected[0]{when} && got{port.slice} !== expected{port.slice}) begin
        $display("cycle %0d: {port.name} is %h, not %h", cycle, got{port.slice},
                 expected{port.slice});
        errors = errors + 1;
      end""")
    width_in, width_out = _width(data.inputs), _width(data.outputs)
    joined_ports, joined_checks = ",\n".join(ports), "\n".join(checks)
    return f"""\
// SPDX-License-Identifier: Apache-2.0
// Replays stimulus.hex into `{unit}` and compares every output with expected.hex on every cycle.
`timescale 1ns/1ps
module tb;
  localparam CYCLES = {len(data.lines)};
  reg [{width_in - 1}:0] stimuli [0:CYCLES-1];
  reg [{width_out - 1}:0] expectations [0:CYCLES-1];
  reg [{width_in - 1}:0] stimulus;
  reg [{width_out - 1}:0] expected;
  wire [{width_out - 1}:0] got;
  reg clk;
  integer cycle, errors;
  assign got[0] = 1'b0;

  {unit} dut (
{joined_ports}
  );

  initial begin
    $readmemh("stimulus.hex", stimuli);
    $readmemh("expected.hex", expectations);
    clk = 0;
    errors = 0;
    for (cycle = 0; cycle < CYCLES; cycle = cycle + 1) begin
      stimulus = stimuli[cycle];
      expected = expectations[cycle];
      #4;
{joined_checks}
      #1 clk = 1;
      #5 clk = 0;
    end
    if (errors == 0) begin
      $display("PASS: {unit}, %0d cycles, {data.words} output words", CYCLES);
      $finish;
    end else begin
      $display("FAIL: {unit}, %0d differences", errors);
      $fatal(1);
    end
  end
endmodule
"""


def _readme(unit: str, config: Config, data: Vectors) -> str:
    def table(ports: Sequence[Port]) -> str:
        return "\n".join(["| bits | port |", "|---|---|",
                          *(f"| {p.slice[1:-1]} | `{p.name}` |" for p in ports)])
    return f"""\
# Vectors of {unit}, configuration {config.name}

{len(data.lines)} clock cycles, {data.words} output words. Line n of both files belongs to clock
cycle n; a line is one hexadecimal number, most significant digit first. Inputs change after a
rising edge of `clk`, outputs are compared before the next. Fields inside a payload:
`python -m gen.verilog --unit {unit}` writes them into its README.

`stimulus.hex`:

{table(data.inputs)}

`expected.hex` (`check` = 0: compare nothing, the unit is in reset; a payload counts only where its
`valid` is 1):

{table(data.outputs)}

    verilator --binary --timing -Wno-fatal tb.v {unit}.v --top-module tb && obj_dir/Vtb
    iverilog -g2012 -o tb.vvp tb.v {unit}.v && vvp -n tb.vvp

Both end with exit code 0 if everything is equal; `-g2005` does as well.
"""


def _write(args: argparse.Namespace) -> int:
    config = load(args.config)
    with replace_folder(args.output) as folder:
        with progress_bar(f"{args.unit} of {config.name}", len(PATTERNS)) as progress:
            design = elaborate(args.unit, config)
            data = vectors(design, config, args.seed, progress)
        for column, (name, ports) in enumerate({"stimulus": data.inputs,
                                                "expected": data.outputs}.items()):
            digits = (_width(ports) + 3) // 4
            text = "".join(f"{line[column]:0{digits}x}\n" for line in data.lines)
            (folder / f"{name}.hex").write_text(text, encoding="ascii")
        (folder / "tb.v").write_text(testbench(args.unit, data), encoding="ascii")
        (folder / f"{args.unit}.v").write_text(design.verilog, encoding="utf-8")
        (folder / "README.md").write_text(_readme(args.unit, config, data), encoding="utf-8")
    print(f"{len(data.lines):,} cycles, {data.words:,} output words: {args.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gen.vectors", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a unit's stimulus and expected outputs, cycle by cycle, with a\n"
                    "Verilog testbench that replays them without Python.",
        epilog="example: python -m gen.vectors --unit softmax --config tiny -o build/vectors")
    parser.add_argument("--unit", required=True, choices=list(UNITS), metavar="NAME",
                        help=", ".join(UNITS))
    parser.add_argument("--config", default="tiny", metavar="C",
                        help=f"{', '.join(preset_names())} or a .toml file (default: tiny)")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="seed of the random stimuli (default: 1)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write; replaced as a whole")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; exit code 2 with one line for bad input."""
    return run_command(_write, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
