# SPDX-License-Identifier: Apache-2.0
"""RepQ-ViT: searched ranges, and reparameterization that changes nothing but the grid."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit
from golden.ptq.formats import simulate
from golden.ptq.method import apply
from golden.ptq.record import Record
from golden.ptq.repqvit import (
    RepqVit,
    RepqVitSettings,
    asymmetric_weights,
    channel_affine,
    reparameterize,
)


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return [mnist.pixels(mnist.sample().calibration.images[:30])]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_channel_search_equals_one_channel_after_the_other():
    x = draw(4000, 3) * torch.tensor([1.0, 20.0, 0.1]) + torch.tensor([0.0, 5.0, 0.3])
    shares = (0.9, 0.99, 1.0)
    scale, zero = channel_affine(x, 4, shares)
    for channel in range(3):
        values, errors = x[:, channel].double(), []
        for share in shares:
            low = min(float(torch.quantile(values, 1 - share)), 0.0)
            high = max(float(torch.quantile(values, share)), 0.0)
            step = (high - low) / 15
            code = ((values / step).add(0.5).floor() + round(-low / step)).clamp(0, 15)
            real = (code - round(-low / step)) * step
            errors.append((float((real - values).square().sum()), step, round(-low / step)))
        _, step, offset = min(errors)
        assert float(scale[channel]) == pytest.approx(step)
        assert int(zero[channel]) == offset


def test_weights_are_asymmetric_per_output_channel():
    weight = draw(3, 50) + torch.tensor([[0.0], [2.0], [-2.0]])
    item = asymmetric_weights(weight, 8, (1.0,))
    error = (simulate(weight, item) - weight).abs().amax(1)
    assert bool((error <= torch.tensor(item.scale) * 0.51).all())
    assert item.zero_point[1] < 20 and item.zero_point[2] > 235


def test_reparameterization_moves_channel_grids_onto_one():
    x = draw(200, 6).double()
    gamma, beta = draw(6, seed=1) * torch.tensor([1, 10, 0.1, 1, 5, 1.0]), draw(6, seed=2)
    weight, bias = draw(4, 6, seed=3), draw(4, seed=4)
    before = layer_norm(x, (6,), gamma.double(), beta.double())
    scale, zero = channel_affine(before, 4, (0.99, 1.0))
    step, middle = float(scale.mean()), 7
    (new_gamma, new_beta), (new_weight, new_bias) = reparameterize(
        (gamma, beta), (weight, bias), scale, zero, (step, middle))
    after = layer_norm(x, (6,), new_gamma.double(), new_beta.double())
    # The same function ...
    torch.testing.assert_close(linear(after, new_weight.double(), new_bias.double()),
                               linear(before, weight.double(), bias.double()),
                               rtol=1e-4, atol=1e-4)
    # ... and a channel's code on the common grid is its code on its own grid.
    code = ((before / scale + 0.5).floor() + zero).clamp(0, 15)
    common = ((after / step + 0.5).floor() + middle).clamp(0, 15)
    # A rounding error of the folded parameters may move a value across a threshold.
    assert float((code == common).double().mean()) > 0.995


def test_folding_alone_keeps_the_function(model, batches):
    method = RepqVit(RepqVitSettings(weights=4, activations=4, symmetric=False))
    record = method.decide(method.observe(model, batches))
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in record.parameters} == {
        "norm1", "norm2", "qkv", "fc1"}
    assert len(record.parameters) == 4 * 8
    weight = "blocks.0.attn.qkv.weight"
    assert record.formats[weight] == asymmetric_weights(record.parameters[weight], 4,
                                                        method.settings.weight_shares)
    folded = apply(model, Record(method="x", settings={}, formats={},
                                 parameters=record.parameters))
    torch.testing.assert_close(folded(batches[0]), model(batches[0]), rtol=1e-3, atol=1e-3)


def test_formats(model, batches):
    method = RepqVit(RepqVitSettings(weights=4, activations=4))
    record = method.decide(method.observe(model, batches))
    assert record.formats["blocks.0.attn.softmax"].kind == "log-sqrt2"
    assert record.formats["input"].bits == 8
    assert not {"embedding", "blocks.0.residual1", "blocks.0.attn.scores"} & record.formats.keys()
    weight = record.formats["blocks.0.attn.qkv.weight"]
    assert weight.signed and (weight.zero_point, weight.bits, weight.axis) == (0, 4, 0)
    head = record.formats["head.weight"]
    assert isinstance(head.scale, float) and (head.signed, head.zero_point) == (True, 0)
    plain = RepqVit(RepqVitSettings(reparameterize=False, sqrt2=False))
    record = plain.decide(plain.observe(model, batches))
    assert not record.parameters and record.formats["blocks.0.attn.softmax"].kind == "log2"


def test_uneven_channels_need_the_folding(model, batches):
    # Multiply some channels of every LayerNorm output, and undo it in the next layer.
    uneven = apply(model, Record(method="x", settings={}, formats={}))
    gain = torch.ones(64)
    gain[::9] = 40
    for block in uneven.blocks:
        for norm, layer in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
            norm.weight.mul_(gain)
            norm.bias.mul_(gain)
            layer.weight.div_(gain)
    sample = mnist.sample().test
    few = mnist.Split(sample.images[:100], sample.labels[:100])
    right = {}
    for folding in (True, False):
        method = RepqVit(RepqVitSettings(weights=8, activations=4, reparameterize=folding))
        record = method.decide(method.observe(uneven, batches))
        right[folding] = mnist.accuracy(method.apply(uneven, record), few)
    assert right[True] > 0.93 and right[False] < right[True] - 0.2, right


def test_swin():
    model = Swin(SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2),
                          heads=(1, 2), window=4)).initialize(1).eval()
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    method = RepqVit()
    record = method.decide(method.observe(model, [batch]))
    assert len(record.parameters) == 4 * 8
    torch.testing.assert_close(method.apply(model, record)(batch), model(batch), atol=0.1, rtol=0)


def test_impossible_shares():
    with pytest.raises(ValueError, match="weight_shares must be numbers above"):
        RepqVitSettings(weight_shares=())
    with pytest.raises(ValueError, match="shares must be numbers above"):
        RepqVitSettings(shares=(1.5,))


def test_kept_values_are_few(model, batches):
    method = RepqVit(RepqVitSettings(kept=5000))
    rows = method.observe(model, batches).observed["blocks.0.norm1"].all_rows
    assert 2500 < rows.numel() <= 5000
    with pytest.raises(ValueError, match="kept must be at least 1, not 0"):
        RepqVitSettings(kept=0)
