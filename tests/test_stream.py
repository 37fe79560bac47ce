# SPDX-License-Identifier: Apache-2.0
"""The skid buffer and its model agree on every cycle, and the buffer's ready is a register's."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from golden.units.stream import PipelineModel
from hw.lib.stream import Skid
from tests.sample import leading
from vitforge.spec.words import Field, Word

WORD = Word((Field("x", 12),))


@pytest.mark.parametrize(("give", "take"), leading(2, [
    (0.5, 0.5), (1, 0.3), (1, 1), (0.3, 1), (0.9, 0.9)]))
def test_skid_is_its_model_on_every_cycle(give, take):
    rng = random.Random(f"{give} {take}")
    dut, model = Skid(WORD), PipelineModel(stages=0)
    words = [rng.getrandbits(12) for _ in range(400)]
    received = []

    async def bench(ctx):
        sent, offered = 0, False
        for cycle in range(3000):
            offered = offered or (rng.random() < give and sent < len(words))
            accept = rng.random() < take
            ctx.set(dut.i.valid, offered)
            ctx.set(dut.i.payload, {"x": words[sent] if offered else rng.getrandbits(12)})
            flags = {"i": offered}, {"o": accept}
            ready, valid = model.settle(*flags)
            # Before the consumer's ready is known: the buffer must not look at it.
            ctx.set(dut.o.ready, not accept)
            assert ctx.get(dut.i.ready) == ready["i"], cycle
            ctx.set(dut.o.ready, accept)
            assert ctx.get(dut.i.ready) == ready["i"], cycle
            assert ctx.get(dut.o.valid) == valid["o"], cycle
            if valid["o"] and accept:
                received.append(ctx.get(dut.o.payload.x))
            model.clock(*flags)
            if offered and ready["i"]:
                sent, offered = sent + 1, False
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert received == words


@pytest.mark.parametrize("give", [0.3, 0.9, 1])
def test_flowing_skid_is_a_skid_whose_consumer_is_always_ready(give):
    rng = random.Random(give)
    skids = [Skid(WORD), Skid(WORD, flowing=True)]

    async def bench(ctx):
        ctx.set(skids[0].o.ready, 1)
        for cycle in range(400):
            offer, word = rng.random() < give, rng.getrandbits(12)
            for skid in skids:
                ctx.set(skid.i.valid, offer)
                ctx.set(skid.i.payload, {"x": word})
                assert ctx.get(skid.i.ready), cycle
            assert ctx.get(skids[0].o.valid) == ctx.get(skids[1].o.valid), cycle
            if ctx.get(skids[0].o.valid):
                assert ctx.get(skids[0].o.payload) == ctx.get(skids[1].o.payload), cycle
            await ctx.tick()

    m = Module()
    m.submodules += skids
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
