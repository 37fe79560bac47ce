# SPDX-License-Identifier: Apache-2.0
"""The float network: names and shapes, an independent computation of it, and its checkpoints."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from golden.data import mnist
from golden.float import checkpoint
from golden.float.checkpoint import CheckpointError
from golden.float.vit import Vit, VitSpec, observe

WEIGHTS = Path(checkpoint.__file__).parents[1] / "weights" / "mnist_vit.safetensors"
SMALL = VitSpec(image_size=12, patch_size=4, in_channels=2, classes=5, dim=12, depth=2, heads=3,
                mlp_hidden=20)


def small() -> Vit:
    """Return a network whose parameters are all far from zero and one."""
    model = Vit(SMALL)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return model.eval()


def plainly(state: dict[str, Tensor], images: Tensor, spec: VitSpec) -> Tensor:
    """Compute the logits of images ``[B, C, H, W]`` from the equations, one image at a time."""
    w = {name: value.double() for name, value in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        deviation = ((centred**2).mean(1, keepdim=True) + 1e-6).sqrt()
        return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    result = []
    size, width = spec.patch_size, spec.head_dim
    for image in images.double():
        patches = [image[:, y:y + size, x:x + size].flatten()
                   for y in range(0, spec.image_size, size)
                   for x in range(0, spec.image_size, size)]
        kernel = w["patch_embed.proj.weight"].flatten(1)
        tokens = [w["cls_token"][0, 0]]
        tokens += [kernel @ patch + w["patch_embed.proj.bias"] for patch in patches]
        x = torch.stack(tokens) + w["pos_embed"][0]
        for block in (f"blocks.{n}" for n in range(spec.depth)):
            qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
            outputs = []
            for head in range(spec.heads):
                q, k, v = (qkv[:, part * spec.dim + head * width:][:, :width] for part in range(3))
                powers = torch.exp(q @ k.T / math.sqrt(width))
                outputs.append(powers / powers.sum(1, keepdim=True) @ v)
            x = x + linear(torch.cat(outputs, 1), f"{block}.attn.proj")
            hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            x = x + linear(hidden, f"{block}.mlp.fc2")
        result.append(linear(norm(x, "norm")[:1], "head")[0])
    return torch.stack(result)


def test_forward_equals_plain_computation() -> None:
    model = small().double()
    images = torch.randn(3, 2, 12, 12, generator=torch.Generator().manual_seed(4)).double()
    expected = plainly(model.state_dict(), images, SMALL)
    assert torch.allclose(model(images), expected, rtol=0, atol=1e-10)
    assert expected.std() > 0.1   # the comparison is not one of zeros


def test_parameters_are_those_of_timm_deit() -> None:
    with torch.device("meta"):
        model = Vit(VitSpec(image_size=224, patch_size=16, in_channels=3, classes=1000, dim=192,
                            depth=12, heads=3, mlp_hidden=768))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert sum(value.numel() for value in model.parameters()) == 5_717_416
    assert len(shapes) == 4 + 12 * 12 + 4
    assert shapes["cls_token"] == (1, 1, 192)
    assert shapes["pos_embed"] == (1, 197, 192)
    assert shapes["patch_embed.proj.weight"] == (192, 3, 16, 16)
    assert shapes["blocks.11.attn.qkv.weight"] == (576, 192)
    assert shapes["blocks.0.mlp.fc2.weight"] == (192, 768)
    assert {"norm.weight", "head.bias", "blocks.3.norm2.bias", "blocks.3.attn.proj.bias",
            "blocks.7.mlp.fc1.weight", "blocks.7.norm1.weight"} <= set(shapes)


def test_observe_sees_every_intermediate_in_order() -> None:
    seen: dict[str, list[int]] = {}
    with observe(model := small(), lambda name, value: seen.update({name: list(value.shape)})):
        model(torch.zeros(2, 2, 12, 12))
    block = ["norm1", "attn.qkv", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.softmax",
             "attn.context", "attn.proj", "residual1", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2",
             "residual2"]
    names = [f"blocks.{n}.{name}" for n in range(2) for name in block]
    assert list(seen) == ["patch_embed.proj", "embedding", *names, "norm", "head"]
    assert seen["blocks.1.attn.softmax"] == [2, 3, 10, 10]
    count = len(seen)
    model(torch.zeros(1, 2, 12, 12))
    assert seen["head"] == [2, 5] and len(seen) == count   # the hooks are gone


@pytest.mark.parametrize(("changes", "message"), [
    ({"patch_size": 5}, "image_size must be a multiple of patch_size (5), not 28"),
    ({"heads": 3}, "dim must be a multiple of heads (3), not 64"),
    ({"depth": 0}, "depth must be a positive integer, not 0"),
    ({"dim": 64.0}, "dim must be a positive integer, not 64.0"),
])
def test_impossible_spec_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        VitSpec(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_checkpoint_round_trip(tmp_path: Path, suffix: str) -> None:
    model, path = small(), tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save({"model": model.state_dict()}, path)   # as DeiT publishes
        loaded = checkpoint.load(path, SMALL)
    else:
        checkpoint.save(path, model, {"seed": "3"})
        loaded = checkpoint.load(path)
        assert checkpoint.read(path)[1]["seed"] == "3"
    assert loaded.spec == SMALL
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def spoil(kind: str, state: dict[str, Tensor]) -> str:
    """Damage a state dict; return the message that its loading must give."""
    match kind:
        case "shape":
            state["pos_embed"] = state["pos_embed"][:, 1:].contiguous()
            return "tensor 'pos_embed' must have shape [1, 10, 12], not [1, 9, 12]"
        case "missing":
            del state["blocks.1.mlp.fc2.bias"]
            return "tensor 'blocks.1.mlp.fc2.bias' of shape [12] is missing"
        case "extra":
            state["head_dist.bias"] = torch.zeros(5)
            return "tensor 'head_dist.bias' of shape [5] is not part of this network"
        case "integers":
            state["head.bias"] = torch.zeros(5, dtype=torch.int64)
            return "tensor 'head.bias' must hold finite floating-point values (torch.int64 found)"
        case _:
            state["head.bias"] = torch.full((5,), float("nan"))
            return "tensor 'head.bias' must hold finite floating-point values (torch.float32 found)"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kind", ["shape", "missing", "extra", "integers", "nan"])
def test_wrong_tensor_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    path, state = tmp_path / f"net{suffix}", dict(small().state_dict())
    message = spoil(kind, state)
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, SMALL)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch.save(small().state_dict(), path)
    else:
        checkpoint.save(path, small(), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated or corrupt") as caught:
        checkpoint.load(path, SMALL)
    assert str(path) in str(caught.value)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_what_torch_saves_is_read_and_pickled_code_never_runs(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"net{suffix}", small().state_dict()
    torch.save(state, path)
    assert all(torch.equal(value, state[name])
               for name, value in checkpoint.load(path, SMALL).state_dict().items())
    made = tmp_path / "made"
    torch.save(state | {"head.bias": Hostile(made)}, path)
    with pytest.raises(CheckpointError, match=rf"is not a \{suffix} state dict, .* holds more than "
                                              "tensors, which is not loaded"):
        checkpoint.load(path, SMALL)
    assert not made.exists()
    torch.save({"head.bias": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(CheckpointError, match=r"tensor 'head.bias' of shape \[1099511627776\] does "
                                              "not lie in the file"):
        checkpoint.load(path, SMALL)


def test_other_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"can't read .*none\.safetensors: No such file"):
        checkpoint.load(tmp_path / "none.safetensors", SMALL)
    with pytest.raises(CheckpointError, match=r"can't read .*none\.pth: No such file"):
        checkpoint.load(tmp_path / "none.pth", SMALL)
    with pytest.raises(CheckpointError, match=r"must be a \.safetensors, \.pth, "
                                              r"\.pt or \.bin file"):
        checkpoint.load(tmp_path / "net.onnx", SMALL)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="must hold a dict of tensors, not list"):
        checkpoint.load(tmp_path / "list.pth", SMALL)
    save_file(dict(small().state_dict()), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="has no usable spec"):
        checkpoint.load(tmp_path / "bare.safetensors")


def test_shipped_weights_on_the_shipped_images() -> None:
    model = checkpoint.load(WEIGHTS)
    _, notes = checkpoint.read(WEIGHTS)
    sample = mnist.sample()
    assert model.spec == VitSpec()
    assert WEIGHTS.stat().st_size < 2_000_000
    assert float(notes["accuracy"]) >= 0.985
    assert (len(sample.test), len(sample.calibration)) == (300, 100)
    assert round(mnist.accuracy(model, sample.test) * 300) == 300
    assert round(mnist.accuracy(model, sample.calibration) * 100) == 99
    state = load_file(WEIGHTS)
    images = mnist.pixels(sample.test.images[:4])
    assert torch.allclose(model(images).double(), plainly(state, images, model.spec), atol=1e-4)
