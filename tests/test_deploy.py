# SPDX-License-Identifier: Apache-2.0
"""Records of every method as integer networks: what was decided, what it became, and the bits."""

import copy
import dataclasses
import re

import pytest
import torch
from torch import Tensor

from gen.compiler.command import memory_image
from gen.compiler.compile import compile_network
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.deploy.activations import (
    Found,
    deploy_gelu,
    deploy_projection,
    deploy_scores,
    deploy_stream,
    deploy_uniform,
)
from golden.deploy.network import deploy, suited
from golden.deploy.notes import Note, load_notes, save_notes, summary
from golden.deploy.weights import deploy_head, deploy_weights, folded_embedding
from golden.float import checkpoint, models
from golden.float.preprocessing import one_deviation
from golden.float.vit import Vit, VitSpec
from golden.formats.formats import Shifted, TwoScale, Uniform
from golden.machine.execute import execute
from golden.machine.program import read_logits
from golden.network import inference
from golden.network.fast import Fast
from golden.network.inference import Call
from golden.network.integers import Network
from golden.network.plan import Matrix
from golden.ptq import METHODS
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.method import Method, apply
from golden.ptq.record import Record
from golden.ptq.scores import score_search
from golden.ptq.statistics import Observed, Statistics, collect
from golden.units.requant_parameters import value_step
from golden.units.softmax import softmax_scale
from tests.sample import later
from vitforge.spec.config import Config, load

SPEC = VitSpec(image_size=16, patch_size=4, in_channels=3, classes=5, dim=16, depth=2, heads=2,
               mlp_hidden=24)
#: Every channel has a mean and a deviation of its own.
HOW = models.Preprocessing(size=16, crop=1.0, interpolation="bicubic", mean=(0.4, 0.5, 0.6),
                           std=(0.2, 0.3, 0.25))
TINY = load("tiny")


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = (count, SPEC.in_channels, SPEC.image_size, SPEC.image_size)
    return torch.randint(256, size, generator=generator).to(torch.uint8)


def normalised(codes: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (HOW.mean, HOW.std))
    return (codes / 255 - mean) / std


@pytest.fixture(scope="module")
def model() -> Vit:
    found = Vit(SPEC).initialize(3).eval()
    with torch.no_grad():   # attention that isn't the same for all keys, and biases
        for name, value in found.named_parameters():
            if name.endswith("qkv.weight"):
                value[:2 * SPEC.dim] *= 1.5
            if name.endswith("bias"):
                value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(5))
    return found


def method(name: str, bits: int) -> Method:
    kind = METHODS[name]
    more = {"stream": bits} if kind().settings.stream else {}
    attention = {"fq-vit": 4, "dopq-vit": min(bits, 4)}.get(name)
    return kind(dataclasses.replace(kind().settings, weights=bits, activations=bits,
                                    attention=attention, **more))


@pytest.fixture(scope="module")
def decided(model):
    """Statistics and record of a method, made once."""
    known: dict[tuple[str, int], tuple[Statistics, Record]] = {}

    def decide(name: str, bits: int) -> tuple[Statistics, Record]:
        if (name, bits) not in known:
            chosen = method(name, bits)
            statistics = chosen.observe(model, iter(normalised(images(12, 1)).split(6)))
            known[name, bits] = statistics, chosen.decide(statistics)
        return known[name, bits]

    return decide


def on_the_accelerator(whole: Network, image: Tensor) -> list[int]:
    compiled = compile_network(whole)
    memory = memory_image(compiled, image)
    done = execute(memory.program, memory.input, compiled.config, compiled.output_bytes)
    return read_logits(done.output, compiled.spec.classes, compiled.config).tolist()


def decibels(real: Tensor, found: Tensor) -> float:
    return float(10 * (real.double().square().sum()
                       / (real - found).double().square().sum()).log10())


@pytest.mark.parametrize(("bits", "suit"), [later(8, True), later(6, False), (4, True)])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_deploys(model, decided, name, bits, suit):
    statistics, record = decided(name, bits)
    config = suited(TINY, record) if suit else TINY
    whole, notes = deploy(model, record, config, statistics=statistics, preprocessing=HOW)
    codes = images(4, 2)
    logits = inference.run(whole, codes)
    assert on_the_accelerator(whole, codes[:1]) == logits[0].tolist()
    assert torch.equal(Fast(whole)(codes), logits)
    # About as far from the float network as the simulation is; log2 codes cost more than others.
    with torch.no_grad():
        real, simulated = (net(normalised(codes)) for net in (model, apply(model, record)))
    far = decibels(real, simulated)
    assert decibels(real, logits * whole.logit_scale) > min(far, 24 if suit else 17) - 6
    names = [note.tensor for note in notes]
    assert len(set(names)) == len(names)
    item = record.formats["blocks.0.attn.softmax"]
    if suit:
        many = item.kind in ("log-sqrt2", "table") and item.bits > 4
        assert config.attention == ("two-scale" if many else item.kind)


def test_notes_are_the_tensors_that_changed(model, decided):
    statistics, record = decided("minmax", 8)
    whole, notes = deploy(model, record, TINY, statistics=statistics, preprocessing=HOW)
    assert {(count, note.tensor) for count, note in summary(notes)} == {
        (1, "input"), (1, "patch_embed.proj.weight"), (1, "blocks.*.attn.q"),
        (2, "blocks.*.attn.k"), (2, "blocks.*.attn.v"), (2, "blocks.*.attn.softmax"),
        (1, "*.attn.softmax (exponential)"), (1, "*.bias"), (1, "*.norm*.weight, *.norm*.bias"),
        (1, "*.mlp.act (GeLU)"), (1, "pos_embed, cls_token"), (1, "requantization")}
    changed = {note.tensor for note in notes}
    assert {record.formats[f"blocks.{n}.attn.q"].zero_point == 128 for n in (0, 1)} == {True, False}
    for tensor, item in record.formats.items():
        if tensor in changed or tensor == "input":
            continue
        found = whole.formats[tensor]
        assert (type(found), found.bits) == (
            Shifted if "residual" in tensor or tensor == "embedding" else Uniform, item.bits)
        # Min-max has no factors; a matrix has a step for each row.
        scale = torch.tensor(item.scale, dtype=torch.float64)
        assert torch.equal(torch.as_tensor(found.scale, dtype=torch.float64).flatten(),
                           scale.flatten())
        assert getattr(found, "zero_point", 0) == item.zero_point
    key = next(note for note in notes if note.tensor == "blocks.1.attn.k")
    item = record.formats["blocks.1.attn.k"]
    assert key.decided == f"uniform 8 bits, step {item.scale:.4g}, zero at {item.zero_point}"
    assert re.fullmatch(r"uniform 8 bits, step [\d.e-]+, zero at 128", key.deployed)
    assert key.why.startswith("K and V are stationary operands")


def test_what_a_record_leaves_in_float_comes_from_calibration(model, decided):
    statistics, record = decided("repq-vit", 8)
    whole, notes = deploy(model, record, TINY, statistics=statistics, preprocessing=HOW)
    floats = {note.tensor for note in notes if note.decided == "float"}
    assert {"embedding", "blocks.0.residual1", "blocks.1.residual2", "blocks.0.attn.scores",
            "blocks.1.attn.scores"} <= floats
    seen = statistics.observed["blocks.0.attn.scores"]
    wanted = score_search(seen, 8)
    found = whole.formats["blocks.0.attn.scores"]
    assert (found.scale, found.zero_point) == (wanted.scale, wanted.zero_point)
    assert isinstance(whole.formats["embedding"], Shifted)
    with pytest.raises(ValueError, match="embedding has no usable format"):
        deploy(model, record, TINY)


def test_a_complete_record_needs_no_statistics(model, decided):
    _, record = decided("fq-vit", 8)
    whole, _ = deploy(model, record, TINY, preprocessing=HOW)
    assert inference.run(whole, images(1, 2)).shape == (1, SPEC.classes)


def test_narrow_projections_saturate_where_they_were_decided_to(model, decided):
    statistics, record = decided("minmax", 4)
    formats = {name: dataclasses.replace(item, scale=item.scale / 3)   # type: ignore[operator]
               if name.endswith((".q", ".k", ".v")) else item
               for name, item in record.formats.items()}
    whole, _ = deploy(model, dataclasses.replace(record, formats=formats), TINY,
                      statistics=statistics, preprocessing=HOW)
    calls: list[Call] = []
    inference.run(whole, images(3, 4), calls.append)
    for block in range(2):
        codes = torch.cat([call.output for call in calls if call.unit == "requant"
                           and call.name == f"blocks.{block}.attn.qkv"])
        for part, found in zip("qkv", codes.chunk(3, -1), strict=True):
            zero = formats[f"blocks.{block}.attn.{part}"].zero_point
            assert isinstance(zero, int)
            assert (int(found.min()), int(found.max())) == (128 - zero, 128 - zero + 15)


def test_mixed_widths_reach_the_program(model, decided):
    statistics, record = decided("minmax", 8)
    formats = dict(record.formats)
    widths = {"blocks.0.mlp.fc1": 3, "blocks.1.attn.proj": 5, "blocks.1.mlp.fc2": 2}
    for layer, bits in widths.items():
        item = formats[f"{layer}.weight"]
        ratio = 127 / ((1 << bits - 1) - 1)
        formats[f"{layer}.weight"] = dataclasses.replace(
            item, bits=bits, scale=tuple(value * ratio for value in item.scale))
    whole, _ = deploy(model, dataclasses.replace(record, formats=formats), TINY,
                      statistics=statistics, preprocessing=HOW)
    compiled = compile_network(whole)
    found = {step.layer: item.fields["weight_bits"] for step, item in zip(
        compiled.steps, compiled.instructions[2:], strict=False) if step.weights is not None}
    assert {name: bits for name, bits in found.items() if bits < 8} == widths


def test_parameters_of_the_record_are_used(model, decided):
    statistics, record = decided("minmax", 8)
    bias = torch.tensor([0.0, 40.0, 0.0, 0.0, 0.0])
    changed = dataclasses.replace(record, parameters={"head.bias": bias})
    whole, _ = deploy(model, changed, TINY, statistics=statistics, preprocessing=HOW)
    assert inference.run(whole, images(3, 2)).argmax(1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_with_one_deviation_the_first_layer_is_what_was_decided(model, bits):
    even, how = one_deviation(model, HOW)
    assert set(how.std) == {0.25} and how.mean == HOW.mean and even is not model
    codes, mean = images(8, 4), torch.tensor(how.mean)[:, None, None]
    pictures = (codes / 255 - mean) / 0.25
    with torch.inference_mode():   # the same network
        assert torch.allclose(even(pictures), model(normalised(codes)), atol=1e-4)
    chosen = method("repq-vit", bits)
    statistics = chosen.observe(even, [pictures])
    record = chosen.decide(statistics)
    whole, notes = deploy(even, record, suited(TINY, record), statistics=statistics,
                          preprocessing=how)
    name = "patch_embed.proj.weight"
    item, codes_of = record.formats[name], whole.weights["patch_embed.proj"]
    assert name not in {note.tensor for note in notes}
    real = simulate(even.get_parameter(name).detach().double(), item).flatten(1)
    step = torch.tensor(item.scale, dtype=torch.float64)[:, None]
    assert torch.allclose(codes_of.T * step, real, rtol=1e-9)
    # With deviations of their own some codes or steps are others.
    uneven = chosen.observe(model, [normalised(codes)])
    record = chosen.decide(uneven)
    _, notes = deploy(model, record, suited(TINY, record), statistics=uneven, preprocessing=HOW)
    assert name in {note.tensor for note in notes}
    assert one_deviation(even, how) == (even, how)


def test_the_networks_digits():
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()
    statistics = collect(model, [mnist.pixels(sample.calibration.images[:20])])
    record = METHODS["fq-vit"]().decide(statistics)
    whole, notes = deploy(model, record, load("edge8"), statistics=statistics)
    few = sample.test.images[:60]
    assert torch.equal(Fast(whole)(few[:2]), inference.run(whole, few[:2]))
    assert int((Fast(whole)(few).argmax(1) == sample.test.labels[:60]).sum()) >= 59
    # Nothing is folded into the first layer, and pixels are the decided input.
    assert not {"input", "patch_embed.proj.weight"} & {note.tensor for note in notes}
    assert on_the_accelerator(whole, few[:1]) == inference.run(whole, few[:1])[0].tolist()


# Weights


def rows(seed: int = 0, shape: tuple[int, ...] = (6, 40)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def symmetric(weight: Tensor, bits: int) -> TensorFormat:
    peak = weight.flatten(1).abs().amax(1) / ((1 << bits - 1) - 1)
    return TensorFormat(kind="uniform", bits=bits, axis=0, signed=True, scale=tuple(peak.tolist()))


def asymmetric(weight: Tensor, bits: int) -> TensorFormat:
    low, high = weight.amin(1).clamp_max(0), weight.amax(1).clamp_min(0)
    scale = (high - low) / ((1 << bits) - 1)
    zero = (-low / scale + 0.5).floor().long()
    return TensorFormat(kind="uniform", bits=bits, axis=0, scale=tuple(scale.tolist()),
                        zero_point=tuple(zero.tolist()))


def dual(bits: int, ratio: float, zero: int) -> TensorFormat:
    group = tuple(int(column % 10 == 0) for column in range(40))
    return TensorFormat(kind="dual", bits=bits, axis=0, scale=(0.3,) * 6, zero_point=(zero,) * 6,
                        group=group, group_scale=(0.3 * ratio,) * 6, group_zero_point=(zero,) * 6)


@pytest.mark.parametrize("item", [
    symmetric(rows(), 8), symmetric(rows(), 3),
    TensorFormat(kind="uniform", bits=4, axis=0, signed=True, scale=(0.2,) * 6)])   # some clipped
def test_symmetric_weights_are_taken_over(item):
    found = deploy_weights(rows(), item)
    assert torch.allclose(found.real, simulate(rows(), item), rtol=1e-15, atol=0)
    assert torch.equal(found.format.dequantize(found.matrix.codes), found.real)
    assert found.matrix.codes.dtype == torch.int64
    assert int(found.matrix.codes.abs().max()) == (1 << item.bits - 1) - 1
    assert (found.format.bits, found.why) == (item.bits, "")


@pytest.mark.parametrize("item", [
    asymmetric(rows() + 1, 8), asymmetric(rows() + 1, 4), asymmetric(rows() + 1, 3),
    dual(8, 9.0, 128), dual(4, 1.7, 8), dual(4, 4.0, 8), dual(3, 0.5, 3)])
def test_other_weights_are_rounded_to_the_decided_width(item):
    weight = rows() + (1 if item.kind == "uniform" else 0)
    found = deploy_weights(weight, item)
    assert "rounded once more" in found.why and found.format.bits == item.bits
    codes = found.matrix.codes
    top = (1 << item.bits - 1) - 1
    assert torch.equal(codes.abs().amax(1), torch.full((6,), top))
    low, high = (simulate(torch.full((6, 40), end, dtype=torch.float64), item)
                 for end in (-1e6, 1e6))
    wanted = weight.maximum(low).minimum(high)
    error = (found.real - wanted).square().sum(1)
    # No worse than min-max, and what isn't clipped is rounded to the nearest.
    plain = Uniform.symmetric(wanted.abs().amax(1, keepdim=True), item.bits)
    least = (plain.dequantize(plain.quantize(wanted)) - wanted).square().sum(1)
    assert bool((error <= least * (1 + 1e-9)).all())
    inside = codes.abs() < top
    assert bool(((found.real - wanted).abs() <= found.matrix.scale[:, None] * 0.5001)[inside].all())


def test_clipped_asymmetric_weights_stay_clipped():
    weight = rows() + 1
    item = asymmetric(weight / 2, 8)   # half the range
    found = deploy_weights(weight, item)
    low, high = (simulate(torch.full((6, 1), end, dtype=torch.float64), item)
                 for end in (-1e6, 1e6))
    half = found.matrix.scale[:, None] / 2
    assert bool((found.real >= low - half).all() and (found.real <= high + half).all())


def test_a_head_has_one_step():
    weight = rows() * torch.arange(1, 7)[:, None]
    for bits in (8, 4):
        item = symmetric(weight, bits)
        found = deploy_head(weight, item)
        top = (1 << bits - 1) - 1
        assert found.matrix.scale.ndim == 0 and int(found.matrix.codes.abs().max()) == top
        inside = found.matrix.codes.abs() < top
        assert float((found.real - weight).abs()[inside].max()) <= float(found.matrix.scale) * 0.51
        assert "one step for all classes" in found.why and found.format.bits == bits
    one = TensorFormat(kind="uniform", bits=5, signed=True, scale=0.4)
    found = deploy_head(weight, one)
    assert not found.why and torch.equal(found.real, simulate(weight, one))


def test_an_embedding_takes_the_deviation():
    weight = rows(shape=(6, 3, 2, 2))
    item = symmetric(weight, 8)
    same = folded_embedding(weight, item, (0.5, 0.5, 0.5))
    assert not same.why
    assert torch.allclose(same.real * 0.5, simulate(weight, item).flatten(1), rtol=1e-15, atol=0)
    std = torch.tensor(HOW.std, dtype=torch.float64)[:, None, None]
    for bits, std_of in ((8, HOW.std), (4, HOW.std), (4, (0.229, 0.224, 0.225))):
        item = symmetric(weight, bits)
        divisor = torch.tensor(std_of, dtype=torch.float64)[:, None, None]
        found = folded_embedding(weight, item, std_of)
        wanted = (simulate(weight, item) / divisor).flatten(1)
        assert float((found.real - wanted).abs().max()) <= float(found.matrix.scale.max()) / 2
        assert found.format.bits == bits and found.why
    assert std.numel() == 3
    # Narrow codes don't feel how little ImageNet's channels differ.
    plain = deploy_weights(weight.flatten(1), item)
    assert torch.equal(found.matrix.codes, plain.matrix.codes)


# Activations


def observed(values: Tensor) -> Observed:
    return Observed(values.min()[None], values.max()[None], (values.float(),))


def never() -> Observed:
    raise AssertionError("calibration is not needed")


def uniform(bits: int, scale: float, zero: int, *, signed: bool = False) -> TensorFormat:
    return TensorFormat(kind="uniform", bits=bits, scale=scale, zero_point=zero, signed=signed)


def plain(found: Found) -> tuple[object, ...]:
    item = found.format
    return (type(item).__name__, item.bits, item.scale, getattr(item, "zero_point", None),
            bool(found.why))


def test_uniform_codes_are_taken_over():
    assert plain(deploy_uniform(uniform(6, 0.5, 9), never)) == ("Uniform", 6, 0.5, 9, False)
    assert plain(deploy_uniform(uniform(6, 0.5, -3, signed=True), never)) == (
        "Uniform", 6, 0.5, 29, False)
    seen = observed(torch.tensor([[-1.0, 2.0]]))
    assert plain(deploy_uniform(None, lambda: seen)) == (
        "Uniform", 8, 3 / 255, 85, True)
    each = dataclasses.replace(uniform(4, 0.5, 9), scale=(0.5, 0.5))
    assert plain(deploy_uniform(each, lambda: seen)) == ("Uniform", 4, 3 / 15, 5, True)


@pytest.mark.parametrize(("item", "wanted"), [
    (uniform(8, 0.5, 128), ("Uniform", 8, 0.5, 128, False)),
    (uniform(8, 0.5, 0, signed=True), ("Uniform", 8, 0.5, 128, False)),
    (uniform(8, 0.5, 100), ("Uniform", 8, 0.5 * 155 / 127, 128, True)),
    (uniform(8, 0.5, 200), ("Uniform", 8, 0.5 * 200 / 127, 128, True)),
    (uniform(7, 0.5, 127), ("Uniform", 7, 0.5, 127, False)),
    (uniform(3, 0.5, -1, signed=True), ("Uniform", 3, 0.5, 3, False)),
    *((uniform(bits, 0.5, zero), ("Uniform", bits, 0.5, zero, False))
      for bits in (3, 5) for zero in range(1 << bits))])
def test_projections_are_kept_where_they_fit(item, wanted):
    assert plain(deploy_projection(item, never, Config())) == wanted


def test_projections_that_do_not_fit_narrow_weights_are_symmetric():
    small = Config(weight_bits=4)
    assert plain(deploy_projection(uniform(3, 0.5, 5), never, small)) == (
        "Uniform", 3, 0.5, 5, False)
    found = deploy_projection(uniform(5, 0.5, 5), never, small)
    assert plain(found) == ("Uniform", 4, 0.5 * 26 / 7, 8, True)


def test_scores_have_a_scale_that_softmax_takes():
    assert plain(deploy_scores(uniform(8, 0.5, 9), never, Config())) == (
        "Uniform", 8, 0.5, 9, False)
    found = deploy_scores(uniform(4, 2.0, 5), never, Config())
    scale = float(found.format.scale)
    # As many codes as were decided, of the largest step that softmax takes, but for a hundredth.
    assert plain(found) == ("Uniform", 4, scale, 5, True)
    softmax_scale(scale, Config())
    with pytest.raises(ValueError, match="s must lie in"):
        softmax_scale(scale / 0.98, Config())
    assert plain(deploy_scores(uniform(8, 0.5, 9), never, Config(score_bits=6)))[1] == 6


def test_the_stream_has_shifts_that_norm_takes():
    item = TensorFormat(kind="shifted", bits=8, scale=0.1, zero_point=120, shift=(0, 3, 1))
    found = deploy_stream(item, never, 3, Config())
    assert isinstance(found.format, Shifted) and not found.why
    assert (found.format.scale, found.format.zero_point) == (0.1, 120)
    assert found.format.shift.tolist() == [0, 3, 1]
    flat = deploy_stream(uniform(6, 0.2, 30), never, 3, Config())
    assert isinstance(flat.format, Shifted) and not flat.why
    assert (flat.format.scale, flat.format.bits, flat.format.zero_point) == (0.2, 6, 30)
    assert flat.format.shift.tolist() == [0, 0, 0]


def test_larger_shifts_cost_resolution_or_range():
    item = TensorFormat(kind="shifted", bits=8, scale=0.01, zero_point=128, shift=(0, 0, 5))
    # The outlying channel reaches 40, which a shift of 3 with the same scale does not.
    values = torch.tensor([0.8, 1.2, 40.0]) * rows(shape=(500, 3)).clamp(-1, 1)
    found = deploy_stream(item, lambda: values, 3, Config())
    assert "shifts are at most 3" in found.why and isinstance(found.format, Shifted)
    assert float(found.format.scale) == 0.04 and found.format.shift.tolist() == [0, 0, 3]
    # One that does not, after all, leaves the others their resolution.
    rare = values.clone()
    rare[:, 2] /= 4
    found = deploy_stream(item, lambda: rare, 3, Config())
    assert isinstance(found.format, Shifted) and float(found.format.scale) == 0.01


def test_gelu_is_not_finer_than_its_table():
    step = value_step(Config())
    item = TensorFormat(kind="two-scale", bits=8, scale=step * 3, m=4, signed=True)
    found = deploy_gelu(item, never, Config())
    assert isinstance(found.format, TwoScale) and not found.why
    assert (found.format.scale, found.format.m, found.format.signed) == (step * 3, 4, True)
    found = deploy_gelu(dataclasses.replace(item, scale=step * 0.3), never, Config())
    assert isinstance(found.format, TwoScale) and "at least GeLU's step" in found.why
    assert (found.format.scale, found.format.m) == (step * 1.2, 2)
    assert plain(deploy_gelu(uniform(7, 0.1, 3), never, Config())) == (
        "Uniform", 7, 0.1, 3, False)


# Configurations, files, refusals


def test_a_suited_configuration(decided):
    names = {name: suited(TINY, decided(name, 4)[1]) for name in METHODS}
    assert {name: (item.attention, item.attention_bits) for name, item in names.items()} == {
        "minmax": ("uniform", 4), "fq-vit": ("log2", 4), "tsptq-vit": ("two-scale", 4),
        "mptq-vit": ("two-scale", 4), "repq-vit": ("log-sqrt2", 4), "erq": ("log-sqrt2", 4),
        "gptq": ("log-sqrt2", 4), "dopq-vit": ("table", 4), "fima-q": ("uniform", 4),
        "aphq-vit": ("uniform", 4)}
    table = TensorFormat(kind="table", bits=6, scale=1 / 255, values=tuple(range(64)))
    tables = Record(method="x", settings={}, formats={"blocks.0.attn.softmax": table})
    for record in (decided("repq-vit", 8)[1], tables):
        wide = suited(TINY, record)
        bits = record.formats["blocks.0.attn.softmax"].bits
        assert (wide.attention, wide.attention_bits) == ("two-scale", bits)
    assert names["fq-vit"] is TINY and names["minmax"].name == "tiny-uniform4"
    assert suited(TINY, Record(method="x", settings={}, formats={})) is TINY


def test_notes_in_a_file(tmp_path):
    notes = (Note("a", "float", "log2 4 bits", "so"), Note("b", "x", "y", "z"))
    save_notes(tmp_path / "notes.json", notes)
    assert load_notes(tmp_path / "notes.json") == notes
    (tmp_path / "notes.json").write_text('[{"tensor": "a"}]')
    with pytest.raises(ValueError, match="holds no notes"):
        load_notes(tmp_path / "notes.json")
    with pytest.raises(ValueError, match="can't read"):
        load_notes(tmp_path / "nothing.json")


def test_equal_notes_are_gathered():
    notes = [Note(f"blocks.{n}.attn.k", "a", "b", "c") for n in range(3)] + [
        Note("blocks.3.attn.k", "a", "b", "other"), Note("norm", "a", "b", "c")]
    assert summary(notes) == [(3, Note("blocks.*.attn.k", "a", "b", "c")),
                              (1, Note("blocks.*.attn.k", "a", "b", "other")),
                              (1, Note("norm", "a", "b", "c"))]


def test_refusals(model, decided):
    statistics, record = decided("minmax", 8)
    formats = dict(record.formats)

    def refused(match: str, changed: Record = record, config: Config = TINY) -> None:
        with pytest.raises(ValueError, match=match):
            deploy(model, changed, config, statistics=statistics)

    refused("tensor 'nowhere' is not part",
            dataclasses.replace(record, formats={**formats, "nowhere": formats["norm"]}))
    less = {name: item for name, item in formats.items() if name != "blocks.1.mlp.fc2.weight"}
    refused("no format of blocks.1.mlp.fc2.weight", dataclasses.replace(record, formats=less))
    refused("weight_bits must be at least 8 for patch_embed",
            config=dataclasses.replace(TINY, weight_bits=6))
    refused("max_keys must be at least 17", config=dataclasses.replace(TINY, max_keys=16))
    fine = {**formats, "norm": uniform(8, 1e-7, 0)}
    refused("gamma must lie within", dataclasses.replace(record, formats=fine))


def test_a_matrix_is_a_plain_pair():
    found = deploy_weights(rows(), symmetric(rows(), 8))
    assert isinstance(found.matrix, Matrix) and found.matrix.scale.dtype == torch.float64


def test_the_class_token_is_not_clipped(model):
    """Its rows are few of many, and least squares over all rows would clip them."""
    grown = copy.deepcopy(model)
    with torch.no_grad():
        grown.pos_embed[:, 1:, 5] += 8.0   # the range of all
    chosen = method("repq-vit", 8)
    statistics = chosen.observe(grown, iter(normalised(images(12, 1)).split(6)))
    rows = statistics.class_token["embedding"]
    assert rows.shape == (12, grown.spec.dim)
    assert torch.equal(rows[:1], (grown.cls_token + grown.pos_embed[:, :1])[0])
    # As if most tokens were left out of the others.
    larger = {name: rows * 2.5 for name, rows in statistics.class_token.items()}
    record = chosen.decide(statistics)
    for seen, exact in ((statistics, False), (dataclasses.replace(statistics,
                                                                  class_token=larger), True)):
        whole, _ = deploy(grown, record, TINY, statistics=seen, preprocessing=HOW)
        found = []
        for name, rows in larger.items():
            item = whole.formats[name]
            error = (item.dequantize(item.quantize(rows.double())) - rows).abs()
            found.append(bool((error <= item.scale * 2.0**item.shift * 0.51).all()))
        assert all(found) == exact
