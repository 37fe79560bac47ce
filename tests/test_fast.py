# SPDX-License-Identifier: Apache-2.0
"""The integer network in floating point: the same bits, or a refusal."""

import dataclasses

import pytest
import torch
from torch import Tensor

from golden.float.models import Preprocessing
from golden.float.vit import Vit, VitSpec
from golden.formats.formats import TwoScale
from golden.network import fast, fast_units, inference
from golden.network.calibrate import calibrate
from golden.network.fast import Fast, UnprovableError, pixel_network
from golden.network.integers import Network
from golden.units.encoding import Encoding
from golden.units.requant import Requantization, scale_values
from vitforge.spec.config import Config, load

SPEC = VitSpec(image_size=16, patch_size=4, in_channels=2, classes=4, dim=16, depth=2, heads=2,
               mlp_hidden=24)
TINY = load("tiny")
CONFIGS = {
    "tiny": TINY,
    "one lane": dataclasses.replace(TINY, lanes=1),
    "eight lanes": dataclasses.replace(TINY, lanes=8),
    "5 bits": dataclasses.replace(TINY, attention_bits=5),
    "3 bits": dataclasses.replace(TINY, attention_bits=3),
    "polynomial": dataclasses.replace(TINY, exponential="iexp"),
    "uniform": dataclasses.replace(TINY, attention="uniform", attention_bits=8),
    "two-scale": dataclasses.replace(TINY, attention="two-scale", attention_bits=6),
    "table": dataclasses.replace(TINY, attention="table"),
    "log-sqrt2": dataclasses.replace(TINY, attention="log-sqrt2"),
    "log-sqrt2 of 3 bits": dataclasses.replace(TINY, attention="log-sqrt2", attention_bits=3),
    "coarse exponents": dataclasses.replace(TINY, exp_fraction_bits=4),
    "fine exponents": dataclasses.replace(TINY, exp_fraction_bits=14),
    "fine table": dataclasses.replace(TINY, attention="table", exp_fraction_bits=14),
    "narrow scores": dataclasses.replace(TINY, score_bits=6),
    "wide scores": dataclasses.replace(TINY, score_bits=12),
    "wide values": dataclasses.replace(TINY, value_bits=19, norm_bits=14),
    "narrow values": dataclasses.replace(TINY, value_bits=13),
    "6-bit weights": dataclasses.replace(TINY, weight_bits=6),
    "narrow multipliers": dataclasses.replace(TINY, multiplier_bits=4, factor_bits=5),
    "shifts alone": dataclasses.replace(TINY, multiplier_bits=1),
    "wide multipliers": dataclasses.replace(TINY, multiplier_bits=18, factor_bits=18, norm_bits=15),
}


def images(count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (count, SPEC.in_channels, SPEC.image_size, SPEC.image_size)
    return torch.randint(256, size, generator=generator).to(torch.uint8)


def sharp(gain: float) -> Vit:
    """Return a random network whose scores span `gain` squared times as much."""
    model = Vit(SPEC).initialize(3).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("qkv.weight"):
                value[:2 * SPEC.dim] *= gain
    return model


def made(config: Config, gain: float = 1.5) -> Network:
    return calibrate(sharp(gain), images(4), config)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_same_bits(config):
    whole = made(config)
    codes = images(5, 2)
    logits = Fast(whole)(codes)
    assert logits.dtype == torch.int64
    assert torch.equal(logits, inference.run(whole, codes))


@pytest.mark.parametrize("gain", [0.1, 4.0, 12.0])
@pytest.mark.parametrize("kind", ["tiny", "two-scale", "uniform"])
def test_flat_and_sharp_attention(kind, gain):
    config = dataclasses.replace(CONFIGS[kind], score_bits=8)
    try:
        whole = made(config, gain)
    except ValueError as error:   # beyond what softmax takes
        assert gain == 12.0 and "s must lie in" in str(error)
        return
    assert torch.equal(Fast(whole)(images(3, 2)), inference.run(whole, images(3, 2)))


@pytest.mark.parametrize("m", [1, 4, 5, 7])
@pytest.mark.parametrize("kind", ["two-scale", "two-scale of 3 bits"])
def test_any_distance_of_two_scales(kind, m):
    """Beyond the index of the levels, 9 bits at most, the lower scale has nothing but zeros."""
    config = dataclasses.replace(CONFIGS["two-scale"], attention_bits=3 if "3" in kind else 6)
    whole = made(config)
    two = [name for name, item in whole.formats.items()
           if isinstance(item, TwoScale) and name.endswith("softmax")]
    assert len(two) == len(whole.scales) == SPEC.depth
    whole = dataclasses.replace(
        whole, scales={name: dataclasses.replace(scale, m=m)
                       for name, scale in whole.scales.items()},
        formats=whole.formats | {name: dataclasses.replace(whole.formats[name], m=m)
                                 for name in two})
    assert torch.equal(Fast(whole)(images(3, 2)), inference.run(whole, images(3, 2)))


def test_sums_beyond_single_precision_are_taken_in_double(monkeypatch):
    whole = made(TINY)
    wanted = inference.run(whole, images(3, 2))
    # As if single precision had fewer bits: some sums are not sure to fit it, or none does.
    monkeypatch.setattr(fast_units, "SINGLE", 1 << 18)
    taken = Fast(whole)
    assert {step.work.sure for step in taken.steps
            if isinstance(step.work, fast_units.Product)} == {True, False}
    assert torch.equal(taken(images(3, 2)), wanted)
    monkeypatch.setattr(fast_units, "surely", lambda operands, weight: False)
    assert torch.equal(taken(images(3, 2)), wanted)
    monkeypatch.setattr(fast_units, "SINGLE", 1 << 17)
    with pytest.raises(UnprovableError, match="scores may reach 131072"):
        Fast(whole)


def test_the_bound_decides_which_precision():
    # 3 * 2**22 < 2**24 <= 5 * 2**22; the weights of a column, not of a row, are added.
    weights = torch.tensor([[1, 1], [2, -4]])
    for largest, sure in ((1 << 22, False), (3 << 20, True)):
        product = fast_units.Product(weights, largest, torch.device("cpu"))
        assert product.bound == 5 * largest and product.sure is sure
    operands = torch.tensor([[1 << 22, 1], [1 << 22, 1 << 22]]).float()
    product = fast_units.Product(weights, 1 << 22, torch.device("cpu"))
    assert product(operands).tolist() == [[(1 << 22) + 2, (1 << 22) - 4],
                                          [3 << 22, -3 << 22]]
    # Odd sums above 2**24, which single precision does not have.
    weights = torch.full((3, 1), 127)
    product = fast_units.Product(weights, (1 << 17) + 1, torch.device("cpu"))
    assert product(torch.full((1, 3), (1 << 17) + 1.0)).tolist() == [[3 * 127 * ((1 << 17) + 1)]]


def test_requantization_at_the_edges():
    """Halves, shifts of nothing and of almost all bits, the largest accumulators."""
    config = Config()
    acc = torch.tensor([0, 1, -1, 2, -2, 3, -3, 1000, -1000, (1 << 30) - 1, -(1 << 30)])
    cases = [(b, m, s) for b in (0, 5, -7, 1 << 30) for m in (0, 1, 3, 40000, 65535)
             for s in (0, 1, 2, 16, 17, 31, 46, 48, 60, 63)]
    layer = Requantization(bias=torch.tensor([b for b, _, _ in cases]),
                           multiplier=torch.tensor([m for _, m, _ in cases]),
                           shift=torch.tensor([s for _, _, s in cases]),
                           encoding=Encoding())
    wanted = scale_values(acc[:, None].expand(-1, len(cases)), layer.bias, layer.multiplier,
                          layer.shift, config)
    scale = fast_units.Scale(layer, 1 << 30, config, torch.device("cpu"))
    sums = acc[:, None].double().repeat(1, len(cases))
    assert torch.equal(scale(sums).long(), wanted)


def test_unprovable_products():
    layer = Requantization(bias=0, multiplier=65535, shift=40, encoding=Encoding())
    fast_units.Scale(layer, 1 << 36, Config(), torch.device("cpu"))
    with pytest.raises(UnprovableError, match="a product may reach"):
        fast_units.Scale(layer, 1 << 38, Config(), torch.device("cpu"))


def test_what_can_not_be_proved_is_run():
    whole = made(dataclasses.replace(TINY, value_bits=22))
    with pytest.raises(UnprovableError, match="value_bits of 22"):
        Fast(whole)
    how = Preprocessing(size=16, crop=1.0, interpolation="bicubic", mean=(0.2, 0.4),
                        std=(0.5, 0.3))
    real = (images(3, 2) / 255 - torch.tensor(how.mean)[:, None, None]) / torch.tensor(
        how.std)[:, None, None]
    assert torch.equal(pixel_network(whole, how)(real), inference.run(whole, images(3, 2)))


def test_pixels_come_back_from_any_normalisation(monkeypatch):
    whole = made(TINY)
    monkeypatch.setattr(fast, "_CHUNK", 4 * SPEC.tokens * SPEC.dim)
    codes = images(6, 4)   # more than are taken at a time
    assert {0, 255} <= set(codes.flatten().tolist())
    for mean, std in (((0.0, 0.0), (1.0, 1.0)), ((0.485, 0.406), (0.229, 0.225))):
        how = Preprocessing(size=16, crop=1.0, interpolation="bicubic", mean=mean, std=std)
        real = (codes / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(
            std)[:, None, None]
        assert torch.equal(pixel_network(whole, how)(real), inference.run(whole, codes))


def test_a_network_without_blocks():
    model = Vit(dataclasses.replace(SPEC, depth=1)).initialize(3).eval()
    whole = calibrate(model, images(4), TINY)
    assert torch.equal(Fast(whole)(images(1, 2)), inference.run(whole, images(1, 2)))


def test_images_are_checked():
    with pytest.raises(TypeError, match="images must be uint8"):
        Fast(made(TINY))(images(1).float())
