# SPDX-License-Identifier: Apache-2.0
"""Networks for a requantizer that only shifts: every ratio is a power of two, exactly."""

import dataclasses

import pytest
import torch

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.deploy.network import deploy
from golden.float import checkpoint
from golden.network import plan
from golden.network.calibrate import calibrate
from golden.network.shift_only import coarser
from golden.ptq import METHODS
from tests.sample import leading
from vitforge.spec.config import load

CONFIG = dataclasses.replace(load("tiny"), multiplier_bits=1)


def test_coarser_is_the_next_power_of_two_of_a_unit():
    step = torch.tensor([1.0, 0.5, 0.75, 0.500001, 1.999, 3e-9], dtype=torch.float64)
    assert coarser(step[:5], 1.0).tolist() == [1.0, 0.5, 1.0, 1.0, 2.0]
    for unit in (0.3, 1e-7, torch.tensor([[7.0], [0.1]], dtype=torch.float64)):
        found = coarser(step, unit)
        fraction, _ = torch.frexp(found / unit)
        assert bool((fraction == 0.5).all() & (found >= step).all() & (found < 2 * step).all())


@pytest.mark.parametrize("changes", leading(1, [
    {}, {"attention": "uniform", "attention_bits": 8},
    {"attention": "table", "weight_bits": 7}]), ids=str)
def test_all_ratios_are_shifts(changes, monkeypatch):
    ratios = []

    def seen(ratio, config):
        ratios.append(ratio)
        return dyadic(ratio, config)

    dyadic = plan.dyadic
    monkeypatch.setattr(plan, "dyadic", seen)
    images = mnist.sample().calibration.images
    calibrate(checkpoint.load(WEIGHTS), images, dataclasses.replace(CONFIG, **changes))
    powers = 2.0 ** torch.tensor(ratios, dtype=torch.float64).log2().round()
    # Products of a few steps, each rounded to double precision.
    assert bool(((torch.tensor(ratios, dtype=torch.float64) / powers - 1).abs() < 1e-15).all())
    assert len(ratios) > 1000 and len(set(powers.tolist())) > 5
    ratios.clear()
    calibrate(checkpoint.load(WEIGHTS), images, dataclasses.replace(load("tiny"), **changes))
    powers = 2.0 ** torch.tensor(ratios, dtype=torch.float64).log2().round()
    assert not bool(((torch.tensor(ratios) / powers - 1).abs() < 1e-3).all())


def test_steps_of_narrow_weights_would_need_a_left_shift():
    with pytest.raises(ValueError, match=r"^ratio must be below 2\*\*1, not 4"):
        calibrate(checkpoint.load(WEIGHTS), mnist.sample().calibration.images,
                  dataclasses.replace(CONFIG, weight_bits=4))


def test_records_have_other_ratios():
    model = checkpoint.load(WEIGHTS)
    method = METHODS["minmax"]()
    images = mnist.sample().calibration.images[:8].float()[:, None] / 255
    statistics = method.observe(model, [images])
    with pytest.raises(ValueError, match=r"^multiplier_bits must be at least 2 \(.*for a record"):
        deploy(model, method.decide(statistics), CONFIG, statistics=statistics)
