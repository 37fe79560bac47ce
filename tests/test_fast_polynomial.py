# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT's softmax in floating point: the codes of its definition, ties included."""

import pytest
import torch

from golden.network.fast_polynomial import FastPolynomial
from golden.units.softmax_polynomial import polynomial_log_softmax, polynomial_scale
from vitforge.spec.config import Config


def definition(scores, scale, config):
    return polynomial_log_softmax(scores, torch.ones_like(scores, dtype=torch.bool), scale, config)


@pytest.mark.parametrize("bits", [3, 4, 5])
@pytest.mark.parametrize("step", [0.004, 0.02, 0.05, 0.0867, 0.125, 0.4, 0.9, 1.6])
def test_the_same_codes(bits, step):
    config = Config(attention_bits=bits)
    scale = polynomial_scale(step, config)
    fast = FastPolynomial(scale, config, 197)
    generator = torch.Generator().manual_seed(bits)
    scores = torch.randint(-128, 128, (300, 197), generator=generator)
    peaked = torch.randn(300, 197, generator=generator) * 2 / step
    for rows in (scores, peaked.round().clamp(-128, 127).long()):
        for keys in (1, 2, 3, 5, 197):   # a row of equal scores: its quotients are ties
            wanted = definition(rows[:, :keys], scale, config)
            assert torch.equal(fast(rows[:, :keys].double()).long(), wanted)
            level = torch.zeros(1, 1, keys)
            assert torch.equal(fast(level).long(), definition(level.long(), scale, config))


@pytest.mark.parametrize(("keys", "code"), [(2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (11, 3),
                                            (12, 4), (23, 4), (24, 5)])
def test_thresholds_of_equal_scores(keys, code):
    # 2 * sum / e is 2 * keys: from 3, above 5, from 11, 23, 47 on.
    config = Config()
    fast = FastPolynomial(polynomial_scale(0.1, config), config, 64)
    assert set(fast(torch.full((1, keys), -7.0)).flatten().tolist()) == {code}


def test_ties_are_exact():
    """Powers chosen so that ``2 * sum / e`` is 3, 5, 11, 23 and a little less, with large sums."""
    config = Config(attention_bits=4)
    fast = FastPolynomial(polynomial_scale(0.1, config), config, 8)
    for unit in (1.0, 3.0, float((1 << 30) + 1), float((1 << 36) - 3)):
        for twice, codes in ((3, (1, 0)), (5, (1, 1)), (11, (3, 2)), (23, (4, 3)), (47, (5, 4)),
                             (383, (8, 7))):
            for less, code in enumerate(codes):
                # Two keys: e = 2 * unit and (twice - 2) * unit, and one less.
                fast.powers = torch.tensor([(twice - 2) * unit - less, 2 * unit],
                                           dtype=torch.float64)
                if less and unit == 1.0 and twice == 3:
                    continue   # no power is left
                found = fast(torch.tensor([[1.0, 0.0]]))
                assert int(found[0, 1]) == code, (unit, twice, less)


def test_sums_that_may_be_inexact_are_refused():
    config = Config(iexp_shift=30)
    with pytest.raises(ValueError, match="sums may reach"):
        FastPolynomial(polynomial_scale(0.004, config), config, 197)
