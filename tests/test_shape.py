# SPDX-License-Identifier: Apache-2.0
"""A network's shape off its tensors: timm's logits at a shape that no name has, and refusals."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.data.imagenet import Folder
from golden.float import checkpoint, models
from golden.float.checkpoint import CheckpointError
from golden.float.models import DIGITS, IMAGENET, INCEPTION
from golden.float.preprocessing import usual
from golden.float.shape import open_checkpoint
from golden.float.vit import Vit, VitSpec
from golden.network import file as network_file
from tests.data.make_timm_reference import CASES, REFERENCE, images, parameters

ODD = len(CASES) - 1
SPEC = VitSpec(image_size=96, patch_size=8, in_channels=3, classes=5, dim=96, depth=3, heads=3,
               mlp_hidden=384)
SMALL = VitSpec(image_size=12, patch_size=4, in_channels=3, classes=5, dim=12, depth=2, heads=2,
                mlp_hidden=20)


def tensors(spec: VitSpec) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = Vit(spec).state_dict()
    return parameters({name: tuple(value.shape) for name, value in state.items()})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("odd") / "odd.pt"
    torch.save({"state_dict": tensors(SPEC)}, path)
    return path


def test_a_shape_without_a_name_has_timms_logits(odd: Path) -> None:
    name, changes, count = CASES[ODD]
    assert (name, changes["num_classes"], changes["embed_dim"]) == ("deit_tiny_patch16_224", 5, 96)
    found = open_checkpoint(odd, heads=3)
    assert found.model.spec == SPEC and not found.model.training
    assert str(found) == ("96x96 pixels of 3 channels, patches of 8, 3 blocks of 96 channels, MLP "
                          "of 384, 5 classes, 3 heads (as given)")
    timm = torch.tensor(json.loads(REFERENCE.read_text())["outputs"][ODD]["logits"],
                        dtype=torch.float64)
    with torch.inference_mode():
        logits = found.model.double()(images(count, 3, 96).double())
    assert timm.shape == (2, 5) and (logits - timm).abs().max() < 1e-12
    with torch.inference_mode():   # the number of heads is no formality
        other = open_checkpoint(odd, heads=6).model.double()(images(count, 3, 96).double())
    assert (other - timm).abs().max() > 1e-3


def test_heads_are_those_of_the_name_the_file_or_the_width(odd: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"--heads is needed: .*odd.pt does not say how many heads "
                                         "its 96 channels have"):
        open_checkpoint(odd)
    for heads in (0, 5):
        with pytest.raises(ValueError, match="--heads must divide the 96 channels"):
            open_checkpoint(odd, heads=heads)
    wide = VitSpec(image_size=8, patch_size=4, in_channels=1, classes=2, dim=128, depth=1, heads=4,
                   mlp_hidden=8)
    torch.save(tensors(wide), tmp_path / "wide.bin")
    found = open_checkpoint(tmp_path / "wide.bin")
    assert found.model.spec.heads == 2
    assert "2 heads (an assumption: 64 channels each; --heads says otherwise)" in str(found)
    checkpoint.save(tmp_path / "wide.safetensors", Vit(wide).initialize(0), {})
    assert open_checkpoint(tmp_path / "wide.safetensors").model.spec == wide
    with pytest.raises(ValueError, match="--heads must be 4, from the file, not 2"):
        open_checkpoint(tmp_path / "wide.safetensors", heads=2)
    save_file(tensors(wide), tmp_path / "spec.safetensors", metadata={"spec": "[]"})
    with pytest.raises(CheckpointError, match="no usable spec in its metadata"):
        open_checkpoint(tmp_path / "spec.safetensors")
    # A fine-tuned network keeps its name: other classes, image size and input channels.
    named = models.Model(name="small", spec=SMALL, preprocessing=INCEPTION)
    monkeypatch.setattr(models, "MODELS", {"small": named})
    tuned = VitSpec(image_size=20, patch_size=4, in_channels=1, classes=7, dim=12, depth=2, heads=2,
                    mlp_hidden=20)
    torch.save(tensors(tuned), tmp_path / "tuned.pth")
    assert open_checkpoint(tmp_path / "tuned.pth", "small").model.spec == tuned
    with pytest.raises(ValueError, match="model must be one of small, not 'large'"):
        open_checkpoint(tmp_path / "tuned.pth", "large")


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("layers.0.blocks.0.norm1.weight", (12,), "a Swin"),
    ("blocks.0.attn.q_norm.weight", (6,), "norms of queries and keys"),
    ("blocks.1.mlp.w12.weight", (12,), "gated MLPs"),
])
def test_other_networks_say_which_tensor_they_have(tmp_path: Path, name: str,
                                                   shape: tuple[int, ...], message: str) -> None:
    torch.save(tensors(SMALL) | {name: torch.ones(shape)}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "net.pth", heads=2)
    assert f"net.pth: tensor '{name}' is not part of a plain ViT: {message}" in str(caught.value)


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("patch_embed.proj.weight", None, "of shape [dim, channels, patch, patch] is missing"),
    ("patch_embed.proj.weight", (12, 48), "must have shape [dim, channels, patch, patch], not"),
    ("patch_embed.proj.weight", (12, 3, 4, 2), "must have shape [dim, channels, patch, patch]"),
    ("patch_embed.proj.weight", (0, 3, 4, 4), "must have shape [dim, channels, patch, patch]"),
    ("pos_embed", (1, 8, 12), "must have shape [1, 1 + n * n, 12], not [1, 8, 12]"),
    ("pos_embed", (1, 1, 12), "must have shape [1, 1 + n * n, 12], not [1, 1, 12]"),
    ("pos_embed", (1, 10, 8), "must have shape [1, 10, 12], not [1, 10, 8]"),
    ("head.weight", None, "of shape [classes, dim] is missing"),
    ("head.weight", (5, 16), "must have shape [5, 12], not [5, 16]"),
    ("head.bias", (6,), "must have shape [5], not [6]"),
    ("blocks.1.mlp.fc1.weight", (24, 12), "must have shape [20, 12], not [24, 12]"),
    ("blocks.3.norm1.weight", (12,), None),
    ("blocks.999999999.norm1.weight", (12,), None),
    ("extra", (3,), "of shape [3] is not part of this network"),
])
def test_contradictions_name_the_tensor(tmp_path: Path, name: str, shape: tuple[int, ...] | None,
                                        message: str | None) -> None:
    state = tensors(SMALL)
    if shape is None:
        del state[name]
    else:
        state[name] = torch.ones(shape)
    if message is None:
        name, message = "blocks.2.norm1.weight", "of shape [12] is missing"
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "net.pth", heads=2)
    assert f"net.pth: tensor '{name}' {message}" in str(caught.value)


def test_a_name_stands_for_width_depth_patch_and_mlp(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pth"
    torch.save(tensors(SMALL), path)
    for field, value, message in (
            ("patch_size", 2, "'patch_embed.proj.weight' of shape [12, 3, 4, 4] is not of small"),
            ("mlp_hidden", 24, "'blocks.0.mlp.fc1.weight' of shape [20, 12] is not of small"),
            ("depth", 3, "'blocks.2.norm1.weight' is missing of small, which has 3 blocks"),
            ("depth", 1, "'blocks.1.norm1.weight' is not part of small, which has 1 blocks")):
        spec = VitSpec(**vars(SMALL) | {field: value})
        monkeypatch.setattr(models, "MODELS", {
            "small": models.Model(name="small", spec=spec, preprocessing=INCEPTION)})
        with pytest.raises(CheckpointError, match=re.escape(message)):
            open_checkpoint(path, "small")


def test_preprocessing_follows_the_name_and_the_channels() -> None:
    def of(channels: int, name: str) -> models.Preprocessing:
        return usual(VitSpec(image_size=96, patch_size=8, in_channels=channels, dim=8, heads=1),
                     name)

    assert vars(of(3, "vit")) == vars(IMAGENET) | {"size": 96}
    assert vars(of(1, "vit")) == vars(DIGITS) | {"size": 96}
    assert vars(of(3, "vit_small_patch16_224")) == vars(INCEPTION) | {"size": 96}
    assert vars(of(1, "vit_small_patch16_224")) == vars(DIGITS) | {"size": 96}
    with pytest.raises(ValueError, match="pictures have 1 or 3 channels, not the network's 4"):
        of(4, "vit")


def same(deviations: tuple[float, ...]) -> tuple[float, ...]:
    """Return the one deviation that all channels are divided by: `one_deviation`."""
    mean = float(torch.tensor(deviations, dtype=torch.float64).mean())
    return (mean,) * len(deviations)


def test_golden_quantize_takes_its_options_to_the_pictures(
        colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(tensors(SMALL), tmp_path / "net.bin")
    seen, batches = [], Folder.batches
    monkeypatch.setattr(Folder, "batches", lambda self, how, *given, **more: (
        seen.append(how), batches(self, how, *given, **more))[1])
    given = ["--method", "minmax", "--checkpoint", str(tmp_path / "net.bin"), "--calibration",
             str(colours), "--evaluate", str(colours), "--heads", "2"]
    assert quantize.main(given) == 0
    text = capsys.readouterr()
    assert "net.bin: 12x12 pixels of 3 channels, patches of 4" in text.err
    assert re.findall(r"^(\w+) +\d of 6", text.out, re.M) == ["float", "simulated", "integer"]
    assert vars(seen[0]) == vars(IMAGENET) | {"size": 12, "std": same(IMAGENET.std)}
    seen.clear()
    assert quantize.main([*given, "--mean", "0.5", "--std", "0.3,0.4,0.5", "--crop", "0.75",
                          "--interpolation", "bilinear"]) == 0
    assert set(seen) == {models.Preprocessing(
        size=12, crop=0.75, interpolation="bilinear", mean=(0.5,) * 3, std=same((0.3, 0.4, 0.5)))}


def test_a_swin_goes_by_its_name(colours: Path, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    name = "swin_tiny_patch4_window7_224"
    spec = models.SwinSpec(image_size=16, patch_size=2, classes=2, dim=4, depths=(1, 1),
                           heads=(1, 2), window=4)
    monkeypatch.setattr(models, "MODELS", {name: models.Model(
        name=name, spec=spec, preprocessing=models.Preprocessing(**vars(IMAGENET) | {"size": 16}))})
    torch.save(models.create(name).state_dict(), tmp_path / "swin.pth")
    given = ["--method", "minmax", "--checkpoint", str(tmp_path / "swin.pth"), "--calibration",
             str(colours), "--evaluate", str(colours)]
    assert quantize.main([*given, "--model", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["float", "simulated", "integer", "deployed"]
    assert quantize.main([*given, "--model", name, "-o", str(tmp_path / "out")]) == 0
    assert network_file.load(tmp_path / "out").spec == spec
    assert "patch merging" in (tmp_path / "out" / "report.md").read_text()
    assert quantize.main([*given, "--model", name, "--heads", "2"]) == 2
    assert "--heads does not go with swin_tiny" in capsys.readouterr().err
    assert quantize.main(given) == 2
    assert "is not part of a plain ViT: a Swin, whose shape goes by its name" in \
        capsys.readouterr().err


def test_the_projects_own_network_needs_no_name() -> None:
    assert open_checkpoint(WEIGHTS).model.spec == models.lookup("mnist_vit").spec
