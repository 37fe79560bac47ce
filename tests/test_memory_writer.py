# SPDX-License-Identifier: Apache-2.0
"""The write master: every sum in its place and no byte beside, legal bursts, stop and errors."""

import random
from functools import partial
from itertools import pairwise

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.bus.writer import MemoryWriter
from sim.testing.axi_memory import DECERR, SLVERR, AxiMemory
from sim.testing.axi_order import ORDERS
from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit

SIZE = 1 << 14
#: Cycles after which a test gives up.
HANG = 3000


def _config(bits, lanes=2, **more):
    values = {"rows": 16, "cols": 16, "lanes": lanes, "axi_bits": bits, "fetch_beats": 64,
              "burst_beats": 8}
    return Config(name="test", **(values | more))


class Bench:
    """A writer with its memory and a source of sums, which offers one with a probability."""

    def __init__(self, config, *, give=1.0, seed=0, **memory):
        self.config, self.give, self.rng = config, give, random.Random(seed)
        self.before = self.rng.randbytes(SIZE)
        self.memory = AxiMemory(bytearray(self.before), config.axi_bits, seed=seed,
                                limit=burst_limit(config), **memory)
        self.dut = MemoryWriter(config)
        self.pending, self.taken, self.beats, self.errors = [], [], [], []
        self.now = Signal(32)

    async def _source(self, ctx):
        """Offer the words of `pending`, in order; what is offered stays until it is taken."""
        port = self.dut.data
        valid = False
        async for _, _, now, ready in ctx.tick().sample(self.now, port.ready):
            if valid and ready:
                self.taken.append((now, self.pending.pop(0)))
                valid = False
            if not valid:
                valid = bool(self.pending) and self.rng.random() < self.give
            word = self.pending[0] if valid else [self.rng.getrandbits(32) - (1 << 31)
                                                  for _ in range(self.config.lanes)]
            ctx.set(port.valid, valid)
            ctx.set(port.payload, word)

    async def _watch(self, ctx):
        error, axi = self.dut.error, self.dut.axi
        async for _, _, now, valid, decode, address, beat, strobes in ctx.tick().sample(
                self.now, error.valid, error.decode, error.address, axi.wvalid & axi.wready,
                axi.wstrb):
            if beat:
                self.beats.append((now, strobes))
            if valid:
                self.errors.append((decode, address))

    async def command(self, ctx, address, size):
        """Give a command with as many words as it needs; return the cycle in which it is taken."""
        words = [[self.rng.getrandbits(32) - (1 << 31) for _ in range(self.config.lanes)]
                 for _ in range(size // (4 * self.config.lanes))]
        self.pending += words
        ctx.set(self.dut.command.payload, {"address": address, "bytes": size})
        ctx.set(self.dut.command.valid, 1)
        for _ in range(HANG):
            now, taken = ctx.get(self.now), ctx.get(self.dut.command.ready)
            await ctx.tick()
            if taken:
                break
        else:
            raise AssertionError("no command is taken")
        ctx.set(self.dut.command.valid, 0)
        return now, b"".join(value.to_bytes(4, "little", signed=True)
                             for word in words for value in word)

    def run(self, bench):
        top = Module()
        top.submodules.dut = self.dut
        top.d.sync += self.now.eq(self.now + 1)
        simulator = Simulator(top)
        simulator.add_clock(1e-6)
        simulator.add_process(partial(self.memory.write, axi=self.dut.axi))
        simulator.add_process(self._source)
        simulator.add_process(self._watch)
        simulator.add_testbench(bench)
        simulator.run()

    async def settle(self, ctx):
        """Wait until the writer has been idle for a while."""
        for _ in range(HANG):
            await ctx.tick()
            if ctx.get(self.dut.idle):
                await ctx.tick().repeat(5)      # for the error's pulse
                assert ctx.get(self.dut.idle)
                return
        raise AssertionError("the writer hangs")


def placed(before, ranges):
    """Return what `before` is with the bytes of all ranges (address, bytes) in their places."""
    data = bytearray(before)
    for address, part in ranges:
        data[address:address + len(part)] = part
    return data


STALLS = [{}, {"stall": 0.4, "extra": 30}, {"give": 0.3}, {"give": 0.5, "stall": 0.3, "latency": 2}]


@pytest.mark.parametrize("stalls", STALLS, ids=str)
@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("bits", [64, 128, 256, 512])
def test_every_sum_is_in_its_place_and_no_byte_beside(bits, lanes, stalls):
    bench = Bench(_config(bits, lanes), seed=bits + lanes, **{"latency": 7} | stalls)
    word = 4 * lanes
    ranges = []

    async def run(ctx):
        # Ends in the middle of a beat where a beat is more than a word, begins before a page's end.
        for address, size in ((0x1000 - 64, 2 * 64 + 3 * word), (0x1D00, word), (0x2FC0, 13 * word),
                              (SIZE - 64, 64)):
            ranges.append((address, (await bench.command(ctx, address, size))[1]))
        await bench.settle(ctx)

    bench.run(run)
    assert bench.memory.data == placed(bench.before, ranges)
    assert bench.errors == [] and bench.pending == []


@pytest.mark.parametrize(("address", "size"), [(0, 64), (0xFC0, 64), (0xFC0, 128), (0xF80, 4096),
                                               (64, 0x480)])
@pytest.mark.parametrize(("bits", "burst"), [(64, 4), (64, 24), (64, 256), (128, 16), (256, 128),
                                             (512, 64), (512, 256)])
def test_bursts_are_few_and_legal(bits, burst, address, size):
    config = _config(bits, 16, burst_beats=burst, fetch_beats=1024)
    bench = Bench(config, latency=2)
    ranges = []

    async def run(ctx):
        ranges.append((address, (await bench.command(ctx, address, size))[1]))
        await bench.settle(ctx)

    bench.run(run)
    assert bench.memory.data == placed(bench.before, ranges)
    span = burst_limit(config) * bits // 8
    ends = sorted({*range(-(-address // span) * span, address + size, span), address,
                   address + size})
    assert [(item.address, item.beats * bits // 8) for item in bench.memory.writes] == [
        (low, high - low) for low, high in pairwise(ends)]


@pytest.mark.parametrize(("bits", "lanes"), [(64, 1), (64, 2), (64, 8), (512, 4)])
def test_cycles_are_as_documented(bits, lanes):
    bench = Bench(_config(bits, lanes), latency=10)
    given = []

    async def run(ctx):
        await ctx.tick().repeat(5)
        given.append((await bench.command(ctx, 0, 128))[0])
        given.append((await bench.command(ctx, 64, 64))[0])
        await bench.settle(ctx)

    bench.run(run)
    beats, words = 1024 // bits, bits // (32 * lanes)
    # A burst is cut three cycles after the command, valid one later; the next after the answer.
    # A beat is offered in the cycle after its last sums were taken, or with its address.
    first = given[0] + 4
    assert bench.memory.writes[0].cycle == first
    bursts = -(-beats // 8)
    cycles = [now for now, _ in bench.beats[:beats]]
    assert cycles[0] == max(first, bench.taken[max(words, 1) - 1][0] + 1)
    gap = max(words, 1)
    for burst in range(bursts):
        part = cycles[8 * burst:8 * burst + 8]
        # One part of a beat is there before; afterwards a beat takes as long as its words.
        assert part[-1] - part[0] <= gap * (len(part) - 1)
        assert bench.memory.writes[burst].cycle == (first if not burst else
                                                    cycles[8 * burst - 1] + 10 + 2)
    assert given[1] == cycles[-1] + 10 + 1


@pytest.mark.parametrize(("bits", "lanes"), [(64, 4), (128, 2), (512, 2)])
@pytest.mark.parametrize("stalls", [
    {}, {"stall": 0.4}, {"give": 0.3}, {"give": 0}, {"order": "data"}, {"order": "both"},
    {"order": "random", "stall": 0.3}, {"order": "data", "give": 0.2}], ids=str)
def test_stop_in_the_middle_comes_to_rest(bits, lanes, stalls):
    for after in (1, 2, 3, 4, 5, 6, 8, 11, 17, 40):
        bench = Bench(_config(bits, lanes, burst_beats=4), seed=after, latency=6, **stalls)
        found = []

        async def run(ctx, after=after, bench=bench, found=found):
            # Only then: before it, a command that isn't taken would not come back.
            found.append((await bench.command(ctx, 0x1FC0, 0x400))[1])
            await ctx.tick().repeat(after)
            ctx.set(bench.dut.stop, 1)
            await ctx.tick()
            asked = len(bench.memory.writes) + ctx.get(bench.dut.axi.awvalid)
            taken = len(bench.taken)
            await bench.settle(ctx)
            # No new burst, no new word, and all that was announced has come and was answered.
            assert len(bench.memory.writes) == asked
            assert len(bench.taken) == taken
            assert len(bench.beats) == sum(item.beats for item in bench.memory.writes)
            assert not ctx.get(bench.dut.axi.bready)
            ctx.set(bench.dut.command.valid, 1)
            await ctx.tick().repeat(10)
            assert ctx.get(bench.dut.idle) and len(bench.memory.writes) == asked
            assert not ctx.get(bench.dut.command.ready)

        bench.run(run)
        # What is there is the beginning of the range, up to a whole word.
        written = sum(strobes.bit_count() for _, strobes in bench.beats)
        assert bench.memory.data == placed(bench.before, [(0x1FC0, found[0][:written])])


@pytest.mark.parametrize("stalls", [{}, {"stall": 0.4}, {"give": 0.3, "extra": 20}], ids=str)
@pytest.mark.parametrize("order", [*ORDERS, "random"])
@pytest.mark.parametrize(("bits", "lanes"), [(64, 4), (128, 2), (512, 2)])
def test_no_channel_waits_for_another(bits, lanes, order, stalls):
    bench = Bench(_config(bits, lanes, burst_beats=4), seed=bits, **{
        "latency": 5, "order": order} | stalls)
    ranges = []

    async def run(ctx):
        for address in (0x1F80, 0x1000):
            ranges.append((address, (await bench.command(ctx, address, 0x400))[1]))
        await bench.settle(ctx)

    bench.run(run)
    assert bench.memory.data == placed(bench.before, ranges)
    assert bench.errors == [] and bench.pending == []
    assert len(bench.memory.writes) >= 2 * 0x400 * 8 // bits // 4


def test_address_and_beats_come_apart():
    # A memory that shuts one channel of the two: all of a burst is offered on the other.
    for channel, order in (("aw", "data"), ("w", "address")):
        bench = Bench(_config(64, 2, burst_beats=4), latency=5, order=order)

        async def run(ctx, bench=bench, channel=channel):
            axi = bench.dut.axi
            await bench.command(ctx, 0x1000, 128)
            for _ in range(200):
                await ctx.tick()
                beats = len(bench.beats) - sum(item.beats for item in bench.memory.writes)
                if channel == "aw" and ctx.get(axi.awvalid & axi.awready):
                    # The length, the address and the beats that it announces.
                    assert beats == ctx.get(axi.awlen) + 1 == 4
                if channel == "w" and ctx.get(axi.wvalid & axi.wready):
                    assert beats < 0
            assert len(bench.memory.writes) == 4 and ctx.get(bench.dut.idle)

        bench.run(run)


def test_no_command_after_stop():
    bench = Bench(_config(64))

    async def run(ctx):
        ctx.set(bench.dut.stop, 1)
        ctx.set(bench.dut.command.payload, {"address": 0, "bytes": 64})
        ctx.set(bench.dut.command.valid, 1)
        for _ in range(20):
            await ctx.tick()
            assert ctx.get(bench.dut.idle) and not ctx.get(bench.dut.command.ready)
        assert not bench.memory.writes

    bench.run(run)


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_offered_outlives_stop(order):
    bench = Bench(_config(64), latency=3, order=order)
    bench.memory.deaf = True

    async def run(ctx):
        await bench.command(ctx, 0x400, 128)
        await ctx.tick().repeat(20)
        ctx.set(bench.dut.stop, 1)
        await ctx.tick().repeat(50)
        assert ctx.get(bench.dut.axi.awvalid) and not ctx.get(bench.dut.idle)
        bench.memory.deaf = False
        await bench.settle(ctx)
        assert len(bench.memory.writes) == 1
        assert len(bench.beats) == 8

    bench.run(run)


def test_no_command_while_one_is_under_way():
    bench = Bench(_config(64), give=0)

    async def run(ctx):
        assert ctx.get(bench.dut.idle) and ctx.get(bench.dut.command.ready)
        await bench.command(ctx, 0, 64)
        for _ in range(100):
            await ctx.tick()
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

    async def run(ctx):
        for address in (0x1000, 0x1040, 0x2000):
            ranges.append((address, (await bench.command(ctx, address, 128))[1]))
        await bench.settle(ctx)

    bench.run(run)
    assert bench.errors == [(response == DECERR, low)] * 2
    wanted = placed(bench.before, ranges)
    wanted[low:low + 64] = bench.before[low:low + 64]
    assert bench.memory.data == wanted
