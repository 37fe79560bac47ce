# SPDX-License-Identifier: Apache-2.0
"""The one rounding and the one saturation."""

import pytest
import torch

from golden.units.arithmetic import integers, round_shift, saturate


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
