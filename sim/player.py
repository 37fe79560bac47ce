# SPDX-License-Identifier: Apache-2.0
"""A Verilog module around a unit that plays the lines of a trace and compares every cycle.

Its ports are the unit's, by the same names, and those of the player. While `play` is 0 it is the
unit, for a bench that drives the ports itself. While `play` is 1 it drives the unit from
``trace.hex`` (`sim.lines`) in the folder where the simulator runs, a line a clock cycle, and stops
at the end of the file, or on the first cycle on which an output differs.
"""

__all__ = ["TOP", "player"]

from sim.lines import Layout

#: Name of the module.
TOP = "player"


def player(unit: str, fields: Layout) -> str:
    """Return the Verilog of the player of a unit.

    Its outputs, all registers: `done`, `failed`, `lines` that were played, `cycles` of them that
    were compared and equal, `words` that the unit gave in those, and after a failure in `seen`
    what the outputs were on line number `lines` (the first is 0).
    """
    outputs = fields.outputs[1:]
    width_in, width_out = fields.widths
    header = [f"  input [{port.bits - 1}:0] {port.name}" for port in fields.inputs]
    header += [f"  output [{port.bits - 1}:0] {port.name}" for port in outputs]
    ports = [f"    .{port.name}(play ? stimulus{port.slice} : {port.name})"
             for port in fields.inputs]
    ports += [f"    .{port.name}(got{port.slice})" for port in outputs]
    shown = [f"  assign {port.name} = got{port.slice};" for port in outputs]
    unequal = [f"expected{counts.slice} && got{port.slice} !== expected{port.slice}"
               for port, counts in fields.compared]
    moves = [f"32'(got{valid.slice} & stimulus{ready.slice})" for valid, ready in fields.sources]
    header_text, ports_text = ",\n".join(header), ",\n".join(ports)
    shown_text = "\n".join(shown)
    unequal_text = "\n      || ".join(f"({term})" for term in unequal)
    return f"""\
// SPDX-License-Identifier: Apache-2.0
// Plays trace.hex into `{unit}` and compares every output on every cycle.
module {TOP} (
  input clk,
  input play,
  output reg done,
  output reg failed,
  output reg [31:0] lines,
  output reg [31:0] cycles,
  output reg [31:0] words,
  output reg [{width_out - 1}:0] seen,
{header_text}
);
  reg [{width_in - 1}:0] stimulus, next_stimulus;
  reg [{width_out - 1}:0] expected, next_expected;
  wire [{width_out - 1}:0] got;
  integer file, fields;

  assign got[0] = 1'b0;
{shown_text}

  {unit} unit (
    .clk(clk),
{ports_text}
  );

  wire differs =
         {unequal_text};

  initial begin
    done = 0; failed = 0; lines = 0; cycles = 0; words = 0; seen = 0;
    stimulus = 0; expected = 0;
    file = 0;
  end

  always @(posedge clk) if (play && !done) begin
    if (file == 0) begin
      file = $fopen("trace.hex", "r");
      if (file == 0) $fatal(1, "trace.hex can't be read");
    end else if (differs) begin
      done <= 1; failed <= 1; seen <= got;
    end else begin
      lines <= lines + 1;
      if (expected[0]) begin
        cycles <= cycles + 1;
        words <= words + {" + ".join(moves)};
      end
    end
    if (!differs) begin
      fields = $fscanf(file, "%h %h\\n", next_stimulus, next_expected);
      if (fields != 2) done <= 1;
      else begin stimulus <= next_stimulus; expected <= next_expected; end
    end
  end
endmodule
"""
