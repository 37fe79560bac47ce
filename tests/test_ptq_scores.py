# SPDX-License-Identifier: Apache-2.0
"""Ranges of scores by the error of their softmax."""

import pytest
import torch

from golden.ptq.integer_softmax import LogIntSoftmax
from golden.ptq.ranges import affine
from golden.ptq.scores import score_search
from golden.ptq.statistics import Observed


def observed(rows):
    return Observed(rows.min()[None], rows.max()[None], (rows,))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scores_without_weight_are_clipped():
    rows = draw(400, 17) * 2
    rows[:, 3] = -90   # no probability of it is above 1e-30
    item = score_search(observed(rows), 6)
    whole = affine(float(rows.min()), float(rows.max()), 6)
    assert item.scale < whole.scale / 2
    assert (63 - item.zero_point) * item.scale > float(rows.max()) * 0.8


def test_even_scores_keep_their_range():
    rows = torch.linspace(-1, 1, 21).expand(5, -1)   # all of about the same weight
    item = score_search(observed(rows), 8)
    assert item.scale == pytest.approx(2 / 255, rel=0.06)


def test_the_error_is_that_of_the_softmax_that_is_used():
    rows = draw(300, 30, seed=1) * 4
    seen, taken = observed(rows), []

    def softmax(item):
        taken.append(item)
        return LogIntSoftmax(item, 4, "polynomial")

    item = score_search(seen, 8, softmax)
    wanted = rows.softmax(-1)

    def error(candidate):
        return float((softmax(candidate)(rows) - wanted).square().sum())

    assert item in taken and error(item) < error(affine(float(rows.min()), float(rows.max()), 8))

    def none(item):
        raise ValueError("s must lie in nothing")

    with pytest.raises(ValueError, match="s must lie in nothing"):
        score_search(seen, 8, none)
