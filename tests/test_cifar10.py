# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10's two file forms, its folders of pictures, and the parts of its training recipe."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from golden.data import cifar10
from golden.data.imagenet import Folder
from golden.data.mnist import DataError, Split
from golden.float import checkpoint, models
from golden.float.vit import Vit, VitSpec, observe
from golden.training import train
from golden.training.cifar10 import WINDOW, Cifar10Task, mirrored, windowed
from golden.training.mimetic import SCORES, VALUES, mimetic, positions
from golden.training.muon import Muon, orthogonal
from golden.training.task import Plan, shifted

WEIGHTS = Path(models.__file__).parents[1] / "weights" / "cifar10_vit.safetensors"

pytestmark = pytest.mark.usefixtures("global_switches")


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images ``[N, 32, 32, 3]`` and all labels in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, np.arange(count, dtype=np.uint8) % 10


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def archive(path: Path, content: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def pictures(images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    return {f"train/{cifar10.CLASSES[label]}/{number:04}.png": png(image)
            for number, (image, label) in enumerate(zip(images, labels, strict=True))}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Make the archive of 40 pictures, and the arrays of 20 images."""
    folder = tmp_path / "data"
    folder.mkdir()
    images, labels = drawn(20, 1)
    np.savez(folder / "test.npz", x=images, y=labels)
    return [archive(folder / "train.zip", pictures(*drawn(40)) | {"README": b"no picture"}),
            folder / "test.npz"]


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Make the binary version, ten images a file."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4",
                                   "data_batch_5", "test_batch")):
        images, labels = drawn(10, number)
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([label]) + image.transpose(2, 0, 1).tobytes()
            for image, label in zip(images, labels, strict=True)))
    return folder


def test_archive_and_arrays_are_read_whole(files: list[Path]) -> None:
    for paths in (files, files[::-1]):
        train_split, test_split = cifar10.read(paths)
        images, labels = drawn(40)
        order = np.argsort([f"{cifar10.CLASSES[label]}{n:04}" for n, label in enumerate(labels)])
        assert torch.equal(train_split.images,
                           torch.from_numpy(images[order].transpose(0, 3, 1, 2)))
        assert train_split.labels.tolist() == labels[order].tolist()
        images, labels = drawn(20, 1)
        assert torch.equal(test_split.images, torch.from_numpy(images.transpose(0, 3, 1, 2)))
        assert test_split.labels.tolist() == labels.tolist()


def test_binary_version_is_read_in_order(binary: Path) -> None:
    train_split, test_split = cifar10.read([binary])
    expected = np.concatenate([drawn(10, number)[0] for number in range(5)])
    assert torch.equal(train_split.images, torch.from_numpy(expected.transpose(0, 3, 1, 2)))
    assert train_split.labels.tolist() == [*range(10)] * 5
    assert torch.equal(test_split.images,
                       torch.from_numpy(drawn(10, 5)[0].transpose(0, 3, 1, 2)))


def test_folders_give_the_same_network_input(files: list[Path], tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--data", *map(str, files), "--train", "10", "-o", str(out)]
    assert cifar10.main(arguments) == 0
    assert f"30 pictures in {out / 'train'} and {out / 'test'}" in capsys.readouterr().out
    source = {image.tobytes(): label for image, label in zip(*drawn(40), strict=True)}
    written = [*(out / "train").rglob("*.png")]
    assert len(written) == 10
    for path in written:
        assert cifar10.CLASSES[source[np.asarray(Image.open(path)).tobytes()]] == path.parent.name
    test_split = cifar10.read(files)[1]
    folder = Folder.open(out / "test", cifar10.CLASSES)
    images, labels = next(folder.batches(models.lookup("cifar10_vit").preprocessing, 20))
    order = [int(path.stem) for path in folder.files]
    assert sorted(order) == [*range(20)]
    assert torch.equal(labels, test_split.labels[order])
    assert torch.allclose(images, cifar10.pixels(test_split.images[order]), atol=1e-6)
    before = sorted(path.read_bytes() for path in written)
    assert cifar10.main([*arguments, "--seed", "1"]) == 0
    after = sorted(path.read_bytes() for path in (out / "train").rglob("*.png"))
    assert len(after) == 10 and before != after


@pytest.mark.parametrize(("kind", "message"), [
    ("nothing", "is read from the folder cifar-10-batches-bin, or from a .zip"),
    ("missing", "can't read"),
    ("text", "train.zip is not a .zip archive, or is damaged"),
    ("class", "'bicycle' is none of the classes"),
    ("size", "must be 32x32, not 16x32"),
    ("huge", "is too large"),
    ("no picture", "0.png is not a picture"),
    ("cut picture", "can't read"),
    ("empty", "holds no pictures in class folders"),
    ("no array", "test.npz is not an .npz file with the arrays x and y"),
    ("objects", "test.npz is not an .npz file with the arrays x and y"),
    ("shape", "x must be uint8 images of 32x32x3, not uint8 of shape [20, 3, 32, 32]"),
    ("labels", "labels must lie in 0..9, not 1..10"),
    ("count", "there must be 20 integer labels (at least one), not uint8 of shape [19]"),
])
def test_unusable_files_are_one_line_and_exit_2(files: list[Path], tmp_path: Path, kind: str,
                                                message: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    pictures_file, arrays_file = files
    images, labels = drawn(20, 1)
    name = "train/cat/0.png"
    content = {"class": {"train/bicycle/0.png": png(images[0])},
               "size": {name: png(images[0][:, :16])}, "huge": {name: bytes(100_001)},
               "no picture": {name: b"text"}, "cut picture": {name: png(images[0])[:1000]},
               "empty": {"README": b""}}
    arrays = {"no array": {"x": images}, "objects": {"x": images, "y": np.array([None] * 20)},
              "shape": {"x": images.transpose(0, 3, 1, 2), "y": labels},
              "labels": {"x": images, "y": labels + np.uint8(1)},
              "count": {"x": images, "y": labels[1:]}}
    if kind == "nothing":
        files = files[:1]
    elif kind == "missing":
        pictures_file.unlink()
    elif kind == "text":
        pictures_file.write_text("no archive")
    elif kind in content:
        archive(pictures_file, content[kind])
    else:
        np.savez(arrays_file, allow_pickle=True, **arrays[kind])
    assert cifar10.main(["--data", *map(str, files), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(("content", "message"), [
    (bytes(3072), "data_batch_3.bin must be records of 3073 bytes, not 3072 bytes"),
    (b"", "data_batch_3.bin must be records of 3073 bytes, not 0 bytes"),
    (b"\x0a" + bytes(3072), "labels must lie in 0..9, not 10..10"),
    (None, "can't read"),
])
def test_unusable_binary_version_is_refused(binary: Path, content: bytes | None,
                                            message: str) -> None:
    (binary / "data_batch_3.bin").unlink()
    if content is not None:
        (binary / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError) as caught:
        cifar10.read([binary])
    assert message in str(caught.value) and "data_batch_3.bin" in str(caught.value)


def test_network_has_the_size_that_was_asked_for() -> None:
    network = Cifar10Task().build(1)
    assert network.spec.tokens == 65
    assert 1_000_000 <= sum(p.numel() for p in network.parameters()) < 1_050_000
    assert not [getattr(network.spec, name) for name in ("dim", "head_dim", "mlp_hidden")
                if getattr(network.spec, name) % 16]


def test_attention_starts_as_in_trained_networks() -> None:
    network = Cifar10Task().build(3)
    state = {name: value.detach().double() for name, value in network.state_dict().items()}
    identity = torch.eye(128, dtype=torch.float64)
    for block in range(5):
        q, k, v = state[f"blocks.{block}.attn.qkv.weight"].split(128)
        product = v.T @ state[f"blocks.{block}.attn.proj.weight"].T / VALUES
        rest = product + identity   # normal of variance 1 / 128
        assert abs(rest.diag().mean()) < 0.05
        assert rest.std() == pytest.approx(128**-0.5, rel=0.05)
        heads = {}
        for head in range(8):
            rows = slice(16 * head, 16 * head + 16)
            scores = heads[head] = q[rows].T @ k[rows] / SCORES
            assert torch.linalg.matrix_rank(scores) == 16
            # The largest part of a matrix of rank 128 whose diagonal is 1.
            assert 0.15 < scores.diag().mean() < 0.6
            assert abs(scores.mean()) < 0.01
            assert (scores - scores.T).norm() > 0.2 * scores.norm()   # Z is not symmetric
        assert not torch.equal(heads[0], heads[1])


def test_positions_tell_distances_alike_everywhere() -> None:
    places = positions(8, 128).double().reshape(8, 8, 128)
    products = torch.einsum("abc,dec->abde", places, places)
    assert torch.allclose(products[2, 3, 4, 2], products[5, 6, 7, 5])
    assert torch.allclose(products[0, 0, 0, 0], torch.tensor(64.0, dtype=torch.float64))
    near = products[4, 4]
    assert near.flatten().argmax() == 36 and near[4, 5] > near[4, 6] > near[4, 7]
    with pytest.raises(ValueError, match="dim must be a multiple of 4, not 30"):
        mimetic(Vit(VitSpec(dim=30, heads=3)), 0)


def test_window_is_the_image_without_the_other_patches() -> None:
    network = Cifar10Task().build(1).double().eval()
    images = cifar10.pixels(torch.from_numpy(drawn(3)[0].transpose(0, 3, 1, 2))).double()
    with torch.inference_mode():
        assert torch.equal(windowed(network, images, 0, 0, 8), network(images))
        tokens = network.patch_embed(images) + network.pos_embed[:, 1:]
        places = torch.arange(64).reshape(8, 8)[2:2 + WINDOW, 1:1 + WINDOW].flatten()
        token = (network.cls_token + network.pos_embed[:, :1]).expand(3, -1, -1)
        x = torch.cat((token, tokens[:, places]), dim=1)
        for block in network.blocks:
            x = block(x)
        wanted = network.head(network.norm(x)[:, 0])
        assert torch.allclose(windowed(network, images, 2, 1, WINDOW), wanted, atol=1e-12)


def test_windows_end_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    task, network = Cifar10Task(), Cifar10Task().build(1)
    images, labels = drawn(2)
    tokens: list[int] = []
    for share in (0.0, 0.79, 0.81, 0.99):
        with observe(network, lambda name, value: tokens.append(value.shape[1])
                     if name == "embedding" else None):
            task.loss(network, torch.from_numpy(images.transpose(0, 3, 1, 2)),
                      torch.from_numpy(labels.astype(np.int64)), share,
                      torch.Generator().manual_seed(0))
    assert tokens == [37, 37, 65, 65]


def test_mirror_and_shift_keep_images_whole() -> None:
    images = torch.from_numpy(drawn(200)[0].transpose(0, 3, 1, 2))
    made = mirrored(images, torch.Generator().manual_seed(0))
    same = [torch.equal(a, b) for a, b in zip(images, made, strict=True)]
    turned_round = [torch.equal(a.flip(-1), b) for a, b in zip(images, made, strict=True)]
    assert all(a != b for a, b in zip(same, turned_round, strict=True))
    assert 70 < sum(same) < 130
    moved = shifted(images, torch.Generator().manual_seed(0), 4)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    places = set()
    for image, result in zip(padded, moved, strict=True):
        found = [(y, x) for y in range(9) for x in range(9)
                 if torch.equal(image[:, y:y + 32, x:x + 32], result)]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 60


def test_rate_rises_for_a_short_time_and_falls_to_zero() -> None:
    plan = Plan(epochs=10, rate=0.5)
    rates = [Cifar10Task().rate(plan, step, 10) for step in range(100)]
    assert rates[3] == pytest.approx(0.5) == max(rates)
    assert rates[0] == pytest.approx(0.125)
    assert rates[-1] == pytest.approx(0.5 / 96)
    assert np.allclose(np.diff(rates[4:]), -0.5 / 96)


def test_orthogonal_keeps_the_singular_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((20, 30), (30, 20), (16, 16)):
        matrix = torch.randn(shape, generator=generator)
        made = orthogonal(matrix)
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inside = left.T @ made @ right.T
        assert torch.allclose(inside - inside.diag().diag(), torch.zeros(()), atol=1e-3)
        assert 0.3 < inside.diag().min() and inside.diag().max() < 1.3


def test_muon_steps_q_k_and_v_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(48, 16, generator=generator))
    before = weight.detach().clone()
    optimizer = Muon([weight], decay=0.5, scores=0.2)
    optimizer.param_groups[0]["lr"] = 0.1
    weight.grad = torch.randn(48, 16, generator=generator)
    weight.grad[16:32] *= 1000   # of K
    optimizer.step()
    q, k, v = (orthogonal(part) for part in (1.95 * weight.grad).split(16))
    expected = torch.cat((0.2 * q, 0.2 * k, v))
    assert torch.allclose(weight, before * 0.95 - 0.1 * expected, atol=1e-5)
    first, before = weight.grad, weight.detach().clone()
    weight.grad = torch.randn(48, 16, generator=generator)
    optimizer.step()
    # The momentum is 0.95 of the first and all of the second, which counts once more.
    q, k, v = (orthogonal(part) for part in (0.95**2 * first + 1.95 * weight.grad).split(16))
    expected = torch.cat((0.2 * q, 0.2 * k, v))
    assert torch.allclose(weight, before * 0.95 - 0.1 * expected, atol=1e-5)
    tall = torch.nn.Parameter(torch.zeros(32, 8))
    optimizer = Muon([tall], decay=0.5)
    optimizer.param_groups[0]["lr"] = 0.1
    tall.grad = torch.randn(32, 8, generator=generator)
    optimizer.step()
    assert torch.allclose(tall, -0.2 * orthogonal(1.95 * tall.grad), atol=1e-5)


@pytest.mark.thorough
def test_training_learns_and_goes_on_where_it_was_stopped(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = drawn(60)
    images = images // 4 + (labels[:, None, None, None] * 19)   # the class is the brightness
    split = Split(torch.from_numpy(images.transpose(0, 3, 1, 2)),
                  torch.from_numpy(labels.astype(np.int64)))
    monkeypatch.setattr(cifar10, "read", lambda paths: (split, split))
    monkeypatch.setattr(Cifar10Task, "interval", 3)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"

    def run(output: Path) -> int:
        return train.main(["--network", "cifar10", "--data", "x", "--epochs", "5", "--batch", "20",
                           "--rate", "0.02", "-o", str(output)])

    assert run(whole) == 0
    assert " of 60 test images right" in capsys.readouterr().out
    rows = [line.split(",") for line in whole.with_suffix(".csv").read_text().splitlines()][1:]
    assert [row[2] != "" for row in rows] == [False, False, True, False, True]
    assert float(rows[-1][1]) < float(rows[0][1]) < 2.6

    losses = 0
    loss = Cifar10Task.loss

    def interrupted(*arguments: object) -> torch.Tensor:
        nonlocal losses
        losses += 1
        if losses == 11:   # in the fourth epoch
            raise KeyboardInterrupt
        return loss(*arguments)   # type: ignore[arg-type]

    monkeypatch.setattr(Cifar10Task, "loss", interrupted)
    assert run(parts) == 130
    assert run(parts) == 0
    assert losses == 11 + 6   # three epochs were not repeated
    first, second = load_file(whole), load_file(parts)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert models.load("cifar10_vit", whole).spec == models.lookup("cifar10_vit").spec
    assert math.isfinite(float(first["head.weight"].abs().max()))


def test_shipped_weights():
    network = models.load("cifar10_vit", WEIGHTS)
    notes = checkpoint.read(WEIGHTS)[1]
    assert isinstance(network, Vit)
    assert network.spec == checkpoint.load(WEIGHTS).spec
    assert network.spec.tokens == 65
    assert sum(value.numel() for value in network.parameters()) >= 1_000_000
    assert WEIGHTS.stat().st_size < 10_000_000
    assert float(notes["accuracy"]) >= 0.75
    assert notes["command"].startswith("python -m golden.train --network cifar10 --data ")
    log = WEIGHTS.with_suffix(".csv").read_text().splitlines()
    assert log[-1].split(",")[2] == f"{float(notes['accuracy'])}"
