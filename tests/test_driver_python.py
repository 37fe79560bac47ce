# SPDX-License-Identifier: Apache-2.0
"""The Python driver on the simulated registers, and as host of the whole generated Verilog."""

import ctypes
import json
import re
import struct

import pytest

from gen.compiler.command import compile_network, input_buffer
from gen.compiler.model import quantized
from gen.registers import to_json
from golden.data.mnist import sample
from golden.machine.cycles import Buffers, predict
from golden.network import inference
from sim.accelerator.model import Case, Job, build, place
from sim.testing.driver import DRIVER, Machine, Plan
from sim.testing.driver import build as build_library
from vitforge.driver.vitforge_driver import (
    Buffer,
    Device,
    DriverError,
    Fault,
    MappedRegisters,
    Result,
)
from vitforge.spec.config import load
from vitforge.spec.register_map import COUNTERS, FAULTS, find

CONFIG = load("tiny")
LOGITS = [-2**31, 2**31 - 1, 0, -1, 1, 256, -257, 65536, 3, 4]
RESULTS = b"".join(struct.pack("<4i", *[*LOGITS, 7, 7][start:start + 4]) + b"\x7f" * 48
                   for start in (0, 4, 8))


class Bus:
    """The registers of a `Machine`."""

    def __init__(self, machine):
        self.machine = machine

    def read(self, offset):
        value = self.machine._access(offset, None)
        self.machine.check()
        return value

    def write(self, offset, value):
        self.machine._access(offset, value)
        self.machine.check()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_library(tmp_path_factory.mktemp("driver"), CONFIG)


@pytest.fixture
def machine(library):
    return Machine(library, CONFIG)


@pytest.fixture
def device(machine):
    device = Device(Bus(machine), json.loads(to_json(CONFIG)))
    device.probe()
    return device


def buffers(machine, **addresses):
    """Return three buffers; the output is the machine's, and the bytes of the others are ours."""
    at = {"program": 0x10000, "image": 0x20000, "output": 0xFFFFFF40, **addresses}
    output = (ctypes.c_char * 192).from_buffer(machine.output)
    return [Buffer(at["program"], bytearray(0x4000)), Buffer(at["image"], bytearray(0x340)),
            Buffer(at["output"], output)]


def refused(result, function, *arguments):
    with pytest.raises(DriverError) as caught:
        function(*arguments)
    assert caught.value.result is result
    return str(caught.value)


def test_results_are_those_of_the_c_driver():
    found = re.findall(r"VITFORGE_(\w+) = (-?\d+)", (DRIVER / "vitforge.h").read_text())
    assert {result.name: int(result) for result in Result} == {name: int(value)
                                                               for name, value in found}


def test_it_has_every_call_of_the_c_driver():
    calls = re.findall(r"\bvitforge_(\w+)\(", (DRIVER / "vitforge.h").read_text())
    assert set(calls) <= set(dir(Device)) and len(set(calls)) >= 12


def test_probe_knows_the_accelerator(machine):
    device = Device(Bus(machine), json.loads(to_json(CONFIG)))
    assert device.probe() == {"rows": 4, "cols": 4, "lanes": 2, "axi_bytes": 8,
                              "config_hash": int(CONFIG.hash(), 16)}
    assert "not 00000001" in refused(Result.WRONG_CONFIG, device.probe, 1)
    assert device.probe(0)["rows"] == 4
    assert Device(Bus(machine), json.loads(to_json())).probe()["rows"] == 4
    assert machine.refused == []


@pytest.mark.parametrize(("register", "value", "result"), [
    ("ID", 0, Result.NO_DEVICE), ("VERSION", 0x0002_0000, Result.WRONG_VERSION)])
def test_probe_refuses_another_device(machine, monkeypatch, register, value, result):
    access = machine._access
    monkeypatch.setattr(machine, "_access", lambda offset, data: (
        value if offset == find(register).offset else access(offset, data)))
    refused(result, Device(Bus(machine), json.loads(to_json(CONFIG))).probe)


def test_a_run_from_start_to_its_results(machine, device):
    assert device.poll() is Result.IDLE
    refused(Result.IDLE, device.read_logits, 10)
    three, told = buffers(machine), []
    for name, buffer in zip(("program", "image", "output"), three, strict=True):
        buffer.flush = lambda name=name: told.append(f"flush {name}")
        buffer.invalidate = lambda name=name: told.append(f"invalidate {name}")
    device.load(*three)
    machine.plan = Plan(cycles=300, results=RESULTS)
    device.start()
    assert told == ["flush program", "flush image", "flush output"]
    assert device.poll() is Result.BUSY
    refused(Result.BUSY, device.read_logits, 10)
    refused(Result.BUSY, device.start)
    refused(Result.BUSY, device.load, *three)
    assert device.wait(1000) is Result.OK
    assert machine.windows == [{
        "program_address": 0x10000, "program_bytes": 0x4000, "input_address": 0x20000,
        "input_bytes": 0x340, "output_address": 0xFFFFFF40, "output_bytes": 0xC0}]
    assert device.read_logits(10) == LOGITS and told[3:] == ["invalidate output"]
    refused(Result.INVALID, device.read_logits, 13)
    assert device.fault() == Fault("none", 0, 0)
    assert device.counters() == {**dict.fromkeys(COUNTERS, 300), "cycles": 301}
    assert machine.refused == []


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "none"])
def test_every_fault_is_told(machine, device, kind):
    machine.plan = Plan(cycles=30, fault=(kind, 0x89ABCDEF, 0xFEDCBA98), quiet=40)
    device.load(*buffers(machine))
    device.start()
    assert device.wait(1000) is Result.FAULTED
    assert device.fault() == Fault(kind, 0x89ABCDEF, 0xFEDCBA98)
    refused(Result.FAULTED, device.read_logits, 1)


def test_a_number_without_a_name(device):
    assert device.fault_name(len(FAULTS)) == "unknown"


def test_a_run_that_does_not_end_is_stopped(machine, device):
    machine.plan = Plan(cycles=None, quiet=60)
    device.load(*buffers(machine))
    device.start()
    waits = []
    device.wait_hook = lambda: waits.append(1)
    assert device.wait(20) is Result.TIMEOUT and len(waits) == 19
    assert device.wait(0) is Result.TIMEOUT
    device.wait_hook = lambda: True
    assert device.wait(1000) is Result.TIMEOUT
    device.wait_hook = None
    device.stop()
    assert device.wait(100) is Result.FAULTED and device.fault().kind == "stopped"


@pytest.mark.parametrize(("name", "address", "size"), [
    ("program", 32, 64), ("image", 0, 65), ("output", 0xFFFFFFC0, 128), ("program", 0, 0),
    ("image", 1 << 32, 64), ("output", -64, 64)])
def test_impossible_buffers_are_not_written(machine, device, name, address, size):
    three = dict(zip(("program", "image", "output"), buffers(machine), strict=True))
    three[name] = Buffer(address, bytearray(size))
    assert ("input" if name == "image" else name) in refused(Result.INVALID, device.load,
                                                             *three.values())
    assert Bus(machine).read(find("PROGRAM_BYTES").offset) == 0


def test_a_lost_write_is_noticed(machine, device, monkeypatch):
    access = machine._access
    monkeypatch.setattr(machine, "_access", lambda offset, data: (
        0 if offset == find("INPUT_BYTES").offset and data is not None else access(offset, data)))
    assert "INPUT_BYTES" in refused(Result.REFUSED, device.load, *buffers(machine))


def test_waiting_for_the_interrupt(machine, device):
    handled = []

    def sleep():
        assert machine.advance(5000, until_interrupt=True)
        handled.append(device.acknowledge())

    device.wait_hook = sleep
    device.enable_interrupts(3)
    device.load(*buffers(machine))
    for fault, result, events in ((None, Result.OK, 1), (("bad field", 1, 2), Result.FAULTED, 2)):
        machine.plan = Plan(cycles=900, fault=fault)
        device.start()
        assert device.wait(2) is result and handled.pop() == events
        assert not machine.advance(3), "acknowledged"


def test_registers_in_a_file_are_words(tmp_path):
    path = tmp_path / "uio"
    path.write_bytes(bytes(8192))
    registers = MappedRegisters(path, offset=4096)
    registers.write(0x10, 0x89ABCDEF)
    assert registers.read(0x10) == 0x89ABCDEF and registers.read(0x14) == 0
    registers.close()
    assert path.read_bytes()[4096 + 0x10:][:4] == struct.pack("=I", 0x89ABCDEF)


def test_a_buffer_of_pynq_is_flushed_and_has_whole_lines():
    class Array(bytearray):
        device_address = 0x1000_0000

        def flush(self):
            told.append("flush")

        def invalidate(self):
            told.append("invalidate")

    told, made = [], []

    def allocate(shape, dtype):
        made.append((shape, dtype))
        return Array(*shape)

    buffer = Buffer.of_pynq(allocate, 65)
    assert made == [((128,), "u1")] and len(buffer.data) == 128
    buffer.write(b"abc")
    assert bytes(buffer.data[:4]) == b"abc\0" and buffer.address == 0x1000_0000
    buffer.flush()
    buffer.invalidate()
    assert told == ["flush", "invalidate"]
    with pytest.raises(ValueError, match="has 128 bytes, not 129"):
        buffer.write(bytes(129))


@pytest.mark.rtl
@pytest.mark.thorough
def test_a_digit_on_the_generated_verilog():
    """From probe to logits: every register access is a transfer on the Verilog's bus."""
    network = quantized("mnist", CONFIG)
    compiled = compile_network(network)
    image = sample().test.images[:1]
    data = input_buffer(image, compiled)
    addresses, memory = place([compiled.program, data, bytes(compiled.output_bytes)])
    program, source, output = addresses
    exact = predict(compiled.program, CONFIG, buffers=Buffers(*addresses))
    job = Job("digit", (program, len(compiled.program)), (source, len(data)),
              (output, compiled.output_bytes), 2 * exact.cycles)
    model = build(CONFIG, size=1 << 20, brief=True)
    [found] = model.run(Case(memory, [job]), module="tests.driver_bench")
    assert found.result == "OK" and found.interrupt == 1 and found.events == 1
    assert found.logits == inference.run(network, image)[0].tolist()
    assert found.sizes == {"rows": 4, "cols": 4, "lanes": 2, "axi_bytes": 8,
                           "config_hash": int(CONFIG.hash(), 16)}
    assert found.fault == ["none", 0, 0]
    assert found.counters == {name: getattr(exact, name) for name in COUNTERS}
