# SPDX-License-Identifier: Apache-2.0
"""Generated Verilog is Amaranth's own, but for zeros, the first event and the waivers."""

import dataclasses
import re
import subprocess

import pytest
from amaranth import Module
from amaranth.back import rtlil, verilog
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from optional_tools import ICARUS

from gen.convert import LOOP, ZEROS, _started, convert, pragmas
from hw.units import create
from vitforge.spec.config import load

WORD_BY_WORD = re.compile(r"^  initial begin\n((?:    (\S+ *)\[\d+\] = \d+'(?:h0+|d0);\n)+)  end\n",
                          re.MULTILINE)
FIRST = r"    if \(\S+ \) begin end\n"


def cleared(loops: str) -> list[int]:
    """Return the places that loops go through."""
    return [place for low, high in re.findall(r" = (\d+); \S+ < (\d+);", loops)
            for place in range(int(low), int(high))]


@pytest.mark.thorough
def test_text_is_amaranths_own():
    # One memory is large enough for several loops; word by word the others would take seconds.
    config = dataclasses.replace(load("tiny"), scratch_words=LOOP + 100, residual_words=64,
                                 stationary_words=64)
    emit = rtlil.ModuleEmitter.emit_memory
    plain = verilog.convert(create("accelerator", config), name="accelerator", emit_src=False,
                            strip_internal_attrs=True)
    text = convert(create("accelerator", config), "accelerator")
    assert rtlil.ModuleEmitter.emit_memory is emit
    words = [found[1].count("\n") for found in WORD_BY_WORD.finditer(plain)]
    assert max(words) > LOOP
    assert [cleared(found[0]) for found in ZEROS.finditer(text)] == \
        [list(range(count)) for count in words]

    for block in re.findall(r"^  always @\*.*\n.*\n", text, re.MULTILINE):
        assert re.fullmatch(rf"  always @\* begin\n{FIRST}", block)
    assert pragmas() in text
    text = ZEROS.sub("", text).replace(pragmas(), "")
    text = text.removesuffix("/* verilator lint_restore */\n")
    text, count = re.subn(r"^  initial (\S+) <= 1;\n", "", text, flags=re.MULTILINE)
    assert count > 10
    bare = re.compile(rf"^  always @\* begin\n{FIRST}(    .*;\n)  end\n", re.MULTILINE)
    # GTKWave opens no VCD with names that have colons.
    assert not re.search(r"\\\S*:\S* ", text)
    plain = re.sub(r"\\\$auto\$verilog_backend\S+ ", r"\\$start ", WORD_BY_WORD.sub("", plain))
    plain = re.sub(r"\\\$auto\S+ ", lambda name: name[0].replace(":", "."), plain)
    assert "  always @*\n" in plain
    plain = bare.sub(r"  always @*\n\1", plain).rstrip()
    assert bare.sub(r"  always @*\n\1", text).rstrip() == plain


def test_a_module_without_an_event_gets_one():
    module = "module m(a, b\n, q);\n  reg q;\n  always @*\n    q[1] = a;\nendmodule\n"
    event = "\\$start"
    assert _started(module) == (
        f"module m(a, b\n, q);\n  reg {event}  = 0;\n  initial {event} <= 1;\n  reg q;\n"
        f"  always @* begin\n    if ({event} ) begin end\n    q[1] = a;\n  end\nendmodule\n")
    assert _started("module m();\nendmodule\n") == "module m();\nendmodule\n"


@pytest.mark.rtl
@ICARUS
@pytest.mark.parametrize("language", ["-g2005", "-g2012"])
def test_every_word_is_zero_at_first(tmp_path, language):
    class Store(wiring.Component):
        address: In(12)
        read: Out(7)

        def elaborate(self, platform):
            m = Module()
            # A name that Verilog must escape.
            m.submodules["a.b"] = memory = Memory(shape=7, depth=2 * LOOP + 452, init=[])
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [write.addr.eq(self.address), read.addr.eq(self.address),
                         self.read.eq(read.data)]
            return m

    (tmp_path / "store.v").write_text(convert(Store(), "store"))
    (tmp_path / "tb.v").write_text(f"""
module tb;
  reg clk = 0, rst = 0; reg [11:0] address; wire [6:0] read; integer wrong = 0, place;
  store dut (.clk(clk), .rst(rst), .address(address), .read(read));
  initial begin
    for (place = 0; place < {2 * LOOP + 452}; place = place + 1) begin
      address = place; #1;
      if (read !== 0) wrong = wrong + 1;
    end
    $display("%0d of %0d", wrong, place);
  end
endmodule
""")
    subprocess.run(["iverilog", language, "-o", "tb.vvp", "tb.v", "store.v"], cwd=tmp_path,
                   check=True, timeout=60)
    done = subprocess.run(["vvp", "-n", "tb.vvp"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stdout.strip() == f"0 of {2 * LOOP + 452}"
