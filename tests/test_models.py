# SPDX-License-Identifier: Apache-2.0
"""Networks by name: equal to timm's in names, shapes, preprocessing and output; their loading."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from golden.float import models
from golden.float.checkpoint import CheckpointError
from golden.float.models import MODELS, Model
from golden.float.swin import Swin, SwinSpec, WindowAttention
from golden.float.vit import Attention, Vit
from tests.data.make_timm_reference import CASES, FAMILIES, REFERENCE, images, listing, parameters
from tests.sample import leading

TIMM = json.loads(REFERENCE.read_text())
WEIGHTS = Path(models.__file__).parents[1] / "weights" / "mnist_vit.safetensors"
SWIN = "swin_tiny_patch4_window7_224"
WORDS = {"img_size": "image_size", "in_chans": "in_channels", "num_classes": "classes",
         "embed_dim": "dim", "num_heads": "heads", "window_size": "window"}


def reduced(name: str, changes: dict[str, Any]) -> Model:
    """Apply timm's arguments to a named network."""
    changes = {WORDS.get(key, key): value for key, value in changes.items()}
    model = models.lookup(name)
    if not isinstance(model.spec, SwinSpec) and changes:
        changes["mlp_hidden"] = changes["dim"] * changes.pop("mlp_ratio", 4)
    return replace(model, spec=replace(model.spec, **changes))


def filled(model: Model) -> dict[str, Tensor]:
    """Draw the state dict of the reference."""
    with torch.device("meta"):
        state = model.build().state_dict()
    return parameters({name: tuple(value.shape) for name, value in state.items()})


def test_names_are_those_of_the_reference() -> None:
    assert set(MODELS) == {"mnist_vit", "cifar10_vit", "cifar10_swin", *FAMILIES}
    assert [(o["name"], o["images"]) for o in TIMM["outputs"]] == [(c[0], c[2]) for c in CASES]
    assert all(name == model.name for name, model in MODELS.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_and_preprocessing_are_timms(name: str) -> None:
    model, timm = MODELS[name], TIMM["networks"][name]
    with torch.device("meta"):
        network = model.build()
    found = listing(network.state_dict())
    assert found == {key: timm[key] for key in found}
    assert timm["heads"] == [module.heads for module in network.modules()
                             if isinstance(module, Attention | WindowAttention)]
    figures = model.preprocessing
    assert list(figures.mean) == timm["mean"]
    assert list(figures.std) == timm["std"]
    assert figures.crop == timm["crop_pct"]
    assert figures.interpolation == timm["interpolation"]
    assert [3, figures.size, figures.size] == timm["input_size"]
    assert figures.resize == {224: 248, 384: 384}[figures.size]
    assert model.spec.image_size == figures.size


@pytest.mark.parametrize("case", leading(3, range(len(CASES))))
def test_logits_are_timms(case: int) -> None:
    name, changes, count = CASES[case]
    model = reduced(name, changes)
    state = filled(model)
    network = model.build().eval()
    network.load_state_dict(state)
    inputs = images(count, model.spec.in_channels, model.spec.image_size)
    timm = torch.tensor(TIMM["outputs"][case]["logits"], dtype=torch.float64)
    with torch.inference_mode():
        single = network(inputs)[:, :timm.shape[1]]
        double = network.double()(inputs.double())[:, :timm.shape[1]]
    assert timm.std() > 0.5
    assert (double - timm).abs().max() < 1e-12   # the same sums, in another order
    assert (single - timm).abs().max() < 1e-5


def write(path: Path, state: dict[str, Tensor]) -> None:
    """Save a state dict in the file's format."""
    if path.suffix == ".pth":
        torch.save({"model": state}, path)
    else:
        save_file(state, path)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, Model]:
    """Put reduced networks in place of the named ones."""
    small = {CASES[case][0]: reduced(*CASES[case][:2]) for case in (3, 4, 6)}
    monkeypatch.setattr(models, "MODELS", small)
    return small


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("case", [3, 4, 6])
def test_state_dict_of_timm_loads_unchanged(tmp_path: Path, tiny: dict[str, Model], suffix: str,
                                            case: int) -> None:
    name = CASES[case][0]
    state = filled(tiny[name])
    write(tmp_path / f"net{suffix}", state)
    network = models.load(name, tmp_path / f"net{suffix}")
    assert not network.training
    assert network.spec == tiny[name].spec
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


def microsoft(network: Swin, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a state dict as Microsoft's code and timm before 0.9 do, with their buffers."""
    old = {re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample",
                  name).replace("head.fc.", "head."): value for name, value in state.items()}
    return old | {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_old_names_and_buffers_of_swin(tmp_path: Path, tiny: dict[str, Model],
                                       suffix: str) -> None:
    network = tiny[SWIN].build()
    assert isinstance(network, Swin)
    state = filled(tiny[SWIN])
    old = microsoft(network, state)
    assert "layers.0.downsample.norm.bias" in old and "head.weight" in old
    assert "layers.0.blocks.1.attn_mask" in old and "layers.0.blocks.0.attn_mask" not in old
    write(tmp_path / f"net{suffix}", old)
    loaded = models.load(SWIN, tmp_path / f"net{suffix}").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())

    for name in ("layers.0.blocks.1.attn_mask", "layers.1.blocks.0.attn.relative_position_index"):
        spoilt = old | {name: old[name].clone()}
        spoilt[name][0, 1] += 1
        write(tmp_path / f"spoilt{suffix}", spoilt)
        with pytest.raises(CheckpointError, match=f"buffer '{name}' of shape .* differs from"):
            models.load(SWIN, tmp_path / f"spoilt{suffix}")
        spoilt[name] = old[name][1:].clone()
        write(tmp_path / f"spoilt{suffix}", spoilt)
        with pytest.raises(CheckpointError, match=f"buffer '{name}' of shape .* differs from"):
            models.load(SWIN, tmp_path / f"spoilt{suffix}")


@pytest.mark.parametrize("damage", ["shape", "missing", "extra", "nan"])
@pytest.mark.parametrize("case", [4, 6])
def test_wrong_tensor_is_named(tmp_path: Path, tiny: dict[str, Model], case: int,
                               damage: str) -> None:
    name = CASES[case][0]
    state = filled(tiny[name])
    last = next(reversed(state))
    path, size = tmp_path / "net.safetensors", len(state[last])
    match damage:
        case "shape":
            state[last] = torch.zeros(1000)
            message = f"tensor '{last}' must have shape [{size}], not [1000]"
        case "missing":
            del state[last]
            message = f"tensor '{last}' of shape [{size}] is missing"
        case "extra":
            state["head_dist.bias"] = torch.zeros(5)
            message = "tensor 'head_dist.bias' of shape [5] is not part of this network"
        case _:
            state[last] = torch.full((size,), float("inf"))
            message = (f"tensor '{last}' must hold finite floating-point values "
                       "(torch.float32 found)")
    save_file(state, path)
    with pytest.raises(CheckpointError) as caught:
        models.load(name, path)
    assert str(caught.value) == f"{path}: {message}"


def test_own_network_has_a_name() -> None:
    network = models.load("mnist_vit", WEIGHTS)
    assert isinstance(network, Vit)
    assert network.spec == MODELS["mnist_vit"].spec
    figures = MODELS["mnist_vit"].preprocessing
    assert (figures.size, figures.resize, figures.mean, figures.std) == (28, 28, (0.0,), (1.0,))


def test_create_follows_the_seed(tiny: dict[str, Model]) -> None:
    for name in tiny:
        one, again, other = (models.create(name, seed) for seed in (1, 1, 2))
        assert not one.training
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(),
                                                     strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(),
                                                         strict=True))


def test_a_distilled_deit_says_why_it_is_not_supported() -> None:
    with pytest.raises(ValueError, match="deit_tiny_distilled_patch16_224: a distilled DeiT has no "
                                         "name here; without one its file is taken"):
        models.lookup("deit_tiny_distilled_patch16_224")


def test_unknown_name_is_refused(tmp_path: Path) -> None:
    for call in (models.create, models.lookup, lambda name: models.load(name, tmp_path / "x.pth")):
        with pytest.raises(ValueError, match=r"model must be one of mnist_vit, vit_small_patch16_"
                                             r"224, .*, not 'resnet50'"):
            call("resnet50")
