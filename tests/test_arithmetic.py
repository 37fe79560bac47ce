# SPDX-License-Identifier: Apache-2.0
"""The one rounding and the one saturation: golden, gateware and the formula agree."""

import pytest
import torch
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator

from golden.arithmetic import integers, round_shift, saturate
from hw.arithmetic import round_shift as hw_round_shift
from hw.arithmetic import saturate as hw_saturate


@pytest.mark.parametrize("amount", [0, 1, 2, 7])
def test_round_shift_rounds_half_up(amount):
    values = torch.arange(-600, 600)
    wanted = [(v + (1 << amount - 1) if amount else v) >> amount for v in values.tolist()]
    assert round_shift(values, amount).tolist() == wanted


def test_round_shift_takes_a_shift_for_every_element():
    values = torch.tensor([-3, -2, -1, 0, 1, 2, 3, 2**40 + 1])
    shifts = torch.tensor([1, 1, 1, 0, 0, 2, 1, 1])
    assert round_shift(values, shifts).tolist() == [-1, -1, 0, 0, 1, 1, 2, 2**39 + 1]


def test_floats_are_refused_by_name():
    with pytest.raises(TypeError, match=r"^value must be integers, not torch\.float32$"):
        round_shift(torch.zeros(2), 1)
    with pytest.raises(TypeError, match=r"^value must be integers"):
        saturate(torch.zeros(2, dtype=torch.float64), 0, 1)
    with pytest.raises(TypeError, match=r"^gamma must be integers"):
        integers(beta=torch.zeros(1, dtype=torch.int64), gamma=torch.zeros(1))


@pytest.mark.parametrize(("amount", "low", "high"), [(0, -128, 127), (1, -128, 127), (3, 0, 255),
                                                     (4, -3, 200), (2, 5, 9)])
def test_gateware_is_the_golden_function(amount, low, high):
    m = Module()
    value, rounded, clamped = Signal(signed(12)), Signal(signed(16)), Signal(signed(16))
    m.d.comb += [rounded.eq(hw_round_shift(value, amount)),
                 clamped.eq(hw_saturate(hw_round_shift(value, amount), low, high))]
    values = torch.arange(-2048, 2048)
    golden = round_shift(values, amount)
    wanted = list(zip(values.tolist(), golden.tolist(), saturate(golden, low, high).tolist(),
                      strict=True))
    checked = 0

    async def bench(ctx):
        nonlocal checked
        for number, want_rounded, want_clamped in wanted:
            ctx.set(value, number)
            assert ctx.get(rounded) == want_rounded
            assert ctx.get(clamped) == want_clamped
            checked += 1

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert checked == 4096
