# SPDX-License-Identifier: Apache-2.0
"""DopQ-ViT, a reconstruction: tangent levels, their search and their integers, and medians."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.deploy.network import deploy, suited
from golden.float import checkpoint
from golden.float.vit import Vit
from golden.formats.tangent import tangent_levels, tangent_thresholds
from golden.ptq.codebook import Values
from golden.ptq.dopq import DopqVit, DopqVitSettings, tangent_format, tangent_search
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.ranges import squared_error
from golden.ptq.record import Record
from golden.ptq.repqvit import RepqVit, RepqVitSettings, channel_affine
from golden.ptq.weights import SHARES as WEIGHT_SHARES
from tests.records import differences
from tests.tangent import tangent_table
from vitforge.spec.config import load
from vitforge.spec.probability_levels import SLOPES, tangent_integers

SHARES = (0.999, 0.9999, 0.99999)


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return list(mnist.pixels(mnist.sample().calibration.images[:20]).split(10))


def attention(rows: int = 300, tokens: int = 40, seed: int = 0) -> Tensor:
    scores = torch.randn(rows, tokens, generator=torch.Generator().manual_seed(seed)) * 2
    return (scores + torch.eye(rows, tokens) * 9).softmax(-1)


@pytest.mark.parametrize("bits, slope", [(3, 0.1), (4, 1.4), (4, 1.0), (6, 1.2), (8, 0.7)])
def test_symmetric_levels_and_codes_equal_the_formula(bits, slope):
    last, peak = (1 << bits) - 1, 0.8
    item = TensorFormat(kind="tangent", bits=bits, scale=peak, slope=slope, end_slope=slope)
    x = torch.linspace(-0.1, 1.0, 5001).double()
    inside = x.clamp(0, peak)
    behind = (slope * (2 * inside / peak - 1)).tan() / math.tan(slope)
    code = (last / 2 * (behind + 1) + 0.5).floor()
    level = peak / 2 * (1 + ((2 * code / last - 1) * math.tan(slope)).atan() / slope)
    torch.testing.assert_close(simulate(x, item), level, rtol=1e-12, atol=1e-12)
    assert len(level.unique()) == 1 << bits
    with pytest.raises(TypeError, match="real values"):
        simulate(x.long(), item)


@pytest.mark.parametrize("bits, a, b", [(3, 0.1, 1.5), (4, 1.4, 0.2), (6, 1.2, 1.1)])
def test_levels_and_codes_of_two_slopes(bits, a, b):
    last = (1 << bits) - 1
    item = TensorFormat(kind="tangent", bits=bits, scale=1.0, slope=a, end_slope=b)
    x = torch.linspace(0, 1, 3001).double()
    width = math.tan(a) + math.tan(b)
    code = (last * (((a + b) * x - a).tan() + math.tan(a)) / width + 0.5).floor()
    level = ((code / last * width - math.tan(a)).atan() + a) / (a + b)
    torch.testing.assert_close(simulate(x, item), level, rtol=1e-12, atol=1e-12)
    assert level.unique()[0] == 0 and float(level[-1]) == pytest.approx(1)
    # Each end is as fine as its slope says.
    steps = torch.tensor(tangent_levels(bits, a, b)).diff()
    assert (steps[0] < steps[-1]) == (a > b)


def test_levels_are_fine_at_both_ends():
    levels = tangent_levels(4, 1.4)
    assert levels[0] == 0 and levels[-1] == 1 and levels == sorted(levels)
    steps = [high - low for low, high in itertools.pairwise(levels)]
    assert steps == pytest.approx(steps[::-1])
    assert steps[7] == max(steps) > 10 * steps[0] and steps[:8] == sorted(steps[:8])
    even = tangent_levels(4, 1e-3)
    assert even == pytest.approx([code / 15 for code in range(16)], abs=1e-5)
    # From a threshold on, a value has the higher code.
    item = TensorFormat(kind="tangent", bits=4, scale=1.0, slope=1.4, end_slope=1.4)
    at = torch.tensor(tangent_thresholds(4, 1.4), dtype=torch.float64)
    assert simulate(at, item).tolist() == pytest.approx(levels[1:])
    assert simulate(at - 1e-9, item).tolist() == pytest.approx(levels[:-1])


@pytest.mark.parametrize("slope", [0.0, math.pi / 2, -1.0, math.nan])
def test_impossible_slope(slope):
    with pytest.raises(ValueError, match="slope must lie between 0 and pi/2"):
        tangent_levels(4, slope)
    with pytest.raises(ValueError, match="slope must lie between 0 and pi/2"):
        TensorFormat(kind="tangent", bits=4, scale=1.0, slope=1.0, end_slope=slope)


def test_a_table_has_the_levels_as_integers():
    item = tangent_format(4, (1.4, 1.4), 1.0, 255)
    assert item is not None and item.kind == "table"
    assert item.values == tangent_table(4, 1.4, 255).values
    assert item.values[0] == 0 and item.values[-1] == 255
    assert max(abs(value / 255 - level) for value, level in zip(
        item.values, tangent_levels(4, 1.4), strict=True)) <= 0.5 / 255
    assert tangent_format(4, (1.4, 0.3), 1.0, 0) == TensorFormat(
        kind="tangent", bits=4, scale=1.0, slope=1.4, end_slope=0.3)
    # Two codes would be one integer.
    assert tangent_format(4, (1.55, 1.55), 1.0, 31) is None
    with pytest.raises(ValueError, match="no tangent codes"):
        TensorFormat(kind="tangent", bits=4, scale=1.0, slope=1.4, end_slope=1.4).exact()


def test_error_of_a_codebook_is_that_of_quantized_values():
    x = attention()
    values = Values(x)
    for bits, slopes, peak in ((3, (0.5, 0.4), 0.7), (4, (1.3, 1.3), 1.0), (6, (0.9, 0.1), 0.99)):
        real = TensorFormat(kind="tangent", bits=bits, scale=peak, slope=slopes[0],
                            end_slope=slopes[1])
        levels, thresholds = (torch.tensor([make(bits, *slopes)], dtype=torch.float64) * peak
                              for make in (tangent_levels, tangent_thresholds))
        got = values.errors(levels, thresholds)
        assert got.tolist() == pytest.approx([squared_error(x.double(), real)], rel=1e-9)
    # Many at once: every value is 0.25, or 0 and 0.5.
    got = values.errors(torch.tensor([[0.25, 0.25], [0, 0.5]]).double(),
                        torch.tensor([[0.1], [0.3]]).double())
    two = (x.double() >= 0.3) * 0.5
    assert got.tolist() == pytest.approx([float((x.double() - value).square().mean())
                                          for value in (torch.tensor(0.25), two)])
    assert values.quantile(0.5) == pytest.approx(float(x.double().median()), abs=1e-4)
    assert values.quantile(1.0) == float(x.max())


@pytest.mark.parametrize("top", [0, 255])
@pytest.mark.parametrize("tied", [False, True])
def test_the_search_finds_the_least_error(top, tied):
    x = attention()
    item = tangent_search(x, 4, SHARES, 7, top, tied)
    errors = {}
    for share in SHARES:
        peak = float(x.double().quantile(share))
        for pair in itertools.product(range(1, 8), repeat=2):
            slopes = (pair[0] / 8 * math.pi / 2, pair[1] / 8 * math.pi / 2)
            tried = tangent_format(4, slopes, peak, top)
            if tried is not None and (pair[0] == pair[1] or not tied):
                errors[squared_error(x.double(), tried)] = tried
    best = errors[min(errors)]
    assert (item.values, item.slope, item.end_slope) == (best.values, best.slope, best.end_slope)
    assert item.scale == pytest.approx(best.scale)
    # Better than an almost uniform one.
    assert squared_error(x, item) < 0.8 * squared_error(
        x, tangent_format(4, (0.01, 0.01), float(x.max()), 0))


def test_two_slopes_are_worth_it():
    x = attention()
    tied, free = (tangent_search(x, 4, SHARES, 15, 255, tied) for tied in (True, False))
    logarithmic = RepqVit(RepqVitSettings()).attention(x, 4)
    assert squared_error(x, free) < 0.8 * squared_error(x, tied)
    assert squared_error(x, free) < squared_error(x, logarithmic)


@pytest.mark.parametrize("bits", [3, 4])
def test_attention_is_a_table_of_the_core(model, batches, bits):
    """So that integers have the levels that were decided, and trained with."""
    method = DopqVit(DopqVitSettings(weights=4, activations=bits))
    statistics = method.observe(model, batches)
    record = method.decide(statistics)
    network, notes = deploy(model, record, suited(load("edge8"), record), statistics=statistics)
    changed = {note.tensor for note in notes}
    for block in range(4):
        name = f"blocks.{block}.attn.softmax"
        item, found = record.formats[name], network.formats[name]
        assert (item.values, item.scale) == (found.values, found.scale) and name not in changed
        # Nothing that the core has is better, and of all slopes not much is.
        rows = statistics.observed[name].all_rows
        error = squared_error(rows, item)
        others = [TensorFormat(kind="table", bits=bits, scale=2.0 ** (step / 128) / 255,
                               values=tangent_integers(bits, slopes))
                  for slopes in SLOPES for share in SHARES
                  for step in [round(math.log2(Values(rows).quantile(share)) * 128)]]
        assert error == min(squared_error(rows, other) for other in others)
        assert error < 1.2 * squared_error(rows, tangent_search(rows, bits, SHARES, 31, 255))
        assert error < 0.7 * squared_error(rows, tangent_search(rows, bits, SHARES, 31, 255, True))


def test_a_table_needs_room():
    with pytest.raises(ValueError, match="top must be larger than 16 for attention of 4 bits"):
        tangent_search(attention(), 4, (1.0,), 1, 16)


def test_medians_are_the_common_scale(model, batches):
    method = DopqVit(DopqVitSettings(weights=4, activations=4))
    statistics = method.observe(model, batches)
    record = method.decide(statistics)
    scale, zero = channel_affine(statistics.observed["blocks.1.norm2"].all_rows, 4, SHARES)
    item = record.formats["blocks.1.norm2"]
    ordered = scale.sort().values
    assert item.scale == pytest.approx(float(ordered[31] + ordered[32]) / 2)
    ordered = zero.sort().values
    assert item.zero_point == math.floor(float(ordered[31] + ordered[32]) / 2 + 0.5)
    # No other scale has a smaller mean distance from those of the channels.
    least = float((scale - item.scale).abs().mean())
    assert all(float((scale - item.scale * factor).abs().mean()) >= least * (1 - 1e-9)
               for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))
    # One outlying channel moves the mean, not the median.
    far = torch.cat((torch.full((9,), 0.1), torch.tensor([10.0]))).double()
    zeros = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 90])
    assert method.common(far, zeros) == (pytest.approx(0.1), 5)
    plain = DopqVit(DopqVitSettings(mosf=False))
    assert plain.common(far, zeros) == (pytest.approx(1.09), 13)


def test_folding_by_medians_keeps_the_function(model, batches):
    method = DopqVit(DopqVitSettings(weights=4, activations=4))
    record = method.decide(method.observe(model, batches))
    folded = method.apply(model, Record(method="x", settings={}, formats={},
                                        parameters=record.parameters))
    assert len(record.parameters) == 4 * 8
    torch.testing.assert_close(folded(batches[0]), model(batches[0]), rtol=1e-3, atol=1e-3)


#: Weights as RepQ-ViT has them.
REPQ = {"weight_shares": RepqVitSettings().weight_shares}


def test_without_its_components_it_is_repq_vit(model, batches):
    method = DopqVit(DopqVitSettings(weights=4, activations=4, tanq=False, mosf=False, **REPQ))
    record = method.decide(method.observe(model, batches))
    plain = RepqVit(RepqVitSettings(weights=4, activations=4))
    wanted = plain.decide(plain.observe(model, batches))
    assert not differences(record, wanted) and record.method == "dopq-vit"
    for name, parts in (("tanq", ("softmax",)), ("mosf", ("norm", "qkv", "fc1"))):
        other = DopqVit(DopqVitSettings(weights=4, activations=4, **{
            "tanq": False, "mosf": False, name: True, **REPQ}))
        changed = differences(other.decide(other.observe(model, batches)), wanted)
        assert all(any(item.count(part) for item in changed) for part in parts)
        assert all(any(part in item for part in parts) for item in changed)


@pytest.mark.parametrize("top", [0, 255])
def test_records_are_kept_whole(model, batches, tmp_path, top):
    method = DopqVit(DopqVitSettings(weights=4, activations=4, top=top, core=False))
    record = method.decide(method.observe(model, batches))
    item = record.formats["blocks.0.attn.softmax"]
    assert (item.kind, item.bits) == ("table" if top else "tangent", 4)
    record.save(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == record
    if top:
        exact = item.exact()
        x = attention().double()
        assert torch.equal(exact.dequantize(exact.quantize(x)), simulate(x, item))
        assert int(exact.operand(torch.arange(16)).max()) == 255


def test_symmetric_weights_are_codes_of_the_datapath(model, batches):
    method = DopqVit(DopqVitSettings(weights=4, activations=4))
    record = method.decide(method.observe(model, batches))
    for name, item in record.formats.items():
        exact = item.exact()   # every tensor has one
        if name.endswith(".weight") and name in record.parameters:
            weight = record.parameters[name].double()
            assert torch.equal(exact.dequantize(exact.quantize(weight)), simulate(weight, item))


def logit_error(method: RepqVit, model: Vit, batches: list[Tensor]) -> float:
    """Mean squared error of the logits of images that calibration has not seen."""
    simulated = method.apply(model, method.decide(method.observe(model, batches)))
    images = mnist.pixels(mnist.sample().test.images[:100])
    with torch.inference_mode():
        return float((simulated(images) - model(images)).square().mean())


def test_it_loses_less_than_repq_vit(model, batches):
    # Weights alike, as in ERQ's code; with RepQ-ViT's own quantiles the order is the other one.
    same = {"weights": 4, "activations": 4, "weight_shares": WEIGHT_SHARES, "symmetric": False}
    error = logit_error(DopqVit(DopqVitSettings(**same)), model, batches)
    plain = logit_error(RepqVit(RepqVitSettings(**same)), model, batches)
    assert error < plain, (error, plain)


@pytest.mark.parametrize("wrong, message", [
    ({"slopes": 0}, "slopes must be 1"), ({"slopes": 1.5}, "slopes must be 1"),
    ({"top": -1}, "top must be 0"), ({"top": True}, "top must be 0"),
    ({"top": 100}, "at least 255 for attention of 8 bits"),
    ({"top": 31, "attention": 6}, "at least 63 for attention of 6 bits"),
    ({"shares": ()}, "shares must be"),
])
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        DopqVitSettings(**wrong)
