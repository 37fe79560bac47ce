# SPDX-License-Identifier: Apache-2.0
"""What a board must have for a network: what is in the Verilog, and what is refused."""

import dataclasses
from pathlib import Path

import pytest
import torch

from examples.litex.board import main as build
from examples.litex.build import Job
from examples.litex.fits import FIRMWARE, PROCESSORS, check_cells, fit
from examples.litex.options import BOARDS, Board
from gen.compiler.compile import compile_network
from gen.elaborate import generate
from gen.synthesis import expected
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import predict
from golden.network.calibrate import calibrate
from vitforge.spec.config import load

#: With a memory of twice the width: the small network below moves much for what it computes.
BOARD = dataclasses.replace(BOARDS["ulx3s-85f"], memory_bits=32)
TINY = load("tiny")


def _source(products: int, blocks: int) -> str:
    return "".join([*(f"  assign p{n} = a{n} * b{n};\n" for n in range(products)),
                    "  assign c = a * 5'h0b;\n  reg [9:0] few [15:0];\n  reg [7:0] q;\n",
                    *(f"  reg [35:0] \\m{n}  [511:0];\n" for n in range(blocks))])


@pytest.fixture(scope="module")
def job() -> Job:
    spec = VitSpec(image_size=8, patch_size=4, in_channels=1, classes=5, dim=8, depth=1, heads=2,
                   mlp_hidden=8)
    images = torch.randint(256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(3))
    network = calibrate(Vit(spec).initialize(5).eval(), images.to(torch.uint8), TINY)
    compiled = compile_network(network)
    return Job(TINY, compiled, Path(), Path(), _source(3, 2), len(compiled.program) + 1024)


@pytest.mark.parametrize(("bits", "words", "blocks"), [
    (36, 512, 1), (37, 512, 2), (36, 513, 2), (18, 1024, 1), (9, 2048, 1), (4, 4096, 1),
    (2, 8192, 1), (1, 16384, 1), (30, 512, 1), (64, 2048, 8), (256, 64, 8), (128, 16, 0),
    (9, 64, 0), (26, 64, 1), (256, 32, 0), (22, 64, 1)])
def test_memories_by_their_shape(bits: int, words: int, blocks: int) -> None:
    """As Yosys has made them of the accelerators' memories, which are the last ones."""
    assert expected.memories(f"  reg [{bits - 1}:0] \\m  [{words - 1}:0];\n") == blocks


@pytest.mark.parametrize(("bits", "parts", "words", "blocks"), [
    (64, 16, 18912, 76), (64, 8, 2048, 8), (304, 38, 256, 10), (304, 38, 48, 0), (16, 2, 256, 2),
    (16, 2, 48, 0), (16, 1, 256, 4)])
def test_parts_that_are_written_alone_take_whole_bytes(bits: int, parts: int, words: int,
                                                       blocks: int) -> None:
    """All but the last as Yosys has made them of accelerators' memories."""
    lines = [f"  reg [{bits - 1}:0] \\m$1  [{words - 1}:0];", *(
        f"      \\m$1 [address[9:0]][{low + parts - 1}:{low}] <= data[3:0];" if parts > 1
        else f"      \\m$1 [address[9:0]][{low}] <= data[3:0];" for low in range(0, bits, parts))]
    assert expected.memories("\n".join(lines)) == blocks
    # A memory of this name in another module is another memory.
    assert expected.memories("\nmodule ".join([lines[0], *lines[1:]])) \
        == expected.memories(lines[0])


def test_an_accelerator_needs_what_yosys_finds() -> None:
    """53 multipliers and 26 memories (`tests/test_synth_mapped.py` counts these)."""
    text = generate("accelerator", TINY)
    assert expected.multipliers(text) == 53
    assert expected.memories(text) == 26


def test_what_is_predicted(job: Job) -> None:
    found = fit(BOARD, job, 50.0)
    exact = predict(job.compiled.program, TINY)
    assert (found.processor, found.cycles) == ("standard", exact.cycles)
    moved = exact.read_bytes + exact.written_bytes
    assert found.images == pytest.approx(50e6 / exact.cycles)
    assert found.needed == pytest.approx(found.images * moved / 1e6)
    # 32 bits in four of five cycles.
    assert found.there == pytest.approx(50 * 4 * 4 / 5.01)
    # Four transfers of 16 bits a cycle, as a word of 128 in 2.33; or what the bus takes.
    wide = BOARDS["ecpix5-85f"]
    assert fit(wide, job, 50.0).there == pytest.approx(50 * 16 / 2.33)
    assert fit(dataclasses.replace(wide, share=1.5), job, 50.0).there == pytest.approx(50 * 8)


@pytest.mark.parametrize(("products", "processor"), [
    (152, "standard"), (153, "lite"), (156, "lite")])
def test_the_processor_takes_what_is_left(job: Job, products: int, processor: str) -> None:
    source = _source(products, 0)
    assert fit(BOARD, dataclasses.replace(job, source=source), 50.0).processor == processor


def _refused(message: str, board: Board, job: Job) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fit(board, job, 50.0)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_one_line(job: Job) -> None:
    _refused("tiny has 157 multipliers, and the chip has 156", BOARD,
             dataclasses.replace(job, source=_source(157, 0)))
    most = 208 - PROCESSORS["standard"][1]
    fit(BOARD, dataclasses.replace(job, source=_source(1, most)), 50.0)
    _refused("tiny with its system needs 209 block memories, and the chip has 208", BOARD,
             dataclasses.replace(job, source=_source(1, most + 1)))
    fit(BOARD, dataclasses.replace(job, memory_bytes=(32 << 20) - FIRMWARE), 50.0)
    _refused(r"program, inputs and firmware take 33.0 MiB, and the board's memory has 32", BOARD,
             dataclasses.replace(job, memory_bytes=32 << 20))


def test_a_slow_memory_is_refused_but_for_who_wants_it(job: Job) -> None:
    slow = BOARDS["ulx3s-85f"]
    exact = predict(job.compiled.program, TINY)
    moved = exact.read_bytes + exact.written_bytes
    _refused(r"tiny needs 128\.7 MB/s, and the board's memory has 79\.8 at 50 MHz: 1\.795e\+04 "
             r"images/s instead of 2\.894e\+04, with --slow-memory", slow, job)
    found = fit(slow, job, 50.0, slow=True)
    assert found.images == pytest.approx(50e6 * 2 * 4 / 5.01 / moved)


def test_a_netlist_that_is_too_large_is_one_line() -> None:
    check_cells(BOARD, ["MULT18X18D"] * 156 + ["DP16KD"] * 208 + ["LUT4"] * 1000)
    for kind, text in (("MULT18X18D", "157 multipliers, and the chip has 156"),
                       ("DP16KD", "209 block memories, and the chip has 208")):
        with pytest.raises(ValueError, match=f"the system has {text}"):
            check_cells(BOARD, [kind] * int(text.split()[0]))


@pytest.mark.thorough
def test_the_command_refuses_before_litex(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("examples.litex.board.missing", lambda: None)
    monkeypatch.setattr("examples.litex.board.litex", None)
    monkeypatch.setitem(BOARDS, "ulx3s-85f", dataclasses.replace(BOARD, multipliers=50))
    assert build(["ulx3s-85f", "--config", "tiny", "-o", str(tmp_path / "out")]) == 2
    *stages, last = capsys.readouterr().err.splitlines()
    assert len(stages) == 1 and stages[0].startswith("1/6 Verilog and program: ")
    assert last.endswith("tiny has 53 multipliers, and the chip has 50")
