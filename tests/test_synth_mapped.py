# SPDX-License-Identifier: Apache-2.0
"""Netlists of an ECP5 as Verilog: cells with models, and a network on the whole accelerator."""

import functools
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from optional_tools import ICARUS

from gen.elaborate import generate
from gen.synthesis import expected, mapped
from golden.float.vit import Vit, VitSpec
from golden.network.calibrate import calibrate
from sim.__main__ import _parser
from sim.accelerator.check import check
from sim.accelerator.model import Netlist
from vitforge.spec.config import load

#: Memories of every width that a block memory has, as bits and words.
SIMPLE = [(1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512)]
#: What a port with a read and a write shows of a word that it writes.
MODES = {"none": "if (!we[0]) o <= m[a]", "old": "o <= m[a]", "new": "o <= we[0] ? d : m[a]"}


def _simple(number: int, bits: int, words: int) -> str:
    """Return a memory with a port to write and one to read, with a reset or without.

    Wide ones have contents; of the others Yosys would read the words one by one.
    """
    reset = f"if (clear) read{number} <= 0; else " if number % 3 == 0 else ""
    place = f"[{(words - 1).bit_length() - 1}:0]"
    return f"""
  (* no_rw_check *) reg [{bits - 1}:0] simple{number} [0:{words - 1}];
  reg [{bits - 1}:0] read{number} = 0, behind{number} = 0;
  integer i{number};
  initial if ({bits} >= 9) for (i{number} = 0; i{number} < {words}; i{number} = i{number} + 1)
    simple{number}[i{number}] = i{number} * 40503 >> 3;
  always @(posedge clk) begin
    if (we[0]) simple{number}[wa{place}] <= d;
    {reset}if (go) read{number} <= simple{number}[ra{place}];
    if (go) behind{number} <= read{number};
  end"""


def _double(mode: str) -> str:
    """Return a memory with two ports that both read and write."""
    text = MODES[mode]
    ports = [text.replace("o <=", f"{mode}_{port} <=").replace("m[a]", f"m_{mode}[{address}[9:0]]")
             .replace("we[0]", enable) for port, address, enable in (
                 ("a", "wa", "we[0]"), ("b", "ra", "we[1]"))]
    writes = [f"if ({enable}) m_{mode}[{address}[9:0]] <= d;" for address, enable in (
        ("wa", "we[0]"), ("ra", "we[1]"))]
    return f"""
  (* no_rw_check *) reg [17:0] m_{mode} [0:1023];
  reg [17:0] {mode}_a = 0, {mode}_b = 0;
  always @(posedge clk) begin {writes[0]} {ports[0]}; end
  always @(posedge clk) begin {writes[1]} {ports[1]}; end"""


def _source() -> str:
    parts = [_simple(number, *size) for number, size in enumerate(SIMPLE)]
    parts += [_double(mode) for mode in MODES]
    outputs = [f"behind{number}" for number in range(len(SIMPLE))]
    outputs += [f"{mode}_{port}" for mode in MODES for port in "ab"]
    outputs += ["bytes", "p", "r", "s"]
    return f"""
module top(input clk, input [3:0] we, input go, input clear, input [13:0] wa, input [13:0] ra,
           input [35:0] d, output [{sum(_widths()) - 1}:0] q);
{"".join(parts)}
  // Bytes with an enable each.
  (* no_rw_check *) reg [35:0] m_bytes [0:511];
  reg [35:0] bytes = 0;
  integer i;
  initial for (i = 0; i < 512; i = i + 1) m_bytes[i] = i;
  always @(posedge clk) begin
    for (i = 0; i < 4; i = i + 1) if (we[i]) m_bytes[wa[8:0]][9*i +: 9] <= d[9*i +: 9];
    if (go) bytes <= m_bytes[ra[8:0]];
  end
  // Products with registers on both sides, with one register, and without.
  reg signed [17:0] x = 0, y = 0; reg [35:0] p = 0; reg [17:0] z = 0;
  wire [35:0] r = d[17:0] * z; reg [35:0] s = 0;
  always @(posedge clk) begin
    if (go) begin x <= d[17:0]; y <= d[35:18]; end
    p <= x * y;
    z <= d[26:9];
    s <= $signed(x[15:0]) * $signed({{1'b0, d[16:0]}});
  end
  assign q = {{{", ".join(outputs)}}};
endmodule
"""


def _widths() -> list[int]:
    return [bits for bits, _ in SIMPLE] + [18] * 2 * len(MODES) + [36] * 4


#: Nobody reads what is written with the same edge, but for COLLIDE. What the source doesn't know
#: yet may be anything.
BENCH = """
`timescale 1ns/1ps
module bench;
  reg clk = 0, go = 0, clear = 0;
  reg [3:0] we = 0;
  reg [13:0] wa = 0, ra = 1;
  reg [35:0] d = 0;
  wire [HIGH:0] found, wanted;
  integer cycle, ones = 0, seed = 1;
  top mapped(clk, we, go, clear, wa, ra, d, found);
  source plain(clk, we, go, clear, wa, ra, d, wanted);
  initial begin
    for (cycle = 0; cycle < 1000; cycle = cycle + 1) begin
      we = $random(seed); go = $random(seed); clear = $random(seed) % 8 == 0;
      wa = $random(seed); ra = $random(seed);
      // Few places, so that what is written is read.
      if (cycle > 100) begin wa = wa & 14'h210f; ra = ra & 14'h210f; end
      if (!COLLIDE && (wa & 14'h1ff) == (ra & 14'h1ff)) ra = ra ^ 1;
      d = {$random(seed), $random(seed)};
      #1 clk = 1; #1 clk = 0; #1;
      if (!(found ==? wanted)) begin
        $display("cycle %0d: %h", cycle, found ^ wanted);
        $fatal(1);
      end
      if (^found) ones = ones + 1;
    end
    $display("equal, %0d odd", ones);
  end
endmodule
"""


@pytest.mark.slow
@pytest.mark.synth
@ICARUS
def test_models_do_what_the_source_does(tmp_path: Path) -> None:
    """In every width, mode and place of registers that synthesis makes of one source."""
    source = _source()
    (tmp_path / "plain.v").write_text(source.replace("module top", "module source"))
    bench = BENCH.replace("HIGH", str(sum(_widths()) - 1))
    for stage in mapped.STAGES:
        text = mapped.mapped_verilog(source, "top", stage, cache=tmp_path / "cache")
        (tmp_path / "top.v").write_text(text)
        # All widths are there, and registers in blocks are those of the second netlist alone.
        for bits, _ in SIMPLE:
            assert f".DATA_WIDTH_B(32'd{bits})" in text, bits
        for mode in ("NORMAL", "READBEFOREWRITE", "WRITETHROUGH"):
            assert f'.WRITEMODE_A("{mode}")' in text
        assert ('.REGMODE_B("OUTREG")' in text) == ('.REG_OUTPUT_CLK("CLK0")' in text) \
            == ('.REG_INPUTA_CLK("CLK0")' in text) == (stage == "packed")
        for collide in "01":
            (tmp_path / "bench.v").write_text(bench.replace("COLLIDE", collide))
            subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp", "top.v",
                            "plain.v", "bench.v"], cwd=tmp_path, check=True)
            done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=tmp_path, check=False,
                                  capture_output=True, text=True)
            if collide == "0":
                assert done.stdout.startswith("equal, "), done.stdout
                assert 400 < int(done.stdout.split()[1]) < 600
            else:
                assert done.returncode != 0 and "cycle" in done.stdout


@pytest.mark.slow
@pytest.mark.rtl
@pytest.mark.synth
@pytest.mark.parametrize("stage", mapped.STAGES)
def test_the_netlist_of_an_accelerator_runs_a_network(tmp_path: Path, stage: str) -> None:
    """Every byte and every counter, with the cells and registers that would be placed."""
    config = load("tiny")
    text = generate("accelerator", config)
    cells = json.loads((mapped.STAGES[stage](text, "accelerator", "ecp5") / "cells.json")
                       .read_text())
    assert (cells["MULT18X18D"], cells["DP16KD"]) \
        == (expected.multipliers(text), expected.memories(text)) == (53, 26)
    spec = VitSpec(image_size=8, patch_size=4, in_channels=1, classes=5, dim=8, depth=1, heads=2,
                   mlp_hidden=8)
    images = torch.randint(256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(3),
                           ).to(torch.uint8)
    network = calibrate(Vit(spec).initialize(5).eval(), images, config)
    of = functools.partial(mapped.mapped_verilog, top="accelerator", stage=stage)
    found = check(network, images[:2], netlist=Netlist(stage, of), directory=tmp_path)
    assert len(found.counters) == 2 and found.cycles > 2000
    # It is the netlist that ran.
    ran = (found.directory / "accelerator.v").read_text()
    assert len(re.findall(r"^  DP16KD #\(", ran, re.MULTILINE)) == 26
    assert (".REGMODE_B(\"OUTREG\")" in ran) == (stage == "packed")


def test_the_command_knows_the_netlists() -> None:
    for stage in mapped.STAGES:
        assert _parser().parse_args(["accelerator", "mnist", "--netlist", stage]).netlist == stage
