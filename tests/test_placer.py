# SPDX-License-Identifier: Apache-2.0
"""LOAD's scatter: every byte in its place, a piece a cycle, loops and beats that don't agree."""

import itertools
import random

import pytest

from golden.machine.engines.placer import PlacerModel, scatter
from hw.bus.placer import Placer
from tests.engine_bench import Cycle, Trace, simulate
from tests.sample import leading
from vitforge.spec.config import Config
from vitforge.spec.instruction import LOOPS


def _config(rows, lanes, axi):
    return Config(name="test", rows=rows, cols=rows, lanes=lanes, axi_bits=axi)


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


def _played(config, commands, streams, gaps, rng, results):
    """Cycles of the commands, one after the other, by the model; what each did to `results`."""
    model, width = PlacerModel(config), config.axi_bits // 8
    for command, stream, gap in zip(commands, streams, itertools.cycle(gaps), strict=False):
        command = {**command, "bytes": len(stream)}
        beats = [stream[at:at + width] for at in range(0, len(stream), width)]
        bank, writes, sent = {}, [], []
        for cycle in range(20000):
            offered = beats[0] if beats and rng.random() >= gap else None
            outputs = model.settle()
            yield Cycle({
                "command.valid": not cycle,
                # Nobody holds the payload for the placer.
                "command.payload": rng.getrandbits(60) if cycle else command,
                "data.valid": offered is not None,
                "data.payload": rng.getrandbits(width * 8) if offered is None
                else int.from_bytes(offered, "little")}, outputs)
            assert outputs["command.ready"] == (not cycle)
            if outputs["data.ready"] and offered:
                beats.pop(0)
                sent.append(cycle)
            if outputs["write.en"]:
                writes.append(cycle)
                for byte in range(config.rows):
                    if outputs["write.mask"] >> byte // config.lanes & 1:
                        bank[outputs["write.address"] * config.rows + byte] = \
                            outputs["write.data"] >> 8 * byte & 255
            model.clock(None if cycle else command, offered)
            pulses = [name for name in ("done", "overrun") if outputs[name]]
            if pulses:
                break
        (pulse,) = pulses
        results.append((pulse, bank, writes, sent, cycle))
    for _ in range(20):
        outputs = model.settle()
        assert not outputs["write.en"]
        yield Cycle({"command.valid": 0}, outputs)
        model.clock(None, None)


def run(config, commands, streams, *, gaps=(0.0,), seed=0):
    """Give the commands one after the other; return what each one did, as model and gateware agree.

    A result is (pulse, writes by byte, cycles of writes, cycles of beats, cycle of the pulse), with
    cycles counted from the one in which the command was taken. `gaps` is how often there is no
    beat, command by command.
    """
    dut, results = Placer(config), []
    trace = Trace(dut, _played(config, commands, streams, gaps, random.Random(seed), results))
    simulate(dut, [trace])
    assert len(results) == len(commands)
    return results


SHAPES = [(4, 2), (8, 4), (16, 4), (16, 16), (32, 8), (64, 4)]


@pytest.mark.parametrize(("rows", "lanes", "axi"), leading(8, [
    (*shape, axi) for axi in (64, 128, 512) for shape in SHAPES]))
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
        assert bank == scatter(command, stream, config)
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
    assert first[1] == scatter(commands[0], streams[0], config)
    # And it can be used again.
    assert second[0] == "done" and second[1] == scatter(commands[1], streams[1], config)


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
    assert pulse == "done" and bank == scatter(command, stream, config)
    assert writes == list(range(6, 6 + 3 ** LOOPS))


def test_long_loop():
    config, rng = _config(4, 4, 64), random.Random(0)
    command = _command(rng, config, pieces=2049)
    stream = rng.randbytes(2064 * 4)
    (pulse, bank, writes, _, _), = run(config, [command], [stream])
    assert pulse == "done" and bank == scatter(command, stream, config) and len(writes) == 2049


@pytest.mark.parametrize(("rows", "lanes"), [(12, 4), (16, 3), (8, 16)])
def test_shapes_that_have_no_pieces_are_refused(rows, lanes):
    with pytest.raises(ValueError, match=r"^(rows|lanes) must be "):
        Placer(_config(rows, lanes, 64))
