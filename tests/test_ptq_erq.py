# SPDX-License-Identifier: Apache-2.0
"""ERQ: regressions against least squares, rounding against the paper's steps, dual formats."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit
from golden.ptq.dual_scales import dual_weights, outlier_columns
from golden.ptq.erq import Erq, ErqSettings
from golden.ptq.formats import TensorFormat, simulate, weight_grid
from golden.ptq.ranges import affine
from golden.ptq.record import Record
from golden.ptq.repqvit import RepqVit, RepqVitSettings, channel_affine, channel_symmetric
from golden.ptq.ridge import Moments, absorb, moments, ridge
from golden.ptq.rounding import half_by_half, refine
from golden.ptq.weights import SHARES
from tests.records import differences

OFF = {"aqer": False, "dual": False, "rounding": False, "compensation": False}


@pytest.fixture(scope="module")
def model() -> Vit:
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return list(mnist.pixels(mnist.sample().calibration.images[:20]).split(10))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed),
                       dtype=torch.float64)


def correlated(rows: int, columns: int, seed: int = 1) -> Tensor:
    """Rows of three factors and some noise, with a mean."""
    return (draw(rows, 3, seed=seed) @ draw(3, columns, seed=seed + 1)
            + 0.3 * draw(rows, columns, seed=seed + 2) + 0.5)


def test_ridge_is_the_least_squares_of_the_augmented_system():
    q, y, penalty = correlated(50, 7), draw(50, 3, seed=9), 2.5
    wanted = torch.linalg.lstsq(torch.cat((q, penalty**0.5 * torch.eye(7).double())),
                                torch.cat((y, torch.zeros(7, 3).double()))).solution
    got = ridge(q.T @ q, q.T @ y, penalty)
    torch.testing.assert_close(got, wanted)
    # The gradient of |y - q D|^2 + penalty |D|^2 is zero there.
    torch.testing.assert_close(penalty * got, q.T @ (y - q @ got))


def test_dependent_inputs_need_a_penalty():
    q = draw(20, 3)[:, [0, 1, 2, 2]] * 8 // 1
    with pytest.raises(ValueError, match="needs a larger weight than 0"):
        ridge(q.T @ q, q.T @ q, 0.0)
    ridge(q.T @ q, q.T @ q, 1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_absorb_the_error_of_their_inputs(bias):
    x = correlated(300, 6)
    q = simulate(x, affine(float(x.min()), float(x.max()), 3))
    weight, constant = draw(4, 6, seed=3), draw(4, seed=4) * bias
    columns = torch.cat((weight, constant[:, None]), 1) if bias else weight
    seen = Moments.of(x[:100], q[:100], bias=bias) + Moments.of(x[100:], q[100:], bias=bias)
    assert seen.rows == 300
    a = torch.cat((q, torch.ones(300, 1).double()), 1) if bias else q
    y = linear(x, weight, constant) - a @ columns.T
    wanted = torch.linalg.inv(a.T @ a + 5 * torch.eye(a.shape[1]).double()) @ a.T @ y
    got = absorb(columns, seen, 5.0)
    torch.testing.assert_close(got, columns + wanted.T)
    assert float((linear(x, weight, constant) - a @ got.T).square().sum()) < float(
        y.square().sum()) * 0.9


def test_moments_are_those_of_every_token(model, batches):
    item = affine(-3.0, 4.0, 4)
    found = moments(model, batches, {"blocks.1.norm1": item})
    assert len(found) == 4 * 4 + 1 and "patch_embed.proj" not in found
    rows: list[Tensor] = []
    handle = model.blocks[1].norm1.register_forward_hook(
        lambda _module, _inputs, out: rows.append(out.flatten(0, 1)))
    for batch in batches:
        model(batch)
    handle.remove()
    x = torch.cat(rows)
    q = torch.cat((simulate(x, item).double(), torch.ones(len(x), 1).double()), 1)
    real = torch.cat((x.double(), torch.ones(len(x), 1).double()), 1)
    seen = found["blocks.1.attn.qkv"]
    torch.testing.assert_close(seen.gram, q.T @ q)
    torch.testing.assert_close(seen.cross, q.T @ real)
    assert seen.rows == 20 * 50 and seen.bias and not seen.pooled
    # Without a format the input is exact; the head sees the class token only.
    exact = found["blocks.1.mlp.fc1"]
    assert torch.equal(exact.gram, exact.cross)
    assert found["head"].pooled and found["head"].rows == 20


def refine_slowly(delta: Tensor, below: Tensor, above: Tensor, moment: Tensor) -> Tensor:
    """One row after the other, with nothing kept from one change to the next."""
    delta = delta.clone()
    for row in range(len(delta)):
        for _ in range(100):
            now = delta[row]
            slope = 2 * moment @ now
            sizes = [abs(float(g)) if (g > 0) == (d > 0) and g != 0 and d != 0 else 0.0
                     for g, d in zip(slope, now, strict=True)]
            place = sizes.index(max(sizes))
            if not sizes[place]:
                break
            wanted = now[place] - slope[place]
            low, high = below[row, place], above[row, place]
            new = now.clone()
            new[place] = low if abs(low - wanted) <= abs(high - wanted) else high
            if torch.equal(new, now) or new @ moment @ new > now @ moment @ now:
                break
            delta[row] = new
    return delta


def rounding_errors(rows: int, columns: int, step: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    weight = draw(rows, columns, seed=5)
    return tuple(way(weight / step) * step - weight
                 for way in (lambda x: (x + 0.5).floor(), torch.floor, torch.ceil))


def test_refinement_equals_the_steps_of_the_paper():
    nearest, below, above = rounding_errors(40, 12)
    x = correlated(200, 12) * 0.3
    moment = x.T @ x / 200
    got = refine(nearest, below, above, moment)
    wanted = refine_slowly(nearest, below, above, moment)
    assert torch.equal(got, wanted)
    changed = (got != nearest).sum(1)
    assert int(changed.max()) > 1 and int((changed == 0).sum()) > 0
    # Every weight is still rounded up or down.
    assert bool(((got == below) | (got == above)).all())


def output_error(delta, moment):
    """Mean squared error ``[N]`` of the outputs for errors ``[N, C]`` of the weights."""
    return ((delta @ moment) * delta).sum(1)


@pytest.mark.parametrize("flips", [1, 2, 99])
@pytest.mark.parametrize("size", [0.05, 0.5, 10.0])
def test_refinement_never_raises_the_output_error(flips, size):
    nearest, below, above = rounding_errors(60, 10)
    x = correlated(100, 10) * size
    moment = x.T @ x / 100
    before = output_error(nearest, moment)
    after = output_error(refine(nearest, below, above, moment, flips=flips), moment)
    assert bool((after <= before * (1 + 1e-12)).all())
    # All weights at once would be too much for most rows.
    assert float(after.sum()) < float(before.sum()) or size == 0.05 or flips == 99
    # It is the mean square of what the weights' errors do to real outputs.
    torch.testing.assert_close(before, (x @ nearest.T).square().mean(0))


def test_refinement_of_two_equal_columns():
    # Both were rounded up by 0.375 of a step; the inputs are equal, so one of them must go down.
    delta, below, above = (torch.tensor([[value] * 2]).double() for value in (0.375, -0.625, 0.375))
    moment = torch.tensor([[1.01, 1], [1, 1]]).double()
    assert refine(delta, below, above, moment).tolist() == [[-0.625, 0.375]]
    assert torch.equal(refine(delta, below, above, moment, limit=0), delta)
    # Where inputs are small, a step along the gradient does not reach the other side.
    assert torch.equal(refine(delta, below, above, moment * 0.01), delta)


def layer(inputs: int = 9, bias: bool = True) -> tuple[Tensor, Tensor, Moments]:
    x = correlated(400, inputs) * 0.3
    q = simulate(x, affine(float(x.min()), float(x.max()), 4))
    weight = torch.cat((draw(5, inputs, seed=3), draw(5, 1, seed=4)), 1)[:, :inputs + bias]
    return weight, q, Moments.of(x, q, bias=bias)


def uniform(weight: Tensor, bits: int = 3) -> TensorFormat:
    scale, zero = channel_affine(weight.T, bits, (1.0,))
    return TensorFormat(kind="uniform", bits=bits, axis=0, scale=tuple(scale.tolist()),
                        zero_point=tuple(zero.tolist()))


def test_halves_without_help_are_rounded_to_the_nearest():
    weight, _, seen = layer()
    item = uniform(weight[:, :9])
    got = half_by_half(weight, item, seen, refinements=0, compensation=False)
    torch.testing.assert_close(got[:, :9], simulate(weight[:, :9], item))
    assert torch.equal(got[:, 9], weight[:, 9])


@pytest.mark.parametrize("refinements", [0, 100])
def test_halves_equal_regressions_on_the_rows(refinements):
    weight, q, seen = layer(40)
    item = uniform(weight[:, :40])
    scale, zero = weight_grid(item)
    a = torch.cat((q, torch.ones(400, 1).double()), 1)
    wanted, penalty, done, flipped = weight.clone(), 30.0, 0, 0
    # Half of 41 columns, rounded down, and so on: the bias is left.
    for count in (20, 10, 5, 3, 1, 1):
        now, left = list(range(done, done + count)), list(range(done + count, 41))
        done += count
        codes = wanted[:, now] / scale + zero
        delta, below, above = (
            (way(codes).clamp(0, 7) - zero) * scale - wanted[:, now]
            for way in (lambda x: (x + 0.5).floor(), torch.floor, torch.ceil))
        if refinements:
            mean = a[:, now].mean(0)
            moment = torch.outer(mean, mean) + torch.cov(a[:, now].T, correction=0)
            new = refine_slowly(delta, below, above, moment.reshape(len(now), len(now)))
            flipped += int((new != delta).sum())
            delta = new
        design = torch.cat((a[:, left], penalty**0.5 * torch.eye(len(left)).double()))
        target = torch.cat((-a[:, now] @ delta.T, torch.zeros(len(left), 5).double()))
        wanted[:, left] += torch.linalg.lstsq(design, target).solution.T
        wanted[:, now] += delta
    got = half_by_half(weight, item, seen, penalty=penalty, refinements=refinements)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(simulate(got[:, :40], item), got[:, :40])
    assert bool(flipped) == bool(refinements)


def test_halves_lower_the_output_error():
    weight, q, seen = layer(40)
    item = uniform(weight[:, :40])
    a = torch.cat((q, torch.ones(400, 1).double()), 1)

    error = {(refinements, helped): float((a @ (half_by_half(
        weight, item, seen, penalty=1.0, refinements=refinements, compensation=helped)
        - weight).T).square().mean()) for refinements in (0, 100) for helped in (False, True)}
    assert error[100, False] < 0.9 * error[0, False] and error[0, True] < 0.6 * error[0, False]
    assert error[100, True] < 0.6 * error[0, False]


def test_halves_of_a_layer_without_bias():
    weight, _, seen = layer(bias=False)
    item = uniform(weight)
    got = half_by_half(weight, item, seen, penalty=1.0)
    torch.testing.assert_close(simulate(got, item), got)
    assert not torch.equal(got, simulate(weight, item))


def test_outlier_columns_are_voted_for():
    weight = torch.tensor([[1.0, 9, 2, -1, -8], [1, 2, 7, -6, -1], [3, 9, 1, -2, -5],
                           [1, 8, 1, -1, -9]])
    # Above the middle one of the positive weights, below the middle one of the negative ones.
    votes = ((weight > torch.tensor([2.0, 2, 3, 1])[:, None])
             | (weight < torch.tensor([-4.5, -3.5, -3.5, -5])[:, None])).sum(0)
    assert votes.tolist() == [0, 3, 1, 1, 3]
    for count, chosen in ((1, [1]), (2, [1, 4]), (3, [1, 2, 4])):
        assert outlier_columns(weight, count, 0.5).nonzero().flatten().tolist() == chosen
    # Rows without negative weights have no opinion about them.
    assert outlier_columns(torch.tensor([[1.0, 2, 30]]), 1).tolist() == [False, False, True]


def test_symmetric_search_has_no_offset():
    weight = torch.tensor([[-7.0, 1, 3.4, 0], [3.5, -0.4, 0.25, 1]]).double()
    scale, zero = channel_symmetric(weight.T, 4, (1.0,))
    assert scale.tolist() == [1.0, 0.5] and zero.tolist() == [8, 8]
    # One weight far away is clipped, or gets its range, whichever is the smaller error.
    for far, peak in ((1.2, 1.0), (1.5, 1.5), (90.0, 90.0)):
        weight = torch.cat((torch.linspace(0, 1, 101), torch.tensor([far])))[None]
        scale, _ = channel_symmetric(weight.T, 4, (100 / 101, 1.0))
        assert float(scale) == pytest.approx(peak / 7)


def dual(ratio: str = "free", symmetric: bool = False) -> tuple[Tensor, Tensor, TensorFormat]:
    weight = draw(6, 20) * torch.tensor([1.0] * 16 + [9, 13, 7, 10])
    apart = outlier_columns(weight, 4, 0.2)
    search = channel_symmetric if symmetric else channel_affine
    return weight, apart, dual_weights(weight, 4, apart, lambda part: search(part.T, 4, (1.0,)),
                                       ratio)


def test_dual_weights_are_two_uniform_ones():
    weight, apart, item = dual()
    assert apart.nonzero().flatten().tolist() == [16, 17, 18, 19]
    got = simulate(weight, item)
    assert torch.equal(got[:, apart], simulate(weight[:, apart], uniform(weight[:, apart], 4)))
    assert torch.equal(got[:, ~apart], simulate(weight[:, ~apart], uniform(weight[:, ~apart], 4)))
    single = simulate(weight, uniform(weight, 4))
    assert float((got - weight)[:, ~apart].abs().mean()) < 0.3 * float(
        (single - weight)[:, ~apart].abs().mean())


@pytest.mark.parametrize("symmetric", [False, True])
def test_ratios_that_are_powers_of_two(symmetric):
    errors = {}
    for ratio in ("free", "row", "layer"):
        weight, _, item = dual(ratio, symmetric)
        powers = (torch.tensor(item.group_scale) / torch.tensor(item.scale)).log2()
        errors[ratio] = float((simulate(weight, item) - weight).square().mean())
        assert bool((powers % 1 == 0).all()) == (ratio != "free")
        assert (len(powers.unique()) == 1) == (ratio == "layer")
    # One layer's power of two costs little where rows are alike.
    assert errors["row"] < errors["layer"] < 1.5 * errors["free"]


@pytest.mark.parametrize("ratio", ["row", "layer"])
def test_symmetric_dual_codes_are_shifted_operands(ratio):
    weight, _, item = dual(ratio, symmetric=True)
    exact = item.exact()
    codes = exact.quantize(weight)
    assert int(codes.min()) >= 0 and int(codes.max()) <= 15
    assert torch.equal(exact.dequantize(codes), simulate(weight, item))
    mantissa, shift = exact.decode(codes)
    assert int(mantissa.min()) >= -8 and int(mantissa.max()) <= 7
    assert int(shift[:, :16].max()) == 0 and int(shift[:, 16:].min()) >= 1
    for refused in (dual("row", symmetric=False), dual("free", symmetric=True)):
        with pytest.raises(ValueError, match="no dual codes with these parameters"):
            refused[2].exact()


@pytest.mark.parametrize("wrong, message", [
    ({"group_scale": (1.0,)}, "two scales and zero points for every row"),
    ({"axis": -1}, "two scales and zero points for every row"),
    ({"scale": 1.0}, "two scales and zero points for every row"),
    ({"group": (1, 1, 1)}, "0 or 1 for every column"), ({"group": (0, 2)}, "0 or 1 for every"),
    ({"group": ()}, "0 or 1 for every"), ({"group_scale": (1.0, 0.0)}, "positive"),
])
def test_impossible_dual_formats(wrong, message):
    fields = {"kind": "dual", "bits": 4, "axis": 0, "scale": (1.0, 2.0), "zero_point": (8, 8),
              "group": (0, 1, 0), "group_scale": (1.0, 3.0), "group_zero_point": (8, 7)}
    TensorFormat(**fields)
    with pytest.raises(ValueError, match=message):
        TensorFormat(**{**fields, **wrong})


def test_without_its_components_it_is_repq_vit(model, batches):
    method = Erq(ErqSettings(weights=4, activations=4, **OFF))
    record = method.decide(method.observe(model, batches))
    plain = RepqVit(RepqVitSettings(weights=4, activations=4, weight_shares=SHARES))
    wanted = plain.decide(plain.observe(model, batches))
    assert not differences(record, wanted) and record.method == "erq"


def test_every_component_changes_what_it_should(model, batches):
    records = {}
    for name in ("", *OFF):
        method = Erq(ErqSettings(weights=4, activations=4, **(OFF | {name: True} if name else OFF)))
        records[name] = method.decide(method.observe(model, batches))
    plain = records[""]
    assert {name for name, item in records["dual"].formats.items() if item.kind == "dual"} == {
        f"blocks.{index}.{layer}.weight" for index in range(4) for layer in ("attn.qkv", "mlp.fc1")}
    assert records["dual"].parameters.keys() == plain.parameters.keys()
    assert sum(records["dual"].formats["blocks.0.attn.qkv.weight"].group) == 192 // 20
    for name in ("aqer", "rounding", "compensation"):
        changed = differences(records[name], plain)
        assert "head.weight" in changed and "blocks.2.attn.proj.weight" in changed
        assert "patch_embed.proj.weight" not in changed
        assert not {"blocks.0.norm1.weight", "input", "blocks.0.mlp.act"} & set(changed)
    # Only regressions touch the bias, and only Aqer comes before the choice of a format.
    assert "head.bias" not in differences(records["rounding"], plain)
    assert "head.bias" in differences(records["compensation"], plain)
    formats = [records[name].formats == plain.formats for name in ("aqer", "rounding")]
    assert formats == [False, True]


def test_penalties_reach_their_layers(model, batches):
    def record(**more: float) -> Record:
        method = Erq(ErqSettings(weights=4, activations=4, **{**OFF, "aqer": True, **more}))
        return method.decide(method.observe(model, batches))

    usual = record()
    head = {"head.weight", "head.bias"}
    assert set(differences(usual, record(classifier_penalty=2000.0))) == head
    changed = set(differences(usual, record(activation_penalty=20.0)))
    assert "blocks.0.attn.proj.weight" in changed and not changed & head


@pytest.mark.parametrize("steps", [("rounding",), ("compensation",), ("rounding", "compensation")])
def test_weights_are_those_of_the_steps(model, batches, steps):
    method = Erq(ErqSettings(weights=3, activations=4, weight_penalty=70.0, refinements=5,
                             **(OFF | dict.fromkeys(steps, True))))
    record = method.decide(method.observe(model, batches))
    seen = moments(model, batches, record.formats)["blocks.3.attn.proj"]
    layer = model.blocks[3].attn.proj
    weight = torch.cat((layer.weight, layer.bias[:, None]), 1).detach().double()
    wanted = half_by_half(weight, record.formats["blocks.3.attn.proj.weight"], seen, penalty=70.0,
                          refinements=5 if "rounding" in steps else 0,
                          compensation="compensation" in steps).float()
    torch.testing.assert_close(record.parameters["blocks.3.attn.proj.weight"], wanted[:, :64])
    if "compensation" in steps:
        torch.testing.assert_close(record.parameters["blocks.3.attn.proj.bias"], wanted[:, 64])


#: As in the official code.
PAPER = {"symmetric": False, "dual": True}


def test_records_hold_weights_of_the_grid(model, batches, tmp_path):
    method = Erq(ErqSettings(weights=4, activations=4, **PAPER))
    record = method.decide(method.observe(model, batches))
    for name, value in record.parameters.items():
        if name in record.formats:
            torch.testing.assert_close(simulate(value, record.formats[name]), value)
    record.save(tmp_path / "r.json")
    loaded = Record.load(tmp_path / "r.json")
    assert loaded == record
    assert loaded.formats["blocks.0.mlp.fc1.weight"].kind == "dual"
    assert torch.equal(method.apply(model, loaded)(batches[0]),
                       method.apply(model, record)(batches[0]))


def logit_error(method: RepqVit, model: Vit, batches: list[Tensor]) -> float:
    """Mean squared error of the logits of images that calibration has not seen."""
    simulated = method.apply(model, method.decide(method.observe(model, batches)))
    images = mnist.pixels(mnist.sample().test.images[:100])
    with torch.inference_mode():
        return float((simulated(images) - model(images)).square().mean())


def test_it_loses_less_than_repq_vit(model, batches):
    error = logit_error(Erq(ErqSettings(weights=4, activations=4, **PAPER)), model, batches)
    # Ranges of both from the same quantiles.
    plain = logit_error(RepqVit(RepqVitSettings(weights=4, activations=4, symmetric=False,
                                                weight_shares=SHARES)), model, batches)
    assert error < 0.8 * plain, (error, plain)


def test_deployable_weights(model, batches):
    method = Erq(ErqSettings(weights=4, activations=4, dual=True, ratio="layer"))
    record = method.decide(method.observe(model, batches))
    for name, value in record.parameters.items():
        if name in record.formats:
            item = record.formats[name]
            exact = item.exact()
            got = exact.dequantize(exact.quantize(value.double()))
            assert torch.equal(got, simulate(value.double(), item))


def test_swin():
    model = Swin(SwinSpec(image_size=16, patch_size=2, classes=5, dim=8, depths=(2, 2),
                          heads=(1, 2), window=4)).initialize(1).eval()
    batch = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    method = Erq()
    record = method.decide(method.observe(model, [batch]))
    # Eight layers of a pair of blocks, twice, patch merging without bias, and the classifier.
    assert sum(name.endswith(".weight") and name in record.formats
               for name in record.parameters) == 16 + 2
    torch.testing.assert_close(method.apply(model, record)(batch), model(batch), atol=0.1, rtol=0)


@pytest.mark.parametrize("wrong, message", [
    ({"activation_penalty": -1.0}, "activation_penalty must be at least 0"),
    ({"weight_penalty": float("inf")}, "weight_penalty must be at least 0"),
    ({"refinements": 0}, "refinements must be at least 1"), ({"flips": 1.5}, "flips must be"),
    ({"columns": True}, "columns must be"), ({"tail": 0.5}, "tail must be above 0"),
    ({"ratio": "none"}, "ratio must be one of free, row, layer"),
])
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        ErqSettings(**wrong)


def test_statistics_of_another_method(model, batches):
    found = RepqVit().observe(model, batches)
    with pytest.raises(TypeError, match="that ERQ has observed"):
        Erq().decide(dataclasses.replace(found))


@pytest.mark.thorough
def test_the_number_of_threads_does_not_count(model):
    method = Erq(ErqSettings(weights=4, activations=4))
    statistics = method.observe(model, [mnist.pixels(mnist.sample().calibration.images)])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(method.decide(statistics))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
