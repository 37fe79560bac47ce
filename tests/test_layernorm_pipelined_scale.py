# SPDX-License-Identifier: Apache-2.0
"""Factors of LayerNorm rows at one a cycle: the bits of the golden root, and the cycle."""

import pytest
import torch
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from golden.units.layernorm import reciprocal_root
from hw.layernorm.pipelined_scale import PipelinedRowScale
from vitforge.spec.config import Config, load
from vitforge.spec.layernorm_widths import NormFormat

CONFIGS = [
    load("tiny"),
    load("edge16"),
    Config(name="widest", norm_bits=16, rsqrt_bits=18),
    # The table's argument is longer than the variance.
    Config(name="narrow", norm_bits=8, max_channels=4, lanes=2, rsqrt_bits=18),
    Config(name="single", norm_bits=8, max_channels=1, lanes=1, rsqrt_bits=8),
]


def _totals(config, rng, rows):
    """Return counts, sums and variances: extremes first, then every magnitude."""
    width = NormFormat(config)
    top = 1 << width.sum_bits - 1
    extremes = [(config.max_channels, total, variance)
                for total in (-top, top - 1, -1, 0)
                for variance in (0, 1, 2, 3, (1 << width.variance_bits) - 1,
                                 *(1 << bit for bit in range(2, width.variance_bits)))]
    bits = torch.randint(1, width.variance_bits + 1, (rows,), generator=rng)
    wide = torch.randint(0, 1 << 62, (rows,), generator=rng)
    drawn = zip(torch.randint(1, config.max_channels + 1, (rows,), generator=rng).tolist(),
                torch.randint(-top, top, (rows,), generator=rng).tolist(),
                (wide >> 62 - bits).tolist(), strict=True)
    return [*extremes, *drawn]


def _wanted(totals, config):
    count, total, variance = map(torch.tensor, zip(*totals, strict=True))
    root, up = reciprocal_root(variance, config)
    step = NormFormat(config).coarse_step
    return list(zip((count << up % step).tolist(), (total << up % step).tolist(),
                    (up // step).tolist(), root.tolist(), strict=True))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_factors_leave_a_fixed_number_of_cycles_after_their_totals(config):
    rng = torch.Generator().manual_seed(1)
    totals = _totals(config, rng, 400)
    # Back to back at first, then with gaps.
    gaps = (torch.rand(len(totals), generator=rng) < 0.3).tolist()
    dut = PipelinedRowScale(config)
    given, taken = [], []

    async def bench(ctx):
        cycle = 0
        rows = list(totals)
        while rows or cycle < given[-1] + dut.latency + 5:
            send = bool(rows) and (len(rows) > len(totals) // 2 or not gaps[len(rows)])
            ctx.set(dut.i.valid, send)
            if send:
                count, total, variance = rows.pop(0)
                ctx.set(dut.i.p, {"count": count, "total": total, "variance": variance})
                given.append(cycle)
            elif rows:
                gaps[len(rows)] = False     # one cycle is the gap
            if ctx.get(dut.o.valid):
                taken.append((cycle, *(ctx.get(dut.o.p[name])
                                       for name in ("count", "total", "coarse", "root"))))
            await ctx.tick()
            cycle += 1

    simulator = Simulator(Fragment.get(dut, None))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert [row[0] for row in taken] == [cycle + dut.latency for cycle in given]
    assert [row[1:] for row in taken] == _wanted(totals, config)


def test_latency_of_the_presets():
    assert [PipelinedRowScale(load(name)).latency for name in ("tiny", "edge8", "edge16")] \
        == [9, 9, 9]
