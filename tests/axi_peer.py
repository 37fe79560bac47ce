# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench of the accelerator between cocotbext-axi's memory and its AXI4-Lite host.

``VITFORGE_PEER`` is a JSON file with ``memory`` (a file of bytes), ``width``, ``limit`` (bytes of a
beat, beats of a burst), and ``runs``; ``VITFORGE_RESULT`` gets one JSON line a run. A run has the
buffers ``program``, ``input`` and ``output`` as [address, bytes], and

- ``limit``: cycles after which it hangs; ``seed``; ``order`` of `sim.testing.axi_order`;
- ``pause``: the probability that a channel pauses in a cycle, by channel of the memory, and
  ``host`` for all five of the host;
- ``error``: [low, high, response], a window that answers so;
- ``stop``: how many cycles after the start the host stops it, or ``held``: while AW is held off.
"""

__all__ = ["runs"]

import json
import os
import random
from pathlib import Path

import cocotb
from axi_rules import CHANNELS, Rules, Seen
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, First, RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from sim.testing.axi_order import WriteOrder
from vitforge.spec.register_map import COUNTERS, find

PERIOD = 10
PAYLOADS = {"ar": ("araddr", "arlen", "arsize", "arburst"), "r": ("rdata", "rresp", "rlast"),
            "aw": ("awaddr", "awlen", "awsize", "awburst"), "w": ("wdata", "wstrb", "wlast"),
            "b": ("bresp",)}
DECERR = 3


class Memory(AxiRam):
    """AxiRam with a window that answers with errors, and keeps its bytes."""

    def __init__(self, dut, data):
        super().__init__(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=len(data))
        self.write(0, data)
        self.error = None
        # A whole burst may come before its address.
        self.write_if.w_channel.queue_occupancy_limit = 256
        self.channels = {"ar": self.read_if.ar_channel, "r": self.read_if.r_channel,
                         "aw": self.write_if.aw_channel, "w": self.write_if.w_channel,
                         "b": self.write_if.b_channel}
        read, write = self.read_if._read, self.write_if._write

        async def checked_read(address, length):
            self._check(address)
            return await read(address, length)

        async def checked_write(address, data):
            self._check(address)
            await write(address, data)

        # What raises is answered with SLVERR.
        self.read_if._read, self.write_if._write = checked_read, checked_write
        self._answer(self.channels["r"], "rresp")
        self._answer(self.channels["b"], "bresp")

    def _check(self, address):
        if self.error and self.error[0] <= address < self.error[1]:
            raise ValueError("in the window")

    def _answer(self, channel, name):
        """Let an error be the one that is wanted."""
        send = channel.send

        async def answer(item):
            if int(getattr(item, name)) and self.error:
                setattr(item, name, self.error[2])
            await send(item)

        channel.send = answer


class Watch:
    """In the middle of every cycle: check the rules, and say which channels pause in the next."""

    def __init__(self, dut, memory, host, setup):
        self.dut, self.memory = dut, memory
        self.rules = Rules(setup["width"], setup["limit"])
        self.valid = {name: getattr(dut, f"m_axi_{name}valid") for name in CHANNELS}
        self.ready = {name: getattr(dut, f"m_axi_{name}ready") for name in CHANNELS}
        self.payload = {name: [getattr(dut, f"m_axi_{item}") for item in items]
                        for name, items in PAYLOADS.items()}
        self.host = [getattr(part, f"{name}_channel") for part, names in (
            (host.write_if, ("aw", "w", "b")), (host.read_if, ("ar", "r"))) for name in names]
        self.order = WriteOrder("free")
        self.rng, self.pause, self.holding = random.Random(0), {}, False

    def set(self, run):
        """Be as unpleasant as a run wants it; nothing is under way."""
        assert not self.rules.pending
        self.order = WriteOrder(run.get("order", "free"), run["seed"])
        self.rng, self.pause = random.Random(run["seed"]), run.get("pause", {})
        self.memory.error = run.get("error")

    def _seen(self, name):
        valid, ready = self.valid[name].value == 1, self.ready[name].value == 1
        return Seen(valid, ready, tuple(int(item.value) for item in self.payload[name])
                    if valid else ())

    async def run(self):
        edge = FallingEdge(self.dut.clk)
        while True:
            await edge
            seen = {name: self._seen(name) for name in CHANNELS}
            self.rules.cycle(seen)
            aw, w = seen["aw"], seen["w"]
            self.order.took(aw.taken, w.taken, w.valid and bool(w.payload[2]))
            may = dict(zip(("aw", "w"), self.order.allow(aw.held, w.held), strict=True))
            for name, channel in self.memory.channels.items():
                # What the memory offers stays: its sources pause only before it is offered.
                channel.pause = (not may.get(name, True) or (self.holding and name == "aw")
                                 or self._pauses(name))
            for channel in self.host:
                channel.pause = self._pauses("host")

    def _pauses(self, name):
        rate = self.pause.get(name, 0)
        return rate > 0 and self.rng.random() < rate


class Bench:
    """The host of the runs."""

    def __init__(self, dut, setup):
        self.dut, self.setup = dut, setup
        self.memory = Memory(dut, Path(setup["memory"]).read_bytes())
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.watch = Watch(dut, self.memory, self.host, setup)

    async def write(self, name, value):
        """Write a register; what is refused is an error of the bench."""
        response = await self.host.write(find(name).offset, value.to_bytes(4, "little"))
        assert response.resp == 0, name

    async def read(self, name):
        response = await self.host.read(find(name).offset, 4)
        assert response.resp == 0, name
        return int.from_bytes(response.data, "little")

    async def interrupt(self, limit):
        """Wait for the interrupt; False if it doesn't come."""
        if self.dut.interrupt.value != 1:
            await First(RisingEdge(self.dut.interrupt), Timer(limit * PERIOD, "ns"))
        return self.dut.interrupt.value == 1

    async def stop_while_held(self, result):
        """Hold an address off for long, stop, and take it after that."""
        dut = self.dut
        self.watch.holding = True
        await First(RisingEdge(dut.m_axi_awvalid), RisingEdge(dut.interrupt))
        before = self.watch.rules.transfers["w"]
        await ClockCycles(dut.clk, 60)
        result["held beats"] = self.watch.rules.transfers["w"] - before
        await self.write("CONTROL", 2)
        await ClockCycles(dut.clk, 200)
        result["held"] = [int(dut.m_axi_awvalid.value), int(dut.interrupt.value)]
        result["held status"] = await self.read("STATUS")
        self.watch.holding = False

    async def run(self, run):
        """Do one run, and return what it left."""
        rules, dut = self.watch.rules, self.dut
        self.watch.set(run)
        rules.transfers.clear()
        rules.orders.clear()
        cycle = rules.cycles
        for name in ("program", "input", "output"):
            await self.write(f"{name.upper()}_ADDRESS", run[name][0])
            await self.write(f"{name.upper()}_BYTES", run[name][1])
        await self.write("IRQ_ENABLE", 0b11)
        await self.write("CONTROL", 1)
        result = {}
        if run.get("stop") == "held":
            await self.stop_while_held(result)
        elif run.get("stop"):
            await ClockCycles(dut.clk, run["stop"])
            await self.write("CONTROL", 2)
        result["interrupt"] = await self.interrupt(run["limit"])
        result["pending"] = rules.pending
        if not result["interrupt"]:
            return result
        passed = sum(rules.transfers.values())
        for name in ("STATUS", "FAULT", "FAULT_INSTRUCTION", "FAULT_ADDRESS", "IRQ_STATUS"):
            result[name] = await self.read(name)
        await self.write("IRQ_STATUS", 0b11)
        for name in COUNTERS:
            low = await self.read(f"{name.upper()}_LOW")
            result[name] = low + (await self.read(f"{name.upper()}_HIGH") << 32)
        result["late"] = sum(rules.transfers.values()) - passed
        result["bus cycles"] = rules.cycles - cycle
        result["transfers"], result["orders"] = dict(rules.transfers), dict(rules.orders)
        result["memory"] = bytes(self.memory.read(0, self.memory.size)).hex()
        return result


@cocotb.test()
async def runs(dut):
    """Do all runs, one after the other, without a reset between."""
    setup = json.loads(Path(os.environ["VITFORGE_PEER"]).read_text(encoding="utf-8"))
    dut.rst.value = 0
    bench = Bench(dut, setup)
    Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start()
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)
    watching = cocotb.start_soon(bench.watch.run())
    with Path(os.environ["VITFORGE_RESULT"]).open("a", encoding="utf-8") as file:
        for run in setup["runs"]:
            # A broken rule ends the bench.
            result = await bench.run(run)
            file.write(json.dumps(result) + "\n")
            file.flush()
            if not result["interrupt"]:
                break
    watching.cancel()
