# SPDX-License-Identifier: Apache-2.0
"""The model of the memory's side is the gateware, cycle by cycle."""

import math
import random
from functools import partial

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from golden.machine.memory import Memory
from golden.machine.memory_fetch import CHOICE
from golden.machine.memory_load import Placement
from golden.machine.memory_write import Writer
from hw.bus.bursts import Bursts
from hw.bus.placer import Placer
from hw.bus.reader import MemoryReader
from hw.bus.unpacker import Unpacker
from hw.bus.writer import MemoryWriter
from hw.drain.raw import RawOutput
from hw.lib import stream
from sim.testing.axi_memory import AxiMemory
from tests.sample import later, thinned, thorough
from vitforge.spec.config import Config
from vitforge.spec.config import load as preset
from vitforge.spec.instruction import LINE, LOOPS
from vitforge.spec.packing import Packing

MEMORY = 1 << 16


def _config(rows, axi, *, lanes=1, most=1, **more):
    values = {"fetch_beats": 64, "burst_beats": 8, "max_channels": 64, "max_keys": 64}
    return Config(name="test", rows=rows, cols=most * rows, lanes=lanes, axi_bits=axi,
                  **(values | more))


def _kind(first):
    """Return the width of a block's elements, and how many times `rows` of them a word has."""
    return first if isinstance(first, tuple) else (first, 1)


def _size(script, config):
    """Return the bytes of a program."""
    blocks = [len(item) * Packing(config).sizes[_kind(first)] for first, item in script
              if isinstance(item, list)]
    return sum(-(-block // LINE) * LINE for block in blocks)


def _load(config, rng, longest):
    """Make up a LOAD with at most as many pieces as its data; the places don't matter."""
    piece = rng.randint((config.lanes - 1).bit_length(), (config.rows - 1).bit_length())
    size = LINE * rng.randint(1, longest)
    pieces = size >> piece
    counts = [1] * LOOPS
    for loop in rng.sample(range(LOOPS), 3):
        counts[loop] = min(rng.choice([1, 2, 3, pieces, 4095]), pieces // math.prod(counts))
    return {"offset": LINE * rng.randrange(64), "bytes": size, "piece": piece,
            **{f"count_{loop}": count for loop, count in enumerate(counts)}}


def _script(config, rng, blocks, *, loads=0.2, longest=40, pauses=(0, 0, 0, 1, 3, 20)):
    """Blocks as (kind, delay of each word after the one before), loads as (delay, fields)."""
    script = []
    for _ in range(blocks):
        if rng.random() < loads:
            # As in a program: behind a block that fills its lines.
            script.append((8, [rng.choice(pauses) for _ in range(max(1, LINE // config.rows))]))
            script.append((rng.choice((2, 3, 50)), _load(config, rng, 12)))
        kind = rng.choice([*Packing(config).units, (8, 1)])
        pause = rng.choice(([0], [0] * 8 + [40], pauses, [200]))
        words = rng.randint(1, longest if pause != [200] else 3)
        script.append((kind, [rng.choice([0, 100]), *rng.choices(pause, k=words - 1)]))
    return script


def simulate(config, script, latency, program, data, size):
    """Return the cycle of every word and of every LOAD's end, then beats and waiting cycles."""
    top = Module()
    top.submodules.reader = reader = MemoryReader(config)
    top.submodules.unpacker = unpacker = Unpacker(config)
    top.submodules.placer = placer = Placer(config)
    wiring.connect(top, reader.words, unpacker.i)
    wiring.connect(top, reader.data, placer.data)
    now, waits = Signal(32), Signal(32)
    top.d.sync += [now.eq(now + 1), waits.eq(waits + reader.waiting)]
    memory = AxiMemory(bytearray(MEMORY), config.axi_bits, latency)
    cycles = []

    async def bench(ctx):
        async def wait(cycle):
            while ctx.get(now) < cycle:
                await ctx.tick()

        async def event(signal):
            for _ in range(20000):
                cycle = ctx.get(now)
                found = ctx.get(signal)
                if found:
                    return cycle
                await ctx.tick()
            raise AssertionError("nothing comes any more")

        ctx.set(reader.start.payload, {"address": program, "bytes": size})
        ctx.set(reader.start.valid, 1)
        assert ctx.get(reader.start.ready)
        await ctx.tick()
        ctx.set(reader.start.valid, 0)
        last = 0
        word = unpacker.o
        for first, second in script:
            if isinstance(second, dict):
                await wait(last + 1 + first)
                ctx.set(reader.load.payload, {"address": data + second["offset"],
                                              "bytes": second["bytes"]})
                ctx.set(placer.command.payload, {
                    "piece": second["piece"], "bytes": second["bytes"],
                    **{f"count_{loop}": second[f"count_{loop}"] for loop in range(LOOPS)}})
                ctx.set(reader.load.valid, 1)
                ctx.set(placer.command.valid, 1)
                assert ctx.get(reader.load.ready) and ctx.get(placer.command.ready)
                await ctx.tick()
                ctx.set(reader.load.valid, 0)
                ctx.set(placer.command.valid, 0)
                last = await event(placer.done)
                cycles.append(last)
                continue
            for index, delay in enumerate(second):
                await wait(last + 1 + delay)
                bits, span = _kind(first)
                ctx.set(unpacker.bits, bits)
                if config.cols > config.rows:
                    ctx.set(unpacker.span, span - 1)
                ctx.set(word.ready, 1)
                last = await event(word.valid)
                cycles.append(last)
                ctx.set(unpacker.align, index == len(second) - 1)
                await ctx.tick()
                ctx.set(unpacker.align, 0)
                ctx.set(word.ready, 0)
        await wait(last + 300)
        cycles.extend([sum(burst.beats for burst in memory.reads), ctx.get(waits)])

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_process(partial(memory.read, axi=reader.axi))
    simulator.add_testbench(bench)
    simulator.run()
    return cycles


def predict(config, script, latency, program, data, size, longest=1):
    """Return the same from the model, None for words inside a run of up to `longest`."""
    model = Memory(config, latency, address=program, size=size, input_address=data)
    cycles = []
    last = 0
    for first, second in script:
        if isinstance(second, dict):
            last = model.load(last + 1 + first, second)
            cycles.append(last)
            continue
        bits, span = _kind(first)
        model.begin(bits, len(second), span)
        place = 0
        while place < len(second):
            # Words that are wanted one after the other are one run.
            words = 1
            while words < longest and second[place + words:] and not second[place + words]:
                words += 1
            begin, last = model.run(last + 1 + second[place], words)
            cycles.extend([begin, *[None] * (words - 2), last][:words])
            place += words
    model.finish(last + 299)
    return [*cycles, model.beats, model.wait]


def _same(config, script, latency, program=0x1000, data=0x8000, more=0):
    """Compare; a program may have `more` bytes that nobody takes."""
    size = _size(script, config) + more
    expected = simulate(config, script, latency, program, data, size)
    for longest in (1, 5, 1000):
        found = predict(config, script, latency, program, data, size, longest)
        wrong = [index for index, pair in enumerate(zip(expected, found, strict=True))
                 if pair[0] != pair[1] and pair[1] is not None]
        assert not wrong, (wrong[0], expected[wrong[0]:][:5], found[wrong[0]:][:5])


@pytest.mark.parametrize(("rows", "axi", "lanes", "burst", "fetch", "latency"), [
    (4, 64, 2, 8, 64, 7), thorough(4, 128, 1, 4, 16, 30), (4, 256, 2, 2, 16, 1),
    thorough(4, 512, 2, 1, 16, 60),
    (8, 64, 4, 1, 64, 100), (8, 128, 1, 8, 32, 2), later(8, 256, 4, 16, 32, 20),
    later(8, 512, 2, 4, 32, 60), later(16, 64, 4, 16, 128, 60), thorough(16, 128, 2, 1, 64, 60),
    thorough(16, 256, 8, 3, 16, 7), later(16, 512, 4, 8, 16, 1),
    (32, 64, 4, 8, 64, 30), later(32, 512, 8, 2, 16, 7), later(64, 64, 8, 4, 16, 5),
    thorough(64, 256, 32, 1, 32, 60),
])
def test_words_and_loads_come_when_they_should(rows, axi, lanes, burst, fetch, latency):
    config = _config(rows, axi, lanes=lanes, burst_beats=burst, fetch_beats=fetch)
    rng = random.Random(f"{rows} {axi}")
    script = _script(config, rng, 4, loads=0.3, longest=max(6, 160 // rows))
    _same(config, script, latency, LINE * rng.randrange(64), LINE * rng.randrange(64),
          LINE * rng.randrange(20))


@pytest.mark.parametrize(("rows", "most", "axi", "lanes", "latency"), [
    (4, 2, 64, 2, 7), thorough(4, 4, 256, 2, 30), thorough(8, 2, 128, 4, 60), (16, 4, 64, 8, 5)])
def test_words_of_several_lengths_come_when_they_should(rows, most, axi, lanes, latency):
    config = _config(rows, axi, lanes=lanes, most=most, burst_beats=4)
    rng = random.Random(f"{rows} {most} {axi}")
    script = _script(config, rng, 5, loads=0.3, longest=max(6, 160 // rows // most))
    _same(config, script, latency, LINE * rng.randrange(64), LINE * rng.randrange(64))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_everything_at_random(seed):
    rng = random.Random(seed)
    rows, depth = rng.choice([4, 8, 16, 32, 64]), rng.choice([16, 32, 64, 128])
    config = _config(rows, rng.choice([64, 128, 256, 512]), fetch_beats=depth,
                     lanes=rng.choice([lanes for lanes in (1, 2, 4, 8, 16) if rows > lanes]),
                     burst_beats=rng.randint(1, depth // 2), weight_bits=rng.choice([4, 8]))
    if rng.random() < 0.2:
        config = preset(rng.choice(["tiny", "edge8", "edge16"]))
    script = _script(config, rng, 3, loads=0.4, longest=30 if config.cols < 32 else 8)
    script.append((rng.choice(Packing(config).widths),
                   [delay for _ in range(rng.randint(1, 4))
                    for delay in (rng.choice((0, 20, 100)), *[0] * (config.rows - 1))]))
    _same(config, script, rng.choice([1, 2, 3, 5, 20, 60, 100]), LINE * rng.randrange(64),
          LINE * rng.randrange(64), LINE * rng.randrange(20))


@pytest.mark.parametrize(("rows", "axi", "lanes"), [(4, 64, 1), (16, 64, 2), (16, 128, 4),
                                                    (8, 512, 1), (64, 64, 8)])
def test_loads_whose_loops_end_anywhere(rows, axi, lanes):
    config, rng = _config(rows, axi, lanes=lanes), random.Random(rows + axi)
    script = []
    for _ in range(5):
        script += [(8, [0] * max(1, LINE // rows)), (2, _load(config, rng, 5))]
    _same(config, script, 10)


def _whole(config, size):
    """Make up a LOAD of one piece, the rest of which is dropped."""
    return {"offset": 0, "bytes": size, "piece": (config.rows - 1).bit_length(),
            **{f"count_{loop}": 1 for loop in range(LOOPS)}}


@pytest.mark.parametrize(("axi", "latency"), [(64, 15), (128, 40)])
def test_bursts_under_way_are_limited(axi, latency):
    # Short bursts, a long latency, and a buffer that doesn't mind.
    config = _config(8, axi, lanes=2, burst_beats=1, fetch_beats=128)
    for pause in (1, 3):
        _same(config, [(8, [0] * 8), (pause, _whole(config, 8 * LINE)), (8, [0] * 80)], latency)


@pytest.mark.parametrize(("rows", "axi", "burst"), [
    (8, 128, 1), thorough(16, 256, 1), (16, 256, 4), thorough(32, 512, 1), (8, 512, 1)])
def test_what_is_fetched_before_a_load(rows, axi, burst):
    # A buffer that is full by then: the last beat that the unpacker takes makes room for a burst.
    config = _config(rows, axi, lanes=rows // 2, burst_beats=burst, fetch_beats=16)
    script = [(8, [0] * (LINE // rows)), (50, _whole(config, 2 * LINE)), (8, [0])]
    for more in (20, 30):
        _same(config, script, 5, more=more * LINE)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_narrow_words_of_a_wide_array(bits):
    # Words that are there, but of several chunks, of which one is passed a cycle.
    config = _config(64, 64, lanes=8)
    _same(config, [(bits, [0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 0, 0])], 3)


@pytest.mark.parametrize("start", [LINE, 3 * LINE, 6 * LINE])
def test_first_burst_ends_at_a_multiple_of_the_longest(start):
    # A buffer of two bursts, so that where they end is felt.
    config = _config(8, 512, lanes=2, burst_beats=8, fetch_beats=16)
    _same(config, [(8, [0] * 240)], 20, 0x1000 + start)


@pytest.mark.parametrize(("rows", "axi"), [(4, 64), later(4, 512), later(8, 64),
                                           (8, 256), later(16, 64), later(16, 128), (16, 512)])
def test_runs_from_rest_are_as_all_others(rows, axi):
    # Weights as a pass wants them: tiles with pauses in which everything comes to rest, or almost.
    rng = random.Random(f"tiles {rows} {axi}")
    config = _config(rows, axi, lanes=2, fetch_beats=32)
    script = []
    for _ in range(2):
        tiles = rng.randint(4, 7)
        pauses = [rng.choice((20, 35, 50, 70)) for _ in range(tiles)]
        script.append((rng.choice(Packing(config).widths),
                       [delay for pause in pauses for delay in (pause, *[0] * (rows - 1))]))
    _same(config, script, 7, LINE * rng.randrange(64))


def test_runs_from_rest_are_as_words_one_by_one():
    # Long programs, without a simulation.
    rng = random.Random(1)
    for trial in range(10):
        rows = rng.choice([4, 8, 16, 32])
        config = _config(rows, rng.choice([64, 128, 256, 512]), lanes=4,
                         fetch_beats=rng.choice([64, 256]), burst_beats=rng.choice([4, 16, 32]))
        script = []
        for _ in range(rng.randint(1, 4)):
            script += _script(config, rng, 3)
            pauses = rng.choice([(0, 0, 1, 5), (20, 100), (50, 60, 70, 80, 1000)])
            script.append((rng.choice(Packing(config).widths),
                           [delay for _ in range(rng.randint(1, 300))
                            for delay in (rng.choice(pauses), *[0] * (rows - 1))]))
        one, many = (predict(config, script, 60, LINE * trial, 0, _size(script, config), longest)
                     for longest in (1, rows))
        assert many == [b if b is None else a for a, b in zip(one, many, strict=True)]
        assert many.count(None) > len(many) // 4


def _written(config, latency, passes):
    """Return the cycle of the last issue and of rest for raw passes (offset, groups, delay)."""
    top = Module()
    top.submodules.raw = raw = RawOutput(config)
    top.submodules.writer = writer = MemoryWriter(config)
    wiring.connect(top, raw.o, writer.data)
    now, left, start, groups = Signal(32), Signal(16), Signal(), Signal(16)
    fed = stream.delay(top, raw.issue, advance=1, cycles=4, name="fed", init=0)
    top.d.comb += [raw.issue.eq((left != 0) & raw.room), writer.command.valid.eq(start),
                   raw.valid.eq(fed)]
    top.d.sync += [now.eq(now + 1), left.eq(left - raw.issue)]
    with top.If(start):
        top.d.sync += left.eq(groups)
    memory = AxiMemory(bytearray(MEMORY), config.axi_bits, latency)
    cycles = []

    async def bench(ctx):
        for offset, count, pause in passes:
            await ctx.tick().repeat(pause)
            ctx.set(writer.command.payload, {"address": offset, "bytes": count * config.lanes * 4})
            ctx.set(groups, count)
            ctx.set(start, 1)
            begin = ctx.get(now)
            assert ctx.get(writer.command.ready)
            await ctx.tick()
            ctx.set(start, 0)
            issued = None
            while not ctx.get(writer.idle):
                issued = ctx.get(now) if ctx.get(raw.issue) else issued
                await ctx.tick()
            cycles.append((begin, issued, ctx.get(now)))

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_process(partial(memory.write, axi=writer.axi))
    simulator.add_testbench(bench)
    simulator.run()
    return cycles, sum(burst.beats for burst in memory.writes)


@pytest.mark.parametrize(("shape", "latency"), thinned(
    [(2, 64), (4, 64), (4, 128), (2, 512), (16, 64)], [2, 30], of=2))
def test_raw_passes_are_written_when_they_should(shape, latency):
    lanes, axi = shape
    config = _config(16, axi, lanes=lanes)
    rng = random.Random(f"{lanes} {axi} {latency}")
    of_token = 16 // lanes
    passes = [(LINE * rng.randrange(64), of_token * tokens, rng.randrange(1, 5))
              for tokens in (1, 3, rng.randrange(8, 12))]
    cycles, beats = _written(config, latency, passes)
    # No memory acknowledges a burst with its last beat.
    model = Writer(config, 1 if latency == 2 else latency, output_address=0x2000)
    for (begin, *found), (offset, groups, _) in zip(cycles, passes, strict=True):
        assert list(model.write(begin, offset - 0x2000, groups)) == found
    assert model.beats == beats


@pytest.mark.parametrize("axi", [64, 128, 512])
def test_rest_is_not_a_cycle_too_early(axi):
    # Pauses of all lengths.
    config = _config(16, axi, lanes=4, fetch_beats=16)
    script = [(bits, [delay for pause in range(10, 70) for delay in [pause, *[0] * 15] * 3])
              for bits in (8, 5, 3)]
    one, many = (predict(config, script, 20, 0, 0, _size(script, config), longest)
                 for longest in (1, 16))
    assert many == [b if b is None else a for a, b in zip(one, many, strict=True)]


def test_constants_are_the_gateware_s():
    assert CHOICE == Bursts.latency


def test_a_load_with_too_many_pieces_is_refused():
    fields = {"bytes": 64, "piece": 2, **{f"count_{loop}": 1 for loop in range(LOOPS)}}
    Placement(_config(4, 64, lanes=4), fields | {"count_3": 16})
    with pytest.raises(ValueError, match="17 pieces of 4"):
        Placement(_config(4, 64, lanes=4), fields | {"count_3": 17})


def test_a_program_that_ends_before_its_words_is_refused():
    model = Memory(_config(4, 64, lanes=4), 10, address=0, size=LINE)
    model.begin(8, 17)
    with pytest.raises(ValueError, match="the program ends"):
        model.run(0, 17)
