# SPDX-License-Identifier: Apache-2.0
"""The C driver on the simulated registers: every way a run begins, ends, or doesn't."""

import ctypes
import re
import struct
import subprocess
from ctypes import byref

import pytest

from gen.compiler.command import compile_network, input_buffer
from gen.compiler.model import quantized
from gen.registers import header
from golden.data.mnist import sample
from golden.machine.execute import execute
from golden.machine.program import read_logits
from sim.testing.driver import DRIVER, FLAGS, Buffers, Counters, FaultReport, Machine, Plan, build
from tests.sample import thorough
from vitforge.spec.config import load
from vitforge.spec.register_map import FAULTS, REGISTERS

CONFIG = load("tiny")
AT = {register.name: register.offset for register in REGISTERS}
#: The results of vitforge.h, by name.
RESULT = {name: int(value) for name, value in re.findall(
    r"VITFORGE_(\w+) = (-?\d+)", (DRIVER / "vitforge.h").read_text())}
GOOD = {"program_address": 0x10000, "program_bytes": 0x4000, "input_address": 0x20000,
        "input_bytes": 0x340, "output_address": 0xFFFFFF40, "output_bytes": 0xC0}
LOGITS = (-2**31, 2**31 - 1, 0, -1, 1, 256, -257, 65536, 3, 4)
#: Four columns: four logits a line of 64 bytes, and behind them what must not be taken for one.
RESULTS = b"".join(struct.pack("<4i", *(*LOGITS, 7, 7)[start:start + 4]) + b"\x7f" * 48
                   for start in (0, 4, 8))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("driver"), CONFIG)


@pytest.fixture
def machine(library):
    machine = Machine(library, CONFIG)
    assert machine.probe()[0] == RESULT["OK"]
    yield machine
    machine.check()


def is_result(machine, name, function, *arguments):
    got = machine.call(function, *arguments)
    assert got == RESULT[name], (function, got)


def loaded(machine, **values):
    return machine.call("load", byref(Buffers(**{**GOOD, **values})))


def logits(machine, count=10):
    numbers = (ctypes.c_int32 * 16)(*[77] * 16)
    result = machine.call("read_logits", machine.output, numbers, ctypes.c_size_t(count))
    return result, tuple(numbers)


def test_probe_knows_the_accelerator(library):
    machine = Machine(library, CONFIG)
    result, found = machine.probe(int(CONFIG.hash(), 16))
    assert result == RESULT["OK"] and machine.refused == []
    assert (found.config_hash, found.rows, found.cols, found.lanes, found.axi_bytes) \
        == (int(CONFIG.hash(), 16), 4, 4, 2, 8)
    assert machine.probe(int(CONFIG.hash(), 16) ^ 1)[0] == RESULT["WRONG_CONFIG"]
    assert machine.call("probe", None, 0, None) == RESULT["INVALID"]
    assert machine.call("probe", ctypes.c_void_p(4), 0, None) == RESULT["OK"]


@pytest.mark.parametrize(("register", "value", "name"), [
    ("ID", 0, "NO_DEVICE"), ("ID", 0xFFFFFFFF, "NO_DEVICE"),
    ("VERSION", 0x0002_0000, "WRONG_VERSION"), ("VERSION", 0x0001_0007, "OK"),
])
def test_probe_refuses_another_device(library, monkeypatch, register, value, name):
    machine = Machine(library, CONFIG)
    access = machine._access
    monkeypatch.setattr(machine, "_access", lambda offset, data: (
        value if offset == AT[register] else access(offset, data)))
    assert machine.probe()[0] == RESULT[name]


def test_a_run_from_start_to_its_results(machine):
    is_result(machine, "IDLE", "poll")
    assert logits(machine)[0] == RESULT["IDLE"]
    assert loaded(machine) == RESULT["OK"]
    machine.plan = Plan(cycles=300, results=RESULTS)
    is_result(machine, "OK", "start")
    is_result(machine, "BUSY", "poll")
    assert logits(machine) == (RESULT["BUSY"], (77,) * 16)
    is_result(machine, "OK", "wait", 1000)
    assert machine.windows == [GOOD]
    assert logits(machine) == (RESULT["OK"], LOGITS + (77,) * 6)
    assert logits(machine, 12) == (RESULT["OK"], LOGITS + (7, 7) + (77,) * 4)
    assert logits(machine, 13)[0] == RESULT["INVALID"], "the output buffer has three lines of four"
    report = machine.structure("fault", FaultReport)
    assert (report.kind, report.instruction, report.address) == (0, 0, 0)
    counters = machine.structure("counters", Counters)
    assert counters.cycles == 300 + 1      # and the one of `done`
    assert {counters.array_busy, counters.weight_wait, counters.memory_wait, counters.norm_wait,
            counters.softmax_wait, counters.drain_wait, counters.instructions} == {300}
    assert machine.refused == []


def test_a_second_run_needs_no_reset(machine):
    assert loaded(machine) == RESULT["OK"]
    for cycles in (50, 20):
        machine.plan = Plan(cycles=cycles)
        is_result(machine, "OK", "start")
        is_result(machine, "OK", "wait", 1000)
        assert machine.structure("counters", Counters).cycles == cycles + 1
    machine.plan = Plan(fault=("read DECERR", 1, 64))
    is_result(machine, "OK", "start")
    is_result(machine, "FAULTED", "wait", 1000)
    machine.plan = Plan(results=RESULTS)
    is_result(machine, "OK", "start")
    is_result(machine, "OK", "wait", 1000)
    assert logits(machine)[1][:10] == LOGITS and machine.refused == []


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "none"])
def test_every_fault_is_told(machine, kind):
    machine.plan = Plan(cycles=30, fault=(kind, 0x89ABCDEF, 0xFEDCBA98), quiet=40)
    assert loaded(machine) == RESULT["OK"]
    is_result(machine, "OK", "start")
    is_result(machine, "FAULTED", "wait", 1000)
    is_result(machine, "FAULTED", "poll")
    assert logits(machine) == (RESULT["FAULTED"], (77,) * 16)
    report = machine.structure("fault", FaultReport)
    assert (report.kind, report.instruction, report.address) \
        == (FAULTS[kind], 0x89ABCDEF, 0xFEDCBA98)
    assert machine.lib.vitforge_fault_name(report.kind) == kind.encode()


def test_a_number_without_a_name(machine):
    assert machine.lib.vitforge_fault_name(len(FAULTS)) == b"unknown"
    assert machine.lib.vitforge_fault_name(0) == b"none"


def test_a_run_that_does_not_end_times_out_and_is_stopped(machine):
    machine.plan = Plan(cycles=None, quiet=60)
    assert loaded(machine) == RESULT["OK"]
    is_result(machine, "OK", "start")
    is_result(machine, "TIMEOUT", "wait", 20)
    is_result(machine, "TIMEOUT", "wait", 0)
    # What must not be done to a run is not even tried.
    assert loaded(machine, input_address=0) == RESULT["BUSY"]
    is_result(machine, "BUSY", "start")
    assert machine.refused == []
    machine.call("stop")
    is_result(machine, "BUSY", "poll")     # until the bus is quiet
    is_result(machine, "FAULTED", "wait", 100)
    report = machine.structure("fault", FaultReport)
    assert machine.lib.vitforge_fault_name(report.kind) == b"stopped"
    assert report.instruction == 1
    machine.call("stop")                   # nothing to stop: nothing happens
    is_result(machine, "FAULTED", "poll")
    machine.plan = Plan(cycles=10)
    is_result(machine, "OK", "start")
    is_result(machine, "OK", "wait", 100)
    assert machine.windows == [GOOD, GOOD] and machine.refused == []


@pytest.mark.parametrize("values", [
    {"program_address": 32}, {"input_address": 1}, {"output_address": 0xFFFFFFFF},
    {"program_bytes": 63}, {"input_bytes": 65}, {"output_bytes": 32}, {"program_bytes": 0},
    {"output_bytes": 0x100}, {"input_address": 0x80, "input_bytes": 0xFFFFFFC0},
])
def test_impossible_buffers_are_not_written(machine, values):
    assert loaded(machine) == RESULT["OK"]
    assert loaded(machine, **values) == RESULT["INVALID"]
    machine.plan = Plan(cycles=5)
    is_result(machine, "OK", "start")
    is_result(machine, "OK", "wait", 100)
    assert machine.windows == [GOOD]


@pytest.mark.parametrize("values", [
    {"input_address": 0x40, "input_bytes": 0xFFFFFFC0}, {"input_bytes": 0},
    {"output_address": 0, "output_bytes": 0},
])
def test_unusual_buffers_are_accepted(machine, values):
    machine.plan = Plan(cycles=5)
    assert loaded(machine, **values) == RESULT["OK"]
    is_result(machine, "OK", "start")
    is_result(machine, "OK", "wait", 100)
    assert machine.windows == [{**GOOD, **values}] and machine.refused == []


def test_without_buffers_the_hardware_says_so(machine):
    is_result(machine, "OK", "start")
    is_result(machine, "FAULTED", "wait", 1)
    assert machine.structure("fault", FaultReport).kind == FAULTS["bad length"]
    assert machine.windows == [] and machine.refused == []


def test_a_lost_write_is_noticed(machine, monkeypatch):
    access = machine._access
    monkeypatch.setattr(machine, "_access", lambda offset, data: (
        0 if offset == AT["INPUT_BYTES"] and data is not None else access(offset, data)))
    assert loaded(machine) == RESULT["REFUSED"]


@pytest.mark.parametrize(("fault", "mask", "result"), [
    (None, 3, "OK"), (("write SLVERR", 2, 64), 3, "FAULTED"), (None, 1, "OK"),
    (("write SLVERR", 2, 64), 2, "FAULTED"),
])
def test_waiting_for_the_interrupt(machine, fault, mask, result):
    """One poll before and one after: the processor sleeps for the rest."""
    handled = []

    def sleep():
        assert machine.advance(5000, until_interrupt=True)
        handled.append(machine.lib.vitforge_acknowledge(byref(machine.device)))
        return 0

    machine.on_wait(sleep)
    machine.call("enable_interrupts", mask)
    assert loaded(machine) == RESULT["OK"]
    for cycles in (900, 400):
        machine.plan = Plan(cycles=cycles, fault=fault)
        handled.clear()
        is_result(machine, "OK", "start")
        is_result(machine, result, "wait", 2)
        assert handled == [2 if fault else 1]
        assert not machine.advance(3), "acknowledged"


def test_no_interrupt_that_was_not_enabled(machine):
    machine.call("enable_interrupts", 2)
    assert loaded(machine) == RESULT["OK"]
    is_result(machine, "OK", "start")
    assert not machine.advance(500, until_interrupt=True)
    is_result(machine, "OK", "poll")
    assert machine.call("acknowledge") == 1 and machine.call("acknowledge") == 0


def test_a_start_clears_the_interrupt_of_the_run_before(machine):
    machine.call("enable_interrupts", 3)
    assert loaded(machine) == RESULT["OK"]
    is_result(machine, "OK", "start")
    assert machine.advance(500, until_interrupt=True)
    machine.plan = Plan(cycles=None)
    is_result(machine, "OK", "start")
    assert not machine.advance(50)
    machine.call("stop")
    assert machine.advance(50, until_interrupt=True)
    assert machine.call("acknowledge") == 2


def test_probing_turns_interrupts_off(machine):
    machine.call("enable_interrupts", 3)
    assert machine.probe()[0] == RESULT["OK"]
    assert loaded(machine) == RESULT["OK"]
    is_result(machine, "OK", "start")
    assert not machine.advance(500, until_interrupt=True)


def test_the_wait_hook_may_give_up(machine):
    waits = []
    machine.on_wait(lambda: len(waits) > 3 or waits.append(1) or 0)
    machine.plan = Plan(cycles=None)
    assert loaded(machine) == RESULT["OK"]
    is_result(machine, "OK", "start")
    is_result(machine, "TIMEOUT", "wait", 1000)
    assert len(waits) == 4
    waits.clear()
    is_result(machine, "TIMEOUT", "wait", 3)
    assert len(waits) == 2, "no wait after the last poll"


@pytest.mark.parametrize("name", ["tiny", *map(thorough, ("edge8", "edge16"))])
def test_the_example_on_what_the_accelerator_writes(tmp_path, name):
    """Digits of every class, or of some: the class and the logits are the golden machine's."""
    config = load(name)
    compiled = compile_network(quantized("mnist", config))
    machine = Machine(build(tmp_path, config), config)
    assert machine.probe(int(config.hash(), 16))[0] == RESULT["OK"]
    buffers = Buffers(**{**GOOD, "output_address": 0x30000,
                         "output_bytes": compiled.output_bytes})
    digits = sample().test
    for index in range(10) if name == "edge16" else (3, 8):
        run = execute(compiled.program, input_buffer(digits.images[index:index + 1], compiled),
                      config, compiled.output_bytes)
        wanted = read_logits(run.output, 10, config)
        machine.plan = Plan(cycles=3, results=run.output)
        found = machine.lib.classify(byref(machine.device), byref(buffers), machine.output)
        machine.check()
        assert found == int(wanted.argmax()) == int(digits.labels[index])
        assert logits(machine)[1] == (*wanted, *(77,) * 6)
    assert machine.refused == []


@pytest.mark.parametrize(("plan", "result", "printed"), [
    (Plan(cycles=100, results=RESULTS), 1, ""),
    (Plan(cycles=30, fault=("unknown opcode", 5, 200)), "FAULTED",
     "fault: unknown opcode, instruction 5, address 0x000000c8\n"),
    (Plan(cycles=None), "FAULTED", "fault: stopped, instruction 1, address 0x00000000\n"),
])
def test_the_example(machine, capfd, plan, result, printed):
    waits = []

    def sleep():
        waits.append(1)
        return int(plan.cycles is None and len(waits) == 20)     # give up once

    machine.on_wait(sleep)
    machine.plan = plan
    got = machine.lib.classify(byref(machine.device), byref(Buffers(**GOOD)), machine.output)
    machine.check()
    assert got == RESULT.get(result, result)
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == printed


def test_the_header_is_cpp_too(tmp_path):
    (tmp_path / "vitforge_registers.h").write_text(header())
    (tmp_path / "use.cpp").write_text('#include "vitforge.h"\n#include "vitforge_port.h"\n')
    subprocess.run(["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I",
                    str(DRIVER), "-I", str(tmp_path), "-fsyntax-only", str(tmp_path / "use.cpp")],
                   check=True, timeout=60)


def test_the_code_in_the_readme_compiles(tmp_path):
    (tmp_path / "vitforge_registers.h").write_text(header(CONFIG))
    blocks = re.findall(r"```c\n(.*?)```", (DRIVER / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        path = tmp_path / f"block_{number}.c"
        path.write_text(block)
        subprocess.run(["gcc", *FLAGS, "-I", str(DRIVER), "-I", str(tmp_path), "-fsyntax-only",
                        str(path)], check=True, timeout=60)
