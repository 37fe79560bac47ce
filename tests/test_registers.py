# SPDX-License-Identifier: Apache-2.0
"""The registers do what their map says: every access, every way a run ends, every counter."""

import os
import random
import subprocess

import pytest
from amaranth.sim import Simulator

from gen.convert import WAIVERS, convert
from hw.bus.axi_lite import OKAY, SLVERR, AxiLiteSlave
from hw.control.registers import COUNTED, Registers
from hw.lib.counters import Counters
from sim.testing.axi_lite import Master, monitor
from sim.toolchain import find as find_tools
from vitforge.spec.config import load
from vitforge.spec.register_map import (
    BUFFERS,
    COUNTERS,
    FAULTS,
    MAGIC,
    REGISTERS,
    BitField,
    Choice,
    Register,
    constants,
    find,
)

CONFIG = load("tiny")
AT = {register.name: register.offset for register in REGISTERS}
START, STOP = 1, 2
BUSY, DONE, FAULT, STOPPED = 1, 2, 4, 8
GOOD = {"PROGRAM_ADDRESS": 0x1000, "PROGRAM_BYTES": 0x80, "INPUT_ADDRESS": 0x2000,
        "INPUT_BYTES": 0x40, "OUTPUT_ADDRESS": 0xFFFFFFC0, "OUTPUT_BYTES": 0x40}


def simulate(dut, *benches, bus=None, background=()):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    for bench in background:
        simulator.add_testbench(bench, background=True)

    async def watch(ctx):
        await monitor(ctx, bus)

    if bus is not None:
        simulator.add_testbench(watch, background=True)
    simulator.run()


class Host:
    """Registers by name; every access is OKAY if not said otherwise."""

    def __init__(self, ctx, dut, rng=None):
        self.ctx, self.dut, self.master = ctx, dut, Master(dut.s_axi, rng)

    async def write(self, name, value, strobes=15, response=OKAY):
        assert await self.master.write(self.ctx, AT[name], value, strobes) == response, name

    async def read(self, name):
        value, response = await self.master.read(self.ctx, AT[name])
        assert response == OKAY, name
        return value

    async def counter(self, name):
        low = await self.read(f"{name.upper()}_LOW")
        return low | await self.read(f"{name.upper()}_HIGH") << 32

    async def set_buffers(self, **values):
        for name, value in {**GOOD, **values}.items():
            await self.write(name, value)

    async def start(self):
        """Give START and return in the first cycle of the run."""
        bus = self.dut.s_axi
        for name, value in (("awaddr", AT["CONTROL"]), ("awvalid", 1), ("wdata", START),
                            ("wstrb", 15), ("wvalid", 1), ("bready", 1)):
            self.ctx.set(getattr(bus, name), value)
        await self.ctx.tick()
        self.ctx.set(bus.awvalid, 0)
        self.ctx.set(bus.wvalid, 0)
        await self.ctx.tick()
        assert self.ctx.get(bus.bvalid) and self.ctx.get(bus.bresp) == OKAY

    async def pulse(self, signal, value=1):
        self.ctx.set(signal, value)
        await self.ctx.tick()
        self.ctx.set(signal, 0 if value == 1 else {"valid": 0})


def fault(kind, instruction=0, address=0):
    return {"valid": 1, "kind": FAULTS[kind], "instruction": instruction, "address": address}


def run_host(scenario, rng=None, background=()):
    dut = Registers(CONFIG)

    async def bench(ctx):
        await ctx.tick()        # the bus isn't ready in the first cycle after a reset
        await scenario(ctx, dut, Host(ctx, dut, rng))

    def bind(process):
        async def bound(ctx):
            await process(ctx, dut)
        return bound

    simulate(dut, bench, bus=dut.s_axi, background=[bind(process) for process in background])


# The map

def test_map_is_what_the_hardware_promises():
    assert AT["ID"] == 0 and MAGIC.to_bytes(4, "little") == b"ViTF"
    values = constants(CONFIG)
    assert values["CONFIG_HASH"] == int(CONFIG.hash(), 16)
    assert values["CAPABILITY"] == 4 | 4 << 8 | 2 << 16 | 8 << 24
    assert {item.name for item in REGISTERS if item.reset is None} <= set(values)
    assert [item.name for item in REGISTERS if item.locked] == list(GOOD)
    assert list(FAULTS.values()) == list(range(len(FAULTS)))
    assert find("FAULT").mask == 15 and find("PROGRAM_BYTES").mask == 0xFFFFFFFF
    with pytest.raises(KeyError):
        find("NOTHING")
    with pytest.raises(KeyError):
        find("FAULT").field("nothing")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: BitField("x", 30, 3, ""), "x must lie in bits 0 to 31"),
    (lambda: BitField("x", 0, 1, "", (Choice("a", 2, ""),)), "distinct choices of 1 bits"),
    (lambda: BitField("x", 0, 1, "", (Choice("a", 1, ""), Choice("b", 1, ""))), "distinct"),
    (lambda: Register("X", 2, "ro", ""), "X must be at a multiple of 4 below 4096, not 2"),
    (lambda: Register("X", 4096, "ro", ""), "X must be at a multiple of 4 below 4096"),
    (lambda: Register("X", 0, "wo", ""), "X must be one of ro, rw, w1c, command, not 'wo'"),
    (lambda: Register("X", 0, "ro", "", (BitField("a", 0, 2, ""), BitField("b", 1, 1, ""))),
     "X has fields that overlap"),
])
def test_a_wrong_map_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The bus

def test_bus_timing_is_the_documented_one():
    dut = AxiLiteSlave(12)
    bus = dut.bus

    async def bench(ctx):
        assert not ctx.get(bus.awready | bus.wready | bus.arready)
        await ctx.tick()
        assert ctx.get(bus.awready & bus.wready & bus.arready)
        # The data two cycles before the address, and a read beside them.
        ctx.set(bus.wvalid, 1)
        ctx.set(bus.wdata, 0x12345678)
        ctx.set(bus.wstrb, 0b0101)
        ctx.set(bus.arvalid, 1)
        ctx.set(bus.araddr, 0x7FF)
        await ctx.tick()
        assert not ctx.get(bus.wready | bus.arready) and ctx.get(bus.awready)
        assert ctx.get(dut.read) and ctx.get(dut.read_address) == 0x7FF >> 2
        ctx.set(dut.read_data, 0xCAFE)
        ctx.set(dut.read_error, 0)
        await ctx.tick()
        ctx.set(dut.read_data, 0xBAD)
        assert ctx.get(bus.rvalid) and not ctx.get(dut.read) and not ctx.get(dut.write)
        ctx.set(bus.awvalid, 1)
        ctx.set(bus.awaddr, 0x124)
        await ctx.tick()
        assert ctx.get(dut.write) and ctx.get(dut.write_address) == 0x49
        assert ctx.get(dut.write_data) == 0x12345678 and ctx.get(dut.write_mask) == 0x00FF00FF
        assert not ctx.get(bus.awready) and not ctx.get(bus.bvalid)
        ctx.set(dut.write_error, 1)
        for _ in range(3):
            await ctx.tick()
            assert ctx.get(bus.bvalid) and ctx.get(bus.bresp) == SLVERR
            assert not ctx.get(dut.write) and not ctx.get(bus.awready | bus.wready)
            assert ctx.get(bus.rvalid) and ctx.get(bus.rdata) == 0xCAFE
            assert ctx.get(bus.rresp) == OKAY and not ctx.get(dut.read)
        ctx.set(bus.bready, 1)
        ctx.set(bus.rready, 1)
        assert not ctx.get(bus.awready | bus.arready), "ready follows a register"
        await ctx.tick()
        assert not ctx.get(bus.bvalid | bus.rvalid) and ctx.get(bus.awready & bus.arready)

    simulate(dut, bench)


@pytest.mark.parametrize("late", [False, True])
def test_random_accesses_are_those_of_the_map(late):
    rng = random.Random(f"accesses {late}")
    model = {item.offset: item.reset for item in REGISTERS}
    model |= {AT[name]: value for name, value in constants(CONFIG).items()}
    kinds = {item.offset: item for item in REGISTERS}

    async def scenario(ctx, dut, host):
        for offset, value in model.items():
            assert await host.master.read(ctx, offset) == (value, OKAY), hex(offset)
        for _ in range(700):
            offset = rng.choice(list(model)) if rng.random() < 0.8 else rng.randrange(1024) * 4
            low = rng.randrange(4)
            if rng.random() < 0.5:
                expected = (model[offset], OKAY) if offset in model else (0, SLVERR)
                assert await host.master.read(ctx, offset + low) == expected, hex(offset)
                continue
            data, strobes = rng.getrandbits(32), rng.randrange(16)
            if offset == AT["CONTROL"]:
                data &= ~START      # no run here
            register = kinds.get(offset)
            refused = register is None or register.access == "ro"
            assert await host.master.write(ctx, offset + low, data, strobes) \
                == (SLVERR if refused else OKAY), hex(offset)
            if not refused and register.access == "rw":
                mask = sum(255 << 8 * byte for byte in range(4) if strobes >> byte & 1)
                mask &= register.mask
                model[offset] = data & mask | model[offset] & ~mask
            for name in BUFFERS:
                for part in ("address", "bytes"):
                    assert ctx.get(getattr(dut, f"{name}_{part}")) \
                        == model[AT[f"{name}_{part}".upper()]]
            assert not ctx.get(dut.interrupt)

    run_host(scenario, rng if late else None)


def test_a_transfer_waits_for_its_ready():
    """The next addresses and data stand on the bus while the response before is not taken."""
    dut = AxiLiteSlave(12)
    bus = dut.bus
    writes, reads = [], []

    async def bench(ctx):
        ctx.set(bus.bready, 0)
        for number in range(4):
            ctx.set(bus.awaddr, 4 * number)
            ctx.set(bus.araddr, 4 * number)
            ctx.set(bus.wdata, number)
            for signal in (bus.awvalid, bus.wvalid, bus.arvalid):
                ctx.set(signal, 1)
            await ctx.tick()
            if number == 0:
                await ctx.tick()    # not ready in the first cycle after the reset
            ctx.set(bus.awaddr, 4 * number + 0x100)
            ctx.set(bus.araddr, 4 * number + 0x100)
            ctx.set(bus.wdata, number + 0x100)
            for cycle in range(6):
                if ctx.get(dut.write):
                    writes.append((ctx.get(dut.write_address), ctx.get(dut.write_data)))
                if ctx.get(dut.read):
                    reads.append(ctx.get(dut.read_address))
                assert not ctx.get(bus.awready | bus.wready | bus.arready)
                ctx.set(bus.bready, cycle == 5)
                ctx.set(bus.rready, cycle == 5)
                await ctx.tick()

    simulate(dut, bench)
    assert writes == [(number, number) for number in range(4)] and reads == list(range(4))


# A run

@pytest.mark.parametrize("busy_from", [0, 1, 5])
@pytest.mark.parametrize("quiet_after", [0, 1, 7])
def test_a_run_is_counted_from_start_to_its_last_busy_cycle(busy_from, quiet_after):
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.write("IRQ_ENABLE", 1)
        await host.start()
        assert ctx.get(dut.start)
        for cycle in range(10):
            ctx.set(dut.busy, cycle >= busy_from)
            await ctx.tick()
            assert not ctx.get(dut.start)
        ctx.set(dut.busy, quiet_after > 0)
        await host.pulse(dut.done)
        for _ in range(quiet_after - 1):
            await ctx.tick()
        ctx.set(dut.busy, 0)
        if quiet_after:
            assert not ctx.get(dut.interrupt)
            await ctx.tick()
        # The run's last cycle was the one before this.
        assert not ctx.get(dut.interrupt)
        await ctx.tick()
        await ctx.tick()
        assert ctx.get(dut.interrupt)
        assert await host.read("STATUS") == DONE
        assert await host.counter("cycles") == 11 + quiet_after
        assert await host.read("FAULT") == 0 and await host.read("IRQ_STATUS") == 1

    run_host(scenario)


def test_what_is_refused_during_a_run():
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.start()
        ctx.set(dut.busy, 1)
        await ctx.tick()
        for name, value in GOOD.items():
            await host.write(name, 0x40, response=SLVERR)
            assert await host.read(name) == value
        await host.write("CONTROL", START, response=SLVERR)
        await host.write("CONTROL", START | STOP, response=SLVERR)
        await host.write("CONTROL", START, strobes=0b1110)      # the byte isn't written
        await host.write("CONTROL", STOP, strobes=0b1110)
        await host.write("IRQ_ENABLE", 3)
        await host.write("IRQ_STATUS", 3)
        assert await host.read("STATUS") == BUSY
        await host.pulse(dut.done)
        assert await host.read("STATUS") == BUSY
        ctx.set(dut.busy, 0)
        await ctx.tick()
        assert await host.read("STATUS") == DONE

    async def no_pulses(ctx, dut):
        starts = stops = 0
        async for _, _, start, stop in ctx.tick().sample(dut.start, dut.stop):
            starts, stops = starts + start, stops + stop
            assert starts <= 1 and stops == 0

    run_host(scenario, background=[no_pulses])


def test_stop_is_a_pulse_during_a_run_only():
    stops = []

    async def count(ctx, dut):
        async for _, _, stop in ctx.tick().sample(dut.stop):
            stops.append(stop)

    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.write("CONTROL", STOP)
        await host.write("CONTROL", START | STOP, response=SLVERR)
        assert await host.read("STATUS") == 0 and sum(stops) == 0
        await host.start()
        ctx.set(dut.busy, 1)
        await ctx.tick()
        await host.write("CONTROL", STOP)
        await ctx.tick()
        assert sum(stops) == 1
        await host.pulse(dut.fault, fault("stopped", 3))
        assert await host.read("STATUS") == BUSY
        assert await host.read("FAULT") == FAULTS["stopped"], "visible before the bus is quiet"
        ctx.set(dut.busy, 0)
        await ctx.tick()
        assert await host.read("STATUS") == FAULT | STOPPED
        assert await host.read("FAULT_INSTRUCTION") == 3
        assert await host.read("IRQ_STATUS") == 2
        await host.write("CONTROL", STOP)
        await ctx.tick()
        assert sum(stops) == 1

    run_host(scenario, background=[count])


@pytest.mark.parametrize("kind", [kind for kind in FAULTS if kind != "none"])
def test_every_fault_is_named_and_the_next_run_is_clean(kind):
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.start()
        ctx.set(dut.busy, 1)
        ctx.set(dut.events, dict.fromkeys(COUNTED, 1))
        await host.pulse(dut.fault, fault(kind, 0x80000001, 0x87654321))
        await host.pulse(dut.fault, fault("bad field", 7, 8))   # the first is kept
        ctx.set(dut.busy, 0)
        await host.pulse(dut.done)                              # and counts more than done
        # Neither counts after the end.
        await host.pulse(dut.fault, fault("bad length", 1, 2))
        await host.pulse(dut.done)
        assert await host.read("STATUS") == FAULT | (STOPPED if kind == "stopped" else 0)
        assert await host.read("FAULT") == FAULTS[kind]
        assert await host.read("FAULT_INSTRUCTION") == 0x80000001
        assert await host.read("FAULT_ADDRESS") == 0x87654321
        assert await host.read("IRQ_STATUS") == 2
        for name in COUNTERS:
            assert await host.counter(name) == 3, name
        ctx.set(dut.events, dict.fromkeys(COUNTED, 0))
        await host.start()
        ctx.set(dut.busy, 1)
        await ctx.tick()
        assert await host.read("STATUS") == BUSY
        for name in ("FAULT", "FAULT_INSTRUCTION", "FAULT_ADDRESS"):
            assert await host.read(name) == 0
        ctx.set(dut.busy, 0)
        await host.pulse(dut.done)
        assert await host.read("STATUS") == DONE
        for name in COUNTED:
            assert await host.counter(name) == 0, name

    run_host(scenario)


@pytest.mark.parametrize("order", ["done first", "fault first", "together"])
def test_a_fault_counts_more_than_done(order):
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.start()
        ctx.set(dut.busy, 1)
        if order == "done first":
            await host.pulse(dut.done)
        if order == "together":
            ctx.set(dut.done, 1)
            ctx.set(dut.busy, 0)
        await host.pulse(dut.fault, fault("write SLVERR", 5, 0x40))
        ctx.set(dut.done, 0)
        if order == "fault first":
            await host.pulse(dut.done)
        ctx.set(dut.busy, 0)
        await ctx.tick()
        assert await host.read("STATUS") == FAULT
        assert await host.read("FAULT") == FAULTS["write SLVERR"]
        assert await host.read("IRQ_STATUS") == 2

    run_host(scenario)


def test_the_datapath_is_heard_during_a_run_only():
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.pulse(dut.done)
        await host.pulse(dut.fault, fault("bad field", 1, 2))
        for name in ("STATUS", "FAULT", "FAULT_INSTRUCTION", "FAULT_ADDRESS", "IRQ_STATUS"):
            assert await host.read(name) == 0, name
        await host.start()
        ctx.set(dut.busy, 1)
        await ctx.tick()
        ctx.set(dut.busy, 0)
        await ctx.tick()
        assert await host.read("STATUS") == BUSY, "nothing has been said yet"
        await host.pulse(dut.done)
        await host.pulse(dut.fault, fault("bad field", 1, 2))
        assert await host.read("STATUS") == DONE and await host.read("FAULT") == 0
        assert await host.read("IRQ_STATUS") == 1

    run_host(scenario)


@pytest.mark.parametrize(("name", "value", "kind"), [
    *((f"{name.upper()}_ADDRESS", 0x1000 + low, "misaligned address")
      for name in BUFFERS for low in (1, 32)),
    *((f"{name.upper()}_BYTES", low, "bad length") for name in BUFFERS for low in (1, 96)),
    ("PROGRAM_BYTES", 0, "bad length"),
    ("PROGRAM_BYTES", 0xFFFFF040, "address outside the window"),
    ("INPUT_BYTES", 0xFFFFE040, "address outside the window"),
    ("OUTPUT_BYTES", 0x80, "address outside the window"),
    ("OUTPUT_BYTES", 0xFFFFFFC0, "address outside the window"),
    ("PROGRAM_BYTES", 0xFFFFF000, None),
    ("INPUT_BYTES", 0, None),
    ("OUTPUT_BYTES", 0, None),
])
def test_buffers_are_checked_before_the_start(name, value, kind):
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await host.write(name, value)       # the last write before the start
        await host.start()
        assert ctx.get(dut.start) == (kind is None)
        await ctx.tick()
        if kind is None:
            assert await host.read("STATUS") == BUSY
            return
        assert not ctx.get(dut.start)
        assert await host.read("STATUS") == FAULT
        assert await host.read("FAULT") == FAULTS[kind]
        assert await host.read("FAULT_ADDRESS") == await host.read(
            f"{name.split('_')[0]}_ADDRESS")
        assert await host.read("IRQ_STATUS") == 2
        assert await host.counter("cycles") == 1
        await host.set_buffers()
        await host.start()
        assert ctx.get(dut.start)

    run_host(scenario)


def test_the_first_wrong_buffer_is_reported():
    async def scenario(ctx, dut, host):
        await host.set_buffers(INPUT_ADDRESS=0x2001, INPUT_BYTES=3, OUTPUT_ADDRESS=1)
        await host.write("CONTROL", START)
        assert await host.read("FAULT") == FAULTS["misaligned address"]
        assert await host.read("FAULT_ADDRESS") == 0x2001

    run_host(scenario)


def test_the_interrupt_is_a_level_of_enabled_events():
    async def end(ctx, dut, host, *, failed):
        await host.start()
        await host.pulse(dut.fault, fault("bad field")) if failed else await host.pulse(dut.done)
        for _ in range(2):
            await ctx.tick()

    async def scenario(ctx, dut, host):
        await host.set_buffers()
        await end(ctx, dut, host, failed=False)
        assert not ctx.get(dut.interrupt) and await host.read("IRQ_STATUS") == 1
        await host.write("IRQ_ENABLE", 2)
        await ctx.tick()
        assert not ctx.get(dut.interrupt)
        await host.write("IRQ_ENABLE", 1)
        await ctx.tick()
        assert ctx.get(dut.interrupt), "an event that came before it was enabled"
        await end(ctx, dut, host, failed=True)
        assert await host.read("IRQ_STATUS") == 3, "a start clears nothing"
        await host.write("IRQ_STATUS", 1, strobes=0b1110)
        assert await host.read("IRQ_STATUS") == 3
        await host.write("IRQ_STATUS", 1)
        await ctx.tick()
        assert await host.read("IRQ_STATUS") == 2 and not ctx.get(dut.interrupt)
        await host.write("IRQ_STATUS", 0xFFFFFFFD)
        assert await host.read("IRQ_STATUS") == 2
        await host.write("IRQ_ENABLE", 3)
        await ctx.tick()
        assert ctx.get(dut.interrupt)
        await host.write("IRQ_STATUS", 3)
        await ctx.tick()
        assert await host.read("IRQ_STATUS") == 0 and not ctx.get(dut.interrupt)

    run_host(scenario)


def test_an_event_that_meets_its_clearing_is_kept():
    """The run ends before, in and after the cycle of the write: every interrupt is seen."""
    async def scenario(ctx, dut, host):
        await host.set_buffers()
        seen = set()
        for wait in range(6):
            await host.start()
            await ctx.tick()
            await ctx.tick()
            bus = dut.s_axi
            for name, value in (("awaddr", AT["IRQ_STATUS"]), ("awvalid", 1), ("wdata", 3),
                                ("wstrb", 15), ("wvalid", 1), ("bready", 1)):
                ctx.set(getattr(bus, name), value)
            for cycle in range(8):
                ctx.set(dut.done, cycle == wait)
                await ctx.tick()
                ctx.set(bus.awvalid, 0)
                ctx.set(bus.wvalid, 0)
            # The write takes effect in cycle 1: an event of cycle 0 is cleared, a later one is not.
            seen.add(await host.read("IRQ_STATUS"))
            assert await host.read("IRQ_STATUS") == (wait >= 1), wait
        assert seen == {0, 1}

    run_host(scenario)


# Counters

def test_counters_are_coherent_at_every_carry():
    rng = random.Random("carry")
    dut = Counters(("a", "b"), half=3)
    kept = 0

    async def bench(ctx):
        nonlocal kept
        counts, pipeline = {"a": 0, "b": 0}, [{"a": 0, "b": 0}]
        high = 0
        for cycle in range(3000):
            assert ctx.get(dut.high) == high
            low = {name: ctx.get(dut.low[name]) for name in counts}
            assert low == {name: count % 8 for name, count in counts.items()}, cycle
            events = {name: int(rng.random() < 0.8) for name in counts}
            clear = int(rng.random() < 0.003)
            keep = rng.choice(["a", "b", None])
            ctx.set(dut.events, events)
            ctx.set(dut.clear, clear)
            ctx.set(dut.keep, {name: int(name == keep) for name in counts})
            if keep:
                high, kept = counts[keep] >> 3, kept + (low[keep] == 0)
            await ctx.tick()
            added = pipeline.pop(0)
            counts = {name: 0 if clear else (count + added[name]) % 64
                      for name, count in counts.items()}
            pipeline.append(events)

    simulate(dut, bench)
    assert kept > 100


def test_events_are_counted_in_the_cycles_of_a_run():
    rng = random.Random("events")

    async def scenario(ctx, dut, host):
        await host.set_buffers()
        ctx.set(dut.events, dict.fromkeys(COUNTED, 1))
        await host.start()
        expected = dict.fromkeys(COUNTED, 0)
        for cycle in range(200):
            events = {name: rng.getrandbits(1) for name in COUNTED}
            ctx.set(dut.events, events)
            ctx.set(dut.done, cycle == 199)
            for name in COUNTED:
                expected[name] += events[name]
            await ctx.tick()
        ctx.set(dut.done, 0)
        ctx.set(dut.events, dict.fromkeys(COUNTED, 1))
        assert await host.counter("cycles") == 200
        for name in COUNTED:
            assert await host.counter(name) == expected[name], name

    run_host(scenario)


# The Verilog

@pytest.mark.rtl
def test_verilog_is_lint_clean(tmp_path):
    tools = find_tools()
    text = convert(Registers(CONFIG), "registers")
    (tmp_path / "registers.v").write_text(text)
    done = subprocess.run([tools.verilator, "--lint-only", "-Wall", str(WAIVERS), "registers.v",
                           "--top-module", "registers"], cwd=tmp_path, timeout=60, text=True,
                          capture_output=True, check=False,
                          env={**os.environ, **tools.environment})
    assert (done.returncode, done.stderr) == (0, "")
