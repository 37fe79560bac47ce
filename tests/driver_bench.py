# SPDX-License-Identifier: Apache-2.0
"""The Python driver as host of the accelerator's Verilog: `tests/test_driver_python.py` runs it.

The driver is not written for a simulation. It runs in a thread, and time goes on while it waits for
a register.
"""

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import RisingEdge, Timer

from gen.registers import to_json
from sim.accelerator.bench import PERIOD, Host, _peek
from vitforge.driver.vitforge_driver import Buffer, Device, Result
from vitforge.spec.config import load
from vitforge.spec.register_map import REGISTERS

NAMES = {register.offset: register.name for register in REGISTERS}


class Bus:
    """Registers whose accesses are transfers."""

    def __init__(self, host: Host) -> None:
        self.read = resume(self._read(host))
        self.write = resume(self._write(host))

    @staticmethod
    def _read(host: Host) -> Any:
        async def read(offset: int) -> int:
            return await host.read(NAMES[offset])
        return read

    @staticmethod
    def _write(host: Host) -> Any:
        async def write(offset: int, value: int) -> None:
            assert await host.write(NAMES[offset], value) == 0
        return write


def _use(dut: Any, run: dict[str, Any], config: str) -> dict[str, Any]:
    """Run one input, as a program on Linux would."""
    async def sleep() -> None:
        await Timer(500 * PERIOD, "ns")

    def fill(size: int) -> bytearray:
        return bytearray(size)

    host = Host(dut)
    device = Device(Bus(host), json.loads(to_json(load(config))), resume(sleep))
    sizes = device.probe()
    # What is in program and input is in the simulated memory already.
    program, image = (Buffer(run[name][0], fill(run[name][1])) for name in ("program", "input"))
    address, size = run["output"]
    output = Buffer(address, fill(size))
    output.invalidate = lambda: output.write(bytes.fromhex(resume(_peek)(dut, address, size)))
    device.load(program, image, output)
    device.enable_interrupts(3)
    assert device.poll() is Result.IDLE
    device.start()
    result = device.wait(run["limit"] // 500)
    return {"result": result.name, "sizes": sizes, "logits": device.read_logits(10),
            "fault": device.fault(), "counters": device.counters(), "name": run["name"],
            "interrupt": int(dut.interrupt.value), "events": device.acknowledge(), "output": ""}


@cocotb.test()
async def runs(dut: Any) -> None:
    for name in ("awvalid", "wvalid", "arvalid", "bready", "rready", "awprot", "arprot"):
        getattr(dut, f"s_axi_{name}").value = 0
    Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start()
    dut.peek_address.value = dut.write_low.value = dut.write_high.value = 0
    dut.rst.value = 1
    await Timer(4 * PERIOD, "ns")
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    [run] = json.loads(Path(os.environ["VITFORGE_RUNS"]).read_text(encoding="utf-8"))
    found = await bridge(_use)(dut, run, "tiny")
    Path(os.environ["VITFORGE_RESULT"]).write_text(json.dumps(found) + "\n", encoding="utf-8")
