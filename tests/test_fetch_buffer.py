# SPDX-License-Identifier: Apache-2.0
"""The fetch buffer is the ring on every cycle, but its memory doesn't wait for the consumer."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from hw.bus.fetch_buffer import FetchBuffer
from hw.layernorm.buffer import Ring
from vitforge.spec.words import Field, Word

BITS, DEPTH = 12, 8


@pytest.mark.parametrize(("give", "take"), [
    (1, 1), (1, 0.5), (0.5, 1), (0.3, 0.3), (0.9, 0.8), (1, 0.1), (0.1, 0.9)])
def test_words_come_on_the_cycles_of_the_ring(give, take):
    rng = random.Random(f"{give} {take}")
    dut, ring = FetchBuffer(BITS, DEPTH), Ring(Word((Field("data", BITS),)), DEPTH)
    held = most = 0
    received = []

    async def bench(ctx):
        nonlocal held, most
        sent = []
        for cycle in range(1500):
            # As in the memory reader, no more words are sent than there are places.
            offer = held < DEPTH and rng.random() < give
            word, accept = rng.getrandbits(BITS), rng.random() < take
            ctx.set(dut.i.valid, offer)
            ctx.set(ring.i.valid, offer)
            ctx.set(dut.i.payload, word)
            ctx.set(ring.i.payload, {"data": word})
            assert ctx.get(dut.i.ready) == 1
            for unit in (dut, ring):
                ctx.set(unit.o.ready, accept)
            valid = ctx.get(dut.o.valid)
            assert valid == ctx.get(ring.o.valid), cycle
            if valid:
                assert ctx.get(dut.o.payload) == ctx.get(ring.o.payload.data), cycle
                assert ctx.get(dut.o.payload) == sent[len(received)], cycle
                if accept:
                    received.append(ctx.get(dut.o.payload))
            if offer:
                sent.append(word)
            held += offer - bool(valid and accept)
            most = max(most, held)
            await ctx.tick()

    m = Module()
    m.submodules += [dut, ring]
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(received) > 100
    assert most == DEPTH or give < 0.6 or take == 1


def test_reading_does_not_depend_on_the_consumer():
    """What the consumer says in a cycle changes no output of that cycle."""
    dut = FetchBuffer(BITS, DEPTH)

    async def bench(ctx):
        for word in range(6):
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, word)
            before = ctx.get(dut.o.payload)
            ctx.set(dut.o.ready, 1)
            assert ctx.get(dut.o.payload) == before
            ctx.set(dut.o.ready, 0)
            await ctx.tick()
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        for word in range(6):
            assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, word)
            await ctx.tick()
        assert ctx.get(dut.o.valid) == 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("depth", [0, 1, 3, 12])
def test_depth_is_a_power_of_two(depth):
    with pytest.raises(ValueError, match=f"power of two from 2, not {depth}"):
        FetchBuffer(BITS, depth)
