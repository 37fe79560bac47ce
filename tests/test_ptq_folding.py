# SPDX-License-Identifier: Apache-2.0
"""Folding by channel: the same function, and activations as uneven as they are meant to be."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.ptq.folding import fold, folded, network, readers, rescaled
from golden.ptq.statistics import collect


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def networks() -> list[Vit | Swin]:
    vit = VitSpec(image_size=8, dim=8, depth=2, heads=2, mlp_hidden=16)
    swin = SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2), heads=(1, 2),
                    window=4)
    return [Vit(vit).initialize(1).eval(), Swin(swin).initialize(1).eval()]


def test_output_is_divided_and_shifted_and_the_next_layer_unchanged():
    x, ratio, shift = draw(50, 6).double(), draw(6, seed=1).exp(), draw(6, seed=2)
    gamma, beta, weight, bias = (draw(*shape, seed=3) for shape in ((6,), (6,), (9, 6), (9,)))
    norm, layer = fold((gamma, beta), (weight, bias), ratio, shift)
    before = layer_norm(x, (6,), gamma.double(), beta.double())
    after = layer_norm(x, (6,), norm[0].double(), norm[1].double())
    torch.testing.assert_close(after, before / ratio - shift, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(linear(after, layer[0].double(), layer[1].double()),
                               linear(before, weight.double(), bias.double()),
                               atol=1e-5, rtol=1e-5)
    assert {item.dtype for item in (*norm, *layer)} == {torch.float32}


def test_a_layer_without_bias_takes_no_shift():
    norm, layer = fold((draw(6), draw(6)), (draw(9, 6), None), torch.full((6,), 2.0),
                       torch.zeros(6))
    assert torch.equal(norm[0], draw(6) / 2) and layer[1] is None
    assert torch.equal(layer[0], draw(9, 6) * 2)
    with pytest.raises(ValueError, match="must not have a shift"):
        fold((draw(6), draw(6)), (draw(9, 6), None), torch.ones(6), torch.ones(6))


def test_readers_are_the_layers_behind_each_norm():
    vit, swin = networks()
    assert readers(vit) == {
        "blocks.0.norm1": "blocks.0.attn.qkv", "blocks.0.norm2": "blocks.0.mlp.fc1",
        "blocks.1.norm1": "blocks.1.attn.qkv", "blocks.1.norm2": "blocks.1.mlp.fc1",
        "norm": "head"}
    found = readers(swin)
    assert found["layers.1.downsample.norm"] == "layers.1.downsample.reduction"
    assert found["layers.0.blocks.1.norm1"] == "layers.0.blocks.1.attn.qkv"
    assert len(found) == 4 * 2 + 1 and "norm" not in found


@pytest.mark.parametrize("index", [0, 1])
def test_folding_every_norm_preserves_the_function(index):
    model = networks()[index]
    spec = model.spec
    batch = torch.rand(3, spec.in_channels, spec.image_size, spec.image_size,
                       generator=torch.Generator().manual_seed(0))
    state = {name: value.detach() for name, value in model.named_parameters()}
    changed: dict[str, Tensor] = {}
    for norm, layer in readers(model).items():
        count = len(state[f"{norm}.weight"])
        shift = draw(count, seed=2) if f"{layer}.bias" in state else None
        changed |= folded(state, norm, layer, draw(count, seed=1).exp(), shift)
    before = model(batch)
    torch.testing.assert_close(network(model, changed)(batch), before, atol=1e-4, rtol=1e-4)
    assert torch.equal(model(batch), before), "the given network has changed"
    norm = next(iter(readers(model)))
    torch.testing.assert_close(changed[f"{norm}.weight"],
                               state[f"{norm}.weight"] / draw(len(changed[f"{norm}.weight"]),
                                                              seed=1).exp())


def test_rescaled_network_computes_the_same_from_uneven_channels():
    model = checkpoint.load(WEIGHTS)
    uneven = rescaled(model, 40)
    batch = mnist.pixels(mnist.sample().calibration.images[:10])
    torch.testing.assert_close(uneven(batch), model(batch), atol=2e-4, rtol=1e-3)
    before, after = (collect(item, [batch], most=1 << 30).observed for item in (model, uneven))
    for name in readers(model):
        gain = after[name].all_rows.abs().amax(0) / before[name].all_rows.abs().amax(0)
        assert float(gain.max()) == pytest.approx(40, rel=1e-3)
        assert float(gain.min()) == pytest.approx(1, rel=1e-3)
        assert 1.2 < float(gain.median()) < 1.25 and int((gain > 10).sum()) < 16
    gains = [rescaled(model, 40, seed).norm.weight / model.norm.weight for seed in (0, 0, 1)]
    assert torch.equal(gains[0], gains[1]) and not torch.equal(gains[0], gains[2])
    assert torch.equal(rescaled(model, 1).norm.weight, model.norm.weight)
    with pytest.raises(ValueError, match=r"spread must be at least 1, not 0\.5"):
        rescaled(model, 0.5)
