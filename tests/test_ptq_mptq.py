# SPDX-License-Identifier: Apache-2.0
"""MPTQ-ViT, a reconstruction: what SQ-b, OPT-m and Greedy MP decide, and what they save."""

import pytest
import torch
from torch import Tensor

from golden.commands.evaluate import WEIGHTS
from golden.commands.report import report
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.network.calibrate import calibrate
from golden.ptq.folding import network, readers, rescaled
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.method import Settings, apply
from golden.ptq.minmax import MinMax
from golden.ptq.mptq import Mptq, MptqSettings, MptqStatistics
from golden.ptq.mptq_greedy import Unit, allocate, average_bits, elements, units
from golden.ptq.mptq_smooth import smooth, smoothing
from golden.ptq.ranges import affine
from golden.ptq.record import Record
from golden.ptq.sites import sites
from golden.ptq.statistics import collect
from golden.ptq.tsptq import Tsptq, TsptqSettings
from golden.ptq.widths import LayerWidths, layer_widths
from tests.sample import thorough
from vitforge.spec.config import Config


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return list(mnist.pixels(mnist.sample().calibration.images[:20]).split(20))


@pytest.fixture(scope="module")
def few() -> mnist.Split:
    test = mnist.sample().test
    return mnist.Split(test.images[:100], test.labels[:100])


@pytest.fixture(scope="module")
def statistics(model, batches) -> MptqStatistics:
    return Mptq(MptqSettings(kept=1 << 12)).observe(model, [batches[0][:10]])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(classes: int = 10) -> Vit:
    return Vit(VitSpec(image_size=8, dim=8, depth=2, heads=2, mlp_hidden=16,
                       classes=classes)).initialize(1).eval()


def small_swin() -> Swin:
    return Swin(SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2),
                         heads=(1, 2), window=4)).initialize(1).eval()


# SQ-b

def test_smoothing_by_hand():
    rows = torch.tensor([[1.0, -4.0, 0.0], [3.0, 8.0, 0.0]])
    weight = torch.tensor([[0.25, -1.0, 2.0], [-0.5, 0.5, 0.0]])
    ratio, shift = smoothing(rows, weight, 0.5, biased=True)
    middle = torch.tensor([2.0, 2.0, 0.0]).double()
    peak, heavy = torch.tensor([1.0, 6.0, 1e-5]), torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(ratio, (peak / heavy).sqrt().double())
    torch.testing.assert_close(shift, middle / ratio)
    # Every channel is symmetric afterwards.
    low, high = (rows / ratio - shift).aminmax(dim=0)
    torch.testing.assert_close(-low, high)
    ratio, shift = smoothing(rows, weight, 1.0, biased=False)
    torch.testing.assert_close(ratio, torch.tensor([3.0, 8.0, 1e-5]).double())
    assert not bool(shift.any())
    ratio, _ = smoothing(rows, weight, 0.0, biased=True)
    torch.testing.assert_close(ratio, (1 / heavy).double())


def test_smoothing_preserves_the_function_and_tells_what_it_sees(model, batches):
    before = collect(model, batches, most=1 << 30)
    importance = {"blocks.1.norm2": torch.ones_like(before.observed["blocks.1.norm2"].all_rows)}
    given = MptqStatistics(model, before.sites, before.observed, importance)
    moved, changed = smooth(given, (8, 8), (0.5,), biased=True)
    torch.testing.assert_close(network(model, changed)(batches[0]), model(batches[0]), atol=2e-4,
                               rtol=1e-3)
    assert len(changed) == 4 * 9
    seen = collect(moved.model, batches, most=1 << 30)
    for site in sites(model):
        found, wanted = moved.observed[site.name], seen.observed[site.name]
        torch.testing.assert_close(found.all_rows, wanted.all_rows, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.high, wanted.high, atol=1e-3, rtol=1e-3)
    for norm in readers(model):
        low, high = moved.observed[norm].all_rows.aminmax(dim=0)
        torch.testing.assert_close(-low, high, atol=1e-3, rtol=1e-3)
    # Gradients grow where activations shrink.
    ratio = state(model)["blocks.1.norm2.weight"] / changed["blocks.1.norm2.weight"]
    torch.testing.assert_close(moved.importance["blocks.1.norm2"][0], ratio.square(), rtol=1e-4,
                               atol=0)


def state(model: Vit | Swin) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in model.named_parameters()}


def test_without_bias_the_zero_stays(model, batches):
    seen = collect(model, batches)
    _, changed = smooth(seen, (8, 8), (0.5,), biased=False)
    old = state(model)
    for norm, layer in readers(model).items():
        ratio = old[f"{norm}.weight"] / changed[f"{norm}.weight"]
        torch.testing.assert_close(changed[f"{norm}.bias"] * ratio, old[f"{norm}.bias"])
        torch.testing.assert_close(changed[f"{layer}.bias"], old[f"{layer}.bias"])


def test_each_layer_takes_the_strength_of_the_least_error(model, batches):
    seen = collect(model, batches)
    alphas = (0.0, 0.25, 0.5, 0.75, 1.0)
    _, searched = smooth(seen, (4, 8), alphas, True)
    _, other = smooth(seen, (8, 4), alphas, True)
    chosen = {}
    for bits, found in ((4, searched), (8, other)):
        alone = [smooth(seen, (4, 4), (alpha,), True)[1] for alpha in alphas]
        chosen[bits] = [
            next(alpha for alpha, changed in zip(alphas, alone, strict=True)
                 if torch.equal(changed[f"{layer}.weight"], found[f"{layer}.weight"]))
            for layer in readers(model).values()]
    # Narrow weights leave the difficulty to the activations, and the other way round.
    assert sum(chosen[4]) < sum(chosen[8])
    assert len(set(chosen[4] + chosen[8])) > 2


def test_smoothing_in_swin_spares_layers_without_bias_and_the_mean():
    model = small_swin()
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = collect(model, [batch])
    moved, changed = smooth(seen, (8, 8), (0.5,), biased=True)
    torch.testing.assert_close(moved.model(batch), model(batch), atol=1e-4, rtol=1e-4)
    norm = "layers.1.downsample.norm"
    old = state(model)
    assert not torch.equal(changed[f"{norm}.weight"], old[f"{norm}.weight"])
    assert not bool(changed[f"{norm}.bias"].any())       # as in the network: no shift
    assert not {"norm.weight", "head.fc.weight"} & changed.keys()


@pytest.mark.thorough
def test_uneven_channels_need_the_smoothing(model, batches, few):
    # One channel 40 times as large as it was, most others nearly the same.
    uneven = rescaled(model, 40)
    wanted = mnist.accuracy(uneven, few)
    right = {}
    for bits in (6, 4):
        widths = {"weights": 8, "activations": bits, "stream": 0}
        plain = MinMax(Settings(**widths))
        right["minmax", bits] = mnist.accuracy(
            plain.apply(uneven, plain.decide(plain.observe(uneven, batches))), few)
        for smoothed in (True, False):
            method = Mptq(MptqSettings(**widths, smooth=smoothed, kept=1 << 14))
            record = method.decide(method.observe(uneven, batches))
            right[smoothed, bits] = mnist.accuracy(method.apply(uneven, record), few)
    assert right["minmax", 6] < wanted - 0.1 and right["minmax", 4] < 0.4, right
    assert right[True, 6] >= wanted - 0.02 and right[True, 4] > 0.85, right
    assert right[False, 4] < right[True, 4] - 0.2, right


# OPT-m

def test_ratio_after_gelu_is_that_of_the_least_error(statistics):
    best = Mptq(MptqSettings(activations=4, smooth=False)).decide(statistics).formats
    fixed = {m: Mptq(MptqSettings(activations=4, smooth=False, optimal_m=False,
                                  fixed_m=m)).decide(statistics).formats for m in range(1, 7)}
    assert {item.kind for item in fixed[2].values()} == {"uniform", "shifted", "two-scale"}
    gelu = [site for site in statistics.sites if site.role == "gelu"]
    assert len(gelu) == 4

    def error(name: str, item: TensorFormat) -> float:
        rows = statistics.observed[name].all_rows
        change = (simulate(rows, item) - rows).square() * statistics.importance[name]
        return float(change.double().sum())

    for site in gelu:
        assert all(fixed[m][site.name].m == m for m in fixed)
        errors = {m: error(site.name, found[site.name]) for m, found in fixed.items()}
        item = best[site.name]
        if item.kind == "two-scale":
            assert item == fixed[item.m][site.name]
            assert errors[item.m] == min(errors.values())
        else:
            assert item.kind == "uniform" and error(site.name, item) < min(errors.values())
    # Everything else is TSPTQ-ViT's.
    tsptq = Tsptq(TsptqSettings(activations=4)).decide(statistics).formats
    assert {name for name in best if best[name] != tsptq[name]} <= {site.name for site in gelu}


def test_a_single_scale_after_gelu_where_nothing_is_small(statistics):
    # Uniform between its ends: two scales would only waste codes.
    method = Mptq(MptqSettings(activations=4))
    rows = torch.linspace(-1, 1, 10_001)[:, None]
    name = "blocks.0.mlp.act"
    observed = {name: type(statistics.observed[name])(rows.min()[None], rows.max()[None], (rows,))}
    flat = MptqStatistics(statistics.model, statistics.sites, observed)
    site = next(site for site in statistics.sites if site.name == name)
    assert method.activation(flat, site, 4) == affine(-1.0, 1.0, 4)


# Greedy MP

def test_units_have_every_operand_and_weight_once():
    for model in (small(), small_swin()):
        roles = {site.name: site.role for site in sites(model)}
        weights = {name for name, value in model.named_parameters()
                   if name.endswith("weight") and value.ndim > 1}
        wanted = weights | {name for name, role in roles.items()
                            if role not in ("input", "stream", "scores")}
        for joint in (True, False):
            found = units(model, joint)
            tensors = [name for unit in found for name in unit.tensors]
            assert sorted(tensors) == sorted(wanted)
            assert len({unit.name for unit in found}) == len(found)
    by_name = {unit.name: set(unit.tensors) for unit in units(small())}
    assert by_name["blocks.1.attn.qkv"] == {"blocks.1.attn.qkv.weight", "blocks.1.norm1"}
    assert by_name["blocks.1.attn.context"] == {"blocks.1.attn.softmax", "blocks.1.attn.v"}
    assert by_name["patch_embed.proj"] == {"patch_embed.proj.weight"}


def test_elements_are_those_of_one_image():
    model = small()
    found = elements(model, torch.rand(3, 1, 8, 8))
    assert found["blocks.0.attn.qkv.weight"] == 8 * 24
    assert found["blocks.0.norm1"] == 5 * 8 and found["norm"] == 8
    assert found["blocks.0.attn.softmax"] == 2 * 5 * 5
    assert not {"input", "embedding", "blocks.0.attn.scores"} & found.keys()
    formats = {name: affine(0, 1, bits) for name, bits in
               (("norm", 8), ("blocks.0.norm1", 4), ("embedding", 8))}
    assert average_bits(formats, found) == (8 * 8 + 40 * 4) / 48


def brute(model: Vit, images: list[Tensor], formats: dict[str, TensorFormat]) -> float:
    """Divergence by the shared simulation, the whole network for every answer."""
    simulated = apply(model, Record(method="x", settings={}, formats=formats))
    total = 0.0
    with torch.inference_mode():
        for batch in images:
            wanted, got = model(batch).log_softmax(1), simulated(batch).log_softmax(1)
            total += float((wanted.exp() * (wanted - got)).double().sum())
    return total / sum(map(len, images))


@pytest.mark.parametrize("make, rounds, least, target",
                         [(small, 2, 5, 6.0), thorough(small_swin, 1, 6, 7.0)])
def test_greedy_steps_are_the_cheapest(make, rounds, least, target):
    model = make()
    spec = model.spec
    images = [torch.rand(n, spec.in_channels, spec.image_size, spec.image_size,
                         generator=torch.Generator().manual_seed(n)) for n in (2, 3)]
    method = Mptq(MptqSettings(target=target, least_bits=least, rounds=rounds, smooth=False))
    statistics = method.observe(model, images)
    record = method.decide(statistics)
    found, sizes = units(model), elements(model, images[0])
    single = {bits: Mptq(MptqSettings(weights=bits, activations=bits, smooth=False)).decide(
        statistics).formats for bits in range(least, 9)}
    menu = {unit.name: {bits: {name: single[bits][name] for name in unit.tensors}
                        for bits in single} for unit in found}
    # The same greedy walk, with nothing kept between two questions.
    formats = dict(single[8])
    widths = {unit.name: 8 for unit in found}
    start = average_bits(formats, sizes)

    def price(name: str, bits: int) -> float:
        saved = sum(sizes[tensor] * (formats[tensor].bits - item.bits)
                    for tensor, item in menu[name][bits].items())
        return (rises[name, bits] - rises[name, widths[name]]) / saved

    for part in range(1, rounds + 1):
        goal = start + (target - start) * part / rounds
        base = brute(model, images, formats)
        rises = {(unit.name, bits): brute(model, images, formats | menu[unit.name][bits]) - base
                 for unit in found for bits in range(least, widths[unit.name])}
        rises |= dict.fromkeys(widths.items(), 0.0)
        while average_bits(formats, sizes) > goal + 1e-9:
            name, bits = min(((name, bits) for name, wide in widths.items()
                              for bits in range(least, wide)), key=lambda pair: price(*pair))
            widths[name] = bits
            formats |= menu[name][bits]
    assert {unit.name: record.formats[unit.tensors[0]].bits for unit in found} == widths
    assert dict(record.formats) == formats
    assert target - 0.5 < average_bits(record.formats, sizes) <= target
    assert len(set(widths.values())) > 1


@pytest.fixture(scope="module")
def mixed(statistics) -> Record:
    return Mptq(MptqSettings(target=5.0, rounds=1)).decide(statistics)


def test_widths_follow_what_the_layers_bear(model, batches, few, mixed):
    table = layer_widths(mixed)
    assert table.keys() == {name.removesuffix(".weight") for name in mixed.formats
                            if name.endswith(".weight")}
    assert table["blocks.0.mlp.fc2"] == LayerWidths(
        mixed.formats["blocks.0.mlp.fc2.weight"].bits, mixed.formats["blocks.0.mlp.act"].bits)
    assert all(4 <= item.weights == item.activations <= 8
               for name, item in table.items() if name != "patch_embed.proj")
    assert table["patch_embed.proj"].activations == 8
    assert mixed.formats["blocks.0.residual1"].bits == 8
    sizes = elements(model, batches[0])
    assert 4.8 < average_bits(mixed.formats, sizes) <= 5.0
    assert mnist.accuracy(apply(model, mixed), few) >= mnist.accuracy(model, few) - 0.03


def test_the_integer_side_takes_the_widths(model, mixed):
    widths = {layer: item.weights for layer, item in layer_widths(mixed).items()}
    assert len(set(widths.values())) > 1
    config = Config(operand_bits=17, norm_bits=16, max_keys=64, max_channels=128)
    integer = calibrate(network(model, mixed.parameters), mnist.sample().calibration.images[:20],
                        config, weight_bits=widths)
    for layer, weights in integer.weights.items():
        if layer.endswith(("mlp.fc1", "mlp.fc2", "attn.proj")):
            assert int(weights.abs().max()) == (1 << widths[layer] - 1) - 1, layer
    page = report("mnist_vit", mixed, integer, (), {})
    table = layer_widths(mixed)
    for layer, item in table.items():
        assert f"| `{layer}` | {item.weights} | {item.activations} |\n" in page
    plain = Mptq().record({"head.weight": mixed.formats["head.weight"]})
    assert "Widths" not in report("mnist_vit", plain, integer, (), {})


def test_narrow_settings_stay_and_parts_of_a_layer_may_differ(model, statistics):
    settings = MptqSettings(target=5.0, attention=4, least_bits=5, joint=False, rounds=1,
                            weights=6)
    record = Mptq(settings).decide(statistics)
    bits = {name: item.bits for name, item in record.formats.items()}
    assert all(bits[f"blocks.{n}.attn.softmax"] == 4 for n in range(4))
    table = layer_widths(record)
    assert all(item.weights in (5, 6) for item in table.values())
    assert any(item.weights != item.activations for item in table.values())


def test_a_target_that_no_width_reaches(statistics):
    images = statistics.images
    unit = Unit("head", ("head.weight", "norm"))
    formats = {8: dict.fromkeys(unit.tensors, affine(0, 1, 8))}
    with pytest.raises(ValueError, match="target must be at least 8 bits, not 5"):
        allocate(statistics.model, images, [unit], {"head": formats}, {}, 5.0)
    plain = Tsptq().observe(statistics.model, images)
    with pytest.raises(ValueError, match="Greedy MP needs statistics"):
        Mptq(MptqSettings(target=5.0)).decide(plain)


def test_progress_is_told(statistics):
    told: dict[str, list[int]] = {}

    def bars(text: str, total: int):
        told[text] = [total]
        return told[text].append

    Mptq(MptqSettings(target=7.0, least_bits=7, rounds=1)).decide_visibly(statistics, bars)
    assert told["formats of all widths"][0] == sum(told["formats of all widths"][1:])
    assert told["greedy widths"][0] == sum(told["greedy widths"][1:])
    assert told["greedy widths"][0] == len(units(statistics.model))


# All together

@pytest.mark.thorough
def test_accuracy_of_every_part(model, batches, few, statistics):
    wanted = mnist.accuracy(model, few)
    for more in ({}, {"smooth": False}, {"bias": False}, {"optimal_m": False},
                 {"alphas": (0.25, 0.5, 0.75)}):
        method = Mptq(MptqSettings(weights=6, activations=6, **more))
        assert mnist.accuracy(method.apply(model, method.decide(statistics)), few) >= wanted - 0.02


def test_swin():
    model = small_swin()
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    method = Mptq()
    record = method.decide(method.observe(model, [batch]))
    torch.testing.assert_close(method.apply(model, record)(batch), model(batch), atol=0.1, rtol=0)


@pytest.mark.parametrize("wrong", [
    {"alphas": ()}, {"alphas": (1.5,)}, {"fixed_m": 0}, {"fixed_m": 5, "largest_m": 4},
    {"least_bits": 2}, {"target": 3.0}, {"target": 9.0}, {"rounds": 0}, {"largest_m": 7}])
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MptqSettings(**wrong)
