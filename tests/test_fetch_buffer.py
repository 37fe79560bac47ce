# SPDX-License-Identifier: Apache-2.0
"""The fetch buffer is its model on every cycle, and the ring, but doesn't wait for the consumer."""

import random

import pytest
from amaranth.hdl import Module

from golden.machine.engines.fetch_buffer import FetchBufferModel
from hw.bus.fetch_buffer import FetchBuffer
from hw.layernorm.buffer import Ring
from tests.engine_bench import Cycle, Script, Trace, simulate
from vitforge.spec.words import Field, Word

BITS, DEPTH = 12, 8
CYCLES = 1500


def _trace(give, take, received):
    """Cycles of words that come and go at random; those that are taken also go to `received`."""
    rng = random.Random(f"{give} {take}")
    model = FetchBufferModel(DEPTH)
    waiting = []
    for _ in range(CYCLES):
        # As in the memory reader, no more words are sent than there are places.
        offer = len(waiting) < DEPTH and rng.random() < give
        word, accept = rng.getrandbits(BITS), rng.random() < take
        flags = {"i": offer}, {"o": accept}
        ready, valid = model.settle(*flags)
        # It never has more than its ring has room for, so it is always ready.
        cycle = Cycle({"i.valid": offer, "i.payload": word, "o.ready": accept},
                      {"i.ready": 1, "o.valid": valid["o"]})
        assert ready["i"]
        if valid["o"]:
            cycle.outputs["o.payload"] = waiting[0]
            if accept:
                received.append((waiting.pop(0), len(waiting)))
        if offer:
            waiting.append(word)
        model.clock(*flags)
        yield cycle


@pytest.mark.parametrize(("give", "take"), [
    (1, 1), (1, 0.5), (0.5, 1), (0.3, 0.3), (0.9, 0.8), (1, 0.1), (0.1, 0.9)])
def test_words_come_on_the_cycles_of_the_model_and_of_the_ring(give, take):
    m = Module()
    m.submodules.buffer = buffer = FetchBuffer(BITS, DEPTH)
    m.submodules.ring = ring = Ring(Word((Field("data", BITS),)), DEPTH)
    received = []
    both = Trace(buffer, _trace(give, take, received)), Trace(ring, _trace(give, take, []))
    simulate(m, both)
    assert both[0].played == both[1].played == CYCLES
    assert len(received) > 100
    assert max(left for _, left in received) == DEPTH - 1 or give < 0.6 or take == 1


def test_reading_does_not_depend_on_the_consumer():
    """What the consumer says in a cycle changes no output of that cycle."""
    dut = FetchBuffer(BITS, DEPTH)

    def steps(ctx):
        for word in range(6):
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, word)
            before = ctx.get(dut.o.payload)
            ctx.set(dut.o.ready, 1)
            assert ctx.get(dut.o.payload) == before
            ctx.set(dut.o.ready, 0)
            yield
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        for word in range(6):
            assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, word)
            yield
        assert ctx.get(dut.o.valid) == 0

    simulate(dut, [Script(steps)])


@pytest.mark.parametrize("depth", [0, 1, 3, 12])
def test_depth_is_a_power_of_two(depth):
    with pytest.raises(ValueError, match=f"power of two from 2, not {depth}"):
        FetchBuffer(BITS, depth)
