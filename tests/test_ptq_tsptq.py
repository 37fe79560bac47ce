# SPDX-License-Identifier: Apache-2.0
"""TSPTQ-ViT, a reconstruction: what its search minimizes, and what its two scales save."""

import pytest
import torch
from torch import Tensor, nn

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit
from golden.ptq.formats import simulate
from golden.ptq.method import Settings, apply
from golden.ptq.minmax import MinMax
from golden.ptq.ranges import channel_weights
from golden.ptq.sites import sites
from golden.ptq.tsptq import Tsptq, TsptqSettings, output_weights, squared_gradients
from tests.records import differences


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return list(mnist.pixels(mnist.sample().calibration.images[:20]).split(10))


@pytest.fixture(scope="module")
def few() -> mnist.Split:
    test = mnist.sample().test
    return mnist.Split(test.images[:100], test.labels[:100])


def test_gradients_are_those_of_finite_differences(model, batches):
    found = sites(model)
    squares = squared_gradients(model, batches, found, 1 << 30)
    assert squares.keys() == {site.name for site in found} - {"input"}
    assert squares["norm"].shape == (20, 64)
    batch, shape = batches[0], squares["blocks.3.mlp.act"].shape
    assert shape == (20 * 50, 128)
    assert all(item.grad is None for item in model.parameters())
    wanted = model(batch).argmax(1)

    def loss(step: float) -> float:
        def hook(_module, _inputs, out):
            out = out.clone()
            out[2, 0, 5] += step
            return out
        handle = model.blocks[3].mlp.act.register_forward_hook(hook)
        with torch.inference_mode():
            value = nn.functional.cross_entropy(model(batch).double(), wanted, reduction="sum")
        handle.remove()
        return float(value)

    slope = (loss(0.02) - loss(-0.02)) / 0.04
    assert float(squares["blocks.3.mlp.act"][2 * 50, 5]) == pytest.approx(slope**2, rel=0.05)
    frozen = apply(model, MinMax().record({}))
    again = squared_gradients(frozen, batches, found, 1 << 30)
    torch.testing.assert_close(again["norm"], squares["norm"])
    assert not any(item.requires_grad for item in frozen.parameters())


def test_weight_scales_minimize_the_output_error():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 8, generator=generator) * torch.tensor([5.0] + 7 * [0.1])
    weight = torch.randn(6, 8, generator=generator)
    weight[:, 7] = 4.0                     # large, and multiplied by small values only
    shares = (1.0, 0.8, 0.6, 0.4, 0.2)
    whole, found = channel_weights(weight, 3), output_weights(weight.double(), rows, 3, shares)

    def errors(scale: Tensor) -> Tensor:
        step = scale[:, None]
        change = (weight.double() / step + 0.5).floor().clamp(-4, 3) * step - weight
        return (rows.double() @ change.T).square().sum(0)

    scale = torch.tensor(whole.scale, dtype=torch.float64)
    table = torch.stack([errors(scale * share) for share in shares])
    chosen = errors(torch.tensor(found.scale, dtype=torch.float64))
    torch.testing.assert_close(chosen, table.min(0).values)
    assert bool((table.min(0).values < table[0]).any())


def test_search_prefers_what_the_gradients_weigh(model, batches):
    method = Tsptq(TsptqSettings(activations=4, kept=1 << 14))
    statistics = method.observe(model, batches)
    record = method.decide(statistics)
    plain = Tsptq(TsptqSettings(activations=4, hessian=False, kept=1 << 14))
    other = plain.decide(plain.observe(model, batches))
    assert differences(record, other)

    def error(name: str, formats) -> float:
        rows = statistics.observed[name].all_rows
        weighted = (simulate(rows, formats[name]) - rows).square() * statistics.importance[name]
        return float(weighted.double().sum())

    names = [name for name in differences(record, other) if name in statistics.importance]
    assert names
    assert all(error(name, record.formats) < error(name, other.formats) for name in names)


def test_formats(model, batches):
    method = Tsptq(TsptqSettings(kept=1 << 14))
    record = method.decide(method.observe(model, batches))
    kinds = {site.role: record.formats[site.name].kind for site in sites(model)}
    assert kinds == dict.fromkeys(kinds, "uniform") | {
        "stream": "shifted", "attention": "two-scale", "gelu": "two-scale"}
    assert record.formats["blocks.0.mlp.act"].signed
    assert not record.formats["blocks.0.attn.softmax"].signed
    off = Tsptq(TsptqSettings(value_scales=False, outlier_scales=False, kept=1 << 14))
    record = off.decide(off.observe(model, batches))
    assert {item.kind for item in record.formats.values()} == {"uniform"}


@pytest.mark.thorough
def test_accuracy(model, batches, few):
    right = {}
    for bits in (8, 4):
        method = Tsptq(TsptqSettings(weights=bits, activations=bits, stream=bits))
        record = method.decide(method.observe(model, batches))
        right[bits] = mnist.accuracy(method.apply(model, record), few)
    plain = MinMax(Settings(weights=4, activations=4, stream=4))
    simulated = plain.apply(model, plain.decide(plain.observe(model, batches)))
    assert right[8] >= mnist.accuracy(model, few) - 0.01
    assert right[4] >= mnist.accuracy(simulated, few)


def test_outlier_channels_of_the_stream_have_their_own_scale(model, batches):
    method = Tsptq(TsptqSettings(kept=1 << 14))
    loud = apply(model, method.record({}))
    # A constant in one channel of the stream.
    loud.pos_embed[..., 7] += 100
    record = method.decide(method.observe(loud, batches))
    shift = record.formats["embedding"].shift
    assert shift[7] == 5 or shift[7] == 6
    assert set(shift) == {0, shift[7]} and sum(map(bool, shift)) == 1


def test_swin():
    model = Swin(SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2),
                          heads=(1, 2), window=4)).initialize(1).eval()
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    method = Tsptq()
    record = method.decide(method.observe(model, [batch]))
    torch.testing.assert_close(method.apply(model, record)(batch), model(batch), atol=0.1, rtol=0)


@pytest.mark.parametrize("wrong", [{"threshold": 1}, {"least": 0}, {"largest_m": 7},
                                   {"candidates": 0}, {"kept": 0}])
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TsptqSettings(**wrong)
