# SPDX-License-Identifier: Apache-2.0
"""The unpacker: words of every width from beats of every width, and its timing rule."""

import random

import pytest

from golden.machine.engines.unpacker import pack, words
from hw.bus.unpacker import Unpacker
from tests.engine_bench import Sink, Source, simulate
from vitforge.spec.config import Config
from vitforge.spec.packing import Packing


def _config(cols, axi, weight_bits=8):
    return Config(name="test", rows=cols, cols=cols, lanes=1, axi_bits=axi, weight_bits=weight_bits)


def _blocks(config, rng, count, longest=20):
    """Random blocks: their widths, their words, and what fills a block is noise."""
    blocks, stream = [], b""
    for _ in range(count):
        bits = rng.choice([*Packing(config).widths, 8])
        rows = [[rng.randrange(-(1 << bits - 1), 1 << bits - 1) for _ in range(config.cols)]
                for _ in range(rng.randint(1, longest))]
        packed, used = pack((bits, rows))
        blocks.append((bits, rows))
        stream += packed[:used] + rng.randbytes(len(packed) - used)
    return blocks, stream


class _Blocks(Sink):
    """Takes the words of blocks, and says how wide they are and where a block ends."""

    def __init__(self, dut, blocks, stalls, rng):
        super().__init__(dut.o, words(blocks), take=1 - stalls, seed=rng.random())
        self._dut, self._noise = dut, rng
        # The width, the first of its block, the last.
        self._places = [(bits, index == 0, index == len(rows) - 1)
                        for bits, rows in blocks for index in range(len(rows))]

    def drive(self, ctx):
        if self.done:
            ctx.set(self.port.ready, 0)
            self.ready = False
            return
        super().drive(ctx)
        bits, first, last = self._places[len(self.received)]
        # The width is known when the first word is taken; before, it may be anything.
        ctx.set(self._dut.bits,
                self._noise.randrange(16) if first and not self.ready else bits)
        taken = self.ready and ctx.get(self.port.valid)
        ctx.set(self._dut.align, last if taken else self._noise.randrange(2))


def run(config, blocks, stream, *, gaps=0.0, stalls=0.0, seed=0):
    """Take all words, which are those of the model; return the cycles of beats and words."""
    dut = Unpacker(config)
    width = config.axi_bits // 8
    # What is left of the last beats may stay where it is.
    beats = Source(dut.i, (int.from_bytes(stream[at:at + width], "little")
                           for at in range(0, len(stream), width)),
                   give=1 - gaps, whole=False, seed=seed)
    sink = _Blocks(dut, blocks, stalls, random.Random(seed))
    simulate(dut, [beats, sink])
    assert len(sink.received) == sum(len(rows) for _, rows in blocks)
    return beats.cycles, sink.cycles


@pytest.mark.parametrize(("gaps", "stalls"), [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.3)])
@pytest.mark.parametrize("axi", [64, 128, 256, 512])
@pytest.mark.parametrize("cols", [2, 4, 8, 16, 32, 64, 12])
def test_every_element_arrives(cols, axi, gaps, stalls):
    config, rng = _config(cols, axi), random.Random(f"{cols} {axi}")
    blocks, stream = _blocks(config, rng, 9, longest=20 if cols < 32 else 8)
    run(config, blocks, stream, gaps=gaps, stalls=stalls, seed=cols)


@pytest.mark.parametrize("weight_bits", [2, 4, 6])
def test_widths_are_those_of_the_weights_and_8(weight_bits):
    config = _config(8, 64, weight_bits)
    assert Packing(config).widths == (*range(2, weight_bits + 1), 8)
    blocks, stream = _blocks(config, random.Random(weight_bits), 20)
    run(config, blocks, stream, gaps=0.2, stalls=0.2)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axi", [64, 128, 512])
def test_extreme_elements(axi, bits):
    config = _config(4, axi)
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    rows = [[low, high, -1, 0], [high, low, 0, -1], [low] * 4, [high] * 4, [-1] * 4]
    run(config, [(bits, rows)] * 3, pack((bits, rows))[0] * 3)


@pytest.mark.parametrize(("cols", "axi", "bits", "rate"), [
    (16, 128, 8, 1), (16, 128, 4, 1), (16, 512, 8, 1), (16, 512, 3, 1), (8, 64, 8, 1),
    (8, 256, 5, 1), (4, 64, 8, 1), (32, 256, 6, 1), (16, 64, 8, 2), (16, 64, 4, 1),
    (64, 64, 8, 8), (64, 128, 8, 4)])
def test_rate_is_a_word_a_cycle_or_what_the_bus_gives(cols, axi, bits, rate):
    config = _config(cols, axi)
    block = bits, [[0] * cols] * 80
    _, cycles = run(config, [block], pack(block)[0])
    assert cycles[-1] - cycles[1] == 78 * rate


@pytest.mark.parametrize("bits", [8, 5])
def test_latency_and_the_cycles_between_blocks(bits):
    config = _config(16, 128)
    block = bits, [[1] * 16] * 8
    sent, cycles = run(config, [block] * 2, pack(block)[0] * 2)
    # A beat is a chunk here: two registers of chunks, and the window.
    assert cycles[0] - sent[0] == 3
    # No word in the cycle after the first, and none in the cycle after the last; beyond that,
    # the three chunks that end a line of 8 words of 5 units are dropped in the cycles from
    # which the next block's first word is there anyway.
    assert cycles[1] - cycles[0] == 2
    assert cycles[1:8] == list(range(cycles[1], cycles[1] + 7))
    assert cycles[8] - cycles[7] == {8: 2, 5: 5}[bits]
