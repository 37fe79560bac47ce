# SPDX-License-Identifier: Apache-2.0
"""Registers that move into block memories: on a small netlist, and on Yosys' at gate level."""

import json
import subprocess
from collections import Counter

import pytest
from optional_tools import ICARUS

from gen.synthesis import netlist
from gen.synthesis.mapped import mapped_verilog
from gen.synthesis.memories import pack_outputs


def cell(kind, outputs=(), parameters=None, **nets):
    return {"type": kind, "parameters": dict(parameters or {}),
            "port_directions": {pin: "output" if pin in outputs else "input" for pin in nets},
            "connections": {pin: [net] for pin, net in nets.items()}}


def flipflop(d, q, *, enable="1", reset="0", clock="clk", **parameters):
    more = {"CE": enable} if enable != "1" else {}
    return cell("TRELLIS_FF", "Q", {"CLKMUX": "CLK", "CEMUX": "CE" if more else "1 ",
                                    "REGSET": "RESET", "LSRMUX": "LSR", **parameters},
                CLK=clock, LSR=reset, DI=d, Q=q, **more)


def memory(width=18, **nets):
    """Return a memory that is read at B, or at both halves in its widest form."""
    outputs = ("DOA0", "DOB0", "DOB1")
    wide = {"DOA0": "a0"} if width == 36 else {}
    parameters = {f"DATA_WIDTH_{letter}": f"{width:032b}" for letter in "AB"}
    nets = {"CLKA": "clk", "CLKB": "clk", "OCEA": "1", "OCEB": "1", "RSTA": "0", "RSTB": "0",
            "DOB0": "b0", "DOB1": "b1"} | wide | nets
    return cell("DP16KD", outputs, {"CLKAMUX": "CLKA", "CLKBMUX": "CLKB"} | parameters, **nets)


def packed(width=18, changes=None, ports=()):
    cells = {"m": memory(width), "b0": flipflop("b0", "q0", enable="go"),
             "b1": flipflop("b1", "q1", enable="go"),
             "use": cell("LUT4", "Z", A="q0", B="q1", Z="z")}
    if width == 36:
        cells["a0"] = flipflop("a0", "q2", enable="go")
    cells = {name: it for name, it in (cells | (changes or {})).items() if it is not None}
    module = {"cells": cells, "ports": {"o": {"bits": list(ports)}}}
    return pack_outputs(module), module["cells"]


@pytest.mark.parametrize(("width", "letters"), [(18, "B"), (36, "AB")])
def test_registers_move_into_a_memory(width, letters):
    found, cells = packed(width)
    assert found == {"ports": 1, "registers": 1}
    assert sorted(cells) == ["m", "use"]
    assert cells["m"]["connections"]["DOB0"] == ["q0"]
    assert cells["m"]["connections"]["DOB1"] == ["q1"]
    for letter in "AB":
        moved = letter in letters
        assert cells["m"]["connections"][f"OCE{letter}"] == ["go" if moved else "1"]
        assert (cells["m"]["parameters"].get(f"REGMODE_{letter}") == "OUTREG") == moved


@pytest.mark.parametrize(("width", "changes", "ports"), [
    (18, {"b1": flipflop("b1", "q1")}, ()),                         # not the enable of the other
    (18, {"b1": flipflop("b1", "q1", enable="go", reset="rst")}, ()),
    (18, {name: flipflop(name, f"q{name[1]}", clock="other") for name in ("b0", "b1")}, ()),
    (18, {"b1": flipflop("b1", "q1", enable="go", REGSET="SET")}, ()),
    (18, {"b1": None, "also": cell("LUT4", "Z", A="b1", Z="q1")}, ()),
    (18, {"also": cell("LUT4", "Z", A="b1", Z="y")}, ()),           # who wants it a cycle earlier
    (18, {}, ("b1",)),                                              # it leaves the design
    (18, {"m": memory(RSTB="rst")}, ()),
    (36, {"a0": flipflop("a0", "q2")}, ()),                         # half of a word
])
def test_register_that_does_more_stays(width, changes, ports):
    found, cells = packed(width, changes, ports)
    assert found["registers"] == 0
    assert {"b0", "a0"} & set(cells) and cells["m"]["connections"]["DOB0"] == ["b0"]
    assert "REGMODE_B" not in cells["m"]["parameters"]


SOURCE = """
module top(input clk, input we, input go, input [8:0] wa, input [8:0] ra, input [{high}:0] d,
           output reg [{high}:0] q);
  (* no_rw_check *) reg [{high}:0] m [0:511];
  reg [{high}:0] r, s;
  always @(posedge clk) begin
    if (we) m[wa] <= d;
    if (go) begin r <= m[ra]; s <= r; q <= s; end
  end
endmodule
"""

BENCH = """
`timescale 1ns/1ps
module bench;
  reg clk = 0, we = 0, go = 0;
  reg [8:0] wa = 0, ra = 0;
  reg [{high}:0] d = 0;
  wire [{high}:0] found, wanted;
  integer cycle, compared = 0;
  top mapped(clk, we, go, wa, ra, d, found);
  source plain(clk, we, go, wa, ra, d, wanted);
  initial begin
    for (cycle = 0; cycle < 4000; cycle = cycle + 1) begin
      we = $random; go = $random; wa = cycle < 512 ? cycle : $random; ra = $random;
      // Reading what is written is nobody's business here.
      if (wa == ra) ra = ra + 1;
      d = {{$random, $random}};
      if (cycle < 512) we = 1;
      if (cycle < 520) go = cycle > 515;
      #1 clk = 1; #1 clk = 0; #1;
      if (cycle > 600) begin
        if (found !== wanted) $fatal(1, "cycle %0d", cycle);
        compared = compared + 1;
      end
    end
    $display("compared %0d", compared);
  end
endmodule
"""


@pytest.mark.synth
@ICARUS
@pytest.mark.parametrize(("bits", "blocks"), [(18, 1), (36, 1), (54, 2)])
@pytest.mark.thorough
def test_netlist_does_what_the_source_does(tmp_path, bits, blocks):
    source = SOURCE.format(high=bits - 1)
    cells = Counter(json.loads((netlist.netlist(source, "top", "ecp5", cache=tmp_path / "cache")
                                / "cells.json").read_text(encoding="utf-8")))
    # One of the two registers behind the memory is in it, the other one is not.
    assert (cells["DP16KD"], cells["TRELLIS_FF"]) == (blocks, bits)
    text = mapped_verilog(source, "top", "packed", cache=tmp_path / "cache")
    (tmp_path / "mapped.v").write_text(text, encoding="utf-8")
    (tmp_path / "plain.v").write_text(source.replace("module top", "module source"),
                                      encoding="utf-8")
    (tmp_path / "bench.v").write_text(BENCH.format(high=bits - 1), encoding="utf-8")
    subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp", "mapped.v", "plain.v",
                    "bench.v"], cwd=tmp_path, check=True)
    output = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=tmp_path, check=True,
                            capture_output=True, text=True).stdout
    assert output.strip() == "compared 3399"
