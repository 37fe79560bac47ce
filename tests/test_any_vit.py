# SPDX-License-Identifier: Apache-2.0
"""ViTs that compute more than a plain one: LayerScale, registers, distillation; timm's objects.

What timm's own modules compute is in the archive of exported networks, by onnxruntime; parameters
follow from their names, so that state dicts need no timm.
"""

import dataclasses
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gen.compiler.compile import compile_network
from golden.commands.quantize import configured
from golden.deploy.network import deploy
from golden.float import checkpoint
from golden.float.checkpoint import CheckpointError
from golden.float.shape import open_checkpoint
from golden.float.swin import Swin, SwinSpec
from golden.float.timm_model import from_timm
from golden.float.vit import Vit, VitSpec
from golden.machine.program import parse
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.fast import Fast
from golden.ptq.units import units
from tests.data.make_onnx_networks import value
from tests.optional_tools import TIMM
from tests.test_not_square import Work, compare, of_network
from tests.test_onnx import computed, exported
from tests.test_onnx_networks import KNOWN, VIT, logits, written
from vitforge.spec.config import load

REGISTERS = dataclasses.replace(VIT, registers=3)
#: Rows of the parameters that timm's networks have beside a plain ViT's, or of another shape.
MORE: dict[str, dict[str, tuple[int, ...]]] = {
    "vit_layer_scale": {f"blocks.{n}.ls{k}.gamma": (6,) for n in (0, 1) for k in (1, 2)},
    "vit_registers": {"reg_token": (1, 3, 6), "pos_embed": (1, 9, 6)},
    "deit_distilled": {"dist_token": (1, 1, 6), "pos_embed": (1, 11, 6), "head_dist.weight": (3, 6),
                       "head_dist.bias": (3,)},
    "clip": {"norm_pre.weight": (6,), "norm_pre.bias": (6,)},
}
CLIP = dataclasses.replace(VIT, norm_pre=True, norm_eps=1e-5)
QUICK = dataclasses.replace(CLIP, gelu="quick")


def state(name: str) -> dict[str, Tensor]:
    """Return the state dict of a network of the archive."""
    with torch.device("meta"):
        shapes = {key: tuple(item.shape) for key, item in Vit(VIT).state_dict().items()}
    if name == "clip":
        del shapes["patch_embed.proj.bias"]
    return {key: value(key, shape) for key, shape in (shapes | MORE[name]).items()}


def saved(folder: Path, tensors: dict[str, Tensor]) -> Path:
    path = folder / "net.pth"
    torch.save(tensors, path)
    return path


def images(count: int = 3, spec: VitSpec = VIT) -> Tensor:
    return torch.randn(count, spec.in_channels, spec.image_size, spec.image_size,
                       generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "spec"), [
    ("vit_layer_scale", VIT), ("vit_registers", REGISTERS), ("clip", CLIP)])
def test_a_state_dict_has_timms_logits(name: str, spec: VitSpec, tmp_path: Path) -> None:
    found = open_checkpoint(saved(tmp_path, state(name)), heads=2)
    assert found.model.spec == spec
    assert ("3 registers, " in str(found)) == (name == "vit_registers")
    assert ("a norm before the blocks, GELU taken to be" in str(found)) == (name == "clip")
    with torch.inference_mode():
        got = found.model(images())
    assert (got - logits(written(tmp_path, name), images())).abs().max() < 1e-5
    # As this project saves it the shape is the file's.
    checkpoint.save(tmp_path / "own.safetensors", found.model, {})
    again = open_checkpoint(tmp_path / "own.safetensors")
    assert again.model.spec == spec
    with torch.inference_mode():
        assert torch.equal(again.model(images()), got)


def test_registers_may_have_positions_of_their_own(tmp_path: Path) -> None:
    tensors = state("vit_registers") | {"pos_embed": value("pos_embed", (1, 13, 6))}
    found = open_checkpoint(saved(tmp_path, tensors), heads=2).model
    assert found.spec == REGISTERS
    wanted = tensors["pos_embed"].clone()
    wanted[:, 1:4] += tensors["reg_token"]
    assert torch.equal(found.pos_embed.detach(), wanted)


def test_a_distilled_deit_has_the_mean_of_both_logits_or_those_of_one(tmp_path: Path) -> None:
    path = saved(tmp_path, state("deit_distilled"))
    wanted = logits(written(tmp_path, "deit_distilled"), images())   # timm's, of both
    mean = open_checkpoint(path, heads=2)
    assert mean.model.spec == dataclasses.replace(VIT, registers=1, pool="both")
    assert "the mean of two tokens' classifiers, " in str(mean)
    with torch.inference_mode():
        assert (mean.model(images()) - wanted).abs().max() < 1e-5
    both = [open_checkpoint(path, heads=2, token=token).model for token in ("class", "distilled")]
    assert all(model.spec == dataclasses.replace(VIT, registers=1) for model in both)
    with torch.inference_mode():
        one, other = (model(images()) for model in both)
    assert (one - other).abs().max() > 0.05
    assert ((one + other) / 2 - wanted).abs().max() < 1e-5
    with pytest.raises(ValueError, match=r"--token does not go with .*net.pth, which has no dist"):
        open_checkpoint(saved(tmp_path, state("vit_registers")), heads=2, token="class")


def test_the_mean_of_the_patches_is_classified(tmp_path: Path) -> None:
    """What timm computes with ``global_pool="avg"``: the mean of the patches, then `fc_norm`."""
    tensors = state("vit_registers")
    for part in ("weight", "bias"):
        tensors[f"fc_norm.{part}"] = tensors.pop(f"norm.{part}")
    found = open_checkpoint(saved(tmp_path, tensors), heads=2)
    assert found.model.spec == dataclasses.replace(REGISTERS, pool="mean")
    assert "the mean of all patches is classified, " in str(found)
    blocks: list[Tensor] = []
    found.model.get_submodule("blocks.1").register_forward_hook(
        lambda module, given, out: blocks.append(out))
    with torch.inference_mode():
        got = found.model(images())
        norm = nn.functional.layer_norm(blocks[0][:, 4:].mean(1), (6,), tensors["fc_norm.weight"],
                                        tensors["fc_norm.bias"], 1e-6)
        wanted = norm @ tensors["head.weight"].T + tensors["head.bias"]
    assert (got - wanted).abs().max() < 1e-5
    checkpoint.save(tmp_path / "own.safetensors", found.model, {})
    assert open_checkpoint(tmp_path / "own.safetensors").model.spec == found.model.spec
    tensors["norm.weight"] = torch.ones(6)
    with pytest.raises(CheckpointError, match=r"'norm.weight' and 'fc_norm.weight' are of two"):
        open_checkpoint(saved(tmp_path, tensors), heads=2)


def test_quick_gelu_is_said_where_no_tensor_shows_it(tmp_path: Path) -> None:
    path = saved(tmp_path, state("clip"))
    found = open_checkpoint(path, heads=2, quick=True)
    assert found.model.spec == QUICK and "QuickGELU, " in str(found)
    wanted = logits(written(tmp_path, "clip_quick_gelu"), images())   # timm's, same parameters
    with torch.inference_mode():
        assert (found.model(images()) - wanted).abs().max() < 1e-5
        assert (open_checkpoint(path, heads=2).model(images()) - wanted).abs().max() > 1e-4
    checkpoint.save(tmp_path / "own.safetensors", found.model, {})
    assert open_checkpoint(tmp_path / "own.safetensors").model.spec == QUICK
    checkpoint.save(tmp_path / "exact.safetensors", open_checkpoint(path, heads=2).model, {})
    with pytest.raises(ValueError, match=r"--quick-gelu does not go with .*exact.safetensors"):
        open_checkpoint(tmp_path / "exact.safetensors", quick=True)
    with pytest.raises(ValueError, match="gelu must be 'quick' for this network's MLPs, not 'ex"):
        calibrate(found.model, torch.zeros(1, 2, 12, 12, dtype=torch.uint8), load("tiny"))


@pytest.mark.parametrize(("name", "change", "message"), [
    ("vit_layer_scale", {"blocks.0.ls1.gamma": (5,)},
     "tensor 'blocks.0.ls1.gamma' of shape .5. does not fit 'blocks.0.attn.proj.weight'"),
    ("vit_registers", {"reg_token": (1, 3, 7)},
     r"tensor 'reg_token' must have shape \[1, tokens, 6\], not \[1, 3, 7\]"),
    ("vit_registers", {"pos_embed": (1, 12, 6)},
     r"tensor 'pos_embed' must have shape \[1, 4 \+ n \* n, 6\], not \[1, 12, 6\]"),
    ("deit_distilled", {"dist_token": (6,)}, "tensor 'dist_token' must have shape"),
    ("deit_distilled", {"head_dist.bias": (4,)}, "tensor 'head.bias' must have shape"),
    ("deit_distilled", {"head.weight": (4, 6)}, "tensor 'head.weight' must have shape"),
])
def test_contradictions_name_the_tensor(name: str, change: dict[str, tuple[int, ...]],
                                        message: str, tmp_path: Path) -> None:
    tensors = state(name) | {key: torch.ones(shape) for key, shape in change.items()}
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(saved(tmp_path, tensors), heads=2,
                        token="distilled" if "head_dist.bias" in change else None)
    if "head_dist.bias" in change:
        del tensors["head_dist.weight"]
        with pytest.raises(CheckpointError, match=r"'head_dist.weight' is missing"):
            open_checkpoint(saved(tmp_path, tensors), heads=2, token="class")


@pytest.mark.parametrize("spec", [
    REGISTERS, dataclasses.replace(REGISTERS, norm_pre=True),
    dataclasses.replace(REGISTERS, pool="both"), dataclasses.replace(REGISTERS, pool="mean"),
    dataclasses.replace(REGISTERS, gelu="quick"),
], ids=["registers", "clip", "both", "mean", "quick"])
def test_through_simulation_integers_and_onnx(spec: VitSpec) -> None:
    model = Vit(spec).initialize(5).eval()
    batch = images(4, spec)
    with torch.inference_mode():
        wanted = model(batch)
        # Units of a reconstruction are the network, one after the other.
        x = batch
        for unit in units(model):
            x = unit.run(x)
    assert torch.equal(x, wanted)
    method = configured("repq-vit", {"weights": 6, "activations": 6}, [])
    statistics = method.observe(model, [batch])
    record = method.decide(statistics)
    simulated = method.apply(model, record)
    with torch.inference_mode():
        logit = simulated(batch)
    assert (computed(exported(simulated, record), batch) - logit).abs().max() < 0.2
    config = dataclasses.replace(load("edge16"), gelu=spec.gelu)
    network, _ = deploy(model, record, config, statistics=statistics)
    pixels = torch.randint(256, (2, 2, 12, 12), generator=torch.Generator().manual_seed(2)).to(
        torch.uint8)
    assert torch.equal(Fast(network)(pixels), inference.run(network, pixels))
    # The integers follow the float network, and its registers are no formality.
    codes = torch.randint(256, (8, 2, 12, 12), generator=torch.Generator().manual_seed(3)).to(
        torch.uint8)
    network = calibrate(model, codes, config)
    with torch.inference_mode():
        real = model(codes.float() / 255)
        model.pos_embed[:, 1:4] = 0
        other = model(codes.float() / 255)
    integer = inference.run(network, codes) * network.logit_scale
    assert (integer - real).square().mean().sqrt() < 0.1 * real.abs().max()
    assert (other - real).abs().max() > 0.01


SPECS = (VitSpec(image_size=16, patch_size=4, in_channels=2, classes=5, dim=12, depth=2, heads=2,
                 mlp_hidden=20, registers=4),
         VitSpec(image_size=8, patch_size=4, in_channels=1, classes=3, dim=8, depth=1, heads=1,
                 mlp_hidden=8, registers=1),
         VitSpec(image_size=16, patch_size=4, in_channels=1, classes=6, dim=20, depth=1, heads=2,
                 mlp_hidden=12, norm_pre=True),
         VitSpec(image_size=8, patch_size=4, in_channels=1, classes=7, dim=18, depth=1, heads=2,
                 mlp_hidden=8, registers=1, pool="both"),
         VitSpec(image_size=16, patch_size=4, in_channels=1, classes=7, dim=40, depth=1, heads=2,
                 mlp_hidden=8, registers=2, pool="mean"),
         VitSpec(image_size=8, patch_size=4, in_channels=1, classes=3, dim=4, depth=1, heads=1,
                 mlp_hidden=8, pool="mean"))


@pytest.mark.parametrize("name", ["tiny", "edge8", "edge16"])
@pytest.mark.parametrize("spec", SPECS, ids=[
    "four registers", "one", "a norm before", "both", "mean", "mean of few"])
def test_the_golden_machine_has_the_networks_logits(spec: VitSpec, name: str) -> None:
    found = of_network(spec, load(name))
    loads = [item for item in parse(found.program, load(name)) if item.kind == "LOAD"]
    zeros = [item for item in loads[1:] if not any(item.data)]
    assert bool(zeros) == bool(spec.registers) and \
        len(loads) == 2 + len(zeros) + (spec.pool == "mean")


@pytest.mark.rtl
@pytest.mark.thorough
def test_they_run_on_the_verilog_behind_another_network() -> None:
    config = load("tiny")
    other = dataclasses.replace(SPECS[0], registers=0)   # leaves its patches in the scratchpad
    works: list[Work] = [of_network(other, config), *(of_network(spec, config) for spec in SPECS)]
    compare(config, works)


@pytest.mark.rtl
@pytest.mark.thorough
def test_quick_gelu_runs_on_the_verilog() -> None:
    config = dataclasses.replace(load("tiny"), name="quick", gelu="quick")
    compare(config, [of_network(dataclasses.replace(spec, gelu="quick"), config)
                     for spec in (SPECS[2], SPECS[3])])


class Timm(nn.Module):
    """What of timm's ViT `from_timm` looks at, on this project's modules."""

    def __init__(self, inner: Vit, **more: Any) -> None:
        super().__init__()
        self.__dict__.update(inner=inner, global_pool="token", pretrained_cfg={
            "mean": (0.5,) * 3, "std": (0.2, 0.3, 0.4), "crop_pct": 0.8,
            "interpolation": "bilinear"})
        self.__dict__.update(more)
        self.norm = inner.norm
        blocks = [SimpleNamespace(attn=SimpleNamespace(num_heads=inner.spec.heads), mlp=None)]
        self.__dict__["blocks"] = blocks

    def state_dict(self, *given: Any, **more: Any) -> Any:
        return self.inner.state_dict()

    def forward(self, image: Tensor) -> Tensor:
        logit: Tensor = self.inner(image)
        return logit


def test_an_object_gives_network_and_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(VIT, in_channels=3, norm_eps=1e-5)
    inner = Vit(spec).initialize(3).eval()
    found, how = from_timm(Timm(inner))
    assert found.spec == spec and found is not inner
    assert (how.size, how.crop, how.interpolation) == (12, 0.8, "bilinear")
    assert (how.mean, how.std) == ((0.5, 0.5, 0.5), (0.2, 0.3, 0.4))
    with torch.inference_mode():
        assert torch.equal(found(images(2, spec)), inner(images(2, spec)))
    with pytest.raises(ValueError, match="global_pool must be 'token', or 'avg' with fc_norm, not "
                                         "'avg' without it"):
        from_timm(Timm(inner, global_pool="avg"))
    quick = dataclasses.replace(spec, gelu="quick")
    other = Vit(quick).initialize(3).eval()
    timm = Timm(other)
    timm.__dict__["blocks"][0].mlp = other.blocks[0].mlp
    assert from_timm(timm)[0].spec == quick
    with pytest.raises(ValueError, match="Linear is neither a ViT nor a Swin of timm"):
        from_timm(nn.Linear(1, 1))
    inner.blocks[0].mlp.act = nn.GELU(approximate="tanh")
    monkeypatch.setattr("golden.float.timm_model._NEAR", 1e-7)
    with pytest.raises(ValueError, match="Timm computes something else: its logits differ by"):
        from_timm(Timm(inner))


@TIMM
@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes", "spec"), [
    ("vit_base_patch16_224", {"init_values": 0.1}, VIT),
    ("deit_tiny_patch16_224", {"qkv_bias": True}, VIT),
    ("vit_base_patch16_224", {"reg_tokens": 3, "no_embed_class": True}, REGISTERS),
    ("vit_base_patch16_clip_224", {}, CLIP), ("vit_base_patch16_clip_quickgelu_224", {}, QUICK),
    ("swin_tiny_patch4_window7_224", None, KNOWN["swin_17"]),
    ("deit_tiny_distilled_patch16_224", {}, dataclasses.replace(VIT, registers=1, pool="both")),
    ("vit_base_patch16_224", {"global_pool": "avg"}, dataclasses.replace(VIT, pool="mean")),
])
def test_timms_own_objects(name: str, changes: dict[str, Any] | None, spec: VitSpec | SwinSpec,
                           ) -> None:
    from tests.data.make_onnx_networks import SWIN_OF_TIMM, VIT_OF_TIMM, model

    spec = spec if changes is None else dataclasses.replace(spec, in_channels=3)
    made = model(name, SWIN_OF_TIMM if changes is None else {
        **VIT_OF_TIMM, **changes, "in_chans": 3})
    found, how = from_timm(made)
    assert found.spec == spec and how.size == spec.image_size
    assert isinstance(found, Swin if changes is None else Vit)
    with torch.inference_mode():
        assert (found(images(2, spec)) - made(images(2, spec))).abs().max() < 1e-5
    if "distilled" in name:
        one = from_timm(made, "class")[0].spec
        assert one == dataclasses.replace(spec, pool="token")


def test_programs_of_plain_networks_are_as_before() -> None:
    plain = Vit(VIT).initialize(1).eval()
    codes = torch.zeros(1, 2, 12, 12, dtype=torch.uint8) + torch.arange(12).to(torch.uint8)
    compiled = compile_network(calibrate(plain, codes, load("tiny")))
    assert [item.kind for item in compiled.instructions[:3]] == ["LOAD", "LOAD", "PASS"]


def test_a_compressed_archive_is_refused_before_it_is_unpacked(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"large": torch.zeros(1 << 20)})
    with zipfile.ZipFile(path) as archive:
        parts = [(item.filename, archive.read(item)) for item in archive.infolist()]
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts:
            archive.writestr(name, data)
    assert bomb.stat().st_size < 1 << 14
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it is unpacked"))
    with pytest.raises(CheckpointError, match=r"bomb.pth is not a .pth state dict: what is in it "
                                              "is compressed, or larger than the file"):
        open_checkpoint(bomb)


class Code:
    """Makes a file when it is unpickled, if it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin"])
def test_code_in_a_pickle_never_runs(suffix: str, tmp_path: Path) -> None:
    path, mark = tmp_path / f"net.{suffix}", tmp_path / "it_ran"
    torch.save({"model": {"x": Code(mark)}}, path)
    with pytest.raises(CheckpointError, match="holds more than tensors, which is not loaded"):
        open_checkpoint(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)   # it would have
    assert mark.exists()
