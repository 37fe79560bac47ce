# SPDX-License-Identifier: Apache-2.0
"""The bound of a row's operands holds for the integer softmax, whatever the scores."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golden.formats.attention import log2_format
from golden.units.softmax import ShiftScale, log_softmax
from golden.units.softmax_bound import row_bound
from vitforge.spec.config import Config, load

BASE = load("edge16")


def total(scores: Tensor, keep: Tensor, multiplier: int, config: Config) -> Tensor:
    """Sum of the operands of each row."""
    codes = log_softmax(scores, keep, ShiftScale(multiplier), config)
    return log2_format(config.attention_bits).operand(codes).sum(-1)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    return dataclasses.replace(
        BASE, lanes=draw(st.sampled_from((1, 2, 4, 16))), attention_bits=draw(st.integers(3, 5)),
        exp_fraction_bits=draw(st.integers(4, 14)), exp_table_bits=draw(st.integers(0, 6)))


@st.composite
def rows(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Draw a row of runs of equal or climbing scores: many small powers before and after larger."""
    runs = draw(st.lists(st.tuples(st.integers(-128, 127), st.integers(-3, 3),
                                   st.sampled_from((1, 1, 2, 3, 5, 17, 200))), min_size=1,
                         max_size=9))
    scores = torch.tensor([min(max(first + step * number, -128), 127)
                           for first, step, count in runs for number in range(count)])[:1024]
    masked = draw(st.integers(0, len(scores)))
    keep = torch.ones(len(scores), dtype=torch.bool)
    keep[len(scores) - masked // 4:] = False
    return scores, keep


@pytest.mark.thorough
@settings(max_examples=150, deadline=None)
@given(configs(), rows(), st.integers(1, (1 << 17) - 1) | st.integers(1, 4000))
def test_no_row_adds_up_to_more(config: Config, row: tuple[Tensor, Tensor],
                                multiplier: int) -> None:
    scores, keep = row
    assert int(total(scores, keep, multiplier, config)) <= row_bound(int(keep.sum()), config)


@pytest.mark.parametrize("keys", [180, 720])
def test_equal_scores_come_near(keys: int) -> None:
    """Of so many keys each probability is a little more than ``2**-7.5``, or ``2**-9.5``."""
    scores = torch.zeros(1, keys, dtype=torch.int64)
    found = int(total(scores, torch.ones_like(scores, dtype=torch.bool), 1000, BASE))
    power = 1 << int(math.log2(keys))
    assert found == keys * (1 << 15) // power > 1.406 * (1 << 15)
    assert found <= row_bound(keys, BASE)


def test_keys_below_the_sum_are_in_the_bound() -> None:
    """All keys but the last are lost when the reference grows, so the total is too small."""
    keys = 1024
    multiplier = round(16 / 255 * (1 << BASE.score_bits + 8))
    scores = torch.full((1, keys), -128)
    scores[0, -1] = 127
    keep = torch.ones_like(scores, dtype=torch.bool)
    found = int(total(scores, keep, multiplier, BASE))
    assert (1 << 15) <= found <= row_bound(keys, BASE)


def test_the_bound_is_little_more_than_the_rounding() -> None:
    for keys in (1, 50, 577, 1024):
        bound = row_bound(keys, BASE) / (1 << 15)
        assert math.sqrt(2) * (1 + keys / 2**15) * 0.999 < bound < 1.47
