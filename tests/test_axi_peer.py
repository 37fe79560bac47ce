# SPDX-License-Identifier: Apache-2.0
"""The accelerator between another project's memory and host, which know nothing of it."""

import dataclasses
import json
from collections import Counter

import pytest
from cocotb_tools.runner import get_results
from test_accelerator import (
    DECERR,
    DONE,
    FAULT,
    SLVERR,
    STOPPED,
    Memory,
    Work,
    network,
    output_of,
    raw_pass,
)

from gen.compiler.image import inline_load
from gen.elaborate import generate
from golden.machine.program import Instruction, assemble
from sim.run import WAIVERS, Runner
from sim.testing.axi_order import ORDERS
from sim.toolchain import find
from vitforge.spec.config import load
from vitforge.spec.instruction import LINE
from vitforge.spec.packing import burst_limit
from vitforge.spec.register_map import FAULTS

pytestmark = pytest.mark.rtl

#: No run here takes as many cycles.
LIMIT = 200_000
#: What a pass of `raw` writes: 16 tokens, 4 channels, 4 bytes.
PASS_BYTES = 256
CHANNELS = ("ar", "r", "aw", "w", "b")
#: How the orders of `sim.testing.axi_order` show on the bus.
SHOWN = {
    "free": {"before the data", "before a beat", "with the first beat", "among the beats",
             "with the last beat", "after the last beat"},
    "address": {"before the data", "before a beat"},
    "data": {"after the last beat"},
    "both": {"before a beat", "with the first beat", "among the beats", "with the last beat",
             "after the last beat"},
}


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """Return the function that does runs on a configuration, and checks what all must keep."""
    built = {}

    def build(config):
        folder = tmp_path_factory.mktemp(config.name)
        source = folder / "accelerator.v"
        source.write_text(generate("accelerator", config), encoding="utf-8")
        runner = Runner(find(), False)
        runner.build(sources=[WAIVERS, source], hdl_toplevel="accelerator", build_dir=folder,
                     timescale=("1ns", "1ps"), log_file=folder / "build.log")
        return runner, folder

    def run(config, memory, runs):
        if config.name not in built:
            built[config.name] = build(config)
        runner, folder = built[config.name]
        data, result = bytes(memory.data), folder / "result.jsonl"
        (folder / "memory.bin").write_bytes(data)
        result.write_text("", encoding="utf-8")
        setup = {"memory": str(folder / "memory.bin"), "width": config.axi_bits // 8,
                 "limit": burst_limit(config),
                 "runs": [{"limit": LIMIT, "seed": number} | one
                          for number, one in enumerate(runs)]}
        (folder / "setup.json").write_text(json.dumps(setup), encoding="utf-8")
        report = runner.test(
            test_module="axi_peer", hdl_toplevel="accelerator", hdl_toplevel_lang="verilog",
            build_dir=folder, test_dir=folder, log_file=folder / "run.log",
            extra_env={"VITFORGE_PEER": str(folder / "setup.json"),
                       "VITFORGE_RESULT": str(result)})
        assert get_results(report) == (1, 0)
        found = [json.loads(line) for line in result.read_text(encoding="utf-8").splitlines()]
        for one, left in zip(setup["runs"], found, strict=False):
            assert left["interrupt"], f"no interrupt: {one}"
            assert not left["pending"] and not left["late"], one
            low = one["output"][0]
            high = low + one["output"][1]
            now = bytes.fromhex(left.pop("memory"))
            # Nothing is ever written outside the output buffer.
            assert now[:low] == data[:low] and now[high:] == data[high:], one
            left["output"], data = now[low:high], now
        assert len(found) == len(runs)
        return found

    return run


def buffers(job):
    return {name: list(getattr(job, name)) for name in ("program", "input", "output")}


def good(found, work):
    assert (found["STATUS"], found["FAULT"], found["IRQ_STATUS"]) == (DONE, 0, 1), found
    assert found["output"] == work.wanted


def faulty(found, kind, address=None):
    stopped = STOPPED if kind == "stopped" else 0
    assert (found["STATUS"], found["FAULT"], found["IRQ_STATUS"]) == (
        FAULT | stopped, FAULTS[kind], 2), found
    assert address is None or found["FAULT_ADDRESS"] == address


def whole(found):
    """Every burst was answered once."""
    transfers = found["transfers"]
    assert transfers["aw"] == transfers["b"] == sum(found["orders"].values()) > 0
    assert transfers["r"] >= transfers["ar"] > 0 and transfers["w"] >= transfers["aw"]


def raw(config):
    """Return a program that writes many whole bursts: each pass the same 16 words."""
    words = Instruction("LOAD", inline_load(0, 16, config), data=bytes(range(16 * config.rows)))
    passes = [raw_pass(config, tokens=16, offset=offset)
              for offset in range(0, 4 * PASS_BYTES, PASS_BYTES)]
    program = assemble([words, *passes, Instruction("END", {})], config)
    image = bytes(range(LINE))
    return Work(program, image, output_of(program, image, config, 4 * PASS_BYTES))


#: Probabilities of pauses by channel.
PATTERNS = [{}, dict.fromkeys(CHANNELS, 0.3) | {"host": 0.3}, {"aw": 0.9}, {"w": 0.9}, {"b": 0.95},
            {"r": 0.7}, {"ar": 0.9}, dict.fromkeys(CHANNELS, 0.7) | {"host": 0.8}]
#: Those of a run behind another one, of which nothing may be left over.
ROUGH = {"order": "random", "pause": dict.fromkeys(CHANNELS, 0.2)}


def errors(job, orders):
    """Windows of one beat that answer with an error, and the fault that each is."""
    for name, response in (("program", SLVERR), ("output", DECERR), ("input", DECERR),
                           ("output", SLVERR)):
        low = getattr(job, name)[0]
        which = "write" if name == "output" else "read"
        kind = f"{which} {'DECERR' if response == DECERR else 'SLVERR'}"
        for order in orders:
            yield {"error": [low, low + 8, response], "order": order}, (kind, low)


def all_is_well(peer, config, works, conditions, orders):
    """Run programs, then stop the last one while AW is held, and let errors end the first one.

    Every stop and every error has a good run behind it.
    """
    memory = Memory()
    jobs = [memory.job(work) for work in works]
    runs = [(work, buffers(job) | {"order": order, "pause": pattern}, None)
            for order, pattern in conditions for work, job in zip(works, jobs, strict=True)]
    ends = [(jobs[-1], {"order": order, "stop": "held"}, ("stopped",)) for order in orders]
    ends += [(jobs[0], given, fault) for given, fault in errors(jobs[0], orders)]
    for job, given, fault in ends:
        runs += [(None, buffers(job) | given, fault), (works[0], buffers(jobs[0]) | ROUGH, None)]
    total, seen, cycles = Counter(), Counter(), 0
    found = peer(config, memory, [run for _, run, _ in runs])
    for (work, run, fault), one in zip(runs, found, strict=True):
        if fault is None:
            good(one, work)
            whole(one)
        else:
            faulty(one, *fault)
        if run.get("stop"):
            # Still offered, no interrupt, busy; and beats went before their address did.
            assert (one["held"], one["held status"] & 1) == ([1, 0], 1)
            width, limit = config.axi_bits // 8, burst_limit(config)
            # A first burst ends at a multiple of a longest one.
            beats = min(limit - run["output"][0] // width % limit, PASS_BYTES // width)
            assert one["held beats"] == (0 if run["order"] == "address" else beats)
        assert set(one["orders"]) <= SHOWN.get(run["order"], SHOWN["free"])
        total += Counter(one["transfers"])
        seen += Counter(one["orders"])
        cycles += one["bus cycles"]
    print(f"{config.name}: {len(runs)} runs, {cycles:,} cycles, transfers {dict(total)}, "
          f"{sum(total.values()):,} in all, addresses {dict(seen)}")
    return total, seen


@pytest.mark.thorough
def test_a_peer_s_memory_and_host(peer):
    config = load("tiny")
    conditions = [*((order, {}) for order in ORDERS), ("free", {"aw": 0.8}),
                  ("random", PATTERNS[1])]
    works = [network("one block", config), raw(config)]
    total, seen = all_is_well(peer, config, works, conditions, ["data"])
    # None of the ways in which an address and its beats may be taken was left out.
    assert set(seen) == SHOWN["free"]
    assert min(total.values()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("bits", [64, 128, 256, 512])
def test_a_peer_s_memory_and_host_at_length(peer, bits):
    config = dataclasses.replace(load("tiny"), name=f"peer{bits}", axi_bits=bits)
    conditions = [(order, pattern) for pattern in PATTERNS for order in (*ORDERS, "random")]
    works = [network("one block", config), network("padded everywhere", config), raw(config)]
    total, seen = all_is_well(peer, config, works, conditions, ORDERS)
    # On a wide bus bursts are too short for the last kind to come by chance.
    assert SHOWN["free"] - {"with the last beat"} <= set(seen)
    assert min(total.values()) > 200
