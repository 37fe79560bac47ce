# SPDX-License-Identifier: Apache-2.0
"""The write master is its model on every cycle; every sum in its place, legal bursts, errors."""

import random
from functools import partial

import pytest

from golden.machine.engines.reader import bursts
from golden.machine.engines.writer import WriterModel, packed, placed
from hw.bus.writer import MemoryWriter
from sim.testing.axi_memory import DECERR, SLVERR, AxiMemory
from sim.testing.axi_order import ORDERS
from tests.engine_bench import Beside, Script, Source, simulate, until_taken, wait
from tests.sample import leading, thinned
from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit

SIZE = 1 << 14
#: Cycles after which a test gives up.
HANG = 3000


def _config(bits, lanes=2, **more):
    values = {"rows": 16, "cols": 16, "lanes": lanes, "axi_bits": bits, "fetch_beats": 64,
              "burst_beats": 8}
    return Config(name="test", **(values | more))


class _Watch(Beside):
    """Compares the writer with its model; notes the strobes of every beat, and errors."""

    def __init__(self, dut, config):
        super().__init__(dut, WriterModel(config))
        self.beats, self.cycles, self.errors = [], [], []

    def check(self, ctx, cycle):
        super().check(ctx, cycle)
        axi, error = self.dut.axi, self.dut.error
        if ctx.get(axi.wvalid) and ctx.get(axi.wready):
            self.beats.append(ctx.get(axi.wstrb))
            self.cycles.append(cycle)
        if ctx.get(error.valid):
            self.errors.append((ctx.get(error.decode), ctx.get(error.address)))


class Bench:
    """A writer with its memory and a source of sums, which offers one with a probability."""

    def __init__(self, config, *, give=1.0, seed=0, **memory):
        self.config, self.rng = config, random.Random(seed)
        self.before = self.rng.randbytes(SIZE)
        self.memory = AxiMemory(bytearray(self.before), config.axi_bits, seed=seed,
                                limit=burst_limit(config), **memory)
        self.dut = MemoryWriter(config)
        self.commands = Source(self.dut.command, whole=False)
        self.sums = Source(self.dut.data, give=give, whole=False, seed=seed)
        self.watch = _Watch(self.dut, config)

    def command(self, address, size):
        """Give a command with as many words as it needs; return their bytes when it is taken."""
        words = [[self.rng.getrandbits(32) - (1 << 31) for _ in range(self.config.lanes)]
                 for _ in range(size // (4 * self.config.lanes))]
        self.sums.words += words
        self.commands.words.append({"address": address, "bytes": size})
        yield from until_taken(self.commands, HANG)
        return packed(words)

    def run(self, steps):
        simulate(self.dut, [Script(steps), self.commands, self.sums, self.watch],
                 processes=[partial(self.memory.write, axi=self.dut.axi)])

    def settle(self, ctx):
        """Wait until the writer has been idle for a while."""
        for _ in range(HANG):
            yield
            if ctx.get(self.dut.idle):
                yield from wait(5)      # for the error's pulse
                assert ctx.get(self.dut.idle)
                return
        raise AssertionError("the writer hangs")


STALLS = [{}, {"stall": 0.4, "extra": 30}, {"give": 0.3}, {"give": 0.5, "stall": 0.3, "latency": 2}]


@pytest.mark.parametrize(("bits", "lanes", "stalls"), thinned(
    [64, 128, 256, 512], [1, 4, 16], STALLS, of=3))
def test_every_sum_is_in_its_place_and_no_byte_beside(bits, lanes, stalls):
    bench = Bench(_config(bits, lanes), seed=bits + lanes, **{"latency": 7} | stalls)
    word = 4 * lanes
    ranges = []

    def run(ctx):
        # Ends in the middle of a beat where a beat is more than a word, begins before a page's end.
        for address, size in ((0x1000 - 64, 2 * 64 + 3 * word), (0x1D00, word), (0x2FC0, 13 * word),
                              (SIZE - 64, 64)):
            ranges.append((address, (yield from bench.command(address, size))))
        yield from bench.settle(ctx)

    bench.run(run)
    assert bench.memory.data == placed(bench.before, ranges)
    assert bench.watch.errors == [] and not bench.sums.words


@pytest.mark.parametrize(("address", "size"), [(0, 64), (0xFC0, 64), (0xFC0, 128), (0xF80, 4096),
                                               (64, 0x480)])
@pytest.mark.parametrize(("bits", "burst"), [(64, 4), (64, 24), (64, 256), (128, 16), (256, 128),
                                             (512, 64), (512, 256)])
def test_bursts_are_few_and_legal(bits, burst, address, size):
    config = _config(bits, 16, burst_beats=burst, fetch_beats=1024)
    bench = Bench(config, latency=2)
    ranges = []

    def run(ctx):
        ranges.append((address, (yield from bench.command(address, size))))
        yield from bench.settle(ctx)

    bench.run(run)
    assert bench.memory.data == placed(bench.before, ranges)
    assert [(item.address, item.beats * bits // 8) for item in bench.memory.writes] == bursts(
        address, size, config)


@pytest.mark.parametrize(("bits", "lanes"), [(64, 1), (64, 2), (64, 8), (512, 4)])
def test_cycles_are_as_documented(bits, lanes):
    bench = Bench(_config(bits, lanes), latency=10)

    def run(ctx):
        yield from wait(5)
        yield from bench.command(0, 128)
        yield from bench.command(64, 64)
        yield from bench.settle(ctx)

    bench.run(run)
    beats, words = 1024 // bits, bits // (32 * lanes)
    # A burst is cut three cycles after the command, valid one later; the next after the answer.
    # A beat is offered in the cycle after its last sums were taken, or with its address.
    first = bench.commands.cycles[0] + 4
    assert bench.memory.writes[0].cycle == first
    count = -(-beats // 8)
    cycles = bench.watch.cycles[:beats]
    assert cycles[0] == max(first, bench.sums.cycles[max(words, 1) - 1] + 1)
    gap = max(words, 1)
    for burst in range(count):
        part = cycles[8 * burst:8 * burst + 8]
        # One part of a beat is there before; afterwards a beat takes as long as its words.
        assert part[-1] - part[0] <= gap * (len(part) - 1)
        assert bench.memory.writes[burst].cycle == (first if not burst else
                                                    cycles[8 * burst - 1] + 10 + 2)
    assert bench.commands.cycles[1] == cycles[-1] + 10 + 1


@pytest.mark.parametrize(("shape", "stalls"), leading(4, thinned(
    [(64, 4), (128, 2), (512, 2)], [
        {}, {"stall": 0.4}, {"give": 0.3}, {"give": 0}, {"order": "data"}, {"order": "both"},
        {"order": "random", "stall": 0.3}, {"order": "data", "give": 0.2}], of=3)))
def test_stop_in_the_middle_comes_to_rest(shape, stalls):
    bits, lanes = shape
    for after in (1, 2, 3, 4, 5, 6, 8, 11, 17, 40):
        bench = Bench(_config(bits, lanes, burst_beats=4), seed=after, latency=6, **stalls)
        found = []

        def run(ctx, after=after, bench=bench, found=found):
            # Only then: before it, a command that isn't taken would not come back.
            found.append((yield from bench.command(0x1FC0, 0x400)))
            yield from wait(after)
            ctx.set(bench.dut.stop, 1)
            yield
            asked = len(bench.memory.writes) + ctx.get(bench.dut.axi.awvalid)
            taken = len(bench.sums.cycles)
            yield from bench.settle(ctx)
            # No new burst, no new word, and all that was announced has come and was answered.
            assert len(bench.memory.writes) == asked
            assert len(bench.sums.cycles) == taken
            assert len(bench.watch.beats) == sum(item.beats for item in bench.memory.writes)
            assert not ctx.get(bench.dut.axi.bready)
            bench.commands.words.append({"address": 0, "bytes": 64})
            yield from wait(10)
            assert ctx.get(bench.dut.idle) and len(bench.memory.writes) == asked
            assert ctx.get(bench.dut.command.valid) and not ctx.get(bench.dut.command.ready)
            assert len(bench.commands.cycles) == 1

        bench.run(run)
        # What is there is the beginning of the range, up to a whole word.
        written = sum(strobes.bit_count() for strobes in bench.watch.beats)
        assert bench.memory.data == placed(bench.before, [(0x1FC0, found[0][:written])])


@pytest.mark.parametrize(("shape", "order", "stalls"), leading(8, thinned(
    [(64, 4), (128, 2), (512, 2)], [*ORDERS, "random"],
    [{}, {"stall": 0.4}, {"give": 0.3, "extra": 20}], of=3)))
def test_no_channel_waits_for_another(shape, order, stalls):
    bits, lanes = shape
    bench = Bench(_config(bits, lanes, burst_beats=4), seed=bits, **{
        "latency": 5, "order": order} | stalls)
    ranges = []

    def run(ctx):
        for address in (0x1F80, 0x1000):
            ranges.append((address, (yield from bench.command(address, 0x400))))
        yield from bench.settle(ctx)

    bench.run(run)
    assert bench.memory.data == placed(bench.before, ranges)
    assert bench.watch.errors == [] and not bench.sums.words
    assert len(bench.memory.writes) >= 2 * 0x400 * 8 // bits // 4


def test_address_and_beats_come_apart():
    # A memory that shuts one channel of the two: all of a burst is offered on the other.
    for channel, order in (("aw", "data"), ("w", "address")):
        bench = Bench(_config(64, 2, burst_beats=4), latency=5, order=order)

        def run(ctx, bench=bench, channel=channel):
            axi = bench.dut.axi
            yield from bench.command(0x1000, 128)
            for _ in range(200):
                yield
                beats = len(bench.watch.beats) - sum(item.beats for item in bench.memory.writes)
                if channel == "aw" and ctx.get(axi.awvalid & axi.awready):
                    # The length, the address and the beats that it announces.
                    assert beats == ctx.get(axi.awlen) + 1 == 4
                if channel == "w" and ctx.get(axi.wvalid & axi.wready):
                    assert beats < 0
            assert len(bench.memory.writes) == 4 and ctx.get(bench.dut.idle)

        bench.run(run)


def test_no_command_after_stop():
    bench = Bench(_config(64))

    def run(ctx):
        ctx.set(bench.dut.stop, 1)
        bench.commands.words.append({"address": 0, "bytes": 64})
        for _ in range(20):
            yield
            assert ctx.get(bench.dut.command.valid) and not ctx.get(bench.dut.command.ready)
            assert ctx.get(bench.dut.idle)
        assert not bench.memory.writes

    bench.run(run)


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_offered_outlives_stop(order):
    bench = Bench(_config(64), latency=3, order=order)
    bench.memory.deaf = True

    def run(ctx):
        yield from bench.command(0x400, 128)
        yield from wait(20)
        ctx.set(bench.dut.stop, 1)
        yield from wait(50)
        assert ctx.get(bench.dut.axi.awvalid) and not ctx.get(bench.dut.idle)
        bench.memory.deaf = False
        yield from bench.settle(ctx)
        assert len(bench.memory.writes) == 1
        assert len(bench.watch.beats) == 8

    bench.run(run)


def test_no_command_while_one_is_under_way():
    bench = Bench(_config(64), give=0)

    def run(ctx):
        assert ctx.get(bench.dut.idle) and ctx.get(bench.dut.command.ready)
        yield from bench.command(0, 64)
        for _ in range(100):
            yield
            assert not ctx.get(bench.dut.command.ready) and not ctx.get(bench.dut.idle)
            assert not ctx.get(bench.dut.axi.wvalid)

    bench.run(run)


@pytest.mark.parametrize("response", [SLVERR, DECERR])
@pytest.mark.parametrize("bits", [64, 512])
def test_errors_name_their_burst_and_hang_nothing(bits, response):
    low = 0x1040
    bench = Bench(_config(bits, burst_beats=1 if bits == 512 else 8), give=0.7, stall=0.2,
                  latency=20, errors=[(low, low + 64, response)])
    ranges = []

    def run(ctx):
        for address in (0x1000, 0x1040, 0x2000):
            ranges.append((address, (yield from bench.command(address, 128))))
        yield from bench.settle(ctx)

    bench.run(run)
    assert bench.watch.errors == [(response == DECERR, low)] * 2
    wanted = placed(bench.before, ranges)
    wanted[low:low + 64] = bench.before[low:low + 64]
    assert bench.memory.data == wanted
