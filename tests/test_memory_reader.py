# SPDX-License-Identifier: Apache-2.0
"""The read master is its model on every cycle; legal bursts, every beat to its client, errors."""

import random
from functools import partial

import pytest

from golden.machine.engines.reader import ReaderModel, beats, bursts
from hw.bus.reader import MemoryReader
from sim.testing.axi_memory import DECERR, SLVERR, AxiMemory
from tests.engine_bench import Beside, Script, Sink, Source, simulate, until_taken, wait
from tests.sample import leading, thinned
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit

SIZE = 1 << 15


def _config(bits, **more):
    values = {"rows": 4, "cols": 4, "lanes": 2, "axi_bits": bits, "fetch_beats": 64,
              "burst_beats": 8}
    return Config(name="test", **(values | more))


class _Watch(Beside):
    """Compares the reader with its model, and notes its errors."""

    def __init__(self, dut, config):
        super().__init__(dut, ReaderModel(config))
        self.errors = []

    def check(self, ctx, cycle):
        super().check(ctx, cycle)
        error = self.dut.error
        if ctx.get(error.valid):
            self.errors.append((ctx.get(error.decode), ctx.get(error.address)))


class Bench:
    """A reader with its memory, and clients that take everything that comes, or some of it."""

    def __init__(self, config, *, take=1.0, seed=0, **memory):
        self.config, self.rng = config, random.Random(seed)
        data = bytearray(self.rng.randbytes(SIZE))
        self.memory = AxiMemory(data, config.axi_bits, seed=seed, limit=burst_limit(config),
                                **memory)
        self.dut = MemoryReader(config)
        self.start, self.load = Source(self.dut.start), Source(self.dut.load)
        self.words = Sink(self.dut.words, take=take, seed=seed)
        self.data = Sink(self.dut.data, take=take, seed=seed + 1)
        self.watch = _Watch(self.dut, config)

    def beats(self, address, size):
        return beats(self.memory.data, address, size, self.config)

    def run(self, steps):
        clients = [self.start, self.load, self.words, self.data, self.watch]
        simulate(self.dut, [Script(steps), *clients],
                 processes=[partial(self.memory.read, axi=self.dut.axi)])

    def settle(self, cycles=150):
        """Wait until nothing has come for a while."""
        seen = None
        while seen != (len(self.words.received), len(self.data.received)):
            seen = (len(self.words.received), len(self.data.received))
            yield from wait(cycles)

    def give(self, source, address, size):
        """Give a command, and wait until it is taken."""
        source.words.append({"address": address, "bytes": size})
        yield from until_taken(source)


STALLS = [{}, {"stall": 0.4, "extra": 30}, {"take": 0.3}, {"take": 0.5, "stall": 0.3, "latency": 2}]


@pytest.mark.parametrize(("bits", "stalls"), thinned([64, 128, 256, 512], STALLS, of=4))
def test_every_beat_goes_to_its_client_in_order(bits, stalls):
    bench = Bench(_config(bits), seed=bits, **stalls)
    loads = [(0x1040, 64), (0x1F80, 256), (0x2FC0, 0x480), (0x40, 64)]

    def run(ctx):
        yield from bench.give(bench.start, 0x4F40, 0xC80)
        for address, size in loads:
            yield from wait(bench.rng.randrange(80))
            yield from bench.give(bench.load, address, size)
        yield from bench.settle()
        assert ctx.get(bench.dut.idle) and ctx.get(bench.dut.exhausted)

    bench.run(run)
    assert bench.words.received == bench.beats(0x4F40, 0xC80)
    assert bench.data.received == [beat for load in loads for beat in bench.beats(*load)]
    assert bench.watch.errors == []


@pytest.mark.parametrize(("shape", "buffer"), thinned(
    [(64, 1), (64, 4), (64, 24), (64, 256), (128, 16), (256, 128), (512, 64), (512, 256)],
    [(0, 64), (0xFC0, 64), (0xFC0, 128), (0xF80, 4096), (64, 0x1400)], of=5))
def test_bursts_are_few_and_legal(shape, buffer):
    bits, burst = shape
    address, size = buffer
    config = _config(bits, burst_beats=burst, fetch_beats=1024)
    limit = burst_limit(config)
    assert limit == {1: 1, 4: 4, 24: 16, 256: 256 if bits == 64 else 64, 16: 16, 128: 128,
                     64: 64}[burst]
    bench = Bench(config)

    def run(ctx):
        yield from bench.give(bench.start, address, size)
        yield from bench.settle()

    bench.run(run)
    assert bench.words.received == bench.beats(address, size)
    assert [(item.address, item.beats * bits // 8) for item in bench.memory.reads] == bursts(
        address, size, config)


def test_latencies_are_as_documented():
    bench = Bench(_config(64), latency=10)

    def run(ctx):
        yield from wait(5)
        yield from bench.give(bench.start, 0, 512)
        yield from bench.settle()
        yield from bench.give(bench.load, 0, 512)
        yield from bench.settle()

    bench.run(run)
    # A burst is chosen three cycles after the command, valid one later; the next one follows.
    chosen = [bench.start.cycles[0] + 3 + index for index in range(8)]
    assert [item.cycle for item in bench.memory.reads[:8]] == [cycle + 1 for cycle in chosen]
    first = chosen[0] + 1 + 10
    assert bench.words.cycles == list(range(first + 2, first + 2 + 64))
    first = bench.load.cycles[0] + 3 + 1 + 10
    assert bench.data.cycles == list(range(first, first + 64))


def test_load_goes_first_at_the_next_burst():
    bench = Bench(_config(64, fetch_beats=1024), latency=40)

    def run(ctx):
        yield from bench.give(bench.start, 0x4000, 0x2000)
        yield from wait(6)
        yield from bench.give(bench.load, 0, 512)
        yield from bench.settle()

    bench.run(run)
    loads = [item.cycle for item in bench.memory.reads if item.address < 0x4000]
    assert loads == [bench.load.cycles[0] + 3 + 1 + index for index in range(8)]
    assert bench.memory.reads[0].cycle < loads[0] < bench.memory.reads[-1].cycle


def test_buffer_never_asks_for_more_than_it_has_room_for():
    config = _config(64, fetch_beats=32)
    bench = Bench(config, take=0, latency=5)

    def run(ctx):
        yield from bench.give(bench.start, 0, 4096)
        yield from wait(300)
        # The program waits for its consumer, R for nobody.
        assert ctx.get(bench.dut.idle)
        assert sum(item.beats for item in bench.memory.reads) == config.fetch_beats
        bench.words.take = 1
        yield from bench.settle()

    bench.run(run)
    assert bench.words.received == bench.beats(0, 4096)


def test_bursts_under_way_are_limited():
    bench = Bench(_config(64, burst_beats=1, fetch_beats=1024), latency=100)

    def run(ctx):
        yield from bench.give(bench.start, 0, 1024)
        yield from wait(80)
        assert len(bench.memory.reads) == OUTSTANDING
        yield from bench.settle()

    bench.run(run)
    assert bench.words.received == bench.beats(0, 1024)


def test_long_latency_is_covered():
    config = _config(128, burst_beats=16, fetch_beats=256)
    bench = Bench(config, latency=60)

    def run(ctx):
        yield from bench.give(bench.start, 0, 0x4000)
        yield from bench.settle()

    bench.run(run)
    cycles = bench.words.cycles
    assert cycles == list(range(cycles[0], cycles[0] + 1024))


@pytest.mark.parametrize(("after", "take"), leading(6, [
    (1, 0), (3, 0.5), (4, 1), (20, 0), (60, 0.5), (60, 1), (1, 0.5), (1, 1), (3, 0), (3, 1),
    (4, 0), (4, 0.5), (20, 0.5), (20, 1), (60, 0)]))
def test_stop_in_the_middle_comes_to_rest(after, take):
    bench = Bench(_config(64), take=take, latency=30, stall=0.3, seed=after)

    def run(ctx):
        yield from bench.give(bench.start, 0, 0x1000)
        yield from bench.give(bench.load, 0x2000, 0x1000)
        yield from wait(after)
        ctx.set(bench.dut.stop, 1)
        yield
        asked = len(bench.memory.reads) + ctx.get(bench.dut.axi.arvalid)
        loaded = len(bench.data.received)
        for _ in range(300):
            yield
        assert ctx.get(bench.dut.idle) and not ctx.get(bench.dut.axi.arvalid)
        # No new burst, and nothing for LOAD any more.
        assert len(bench.memory.reads) == asked
        assert len(bench.data.received) == loaded

    bench.run(run)


def test_arvalid_outlives_stop():
    bench = Bench(_config(64), latency=3)
    bench.memory.deaf = True

    def run(ctx):
        yield from bench.give(bench.start, 0, 0x1000)
        yield from wait(10)
        ctx.set(bench.dut.stop, 1)
        yield from wait(50)
        assert ctx.get(bench.dut.axi.arvalid) and not ctx.get(bench.dut.idle)
        bench.memory.deaf = False
        yield from wait(50)
        assert ctx.get(bench.dut.idle)
        assert len(bench.memory.reads) == 1

    bench.run(run)


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("client", ["start", "load"])
def test_errors_name_their_burst(client, response):
    bench = Bench(_config(64), take=0.7, stall=0.2, latency=20,
                  errors=[(0x1080, 0x10C0, response)])

    def run(ctx):
        yield from bench.give(getattr(bench, client), 0x1000, 0x200)
        yield from bench.settle()

    bench.run(run)
    # Every beat of the one burst, which is delivered as well.
    assert bench.watch.errors == [(response == DECERR, 0x1080)] * 8
    client = bench.words if client == "start" else bench.data
    assert client.received == bench.beats(0x1000, 0x200)
