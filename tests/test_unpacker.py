# SPDX-License-Identifier: Apache-2.0
"""The unpacker: words of every width from beats of every width, and its timing rule."""

import random
from functools import partial

import pytest
from amaranth.sim import Simulator

from hw.bus.unpacker import Unpacker
from vitforge.spec.config import Config
from vitforge.spec.packing import Packing


def _config(cols, axi, weight_bits=8):
    return Config(name="test", rows=cols, cols=cols, lanes=1, axi_bits=axi, weight_bits=weight_bits)


def _pack(words, bits, cols):
    """Pack words of elements by the definition: padded words, padded blocks."""
    size = -(-cols * bits // 8)
    packed = b"".join(
        sum((element & (1 << bits) - 1) << index * bits for index, element in enumerate(word))
        .to_bytes(size, "little") for word in words)
    return packed + b"\0" * (-len(packed) % 64)


def _blocks(config, rng, count, longest=20):
    """Random blocks: their widths, their words, and what fills a block is noise."""
    blocks, stream = [], b""
    for _ in range(count):
        bits = rng.choice([*Packing(config).widths, 8])
        words = [[rng.randrange(-(1 << bits - 1), 1 << bits - 1) for _ in range(config.cols)]
                 for _ in range(rng.randint(1, longest))]
        packed = _pack(words, bits, config.cols)
        used = len(words) * -(-config.cols * bits // 8)
        blocks.append((bits, words))
        stream += packed[:used] + rng.randbytes(len(packed) - used)
    return blocks, stream


def run(config, blocks, stream, *, gaps=0.0, stalls=0.0, seed=0):
    """Return the words that came and the cycles of beats and words."""
    rng = random.Random(seed)
    dut = Unpacker(config)
    width = config.axi_bits // 8
    beats = [int.from_bytes(stream[at:at + width], "little")
             for at in range(0, len(stream), width)]
    words, sent, received = [], [], []

    async def feed(ctx, port):
        valid, cycle = False, 0
        async for _, _, ready in ctx.tick().sample(port.ready):
            if valid and ready:
                sent.append(cycle)
                valid = False
            if not valid:
                valid = len(sent) < len(beats) and rng.random() >= gaps
                ctx.set(port.valid, valid)
                ctx.set(port.payload, beats[len(sent)] if valid else rng.getrandbits(width * 8))
            cycle += 1

    async def take(ctx):
        cycle = 0
        for bits, expected in blocks:
            for index in range(len(expected)):
                while True:
                    ready = rng.random() >= stalls
                    ctx.set(dut.o.ready, ready)
                    # The width is known when the first word is taken; before, it may be anything.
                    ctx.set(dut.bits, bits if index or ready else rng.randrange(16))
                    done = ready and ctx.get(dut.o.valid)
                    ctx.set(dut.align, index == len(expected) - 1 if done else rng.randrange(2))
                    if done:
                        words.append(ctx.get(dut.o.payload))
                        received.append(cycle)
                    await ctx.tick()
                    cycle += 1
                    assert cycle < 20000, "nothing comes any more"
                    if done:
                        break
        ctx.set(dut.o.ready, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_process(partial(feed, port=dut.i))
    simulator.add_testbench(take)
    simulator.run()
    return words, sent, received


def _expected(blocks):
    return [sum((element & 255) << 8 * index for index, element in enumerate(word))
            for _, words in blocks for word in words]


@pytest.mark.parametrize(("gaps", "stalls"), [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize("axi", [64, 128, 256, 512])
@pytest.mark.parametrize("cols", [2, 4, 8, 16, 32, 64, 12])
def test_every_element_arrives(cols, axi, gaps, stalls):
    config, rng = _config(cols, axi), random.Random(f"{cols} {axi}")
    blocks, stream = _blocks(config, rng, 9, longest=20 if cols < 32 else 8)
    words, _, _ = run(config, blocks, stream, gaps=gaps, stalls=stalls, seed=cols)
    assert words == _expected(blocks)


@pytest.mark.parametrize("weight_bits", [2, 4, 6])
def test_widths_are_those_of_the_weights_and_8(weight_bits):
    config = _config(8, 64, weight_bits)
    assert Packing(config).widths == (*range(2, weight_bits + 1), 8)
    blocks, stream = _blocks(config, random.Random(weight_bits), 20)
    words, _, _ = run(config, blocks, stream, gaps=0.2, stalls=0.2)
    assert words == _expected(blocks)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axi", [64, 128, 512])
def test_extreme_elements(axi, bits):
    config = _config(4, axi)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    words = [[low, high, -1, 0], [high, low, 0, -1], [low] * 4, [high] * 4, [-1] * 4]
    blocks = [(bits, words)] * 3
    assert run(config, blocks, _pack(words, bits, 4) * 3)[0] == _expected(blocks)


@pytest.mark.parametrize(("cols", "axi", "bits", "rate"), [
    (16, 128, 8, 1), (16, 128, 4, 1), (16, 512, 8, 1), (16, 512, 3, 1), (8, 64, 8, 1),
    (8, 256, 5, 1), (4, 64, 8, 1), (32, 256, 6, 1), (16, 64, 8, 2), (16, 64, 4, 1),
    (64, 64, 8, 8), (64, 128, 8, 4)])
def test_rate_is_a_word_a_cycle_or_what_the_bus_gives(cols, axi, bits, rate):
    config = _config(cols, axi)
    words = [[0] * cols] * 80
    blocks = [(bits, words)]
    _, _, cycles = run(config, blocks, _pack(words, bits, cols))
    assert cycles[-1] - cycles[1] == 78 * rate


@pytest.mark.parametrize("bits", [8, 5])
def test_latency_and_the_cycles_between_blocks(bits):
    config = _config(16, 128)
    words = [[1] * 16] * 8
    blocks = [(bits, words)] * 2
    _, sent, cycles = run(config, blocks, _pack(words, bits, 16) * 2)
    # A beat is a chunk here: two registers of chunks, and the window.
    assert cycles[0] - sent[0] == 3
    # No word in the cycle after the first, and none in the cycle after the last; beyond that,
    # the three chunks that end a line of 8 words of 5 units are dropped in the cycles from
    # which the next block's first word is there anyway.
    assert cycles[1] - cycles[0] == 2
    assert cycles[1:8] == list(range(cycles[1], cycles[1] + 7))
    assert cycles[8] - cycles[7] == {8: 2, 5: 5}[bits]
