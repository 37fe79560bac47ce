# SPDX-License-Identifier: Apache-2.0
"""The unpacker is its model on every cycle: words of every width from beats of every width."""

import random
from functools import partial

import pytest

from golden.machine.engines.unpacker import UnpackerModel, pack, words
from hw.bus.unpacker import Unpacker
from tests.engine_bench import Cycle, Trace, simulate
from tests.sample import thinned
from vitforge.spec.config import Config
from vitforge.spec.packing import Packing


def _config(rows, axi, weight_bits=8, most=1):
    return Config(name="test", rows=rows, cols=most * rows, lanes=1, axi_bits=axi,
                  weight_bits=weight_bits)


def _blocks(config, rng, count, longest=20):
    """Random blocks: their widths, their words, and what fills a block is noise."""
    blocks, stream = [], b""
    for _ in range(count):
        bits, span = rng.choice([*Packing(config).units, (8, 1)])
        rows = [[rng.randrange(-(1 << bits - 1), 1 << bits - 1)
                 for _ in range(span * config.rows)] for _ in range(rng.randint(1, longest))]
        packed, used = pack((bits, rows))
        blocks.append((bits, rows))
        stream += packed[:used] + rng.randbytes(len(packed) - used)
    return blocks, stream


def _same(wanted, mask, found):
    return found & mask == wanted


def _played(config, blocks, stream, gaps, stalls, rng, sent, received):
    """Cycles by the model until all words have come; those of beats and words to the two lists."""
    model, width, several = UnpackerModel(config), config.axi_bits // 8, config.cols > config.rows
    beats = [int.from_bytes(stream[at:at + width], "little")
             for at in range(0, len(stream), width)]
    wanted = words(blocks)
    # The width, how many times `rows` elements, the first of its block, the last.
    places = [(bits, len(row) // config.rows, index == 0, index == len(rows) - 1)
              for bits, rows in blocks for index, row in enumerate(rows)]
    offered = False
    for cycle in range(20000):
        offered = offered or (len(sent) < len(beats) and rng.random() >= gaps)
        ready, valid = rng.random() >= stalls, model.valid
        bits, span, first, last = places[len(received)]
        # The width is known when the first word is taken; before, it may be anything.
        if first and not ready:
            bits = rng.randrange(16)
            span = rng.randint(1, config.cols // config.rows)
        align = last if ready and valid else rng.random() < 0.5
        takes = model.ready(ready, bits, align, span)
        outputs = {"i.ready": takes, "o.valid": valid}
        if valid:
            # Elements beyond those of the word are anything.
            width, length, *_ = places[len(received)]
            mask = (1 << width * config.rows * length) - 1
            outputs["o.payload"] = partial(_same, wanted[len(received)], mask)
        yield Cycle({"i.valid": offered, "o.ready": ready, "bits": bits, "align": align,
                     "i.payload": beats[len(sent)] if offered else rng.getrandbits(width * 8),
                     **({"span": span - 1} if several else {})}, outputs)
        model.clock(offered, ready, bits, align, span)
        if offered and takes:
            sent.append(cycle)
            offered = False
        if ready and valid:
            received.append(cycle)
            if len(received) == len(wanted):
                return
    raise AssertionError("nothing comes any more")


def run(config, blocks, stream, *, gaps=0.0, stalls=0.0, seed=0):
    """Take all words, as the model says; return the cycles of beats and words."""
    dut, sent, received = Unpacker(config), [], []
    trace = Trace(dut, _played(config, blocks, stream, gaps, stalls, random.Random(seed), sent,
                               received))
    simulate(dut, [trace])
    assert len(received) == sum(len(rows) for _, rows in blocks)
    return sent, received


@pytest.mark.parametrize(("cols", "axi", "random_ends"), thinned(
    [2, 4, 8, 16, 32, 64, 12], [64, 128, 256, 512], [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.3)],
    of=4))
def test_every_element_arrives(cols, axi, random_ends):
    gaps, stalls = random_ends
    config, rng = _config(cols, axi), random.Random(f"{cols} {axi}")
    blocks, stream = _blocks(config, rng, 9, longest=20 if cols < 32 else 8)
    run(config, blocks, stream, gaps=gaps, stalls=stalls, seed=cols)


@pytest.mark.parametrize(("gaps", "stalls"), [(0, 0), (0.3, 0.3)])
@pytest.mark.parametrize("axi", [64, 256])
@pytest.mark.parametrize(("rows", "most"), [(4, 2), (4, 4), (8, 2), (16, 4), (12, 2)])
def test_every_element_arrives_where_words_differ_in_length(rows, most, axi, gaps, stalls):
    config, rng = _config(rows, axi, most=most), random.Random(f"{rows} {most} {axi}")
    blocks, stream = _blocks(config, rng, 20, longest=8)
    assert len({len(row) for _, block in blocks for row in block}) == most
    run(config, blocks, stream, gaps=gaps, stalls=stalls, seed=rows)


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
