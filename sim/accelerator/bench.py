# SPDX-License-Identifier: Apache-2.0
"""The cocotb host of the whole accelerator: starts runs over AXI4-Lite and sleeps until interrupts.

`sim.accelerator.model` starts it with ``VITFORGE_RUNS``, a JSON list of runs, ``VITFORGE_RESULT``,
a file that gets one JSON line a run, and ``VITFORGE_PROGRESS``, which gets a line now and then.
Nothing here is on the simulation's critical path: between the start and the interrupt no Python
runs but for those lines.
"""

__all__ = ["runs"]

import itertools
import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import First, RisingEdge, Timer

from vitforge.spec.register_map import COUNTERS, find

PERIOD = 10
#: Cycles between two signs of life.
TOLD = 20_000


class Host:
    """AXI4-Lite accesses, one at a time."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut

    async def write(self, name: str, value: int) -> int:
        """Write a register and return the response."""
        dut = self.dut
        dut.s_axi_awaddr.value = find(name).offset
        dut.s_axi_wdata.value = value
        dut.s_axi_wstrb.value = 0b1111
        dut.s_axi_awvalid.value = dut.s_axi_wvalid.value = dut.s_axi_bready.value = 1
        address = data = True
        while address or data:
            await RisingEdge(dut.clk)
            if address and dut.s_axi_awready.value == 1:
                address = False
                dut.s_axi_awvalid.value = 0
            if data and dut.s_axi_wready.value == 1:
                data = False
                dut.s_axi_wvalid.value = 0
        while dut.s_axi_bvalid.value != 1:
            await RisingEdge(dut.clk)
        response = int(dut.s_axi_bresp.value)
        dut.s_axi_bready.value = 0
        await RisingEdge(dut.clk)
        return response

    async def read(self, name: str) -> int:
        """Read a register."""
        dut = self.dut
        dut.s_axi_araddr.value = find(name).offset
        dut.s_axi_arvalid.value = dut.s_axi_rready.value = 1
        await RisingEdge(dut.clk)
        while dut.s_axi_arready.value != 1:
            await RisingEdge(dut.clk)
        dut.s_axi_arvalid.value = 0
        while dut.s_axi_rvalid.value != 1:
            await RisingEdge(dut.clk)
        value = int(dut.s_axi_rdata.value)
        dut.s_axi_rready.value = 0
        await RisingEdge(dut.clk)
        return value


async def _peek(dut: Any, address: int, size: int) -> str:
    """Bytes of the memory, as hexadecimal digits."""
    step = len(dut.peek_data) // 8
    parts = []
    for place in range(address, address + size, step):
        dut.peek_address.value = place
        await Timer(1, "ns")
        parts.append(int(dut.peek_data.value).to_bytes(step, "little"))
    return b"".join(parts)[:size].hex()


def _beats(dut: Any) -> int:
    """Count all beats on the bus so far."""
    return int(dut.read_beats.value) + int(dut.write_beats.value)


async def _reset(dut: Any, cycles: int) -> None:
    dut.rst.value = 1
    await Timer(cycles * PERIOD, "ns")
    await RisingEdge(dut.clk)
    dut.rst.value = 0


def _fail(dut: Any, address: int, answer: int) -> None:
    """Make the memory answer a beat with an error, and no other."""
    memory = dut.ram
    memory.error_low.value = address
    memory.error_high.value = address + len(dut.peek_data) // 8
    memory.read_error.value = memory.write_error.value = answer


async def _start(dut: Any, host: Host, run: dict[str, Any]) -> None:
    """Start, and return with the interrupt, or after a reset or `limit` cycles without one."""
    await host.write("CONTROL", 1)
    if run["reset"]:
        await Timer(run["reset"] * PERIOD, "ns")
        await _reset(dut, 1)
        return
    limit = Timer(run["limit"] * PERIOD, "ns")
    if run["stop"]:
        await Timer(run["stop"] * PERIOD, "ns")
        await host.write("CONTROL", 2)
    if dut.interrupt.value != 1:
        await First(RisingEdge(dut.interrupt), limit)


async def _run(dut: Any, host: Host, run: dict[str, Any]) -> dict[str, Any]:
    for name in ("program", "input", "output"):
        await host.write(f"{name.upper()}_ADDRESS", run[name][0])
        await host.write(f"{name.upper()}_BYTES", run[name][1])
    dut.write_low.value = run["output"][0]
    dut.write_high.value = min(sum(run["output"]), (1 << 32) - 1)
    if run["error"]:
        _fail(dut, *run["error"])
    await host.write("IRQ_ENABLE", 0b11)
    await _start(dut, host, run)
    for _ in range(run["repeat"]):
        # The shortest time from the end of a run to the next start.
        await host.write("IRQ_STATUS", 0b11)
        await _start(dut, host, run)
    result: dict[str, Any] = {"interrupt": int(dut.interrupt.value), "name": run["name"],
                              "pending": int(dut.pending.value)}
    beats = _beats(dut)
    if not result["interrupt"] and not run["reset"]:
        await host.write("CONTROL", 2)
        await Timer(1000 * PERIOD, "ns")
    for name in ("STATUS", "FAULT", "FAULT_INSTRUCTION", "FAULT_ADDRESS", "IRQ_STATUS"):
        result[name] = await host.read(name)
    await host.write("IRQ_STATUS", 0b11)
    for name in COUNTERS:
        low = await host.read(f"{name.upper()}_LOW")
        result[name] = low + (await host.read(f"{name.upper()}_HIGH") << 32)
    result["late"] = _beats(dut) - beats + int(dut.pending.value)
    result["output"] = await _peek(dut, *run["peek"])
    for name in ("violation", "stray", "read_beats", "write_beats"):
        result[name] = int(getattr(dut, name).value)
    return result


async def _tell(file: Path) -> None:
    """Add a line of the cycles so far, now and then."""
    with file.open("a", encoding="utf-8") as target:
        for count in itertools.count(1):
            await Timer(TOLD * PERIOD, "ns")
            target.write(f"{count * TOLD}\n")
            target.flush()


@cocotb.test()
async def runs(dut: Any) -> None:
    """Run all of them, one after the other, without a reset between."""
    for name in dir(dut):
        if name.startswith("s_axi_") and name.endswith(("valid", "prot", "bready", "rready")) \
                and name[6:] not in ("bvalid", "rvalid"):
            getattr(dut, name).value = 0
    Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start()
    dut.peek_address.value = dut.write_low.value = dut.write_high.value = 0
    await _reset(dut, 4)
    host = Host(dut)
    cocotb.start_soon(_tell(Path(os.environ["VITFORGE_PROGRESS"])))
    with Path(os.environ["VITFORGE_RESULT"]).open("a", encoding="utf-8") as file:
        for run in json.loads(Path(os.environ["VITFORGE_RUNS"]).read_text(encoding="utf-8")):
            file.write(json.dumps(await _run(dut, host, run)) + "\n")
            file.flush()
