# SPDX-License-Identifier: Apache-2.0
"""LOAD's scatter: every byte in its place, a piece a cycle, loops and beats that don't agree."""

import itertools
import random

import pytest
from amaranth.sim import Simulator

from hw.bus.placer import Placer
from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS


def _config(rows, lanes, axi):
    return Config(name="test", rows=rows, cols=rows, lanes=lanes, axi_bits=axi)


def _places(base, loops):
    """Places of the pieces, by the definition: nested loops, loop 0 the innermost."""
    place, counters = base, [0] * LOOPS
    while True:
        yield place % (1 << 28)
        for loop, (count, delta) in enumerate(loops):
            if counters[loop] + 1 < count:
                counters[loop] += 1
                place += delta
                break
            counters[loop] = 0
        else:
            return


def _scatter(config, command, stream):
    """Return what the bank's bytes become: address of a byte to the byte."""
    size = 1 << command["piece"]
    loops = [(command[f"count_{loop}"], command[f"delta_{loop}"]) for loop in range(LOOPS)]
    places = itertools.islice(_places(command["base"], loops), len(stream) // size)
    bank = {}
    for index, place in enumerate(places):
        for byte in range(size):
            bank[(place * size + byte) % (config.rows << 24)] = stream[index * size + byte]
    return bank


def _command(rng, config, *, piece=None, pieces=None):
    lanes, rows = config.lanes.bit_length() - 1, config.rows.bit_length() - 1
    piece = rng.randint(lanes, rows) if piece is None else piece
    counts = [rng.choice([1, 1, 2, 3, 4]) for _ in range(LOOPS)]
    if pieces:
        counts = [pieces, *[1] * (LOOPS - 1)]
    return {"piece": piece, "base": rng.choice([rng.getrandbits(10), rng.getrandbits(28)]),
            "destination": rng.randrange(2),
            **{f"count_{loop}": count for loop, count in enumerate(counts)},
            **{f"delta_{loop}": rng.choice([1, rng.randrange(-1 << 19, 1 << 19)])
               for loop in range(LOOPS)}}


def _total(command):
    total = 1
    for loop in range(LOOPS):
        total *= command[f"count_{loop}"]
    return total


def run(config, commands, streams, *, gaps=(0.0,), seed=0):
    """Give the commands one after the other; return what each one did.

    A result is (pulse, writes by byte, cycles of writes, cycles of beats, cycle of the pulse), with
    cycles counted from the one in which the command was taken. `gaps` is how often there is no
    beat, command by command.
    """
    rng = random.Random(seed)
    dut, width = Placer(config), config.axi_bits // 8
    results = []

    async def bench(ctx):
        for command, stream, gap in zip(commands, streams, itertools.cycle(gaps), strict=False):
            beats = [stream[at:at + width] for at in range(0, len(stream), width)]
            assert ctx.get(dut.command.ready)
            ctx.set(dut.command.valid, 1)
            ctx.set(dut.command.payload, {**command, "bytes": len(stream)})
            bank, writes, sent = {}, [], []
            for cycle in range(20000):
                offered = bool(beats) and rng.random() >= gap
                ctx.set(dut.data.valid, offered)
                ctx.set(dut.data.payload, int.from_bytes(beats[0], "little") if offered
                        else rng.getrandbits(width * 8))
                if offered and ctx.get(dut.data.ready):
                    beats.pop(0)
                    sent.append(cycle)
                if ctx.get(dut.write.en):
                    assert ctx.get(dut.write.destination) == command["destination"]
                    writes.append(cycle)
                    word, mask = ctx.get(dut.write.data), ctx.get(dut.write.mask)
                    for byte in range(config.rows):
                        if mask >> byte // config.lanes & 1:
                            bank[ctx.get(dut.write.address) * config.rows + byte] = \
                                word >> 8 * byte & 255
                done, overrun = ctx.get(dut.done), ctx.get(dut.overrun)
                await ctx.tick()
                if not cycle:
                    # Nobody holds the payload for the placer.
                    ctx.set(dut.command.valid, 0)
                    ctx.set(dut.command.payload.as_value(), rng.getrandbits(60))
                if done or overrun:
                    assert not (done and overrun)
                    break
            results.append(("done" if done else "overrun" if overrun else "never", bank, writes,
                            sent, cycle))
        for _ in range(20):
            assert not ctx.get(dut.write.en)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


SHAPES = [(4, 2), (8, 4), (16, 4), (16, 16), (32, 8), (64, 4)]


@pytest.mark.parametrize("axi", [64, 128, 512])
@pytest.mark.parametrize(("rows", "lanes"), SHAPES)
def test_every_byte_gets_to_its_place(rows, lanes, axi):
    config, rng = _config(rows, lanes, axi), random.Random(f"{rows} {lanes} {axi}")
    commands, streams = [], []
    while len(commands) < 9:
        command = _command(rng, config)
        size = _total(command) << command["piece"]
        if size <= 1024:
            commands.append(command)
            # Up to the next line, and sometimes too much.
            streams.append(rng.randbytes(-(-size // 64) * 64 + rng.choice([0, 0, 64, 192])))
    for command, stream, (pulse, bank, writes, sent, cycle) in zip(
            commands, streams, run(config, commands, streams, gaps=(0, 0.5, 0.2)), strict=True):
        assert pulse == "done"
        # In one and the same place the last one counts, so the dictionaries are compared.
        assert bank == _scatter(config, command, stream)
        assert len(writes) == _total(command)
        assert len(sent) == len(stream) * 8 // axi
        assert cycle == max(writes[-1], sent[-1] + 1)


@pytest.mark.parametrize("axi", [64, 128, 512])
@pytest.mark.parametrize("missing", [1, 3, 64])
def test_beats_that_end_before_the_loops_are_an_overrun(axi, missing):
    config, rng = _config(16, 4, axi), random.Random(missing)
    commands = [_command(rng, config, piece=2, pieces=64 + missing),
                _command(rng, config, piece=3, pieces=8)]
    streams = [rng.randbytes(256), rng.randbytes(64)]
    first, second = run(config, commands, streams)
    assert first[0] == "overrun" and len(first[2]) == 64 and len(first[3]) == 2048 // axi
    assert first[1] == _scatter(config, commands[0], streams[0])
    # And it can be used again.
    assert second[0] == "done" and second[1] == _scatter(config, commands[1], streams[1])


@pytest.mark.parametrize(("axi", "rate"), [(64, 0.5), (128, 1), (256, 1), (512, 1)])
def test_a_whole_word_a_cycle(axi, rate):
    config, rng = _config(16, 4, axi), random.Random(axi)
    command = _command(rng, config, piece=4, pieces=64)
    (_, _, writes, _, cycle), = run(config, [command], [rng.randbytes(1024)])
    assert writes[-1] - writes[0] == 63 / rate
    assert cycle == writes[-1]


@pytest.mark.parametrize("axi", [64, 128, 512])
@pytest.mark.parametrize("piece", [2, 3])
def test_a_piece_a_cycle(axi, piece):
    config, rng = _config(16, 4, axi), random.Random(axi)
    pieces = 1024 >> piece
    command = _command(rng, config, piece=piece, pieces=pieces)
    (_, _, writes, sent, cycle), = run(config, [command], [rng.randbytes(1024)])
    # Beats are taken from the second cycle on, pieces cut from the fifth, written in the sixth.
    assert sent[0] == 2
    assert writes == list(range(6, 6 + pieces))
    assert cycle == writes[-1]


def test_deep_loops_take_no_time():
    config, rng = _config(8, 4, 64), random.Random(0)
    command = {**_command(rng, config, piece=2),
               **{f"count_{loop}": 3 for loop in range(LOOPS)}}
    stream = rng.randbytes(-(-3 ** LOOPS * 4 // 64) * 64)
    (pulse, bank, writes, _, _), = run(config, [command], [stream])
    assert pulse == "done" and bank == _scatter(config, command, stream)
    assert writes == list(range(6, 6 + 3 ** LOOPS))


def test_long_loop():
    config, rng = _config(4, 4, 64), random.Random(0)
    command = _command(rng, config, pieces=2049)
    stream = rng.randbytes(2064 * 4)
    (pulse, bank, writes, _, _), = run(config, [command], [stream])
    assert pulse == "done" and bank == _scatter(config, command, stream) and len(writes) == 2049


@pytest.mark.parametrize(("rows", "lanes"), [(12, 4), (16, 3), (8, 16)])
def test_shapes_that_have_no_pieces_are_refused(rows, lanes):
    with pytest.raises(ValueError, match=r"^(rows|lanes) must be "):
        Placer(_config(rows, lanes, 64))
