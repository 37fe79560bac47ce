# SPDX-License-Identifier: Apache-2.0
"""GPTQ: columns make up for the rounding of those before them."""

import dataclasses

import pytest
import torch

from golden.commands.options import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.gptq import Gptq, GptqSettings, column_by_column
from golden.ptq.method import apply
from golden.ptq.repqvit import RepqVit, RepqVitSettings


def brain_surgeon(weight, item, gram, damping):
    """Optimal brain quantization of every row, one column after the other: equation 2 as it is."""
    hessian = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = weight.clone()
    for column in range(weight.shape[1]):
        rest = torch.linalg.inv(hessian[column:, column:])
        rounded = simulate(weight, item)[:, column]
        error = (weight[:, column] - rounded) / rest[0, 0]
        weight[:, column:] -= error[:, None] * rest[0]
        weight[:, column] = rounded
    return weight


@pytest.fixture(scope="module")
def layer():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    rows = torch.randn(200, 12, generator=generator, dtype=torch.float64) @ mixed
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    item = TensorFormat(kind="uniform", bits=4, axis=0, scale=(0.3,) * 5, zero_point=(7,) * 5)
    return weight, item, rows


def test_it_is_optimal_brain_quantization(layer):
    weight, item, rows = layer
    found = column_by_column(weight, item, rows.T @ rows)
    assert torch.allclose(found, brain_surgeon(weight, item, rows.T @ rows, 0.01), atol=1e-9)
    assert torch.equal(simulate(found, item), found)


@pytest.mark.parametrize("ordered", [False, True])
def test_outputs_are_nearer_than_with_rounding_to_nearest(layer, ordered):
    weight, item, rows = layer
    found = column_by_column(weight, item, rows.T @ rows, ordered=ordered)
    nearest = simulate(weight, item)
    far = [float(((one - weight) @ rows.T).square().mean()) for one in (found, nearest)]
    assert far[0] < 0.9 * far[1]


def test_inputs_that_are_always_zero_have_no_weight(layer):
    weight, item, rows = layer
    rows = rows.clone()
    rows[:, 3] = 0
    assert not column_by_column(weight, item, rows.T @ rows)[:, 3].any()


@pytest.mark.parametrize("damping", [0.0, -1.0, 10.0])
def test_damping_out_of_range_is_refused(damping):
    with pytest.raises(ValueError, match="damping must be above 0"):
        GptqSettings(damping=damping)


@pytest.mark.thorough
def test_digits_are_better_than_rounded_to_the_nearest():
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()
    batches = [sample.calibration.images[:50].float()[:, None] / 255]
    images = sample.test.images[:100].float()[:, None] / 255
    far = []
    for method in (Gptq(GptqSettings(weights=3, activations=8)),
                   RepqVit(RepqVitSettings(weights=3, activations=8))):
        record = method.decide(method.observe(model, batches))
        with torch.no_grad():
            far.append(float((apply(model, record)(images) - model(images)).square().mean()))
    assert far[0] < 0.8 * far[1]
    statistics = Gptq().observe(model, batches)
    with pytest.raises(TypeError, match="GPTQ has observed"):
        Gptq().decide(dataclasses.replace(RepqVit().observe(model, batches)))
    assert Gptq().decide(statistics) == Gptq().decide(statistics)
