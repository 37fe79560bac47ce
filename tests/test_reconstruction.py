# SPDX-License-Identifier: Apache-2.0
"""Block reconstruction: gradients, exact grids, better blocks, stopping, resuming, bad input."""

import dataclasses

import pytest
import torch

from golden.float.models import create
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.ptq import METHODS, losses, reconstruction, reconstruction_run
from golden.ptq.fimaq import FimaQ, FimaQSettings
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.fqvit import FqVit, FqVitSettings
from golden.ptq.losses import Fisher, Perturbation, Squared, View, divergence
from golden.ptq.method import Settings, apply
from golden.ptq.minmax import MinMax
from golden.ptq.reconstruction import Trained, reconstruct
from golden.ptq.reconstruction_plan import PRESETS, Plan, ReconstructionSettings
from golden.ptq.reconstruction_run import Kept, reconstructed
from golden.ptq.straight import StraightActivation, StraightWeight, straight_uniform
from golden.ptq.units import units
from tests.sample import leading

SPEC = VitSpec(image_size=8, patch_size=4, in_channels=2, classes=5, dim=16, depth=2, heads=2,
               mlp_hidden=32)
PLAN = Plan(steps=12, batch=6, rate=2e-3, scale_rate=1e-2, probes=6)


@pytest.fixture(scope="module")
def model() -> Vit:
    return Vit(SPEC).initialize(1).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, 2, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def record(model, images):
    method = FimaQ(FimaQSettings(weights=3, activations=4))
    return method.decide(method.observe(model, images.split(8)))


def error(model, simulated, images) -> float:
    with torch.no_grad():
        return float(divergence(simulated(images), model(images)))


def test_gradients_of_rounding_are_those_of_lsq():
    x = torch.tensor([-9.0, -0.6, 0.2, 0.9, 7.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    out = straight_uniform(x, step, -4, 3)
    assert out.tolist() == [-2.0, -0.5, 0.0, 1.0, 1.5]
    (out * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0]
    # In range: code less the real code; out of range: the code.
    wanted = 1 * -4 + 2 * (-1 + 1.2) + 3 * (0 - 0.4) + 4 * (2 - 1.8) + 5 * 3
    assert float(step.grad) == pytest.approx(wanted, rel=1e-5)


def test_gradients_of_rows_are_those_of_each_row_alone():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([[0.2], [0.4], [0.1], [0.9]], requires_grad=True)
    straight_uniform(x, steps, torch.full((4, 1), -2.0), torch.full((4, 1), 1.0)).sum().backward()
    for row in range(4):
        step = steps[row, 0].detach().clone().requires_grad_(True)
        straight_uniform(x[row], step, -2, 1).sum().backward()
        assert torch.allclose(step.grad, steps.grad[row, 0], atol=1e-5)


@pytest.mark.parametrize("item", [
    TensorFormat(kind="uniform", bits=4, scale=0.3, zero_point=5),
    TensorFormat(kind="uniform", bits=3, scale=0.3, signed=True),
    TensorFormat(kind="log-sqrt2", bits=4, scale=0.9),
    TensorFormat(kind="table", bits=3, scale=0.01, values=(0, 1, 3, 9, 20, 50, 90, 100)),
    TensorFormat(kind="two-scale", bits=4, scale=0.02, m=3),
    TensorFormat(kind="log2", bits=4, scale=2.0**-15)])
def test_activations_are_those_of_the_simulation(item):
    x = torch.rand(200, generator=torch.Generator().manual_seed(3)) * 2 - 0.3
    x = x if item.kind in ("uniform", "two-scale") else x.abs().clamp_max(1)
    assert torch.equal(StraightActivation(item)(x), simulate(x, item))


def test_signed_weights_never_have_the_lowest_code():
    weight = torch.linspace(-2, 2, 40).reshape(20, 2).T.contiguous()
    item = TensorFormat(kind="uniform", bits=4, scale=(0.1, 0.2), axis=0, signed=True)
    out = StraightWeight(item, weight)(weight)
    codes = out / torch.tensor([[0.1], [0.2]])
    assert float(codes.min()) == pytest.approx(-7) and float(codes.max()) == pytest.approx(7)


def test_units_are_the_network(model, images):
    swin = Swin(SwinSpec(image_size=32, patch_size=2, in_channels=2, classes=5, dim=8,
                         depths=(1, 2), heads=(1, 2), window=4)).initialize(0).eval()
    for net, x in ((model, images[:3]),
                   (swin, torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(1)))):
        out = x
        with torch.no_grad():
            for unit in units(net):
                out = unit.run(out)
            assert torch.allclose(out, net(x), atol=1e-6)
        names = [name for name, _ in net.named_parameters()]
        assert all(sum(unit.owns(name) for unit in units(net)) == 1 for name in names
                   if name not in ("cls_token", "pos_embed"))


@pytest.mark.parametrize("loss", leading(1, ["mse", "perturbation", "fisher"]))
def test_a_reconstructed_network_is_nearer(model, images, record, loss):
    before = error(model, apply(model, record), images)
    told = []
    found = reconstruct(model, record, images, dataclasses.replace(PLAN, loss=loss, steps=40),
                        advance=told.append)
    assert error(model, apply(model, found), images) < 0.6 * before
    assert sum(told) == 40 * 4
    assert found.formats.keys() == record.formats.keys()
    # LayerNorm stays, and what is trained is on its grid: quantizing it again changes nothing.
    for name, value in found.parameters.items():
        if "norm" in name:
            assert torch.equal(value, record.parameters[name])
        elif name.endswith("weight"):
            assert torch.equal(simulate(value, found.formats[name]), value), name


def test_weights_are_symmetric_and_a_row_has_one_step(model, images, record):
    found = reconstruct(model, record, images, PLAN)
    for name, item in found.formats.items():
        if name.endswith("weight"):
            assert item.kind == "uniform" and item.signed and item.zero_point == 0
            # The classifier has one step for all, before and after.
            assert isinstance(item.scale, float) == (name == "head.weight")
            codes = found.parameters[name].flatten(1) / torch.tensor(item.scale).reshape(-1, 1)
            assert float(codes.abs().max()) <= 3.001


def test_cores_and_repetition_change_no_bit(model, images, record):
    plan = dataclasses.replace(PLAN, keep=0.5, steps=5)
    found = [reconstruct(model, record, images, plan, threads=threads) for threads in (1, 2, 1)]
    assert found[0] == found[1] == found[2]
    other = reconstruct(model, record, images, dataclasses.replace(plan, seed=1))
    assert other != found[0]


def test_a_stopped_run_goes_on_with_the_same_result(model, images, record, tmp_path):
    whole = reconstruct(model, record, images, PLAN)
    kept, saved = Kept(tmp_path / "units", "key"), []

    class Stopped(BaseException):
        pass

    def save(unit, found):
        kept.save(unit, found)
        saved.append(unit)
        if len(saved) == 2:
            raise Stopped
    with pytest.raises(Stopped):
        reconstruct(model, record, images, PLAN, save=save)
    trained = []
    found = reconstruct(model, record, images, PLAN, load=kept.load,
                        save=lambda unit, result: trained.append(unit))
    assert saved == ["patch_embed", "blocks.0"] and trained == ["blocks.1", "head"]
    assert found == whole


def test_units_of_another_run_and_broken_files_count_for_nothing(tmp_path):
    kept = Kept(tmp_path / "units", "one")
    item = TensorFormat(kind="uniform", bits=4, scale=0.5)
    kept.save("head", Trained({"head.weight": torch.ones(2, 2)}, {"norm": item}, 2.0, 1.0))
    found = kept.load("head")
    assert found is not None and found.formats == {"norm": item} and found.after == 1.0
    assert Kept(tmp_path / "units", "two").load("head") is None
    whole = kept.path("head").read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        kept.path("head").write_bytes(whole[:size])
        assert kept.load("head") is None
    kept.clear()
    assert not (tmp_path / "units").exists()


@pytest.mark.parametrize("loss", leading(1, ["mse", "fisher"]))
def test_a_rate_that_diverges_leaves_the_weights_of_the_beginning(model, images, record, loss):
    """And says so, unit by unit, when a stopped run goes on too."""
    wild = dataclasses.replace(PLAN, rate=0.9, scale_rate=0.9, steps=40, loss=loss, probes=8)
    losses, said, again = {}, [], []
    found = reconstruct(model, record, images, wild, say=said.append,
                        save=lambda unit, result: losses.update({unit: result}))
    assert [line.split()[1] for line in said] == list(losses)
    assert all(f"{unit} got no better in 40 steps" in line for unit, line
               in zip(losses, said, strict=True))
    plain = reconstruct(model, record, images, dataclasses.replace(PLAN, steps=1, rate=1e-12,
                                                                   scale_rate=0))
    assert found.formats == plain.formats
    assert all(torch.allclose(value, plain.parameters[name], atol=1e-6)
               for name, value in found.parameters.items())
    assert reconstruct(model, record, images, wild, load=losses.get, say=again.append) == found
    assert again == said


def test_a_loss_that_is_not_finite_ends_a_unit_with_a_line(model, images, record, monkeypatch):
    said, told = [], []
    real = Squared.__call__
    calls = iter(range(10**6))

    def broken(self, out, target):
        return real(self, out, target) * (float("nan") if next(calls) > 12 else 1.0)
    monkeypatch.setattr(Squared, "__call__", broken)
    found = reconstruct(model, record, images, PLAN, say=said.append, advance=told.append)
    assert "patch_embed diverged at step" in said[0] and "best weights" in said[0]
    assert sum(told) == PLAN.work(4)
    assert all(bool(value.isfinite().all()) for value in found.parameters.values())


def test_losses_by_hand():
    targets = torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]]])
    outputs = targets + torch.tensor([0.5, -1.0])

    def rest(x):
        return x[:, 0] @ torch.tensor([[3.0, -1.0, 0.0], [0.0, 2.0, 0.0]])
    view = View(targets, lambda: outputs, rest)
    plain, hessian, fisher = Squared(), Perturbation(), Fisher(2)
    for loss in (plain, hessian, fisher):
        loss.look(view)
        assert float(loss(outputs, targets)) == pytest.approx(1)
        assert float(loss(targets, targets)) == 0
        assert float(loss(targets + 2 * (outputs - targets), targets)) == pytest.approx(4)
    # The Hessian of the divergence at the float network's own output, times a vector of ones.
    def loss_at(x):
        return divergence(rest(x[None]), rest(targets[:1]), losses.TEMPERATURE)
    rows = torch.autograd.functional.hessian(loss_at, targets[0]).reshape(2, 2).sum(1)
    def loss_at_two(x):
        return divergence(rest(x[None]), rest(targets[1:]), losses.TEMPERATURE)
    more = torch.autograd.functional.hessian(loss_at_two, targets[1]).reshape(2, 2).sum(1)
    got = hessian.weight[0, 0] / hessian.weight[0, 0].sum()
    wanted = (rows.abs() + more.abs()) / (rows.abs() + more.abs()).sum()
    assert torch.allclose(got, wanted, atol=0.02)
    fisher.look(view)
    assert fisher.low.shape == (2, 2)


@pytest.mark.parametrize("method", [
    MinMax(Settings(weights=4, activations=4, reconstruct="quick", steps=6, step_images=4)),
    FqVit(FqVitSettings(weights=4, activations=8, reconstruct="quick", steps=6, step_images=4))])
def test_any_method_can_be_reconstructed(model, images, method):
    record = method.decide(method.observe(model, images.split(8)))
    found = reconstructed(method, model, record, images, lambda text, total: lambda done: None)
    assert found != record
    assert error(model, apply(model, found), images) < error(model, apply(model, record), images)
    off = type(method)(dataclasses.replace(method.settings, reconstruct="no"))
    assert reconstructed(off, model, record, images, None) is record


def test_a_swin_is_reconstructed():
    swin = Swin(SwinSpec(image_size=32, patch_size=2, in_channels=2, classes=5, dim=8,
                         depths=(1, 2), heads=(1, 2), window=4)).initialize(0).eval()
    x = torch.randn(8, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    method = METHODS["repq-vit"](dataclasses.replace(METHODS["repq-vit"]().settings, weights=3,
                                                     activations=4))
    record = method.decide(method.observe(swin, [x]))
    found = reconstruct(swin, record, x, dataclasses.replace(PLAN, batch=4))
    assert error(swin, apply(swin, found), x) < error(swin, apply(swin, record), x)


def test_stages_train_activations_first(model, images, record):
    plan = dataclasses.replace(PLAN, stages=("activations", "weights"))
    told = []
    found = reconstruct(model, record, images, plan, advance=told.append)
    assert sum(told) == plan.work(4) == 4 * 2 * PLAN.steps
    assert error(model, apply(model, found), images) < error(model, apply(model, record), images)


def test_presets_and_methods_say_what_is_done():
    assert Settings().plan() is None and set(PRESETS) == {"quick", "long", "paper"}
    paper = Settings(reconstruct="paper").plan()
    assert (paper.steps, paper.batch, paper.rate) == (1000, 64, 4e-5)
    assert paper.stages == ("activations", "weights")
    fima = METHODS["fima-q"]().settings
    assert fima.plan().loss == "fisher" and fima.plan().steps == Plan().steps
    official = dataclasses.replace(fima, reconstruct="paper").plan()
    assert (official.steps, official.batch, official.keep, official.rank) == (20000, 32, 0.5, 5)
    assert METHODS["aphq-vit"]().settings.plan().loss == "perturbation"
    assert METHODS["dopq-vit"]().settings.plan().loss == "mse"
    given = dataclasses.replace(fima, steps=3, stages="activations+weights").plan()
    assert given.steps == 3 and given.stages == ("activations", "weights")


@pytest.mark.parametrize(("options", "line"), [
    ({"reconstruct": "fast"}, "reconstruct must be no, quick or long or paper, not 'fast'"),
    ({"loss": "mae"}, "loss must be one of mse, perturbation, fisher, not 'mae'"),
    ({"steps": 0}, "steps must be at least 1, not 0"),
    ({"rate": 2.0}, "rate must lie between 0 and 1"),
    ({"keep": 0.0}, "keep must be above 0 and at most 1, not 0.0"),
    ({"stages": "activations"}, "stages must be weights, or activations"),
    ({"step_images": 1}, "batch must be at least 2, not 1")])
def test_options_out_of_range_are_refused(options, line):
    with pytest.raises(ValueError, match=line):
        ReconstructionSettings(**options)


def test_too_few_images_and_too_little_memory_are_refused(model, images, record, monkeypatch,
                                                          tmp_path):
    def nothing(text, total):
        return lambda done: None
    method = FimaQ(FimaQSettings(steps=2))
    with pytest.raises(ValueError, match="takes 4 images a step, and there are 3 to calibrate"):
        reconstructed(method, model, record, images[:3], nothing)
    small = tmp_path / "meminfo"
    small.write_text("MemTotal: 100 kB\nMemAvailable: 100 kB\n")
    monkeypatch.setattr(reconstruction_run, "_FREE", str(small))
    with pytest.raises(ValueError, match=r"needs about 0\.0 GiB of memory for 24 images .* 0\.0 "):
        reconstructed(method, model, record, images, nothing)


def test_what_is_needed_is_near_what_is_taken():
    deit = create("deit_tiny_patch16_224")
    needed = reconstruction.memory(deit, torch.zeros(1, 3, 224, 224).expand(1000, -1, -1, -1),
                                   Plan())
    # The pictures, and four tensors of 197 rows of 192 channels.
    assert 4000 * (3 * 224**2 + 4 * 197 * 192) < needed < 2e9
