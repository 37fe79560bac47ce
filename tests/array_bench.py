# SPDX-License-Identifier: Apache-2.0
"""The systolic array in Amaranth's own simulator, beside the golden model on every cycle."""

from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from sim.cases.systolic import cases
from sim.cases.trace import trace


def on_every_cycle(unit, names, *, flowing):
    """Play cases of a configuration, by name, one after the other; fail where a cycle differs."""
    config = unit.config
    found = {case.name: case for case in cases(config, 3)}
    word = unit.words(config)

    async def bench(ctx):
        for name in names:
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            for number, cycle in enumerate(
                    trace(found[name], word, "random", "flow" if flowing else "random")):
                for port in ("w", "a"):
                    ctx.set(getattr(unit, port).valid, cycle.offer[port])
                    ctx.set(getattr(unit, port).p.as_value(), cycle.payload[port])
                # One that flows must not look at it.
                ctx.set(unit.o.ready, cycle.accept["o"] and not flowing)
                assert (ctx.get(unit.w.ready), ctx.get(unit.a.ready), ctx.get(unit.o.valid)) == (
                    cycle.ready["w"], cycle.ready["a"], cycle.valid["o"]), (name, number)
                if cycle.valid["o"]:
                    assert ctx.get(unit.o.p.as_value()) == cycle.result["o"], (name, number)
                await ctx.tick()

    reset = Signal()
    simulator = Simulator(ResetInserter(reset)(unit))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
