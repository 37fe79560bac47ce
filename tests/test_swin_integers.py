# SPDX-License-Identifier: Apache-2.0
"""Swin in integers: regions in place of masks, and integers of every method beside the float."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from golden.commands.report_layers import noise
from golden.deploy.network import deploy, suited
from golden.deploy.widths import stored_widths
from golden.float.models import Preprocessing
from golden.float.swin import Stage, Swin, SwinSpec, WindowAttention, attention_mask, position_index
from golden.float.vit import observe
from golden.network import file, inference
from golden.network.calibrate import calibrate
from golden.network.fast import Fast
from golden.network.inference import Call, merged
from golden.network.integers import Network
from golden.network.ops import Multiply, PairBias, Product, RegionContext, RegionScores, products
from golden.network.regions import distances, groups, windowed
from golden.network.topology import operations
from golden.ptq import METHODS
from golden.ptq.sites import INPUT, layers, sites
from tests.sample import leading
from vitforge.spec.config import ConfigError, load

#: 16x16 tokens in shifted windows of 4, then 8x8, then one window of 4x4.
SPEC = SwinSpec(image_size=32, patch_size=2, in_channels=2, classes=5, dim=8, depths=(2, 2, 1),
                heads=(1, 2, 2), window=4)
CONFIG = dataclasses.replace(load("edge8"), name="swin", max_channels=64, max_keys=64)
HOW = Preprocessing(size=32, crop=1.0, interpolation="bicubic", mean=(0.4, 0.5), std=(0.2, 0.3))


def pictures(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 2, 32, 32), generator=generator).to(torch.uint8)


def normalised(codes: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (HOW.mean, HOW.std))
    return (codes / 255 - mean) / std


@pytest.fixture(scope="module")
def model() -> Swin:
    """Biases of windows that matter, unlike those of a fresh network."""
    found = Swin(SPEC).initialize(3).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in found.named_parameters():
            if name.endswith("table"):
                value.copy_(torch.randn(value.shape, generator=generator))
            elif name.endswith("bias"):
                value.copy_(torch.randn(value.shape, generator=generator) / 5)
    return found


@pytest.fixture(scope="module")
def whole(model: Swin) -> Network:
    return calibrate(model, pictures(4), CONFIG)


# Regions


@pytest.mark.parametrize(("size", "window", "shift"), [
    (8, 4, 2), (14, 7, 3), (12, 4, 1), (8, 4, 0), (4, 4, 0), (21, 7, 3)])
def test_regions_are_what_the_masks_leave(size: int, window: int, shift: int):
    source, regions = windowed(size, window, shift)
    assert sorted(source) == list(range(size * size))
    # Every token of every window, in the order of `golden.float.swin.windows`.
    place = torch.arange(size * size).reshape(size, size).roll((-shift, -shift), (0, 1))
    count = size // window
    whole = place.reshape(count, window, count, window).transpose(1, 2).reshape(-1, window**2)
    mask = attention_mask(size, window, shift) if shift else torch.zeros(
        count**2, window**2, window**2)
    start = 0
    for rows, columns in regions:
        inside = source[start:start + rows * columns]
        start += rows * columns
        ((number, first),) = (whole == inside[0]).nonzero().tolist()
        together = whole[number][mask[number, first] == 0]
        assert tuple(together.tolist()) == inside   # all of them, row by row
    assert start == size * size
    if shift:
        sizes = sorted({rows * columns for rows, columns in regions})
        assert sizes == sorted({a * b for a in (window, window - shift, shift)
                                for b in (window, window - shift, shift)}
                               if count > 1 else {window**2})


def test_attention_within_regions_is_masked_attention():
    """In floating point, with the biases by distance and the pairs in their places."""
    size, window, shift = 14, 7, 3
    stage = Stage(size, window, 32, 2, 64, 2)
    attention = WindowAttention(stage).eval()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    mask = attention_mask(size, window, shift)
    x = torch.randn(4, window**2, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = attention(x, mask)
        q, k, v = attention.qkv(x).reshape(4, 49, 3, 2, 16).permute(2, 3, 0, 1, 4).flatten(2, 3)
        # From windows to regions, with what the float network calls token n of window m.
        source, regions = windowed(size, window, shift)
        place = torch.arange(size * size).reshape(size, size).roll((-shift, -shift), (0, 1))
        windows = place.reshape(2, 7, 2, 7).transpose(1, 2).flatten()
        order = torch.tensor([int((windows == token).nonzero()) for token in source])
        bias = attention.relative_position_bias_table[distances(regions, window)].T
        context = torch.zeros(2, size * size, 16)
        for group in groups(regions):
            index = order[group.tokens]
            scores = q[:, index] @ k[:, index].transpose(-2, -1) * attention.scale
            context[:, index] = (scores + bias[:, group.pairs]).softmax(-1) @ v[:, index]
        found = attention.proj(context.transpose(0, 1).reshape(4, 49, 32))
    assert torch.allclose(found, wanted, atol=1e-5)


def test_groups_hold_every_token_and_pair_once():
    _, regions = windowed(8, 4, 2)
    found = groups(regions)
    assert [group.size for group in found] == [16, 8, 4]
    assert sorted(token for group in found for token in group.tokens.flatten().tolist()) == \
        list(range(64))
    assert sorted(pair for group in found for pair in group.pairs.flatten().tolist()) == \
        list(range(16**2 + 4 * 8**2 + 4 * 4**2))
    assert torch.equal(distances(((4, 4),), 4).reshape(16, 16), position_index(4))
    # The second region's first pairs: a query beside its key on the right.
    assert distances(((1, 2), (1, 2)), 4)[4:].tolist() == [24, 23, 25, 24]


def test_merged_tokens_stand_as_the_float_network_has_them(model: Swin):
    x = torch.arange(16 * 3).reshape(1, 4, 4, 3)
    downsample = model.get_submodule("layers.1.downsample")
    seen: dict[str, Tensor] = {}
    with observe(downsample, seen.__setitem__), torch.no_grad():
        downsample(torch.arange(64 * 8).reshape(1, 8, 8, 8).float())
    assert torch.equal(merged(torch.arange(64 * 8).reshape(1, 64, 8).float(), 8),
                       seen["merged"].flatten(1, 2))
    assert merged(x.flatten(1, 2), 4)[0, 1].tolist() == [
        *range(6, 9), *range(18, 21), *range(9, 12), *range(21, 24)]


# The list


def test_the_list_names_the_float_modules(model: Swin):
    seen: dict[str, Tensor] = {}
    with observe(model, seen.__setitem__), torch.inference_mode():
        model(pictures(1) / 255)
    names = [site.name for site in sites(model) if site.name != INPUT]
    assert names == [name for name in seen if name in names]
    weights = {name: value for name, value in model.state_dict().items()
               if name.endswith("weight") and value.ndim > 1}
    found = [item for item in operations(SPEC) if isinstance(item, Product)]
    assert {f"{name}.weight" for name in layers(model)} == set(weights)
    for item in found:
        assert weights[f"{item.name}.weight"].flatten(1).shape == (item.columns, item.inner)


def test_products_within_regions_are_counted():
    found = [item for item in operations(SPEC) if isinstance(item, Multiply)]
    scores = [item for item in found if isinstance(item, RegionScores)]
    contexts = [item for item in found if isinstance(item, RegionContext)]
    # 16x16 tokens: 16 windows of 16; shifted 9 whole ones, 6 + 6 halves, 4 quarters.. by hand:
    pairs = [16 * 256, 9 * 256 + 12 * 64 + 4 * 16, 4 * 256, 256 + 4 * 64 + 4 * 16, 256]
    assert [item.products for item in scores] == [
        n * dim for n, dim in zip(pairs, (8, 8, 16, 16, 32), strict=True)]
    assert [item.products for item in contexts] == [item.products for item in scores]
    assert [item.columns for item in scores] == [16] * 5
    assert products(found) == sum(item.products for item in found)


def test_swin_tiny_has_the_products_of_its_paper():
    """4.5 G in the paper's table 1, which counts those of masked pairs too."""
    spec = SwinSpec()
    count = products(operations(spec))
    assert 4.47e9 < count < 4.5e9
    assert max(int(item.columns) for item in operations(spec)
               if isinstance(item, RegionScores)) == 49


# Integers


def test_integers_are_near_the_float_network(model: Swin, whole: Network):
    images = pictures(3, 7)
    with torch.no_grad():
        real = model(images / 255).double()
    found = inference.run(whole, images) * whole.logit_scale
    assert float((found - real).square().sum() / real.square().sum()) < 0.01
    assert torch.equal(Fast(whole)(images), inference.run(whole, images))


@pytest.mark.parametrize("changes", [
    {}, {"attention": "uniform", "attention_bits": 8, "lanes": 2}, {"norm_bits": 9}],
    ids=["log2", "uniform", "no shifts"])
def test_the_fast_network_has_the_same_bits(model: Swin, changes: dict[str, object]):
    config = dataclasses.replace(CONFIG, **changes)   # type: ignore[arg-type]
    network = calibrate(model, pictures(2), config, gelu="uniform")
    images = pictures(2, 9)
    assert torch.equal(Fast(network)(images), inference.run(network, images))


def test_a_bias_is_added_before_the_scores_are_rounded(whole: Network):
    """By the definition, for one region of one head."""
    calls: list[Call] = []
    inference.run(whole, pictures(1), calls.append)
    name = "layers.0.blocks.1.attn"
    (biased,) = (call for call in calls if call.name == f"{name}.biased")
    sums, layer = biased.inputs["acc"], biased.inputs["layer"]
    constant = whole.constants[f"{name}.position"]
    (item,) = (item for item in whole.operations
               if isinstance(item, PairBias) and item.name == f"{name}.position")
    _, regions = windowed(16, 4, 2)
    assert item.regions == regions and constant.shape == (49, 1)
    drop = whole.config.factor_bits + whole.config.norm_bits - whole.config.value_bits
    place = 0
    for rows, columns in regions[:6]:
        for query in range(rows * columns):
            for key in range(rows * columns):
                down, right = query // columns - key // columns, query % columns - key % columns
                code = int(constant[(down + 3) * 7 + right + 3, 0]) - 128
                v = math.floor(int(sums[0, 0, place]) * int(layer.multiplier)
                               / 2**int(layer.shift) + 0.5)
                v += math.floor(code * layer.multiplier2 / 2**drop + 0.5)
                wanted = math.floor(v / 2**int(layer.encode_shift) + 0.5) + \
                    layer.encoding.zero_point
                assert int(biased.output[0, 0, place]) == min(max(wanted, 0), 255)
                place += 1


def test_a_stored_network_is_the_same(whole: Network, tmp_path: Path):
    file.save(tmp_path / "model.json", whole, {"model": "swin"})
    again = file.load(tmp_path)
    assert again.topology == "swin" and again.spec == SPEC
    assert torch.equal(inference.run(again, pictures(1)), inference.run(whole, pictures(1)))


@pytest.mark.parametrize(("changes", "message"), [
    ({"max_channels": 56}, "max_channels must be at least 64"),
    ({"max_keys": 15}, "max_keys must be at least 16")])
def test_a_configuration_with_shorter_rows_is_refused(model: Swin, changes: dict[str, int],
                                                      message: str):
    with pytest.raises(ConfigError, match=message):
        calibrate(model, pictures(1), dataclasses.replace(CONFIG, **changes))   # type: ignore


# Methods


@pytest.mark.parametrize("name", leading(4, METHODS))
def test_every_method_is_deployed(model: Swin, name: str):
    """At 8 bits, so the integers are near the method's own simulation."""
    method = METHODS[name]()
    seen = normalised(pictures(4))
    record = method.decide(method.observe(model, [seen]))
    config = suited(CONFIG, record)
    network, notes = deploy(model, record, config, statistics=method.observe(model, [seen]),
                            preprocessing=HOW)
    images = pictures(2, 9)
    found = inference.run(network, images)
    assert torch.equal(Fast(network)(images), found)
    simulated = method.apply(model, record)
    with torch.no_grad():
        wanted = simulated(normalised(images)).double()
        real = model(normalised(images)).double()
    error = (found * network.logit_scale - wanted).square().sum() / wanted.square().sum()
    assert float(error) < 0.1, (name, float(error))
    assert float((found * network.logit_scale - real).square().sum() / real.square().sum()) < 0.1
    assert any("patch merging takes the codes" in note.why for note in notes)
    assert stored_widths(network).weight <= 8
    ratios = noise(model, simulated, normalised(images), integer=network, how=HOW)
    assert ratios["head.pool"]["integer"] > 10
    assert {"simulated", "integer"} == ratios["layers.1.downsample.norm"].keys()
