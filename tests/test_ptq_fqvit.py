# SPDX-License-Identifier: Apache-2.0
"""FQ-ViT: what its factors and its softmax decide, and what they save."""

import dataclasses

import pytest
import torch
from torch import Tensor

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit
from golden.formats.ptf import power_of_two_factor
from golden.ptq.formats import simulate
from golden.ptq.fqvit import FqVit, FqVitSettings
from golden.ptq.integer_softmax import LogIntSoftmax
from golden.ptq.sites import sites
from golden.ptq.statistics import Statistics
from tests.records import differences
from tests.sample import leading


@pytest.fixture(scope="module")
def sample() -> mnist.Sample:
    whole = mnist.sample()
    few = mnist.Split(whole.test.images[:100], whole.test.labels[:100])
    return mnist.Sample(few, whole.calibration)


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def batches(sample: mnist.Sample) -> list[Tensor]:
    return list(mnist.pixels(sample.calibration.images).split(50))


@pytest.fixture(scope="module")
def statistics(model: Vit, batches: list[Tensor]) -> Statistics:
    return FqVit().observe(model, batches)


def test_formats_by_role(model, statistics, batches):
    record = FqVit().decide(statistics)
    kinds = {site.role: record.formats[site.name].kind for site in sites(model)}
    assert kinds == dict.fromkeys(kinds, "uniform") | {"stream": "shifted", "attention": "log2"}
    assert record.softmax == "polynomial"
    # The factors are those of the last batch, by the search that is equal to the official one.
    assert all(len(statistics.observed[site.name].rows) == 1 for site in statistics.sites
               if site.role in ("stream", "scores"))
    seen: dict[str, Tensor] = {}
    model.blocks[1].residual1.register_forward_hook(lambda _m, _i, out: seen.update(x=out))
    with torch.inference_mode():
        model(batches[-1])
    model.blocks[1].residual1._forward_hooks.clear()
    wanted = power_of_two_factor(seen["x"])
    paper = FqVit(FqVitSettings(class_token=False)).decide(statistics)
    found = paper.formats["blocks.1.residual1"]
    assert found.shift == tuple(wanted.shift.tolist())
    assert (found.scale, found.zero_point) == (wanted.scale, wanted.zero_point)


def test_eight_bit_attention_is_uniform(statistics):
    record = FqVit(FqVitSettings(attention=8)).decide(statistics)
    assert record.softmax == "float"
    assert record.formats["blocks.0.attn.softmax"].kind == "uniform"
    assert record.settings["ptf"] is True and record.settings["attention"] == 8


@pytest.mark.parametrize("softmax, attention", [("polynomial", 4), ("shift", 4), ("float", 4),
                                                ("polynomial", 8)])
def test_accuracy_on_digits(model, statistics, sample, softmax, attention):
    method = FqVit(FqVitSettings(attention=attention, softmax=softmax))
    simulated = method.apply(model, method.decide(statistics))
    integer = any(isinstance(module, LogIntSoftmax) for module in simulated.modules())
    assert integer == (softmax != "float" and attention == 4)
    assert mnist.accuracy(simulated, sample.test) >= mnist.accuracy(model, sample.test) - 0.02


@pytest.mark.parametrize("observer", leading(1, ["ema", "percentile", "omse"]))
def test_observers_on_digits(model, batches, sample, observer):
    method = FqVit(FqVitSettings(observer=observer))
    record = method.decide(method.observe(model, batches))
    plain = FqVit().decide(FqVit().observe(model, batches))
    assert differences(record, plain)
    right = mnist.accuracy(method.apply(model, record), sample.test)
    assert right >= mnist.accuracy(model, sample.test) - 0.02


def test_factors_save_a_stream_with_outlier_channels(model, batches, sample):
    # Four bits are few enough for the digits to need the factors.
    right = {}
    for ptf in (True, False):
        method = FqVit(FqVitSettings(activations=8, stream=3, ptf=ptf, attention=8))
        record = method.decide(method.observe(model, batches))
        kind = "shifted" if ptf else "uniform"
        assert record.formats["blocks.0.residual1"].kind == kind
        right[ptf] = mnist.accuracy(method.apply(model, record), sample.test)
    assert right[True] > right[False] + 0.05, right


def test_swin_with_masked_windows():
    model = Swin(SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2),
                          heads=(1, 2), window=4)).initialize(1).eval()
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    method = FqVit()
    record = method.decide(method.observe(model, [batch]))
    simulated = method.apply(model, record)
    got: dict[str, Tensor] = {}
    attention = simulated.layers[0].blocks[1].attn
    attention.softmax.register_forward_hook(lambda _m, i, out: got.update(x=i[0], p=out))
    simulated(batch)
    masked = got["x"] < -50
    assert bool(masked.any()) and not bool(got["p"][masked].any())
    assert bool((got["p"].sum(-1) > 0.7).all())
    assert torch.equal(simulate(got["p"], record.formats["layers.0.blocks.1.attn.softmax"]),
                       got["p"])


@pytest.mark.parametrize("wrong, message", [
    ({"observer": "mean"}, "observer must be one of minmax"), ({"softmax": "log"}, "softmax"),
    ({"levels": 0}, "levels must be 1 to 8"), ({"stream": 0}, "stream must be 3 to 8"),
    ({"share": 0.3}, "share"),
])
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        FqVitSettings(**wrong)


def test_the_class_token_may_count_for_the_factors(model, statistics):
    larger = {name: rows * 6 for name, rows in statistics.class_token.items()}
    grown = dataclasses.replace(statistics, class_token=larger)
    plain, counted = (FqVit(FqVitSettings(class_token=flag)).decide(grown)
                      for flag in (False, True))
    assert plain.formats == FqVit(FqVitSettings(class_token=False)).decide(statistics).formats
    name = "blocks.3.residual2"
    was, now = plain.formats[name], counted.formats[name]
    reach = [(item.scale * 2.0 ** torch.tensor(item.shift)).sum() for item in (was, now)]
    assert reach[1] > reach[0]
