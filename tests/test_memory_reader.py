# SPDX-License-Identifier: Apache-2.0
"""The read master: the right beats for the right client, legal bursts, stop and errors."""

import random
from functools import partial
from itertools import pairwise

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.bus.reader import MemoryReader
from sim.testing.axi_memory import DECERR, SLVERR, AxiMemory
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit

SIZE = 1 << 15


def _config(bits, **more):
    values = {"rows": 4, "cols": 4, "lanes": 2, "axi_bits": bits, "fetch_beats": 64,
              "burst_beats": 8}
    return Config(name="test", **(values | more))


class Bench:
    """A reader with its memory; takes everything that comes, and notes when."""

    def __init__(self, config, *, take=1.0, seed=0, **memory):
        self.config, self.take, self.rng = config, take, random.Random(seed)
        data = bytearray(self.rng.randbytes(SIZE))
        self.memory = AxiMemory(data, config.axi_bits, seed=seed, limit=burst_limit(config),
                                **memory)
        self.dut = MemoryReader(config)
        self.words, self.data, self.errors = [], [], []
        self.now = Signal(32)

    def beats(self, address, size):
        width = self.config.axi_bits // 8
        return [int.from_bytes(self.memory.data[at:at + width], "little")
                for at in range(address, address + size, width)]

    async def _client(self, ctx, port, received):
        ready = False
        async for _, _, now, valid, payload in ctx.tick().sample(self.now, port.valid,
                                                                 port.payload):
            if valid and ready:
                received.append((now, payload))
            ready = self.rng.random() < self.take
            ctx.set(port.ready, ready)

    async def _watch(self, ctx):
        error = self.dut.error
        async for _, _, valid, decode, address, beat, idle, waiting in ctx.tick().sample(
                error.valid, error.decode, error.address, self.dut.axi.rvalid & self.dut.axi.rready,
                self.dut.idle, self.dut.waiting):
            assert waiting == (not idle and not beat)
            if valid:
                self.errors.append((decode, address))

    async def give(self, ctx, port, address, size):
        ctx.set(port.payload, {"address": address, "bytes": size})
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)

    def run(self, bench):
        # Processes of a cycle run in any order: the cycle is a register that they all sample.
        top = Module()
        top.submodules.dut = self.dut
        top.d.sync += self.now.eq(self.now + 1)
        simulator = Simulator(top)
        simulator.add_clock(1e-6)
        simulator.add_process(partial(self.memory.read, axi=self.dut.axi))
        simulator.add_process(partial(self._client, port=self.dut.words, received=self.words))
        simulator.add_process(partial(self._client, port=self.dut.data, received=self.data))
        simulator.add_process(self._watch)
        simulator.add_testbench(bench)
        simulator.run()

    async def settle(self, ctx, cycles=150):
        """Wait until nothing has come for a while."""
        seen = None
        while seen != (len(self.words), len(self.data)):
            seen = (len(self.words), len(self.data))
            await ctx.tick().repeat(cycles)


STALLS = [{}, {"stall": 0.4, "extra": 30}, {"take": 0.3}, {"take": 0.5, "stall": 0.3, "latency": 2}]


@pytest.mark.parametrize("stalls", STALLS, ids=str)
@pytest.mark.parametrize("bits", [64, 128, 256, 512])
def test_every_beat_goes_to_its_client_in_order(bits, stalls):
    bench = Bench(_config(bits), seed=bits, **stalls)
    loads = [(0x1040, 64), (0x1F80, 256), (0x2FC0, 0x480), (0x40, 64)]

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0x4F40, 0xC80)
        for address, size in loads:
            await ctx.tick().repeat(bench.rng.randrange(80))
            await bench.give(ctx, bench.dut.load, address, size)
        await bench.settle(ctx)
        assert ctx.get(bench.dut.idle) and ctx.get(bench.dut.exhausted)

    bench.run(run)
    assert [beat for _, beat in bench.words] == bench.beats(0x4F40, 0xC80)
    assert [beat for _, beat in bench.data] == [beat for load in loads
                                                for beat in bench.beats(*load)]
    assert bench.errors == []


@pytest.mark.parametrize(("address", "size"), [(0, 64), (0xFC0, 64), (0xFC0, 128), (0xF80, 4096),
                                               (64, 0x1400)])
@pytest.mark.parametrize(("bits", "burst"), [(64, 1), (64, 4), (64, 24), (64, 256), (128, 16),
                                             (256, 128), (512, 64), (512, 256)])
def test_bursts_are_few_and_legal(bits, burst, address, size):
    config = _config(bits, burst_beats=burst, fetch_beats=1024)
    limit = burst_limit(config)
    assert limit == {1: 1, 4: 4, 24: 16, 256: 256 if bits == 64 else 64, 16: 16, 128: 128,
                     64: 64}[burst]
    bench = Bench(config)

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, address, size)
        await bench.settle(ctx)

    bench.run(run)
    assert [beat for _, beat in bench.words] == bench.beats(address, size)
    span = limit * bits // 8
    ends = sorted({*range(-(-address // span) * span, address + size, span), address,
                   address + size})
    assert [(item.address, item.beats * bits // 8) for item in bench.memory.reads] == [
        (low, high - low) for low, high in pairwise(ends)]


def test_latencies_are_as_documented():
    bench = Bench(_config(64), latency=10)
    accepted = []

    async def run(ctx):
        await ctx.tick().repeat(5)
        accepted.append(ctx.get(bench.now))
        await bench.give(ctx, bench.dut.start, 0, 512)
        await bench.settle(ctx)
        accepted.append(ctx.get(bench.now))
        await bench.give(ctx, bench.dut.load, 0, 512)
        await bench.settle(ctx)

    bench.run(run)
    # A burst is chosen three cycles after the command, valid one later; the next one follows.
    chosen = [accepted[0] + 3 + index for index in range(8)]
    assert [item.cycle for item in bench.memory.reads[:8]] == [cycle + 1 for cycle in chosen]
    first = chosen[0] + 1 + 10
    assert [cycle for cycle, _ in bench.words] == list(range(first + 2, first + 2 + 64))
    first = accepted[1] + 3 + 1 + 10
    assert [cycle for cycle, _ in bench.data] == list(range(first, first + 64))


def test_load_goes_first_at_the_next_burst():
    bench = Bench(_config(64, fetch_beats=1024), latency=40)
    given = []

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0x4000, 0x2000)
        await ctx.tick().repeat(6)
        given.append(ctx.get(bench.now))
        await bench.give(ctx, bench.dut.load, 0, 512)
        await bench.settle(ctx)

    bench.run(run)
    loads = [item.cycle for item in bench.memory.reads if item.address < 0x4000]
    assert loads == [given[0] + 3 + 1 + index for index in range(8)]
    assert bench.memory.reads[0].cycle < loads[0] < bench.memory.reads[-1].cycle


def test_buffer_never_asks_for_more_than_it_has_room_for():
    config = _config(64, fetch_beats=32)
    bench = Bench(config, take=0, latency=5)

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0, 4096)
        await ctx.tick().repeat(300)
        # The program waits for its consumer, R for nobody.
        assert ctx.get(bench.dut.idle)
        assert sum(item.beats for item in bench.memory.reads) == config.fetch_beats
        bench.take = 1
        await bench.settle(ctx)

    bench.run(run)
    assert [beat for _, beat in bench.words] == bench.beats(0, 4096)


def test_bursts_under_way_are_limited():
    bench = Bench(_config(64, burst_beats=1, fetch_beats=1024), latency=100)

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0, 1024)
        await ctx.tick().repeat(80)
        assert len(bench.memory.reads) == OUTSTANDING
        await bench.settle(ctx)

    bench.run(run)
    assert [beat for _, beat in bench.words] == bench.beats(0, 1024)


def test_long_latency_is_covered():
    config = _config(128, burst_beats=16, fetch_beats=256)
    bench = Bench(config, latency=60)

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0, 0x4000)
        await bench.settle(ctx)

    bench.run(run)
    cycles = [cycle for cycle, _ in bench.words]
    assert cycles == list(range(cycles[0], cycles[0] + 1024))


@pytest.mark.parametrize("take", [0, 0.5, 1])
@pytest.mark.parametrize("after", [1, 3, 4, 20, 60])
def test_stop_in_the_middle_comes_to_rest(after, take):
    bench = Bench(_config(64), take=take, latency=30, stall=0.3, seed=after)

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0, 0x1000)
        await bench.give(ctx, bench.dut.load, 0x2000, 0x1000)
        await ctx.tick().repeat(after)
        ctx.set(bench.dut.stop, 1)
        await ctx.tick()
        asked = len(bench.memory.reads) + ctx.get(bench.dut.axi.arvalid)
        loaded = len(bench.data)
        for _ in range(300):
            await ctx.tick()
        assert ctx.get(bench.dut.idle) and not ctx.get(bench.dut.axi.arvalid)
        # No new burst, and nothing for LOAD any more.
        assert len(bench.memory.reads) == asked
        assert len(bench.data) == loaded

    bench.run(run)


def test_arvalid_outlives_stop():
    bench = Bench(_config(64), latency=3)
    bench.memory.deaf = True

    async def run(ctx):
        await bench.give(ctx, bench.dut.start, 0, 0x1000)
        await ctx.tick().repeat(10)
        ctx.set(bench.dut.stop, 1)
        await ctx.tick().repeat(50)
        assert ctx.get(bench.dut.axi.arvalid) and not ctx.get(bench.dut.idle)
        bench.memory.deaf = False
        await ctx.tick().repeat(50)
        assert ctx.get(bench.dut.idle)
        assert len(bench.memory.reads) == 1

    bench.run(run)


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("client", ["start", "load"])
def test_errors_name_their_burst(client, response):
    bench = Bench(_config(64), take=0.7, stall=0.2, latency=20,
                  errors=[(0x1080, 0x10C0, response)])

    async def run(ctx):
        await bench.give(ctx, getattr(bench.dut, client), 0x1000, 0x200)
        await bench.settle(ctx)

    bench.run(run)
    # Every beat of the one burst, which is delivered as well.
    assert bench.errors == [(response == DECERR, 0x1080)] * 8
    received = bench.words if client == "start" else bench.data
    assert [beat for _, beat in received] == bench.beats(0x1000, 0x200)
