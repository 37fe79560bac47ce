# SPDX-License-Identifier: Apache-2.0
"""``python -m sim.vectors``: stimulus and expected outputs of every cycle, and a plain testbench.

The folder replays a unit's whole bench (every case under every handshake pattern) in any Verilog
simulator, without Python: one line of ``stimulus.hex`` and of ``expected.hex`` a clock cycle.
"""

__all__ = ["Vectors", "main", "vectors"]

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen.elaborate import Design, elaborate
from hw.units import UNITS
from sim.cases.trace import PATTERNS
from sim.lines import Layout, Port, layout, runs
from vitforge.base.cli import replace_folder, run_command
from vitforge.base.markdown import table
from vitforge.base.progress import progress_bar
from vitforge.spec.config import Config, load
from vitforge.spec.option import add_config


@dataclass(frozen=True)
class Vectors:
    """Layout of the lines, the lines themselves, and how many output words move in them."""

    layout: Layout
    lines: list[tuple[int, int]]
    words: int


def vectors(design: Design, config: Config, seed: int = 1,
            progress: Callable[[int], None] = lambda done: None) -> Vectors:
    """Replay the golden trace of every case of a design's bench under every handshake pattern.

    `progress` is called with the number of patterns that are done.
    """
    from sim.cases.image import all_cases  # and PyTorch with it

    lines: list[tuple[int, int]] = []
    words = 0
    for run, more in runs(design, all_cases(design.unit, config, seed), progress):
        lines += more
        words += run.words
    return Vectors(layout(design), lines, words)


def testbench(unit: str, data: Vectors) -> str:
    """Return the Verilog that replays the vectors and ends with PASS or FAIL."""
    fields = data.layout
    ports = ["    .clk(clk)"]
    ports += [f"    .{port.name}(stimulus{port.slice})" for port in fields.inputs]
    ports += [f"    .{port.name}(got{port.slice})" for port in fields.outputs[1:]]
    checks = []
    for port, counts in fields.compared:
        checks.append(f"""\
      if (expected{counts.slice} && got{port.slice} !== expected{port.slice}) begin
        $display("cycle %0d: {port.name} is %h, not %h", cycle, got{port.slice},
                 expected{port.slice});
        errors = errors + 1;
      end""")
    width_in, width_out = fields.widths
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
    def bits(ports: Sequence[Port]) -> str:
        return table(("bits", "port"), ((p.slice[1:-1], f"`{p.name}`") for p in ports))

    return f"""\
# Vectors of {unit}, configuration {config.name}

{len(data.lines)} clock cycles, {data.words} output words. Line n of both files belongs to clock
cycle n; a line is one hexadecimal number, most significant digit first. Inputs change after a
rising edge of `clk`, outputs are compared before the next. Fields inside a payload:
`python -m gen.verilog --unit {unit}` writes them into its README.

`stimulus.hex`:

{bits(data.layout.inputs)}
`expected.hex` (`check` = 0: compare nothing, the unit is in reset; a payload counts only where its
`valid` is 1):

{bits(data.layout.outputs)}
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
        for column, name in enumerate(("stimulus", "expected")):
            digits = data.layout.digits[column]
            text = "".join(f"{line[column]:0{digits}x}\n" for line in data.lines)
            (folder / f"{name}.hex").write_text(text, encoding="ascii")
        (folder / "tb.v").write_text(testbench(args.unit, data), encoding="ascii")
        (folder / f"{args.unit}.v").write_text(design.verilog, encoding="utf-8")
        (folder / "README.md").write_text(_readme(args.unit, config, data), encoding="utf-8")
    print(f"{len(data.lines):,} cycles, {data.words:,} output words: {args.output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.vectors", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a unit's stimulus and expected outputs, cycle by cycle, with a\n"
                    "Verilog testbench that replays them without Python.",
        epilog="example: python -m sim.vectors --unit softmax --config tiny -o build/vectors")
    parser.add_argument("--unit", required=True, choices=list(UNITS), metavar="NAME",
                        help=", ".join(UNITS))
    add_config(parser, "tiny")
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
