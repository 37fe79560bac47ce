# SPDX-License-Identifier: Apache-2.0
"""The frame of all quantization methods: formats, sites, observers, records and simulation."""

import json
import math

import pytest
import torch
from PIL import Image
from torch import Tensor

from golden.commands.evaluate import WEIGHTS
from golden.commands.quantize import configured
from golden.data import imagenet, mnist
from golden.float import checkpoint, models
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.integer_softmax import LogIntSoftmax
from golden.ptq.method import Settings, apply
from golden.ptq.minmax import MinMax
from golden.ptq.ranges import (
    affine,
    channel_weights,
    observed_range,
    percentile_search,
    squared_error,
)
from golden.ptq.record import Record, RecordError
from golden.ptq.sites import ROLES, layers, sites, source
from golden.ptq.statistics import Observed, collect
from tests.records import differences
from tests.tangent import tangent_table

VIT = VitSpec(image_size=8, dim=8, depth=2, heads=2, mlp_hidden=16)
SWIN = SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2), heads=(1, 2),
                window=4)


def networks() -> list[Vit | Swin]:
    return [Vit(VIT).initialize(1).eval(), Swin(SWIN).initialize(1).eval()]


def images(model: Vit | Swin, count: int = 3, seed: int = 0) -> Tensor:
    spec = model.spec
    return torch.rand(count, spec.in_channels, spec.image_size, spec.image_size,
                      generator=torch.Generator().manual_seed(seed))


def outputs_and_inputs(model: Vit | Swin, batch: Tensor) -> tuple[dict[str, Tensor], ...]:
    seen: dict[str, Tensor] = {}
    fed: dict[str, Tensor] = {}

    def hook(name):
        def see(_module, inputs, output):
            fed[name], seen[name] = inputs[0], output
        return see

    for name, module in model.named_modules():
        module.register_forward_hook(hook(name))
    model(batch)
    return seen, fed


@pytest.mark.parametrize("item", [
    TensorFormat(kind="uniform", bits=8, scale=0.03, zero_point=100),
    TensorFormat(kind="uniform", bits=3, scale=0.5, signed=True),
    TensorFormat(kind="uniform", bits=4, scale=(0.1, 0.2, 0.4, 0.8), axis=0, signed=True),
    TensorFormat(kind="uniform", bits=6, scale=(0.1, 0.2, 0.4, 0.8), zero_point=31),
    TensorFormat(kind="shifted", bits=8, scale=2.0**-7, zero_point=120, shift=(0, 1, 2, 3)),
    TensorFormat(kind="two-scale", bits=8, scale=0.01, m=3),
    TensorFormat(kind="two-scale", bits=4, scale=0.1, m=2, signed=True),
    TensorFormat(kind="log2", bits=4, scale=2.0**-15),
    TensorFormat(kind="table", bits=4, scale=1 / 255, values=tangent_table().values),
], ids=lambda item: f"{item.kind}-{item.bits}")
def test_simulation_equals_the_exact_format(item):
    x = torch.randn(4, 500, 4, generator=torch.Generator().manual_seed(3)).double() * 2
    ties = torch.arange(-40, 40).double()[:, None].expand(-1, 4) / 2
    steps = item.scale if isinstance(item.scale, float) else item.scale[0]
    x = torch.cat((x, (ties * steps).expand(4, -1, -1)), 1)
    if item.axis == 0:
        x = x.flatten(1)
    if item.kind in ("log2", "table"):
        x = x.abs().clamp_max(1)
    exact = item.exact()
    assert torch.equal(simulate(x, item), exact.dequantize(exact.quantize(x)))
    with pytest.raises(TypeError, match="real values"):
        simulate(x.long(), item)


def test_log_sqrt2_levels():
    item = TensorFormat(kind="log-sqrt2", bits=4, scale=0.5)
    code = torch.arange(18).double()
    got = simulate(0.5 * 2 ** (-code / 2), item)
    wanted = torch.where(code < 16, 0.5 * 2 ** (-code / 2), 0)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    # Between codes 2 and 3 the threshold is at 2.5; above the scale there is code 0; 0 is 0.
    got = simulate(torch.tensor([0.5 * 2**-1.26, 0.5 * 2**-1.24, 0.9, 0.0]), item)
    torch.testing.assert_close(got, torch.tensor([0.5 * 2**-1.5, 0.25, 0.5, 0.0]))


@pytest.mark.parametrize("wrong, message", [
    ({"kind": "cubic"}, "kind must be one of"), ({"bits": 9}, "bits must be 2 to 8"),
    ({"scale": 0.0}, "positive"), ({"scale": math.nan}, "positive"), ({"axis": 1}, "axis"),
    ({"kind": "log2", "scale": (1.0, 2.0)}, "one scale"),
])
def test_impossible_format(wrong, message):
    with pytest.raises(ValueError, match=message):
        TensorFormat(**{"kind": "uniform", "bits": 8, "scale": 1.0, **wrong})


def test_sites_and_sources():
    vit, swin = networks()
    names = [site.name for site in sites(vit)]
    assert names[:3] == ["input", "embedding", "blocks.0.norm1"]
    assert len(names) == 2 + 2 * 11 + 1
    assert {site.role for site in sites(vit)} == {
        "input", "stream", "norm", "query", "key", "value", "scores", "attention", "context",
        "gelu"}
    roles = {site.name: site.role for site in sites(swin)}
    assert roles["layers.0.blocks.1.attn.biased"] == "scores"
    assert "layers.0.blocks.1.attn.scores" not in roles
    assert roles["patch_embed.norm"] == roles["layers.1.downsample.merged"] == "stream"
    for model in (vit, swin):
        batch = images(model)
        seen, fed = outputs_and_inputs(model, batch)
        seen["input"] = batch
        known = {site.name for site in sites(model)}
        for layer in layers(model):
            assert source(layer) in known
            if source(layer).endswith("norm1") or layer == "head":
                continue   # rolled and cut into windows, or the class token only
            torch.testing.assert_close(seen[source(layer)], fed[layer])


def test_collected_ranges_and_rows():
    model = networks()[0]
    batches = images(model, 6).split(2)
    done = []
    statistics = collect(model, batches, most=10**6, advance=done.append)
    assert done == [2, 2, 2]
    seen = statistics.observed["input"]
    assert seen.low.tolist() == [float(batch.min()) for batch in batches]
    assert torch.equal(seen.all_rows, images(model, 6).reshape(-1, 8))
    assert statistics.observed["norm"].all_rows.shape == (6, 8)       # class tokens
    few = collect(model, batches, most=40, last=True).observed["blocks.0.norm1"]
    assert [rows.shape for rows in few.rows] == [(5, 8)]              # 2 images, 10 tokens
    assert len(few.low) == 3


def test_rows_of_roles_without_use_are_not_kept():
    model = networks()[0]
    batches = images(model, 4).split(2)
    whole, some = collect(model, batches), collect(model, batches, kept=("stream", "scores"))
    for site in whole.sites:
        every, kept = whole.observed[site.name], some.observed[site.name]
        assert torch.equal(every.low, kept.low) and torch.equal(every.high, kept.high)
        wanted = every.rows if site.role in ("stream", "scores") else ()
        assert [rows.tolist() for rows in kept.rows] == [rows.tolist() for rows in wanted]
    for name, settings, roles in (
            ("fq-vit", {}, {"stream", "scores"}), ("fq-vit", {"observer": "omse"}, set(ROLES)),
            ("minmax", {}, set()), ("minmax", {"stream": 0}, {"stream", "scores"})):
        seen = configured(name, settings, []).observe(model, batches)
        assert {site.role for site in seen.sites if seen.observed[site.name].rows} \
            == roles & {site.role for site in seen.sites}


@pytest.mark.parametrize("batch, message", [
    (torch.empty(0, 1, 8, 8), "at least one"), (torch.full((2, 1, 8, 8), 0.5), "constant"),
    (torch.full((2, 1, 8, 8), math.nan), "input that are not finite"),
    (torch.arange(64.0).reshape(1, 1, 8, 8) ** 25, "input that are not finite"),    # the largest
    (-torch.arange(64.0).reshape(1, 1, 8, 8) ** 25, "input that are not finite"),   # the least
    (torch.arange(64.0).reshape(1, 1, 8, 8) * 5e36, "calibration makes values at blocks.0"),
])
def test_unusable_calibration(batch, message):
    with pytest.raises(ValueError, match=message):
        collect(networks()[0], [batch])


def test_ranges_of_all_quantiles_are_tried():
    x = torch.randn(3000, generator=torch.Generator().manual_seed(2)) ** 3
    shares, tried = (0.9, 0.999, 0.97), []

    def make(low, high, bits):
        tried.append((low, high))
        return affine(low, high, bits)

    found = percentile_search(x, 4, make, shares)
    ends = [(torch.quantile(x, 1 - share).item(), torch.quantile(x, share).item())
            for share in shares]
    assert tried == [pytest.approx(pair, rel=1e-5) for pair in ends]
    errors = [squared_error(x, affine(*pair, 4)) for pair in tried]
    assert found == affine(*tried[errors.index(min(errors))], 4) and min(errors) < max(errors)


def test_observers():
    first, second = torch.linspace(-1, 3, 401)[:, None], torch.linspace(-2, 1, 301)[:, None]
    seen = Observed(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, 1.0]), (first, second))
    assert observed_range(seen, "minmax", 8) == (-2, 3)
    assert observed_range(seen, "ema", 8, sigma=0.25) == (-1.25, 2.5)
    low, high = observed_range(seen, "percentile", 8, sigma=0.5, share=0.99)
    assert low == pytest.approx((-0.96 - 1.97) / 2, abs=1e-5)
    assert high == pytest.approx((2.96 + 0.97) / 2, abs=1e-5)
    quantile = torch.quantile(first, 0.987).item()
    alone = Observed(first.min()[None], first.max()[None], (first,))
    assert observed_range(alone, "percentile", 8, share=0.987)[1] == pytest.approx(quantile)
    # One far value in 10,000 isn't worth a range of 16 steps.
    far = torch.cat((torch.rand(10_000, generator=torch.Generator().manual_seed(1)),
                     torch.tensor([3.0])))[:, None]
    low, high = observed_range(Observed(far.min()[None], far.max()[None], (far,)), "omse", 4)
    assert 0.9 < high < 1.5
    with pytest.raises(ValueError, match="observer must be one of minmax"):
        observed_range(seen, "mean", 8)


def test_affine_covers_the_range_and_zero():
    item = affine(-1.0, 3.0, 8)
    ends = simulate(torch.tensor([-1.0, 0.0, 3.0]).double(), item)
    torch.testing.assert_close(ends, torch.tensor([-1.0, 0, 3]).double(), atol=item.scale / 2,
                               rtol=0)
    assert ends[1] == 0
    assert affine(1.0, 3.0, 8).zero_point == 0 and affine(-3.0, -1.0, 4).zero_point == 15
    assert affine(0.0, 0.0, 8).scale > 0


def test_channel_weights_reach_the_peak():
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    item = channel_weights(weight, 4)
    peaks = simulate(weight, item).abs().amax(1)
    torch.testing.assert_close(peaks, weight.abs().amax(1))


@pytest.mark.parametrize("index", [0, 1])
def test_every_site_and_weight_lies_on_its_grid(index):
    model = networks()[index]
    batch = images(model)
    method = MinMax(Settings(weights=5, activations=4, attention=3, stream=6))
    record = method.decide(method.observe(model, [batch]))
    wanted = {site.name for site in sites(model)} | {f"{name}.weight" for name in layers(model)}
    assert record.formats.keys() == wanted
    bits = {site.role: record.formats[site.name].bits for site in sites(model)}
    assert bits["input"] == 8 and bits["stream"] == bits["scores"] == 6
    assert bits["attention"] == 3 and bits["norm"] == bits["query"] == bits["gelu"] == 4
    simulated = method.apply(model, record)
    seen: dict[str, Tensor] = {}
    modules = dict(simulated.named_modules())
    for site in sites(simulated)[1:]:
        modules[site.name].register_forward_hook(
            lambda _m, _i, out, name=site.name: seen.update({name: out}))
    simulated(batch)
    for name, item in record.formats.items():
        value = dict(simulated.named_parameters()).get(name, seen.get(name))
        if value is not None:
            assert torch.equal(simulate(value, item), value), name
            levels = len(value.unique()) if item.axis == -1 else \
                max(len(row.unique()) for row in value)
            assert 2 <= levels <= 1 << item.bits, name
    before = model(batch)
    assert torch.equal(before, networks()[index](batch)), "the float network has changed"


def test_wide_formats_change_little_and_narrow_ones_much():
    model = checkpoint.load(WEIGHTS)
    sample = mnist.sample()
    batch = mnist.pixels(sample.calibration.images[:20])
    right = {}
    for bits in (8, 3):
        method = MinMax(Settings(weights=bits, activations=bits, stream=bits))
        simulated = method.apply(model, method.decide(method.observe(model, [batch])))
        right[bits] = mnist.accuracy(simulated, sample.test)
    assert right[8] >= mnist.accuracy(model, sample.test) - 0.01
    assert right[3] < 0.9


def test_records_are_kept_whole(tmp_path):
    model = networks()[0]
    method = MinMax()
    record = method.decide(method.observe(model, [images(model)]))
    weight = model.blocks[0].attn.qkv.weight.detach().clone()
    changed = Record(method=record.method, settings=record.settings, formats=record.formats,
                     parameters={"blocks.0.attn.qkv.weight": weight * 2})
    for index, item in enumerate((record, changed)):
        path = tmp_path / f"{index}.json"
        item.save(path)
        assert Record.load(path) == item
    assert record != changed
    assert differences(record, changed) == ("blocks.0.attn.qkv.weight",)
    formats = {**record.formats, "input": affine(0, 2, 8)}
    other = Record(method=record.method, settings=record.settings, formats=formats)
    assert differences(record, other) == ("input",) and record != other
    batch = images(model)
    assert not torch.equal(apply(model, record)(batch), apply(model, changed)(batch))
    assert torch.equal(apply(model, record)(batch), apply(model, Record.load(tmp_path / "0.json"))(
        batch))


def test_files_that_hold_no_record(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(RecordError, match="can't read"):
        Record.load(path)
    bad_format = {"method": "x", "settings": {}, "formats": {"a": {"bits": 1}}, "parameters": None}
    for text in ("", "[]", "{}", json.dumps(bad_format)):
        path.write_text(text)
        with pytest.raises(RecordError, match="holds no quantization record"):
            Record.load(path)


def test_record_of_another_network():
    vit, swin = networks()
    method = MinMax()
    record = method.decide(method.observe(swin, [images(swin)]))
    with pytest.raises(ValueError, match=r"not part of this network|channels"):
        apply(vit, record)


@pytest.mark.parametrize("wrong", [{"weights": 2}, {"activations": 9}, {"attention": 0},
                                   {"stream": 1}, {"input": True}])
def test_impossible_widths(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be 3 to 8 bits"):
        Settings(**wrong)


@pytest.mark.parametrize("exponential", ["polynomial", "shift"])
def test_integer_softmax_is_near_and_masks(exponential):
    scores = affine(-8, 8, 8)
    x = torch.randn(2, 3, 5, 17, generator=torch.Generator().manual_seed(2)) * 2
    x = simulate(x, scores)
    softmax = LogIntSoftmax(scores, 4, exponential)
    real, got = x.softmax(-1), softmax(x)
    assert float((got[real > 0.01].log2() - real[real > 0.01].log2()).abs().max()) < 0.85
    x[..., -4:] -= 100
    got = softmax(x)
    assert not bool(got[..., -4:].any())
    assert torch.equal(got[..., :-4], softmax(x[..., :-4]))


def test_preprocessing():
    how = models.Preprocessing(size=4, crop=0.5, interpolation="nearest", mean=(0.5, 0.25, 0.0),
                               std=(0.5, 1.0, 2.0))
    picture = Image.new("RGB", (32, 16))
    picture.putdata([(x * 8, y * 16, 255) for y in range(16) for x in range(32)])
    got = imagenet.transform(picture, how)       # 32x16 -> 16x8 -> the middle 4x4
    assert got.shape == (3, 4, 4)
    red = torch.tensor([13, 15, 17, 19]) * 8 / 255
    torch.testing.assert_close(got[0], ((red - 0.5) / 0.5).expand(4, -1))
    green = torch.tensor([5, 7, 9, 11]) * 16 / 255
    torch.testing.assert_close(got[1], (green - 0.25)[:, None].expand(-1, 4))
    torch.testing.assert_close(got[2], torch.full((4, 4), 0.5))
    plain = imagenet.transform(picture.crop((0, 0, 6, 4)), how, resize=False)
    torch.testing.assert_close(plain[0, 0], (torch.arange(1, 5) * 8 / 255 - 0.5) / 0.5)
    with pytest.raises(ValueError, match="smaller than the crop"):
        imagenet.transform(picture.crop((0, 0, 6, 3)), how, resize=False)


def test_picture_folder(tmp_path):
    for name, value in (("b", 10), ("a", 200), ("b", 20)):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("L", (28, 28), value).save(tmp_path / name / f"{value}.png")
    how = models.lookup("mnist_vit").preprocessing
    folder = imagenet.Folder.open(tmp_path)
    assert folder.labels.tolist() == [0, 1, 1]
    batches = list(folder.batches(how, 2))
    assert [len(labels) for _, labels in batches] == [2, 1]
    assert [round(float(image.mean()) * 255) for image in torch.cat([x for x, _ in batches])] == [
        200, 10, 20]
    assert imagenet.Folder.open(tmp_path, ("c", "b", "a")).labels.tolist() == [2, 1, 1]
    assert folder.choose(2, 7).files == folder.choose(2, 7).files
    assert len(set(folder.choose(9, 0).files)) == 3
    with pytest.raises(mnist.DataError, match="is not one of the 1 classes"):
        imagenet.Folder.open(tmp_path, ("a",))
    (tmp_path / "b" / "30.png").write_bytes(b"no picture")
    with pytest.raises(mnist.DataError, match=r"30\.png is not a picture"):
        list(imagenet.Folder.open(tmp_path).batches(how, 2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(mnist.DataError, match="holds no pictures"):
        imagenet.Folder.open(tmp_path / "empty")
    with pytest.raises(mnist.DataError, match="can't read"):
        imagenet.Folder.open(tmp_path / "nowhere")
