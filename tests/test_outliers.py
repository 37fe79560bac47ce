# SPDX-License-Identifier: Apache-2.0
"""A network with outlier channels in its residual stream: what is amplified, and what stays."""

import numpy as np
import pytest
import torch

from benchmarks import outliers
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.vit import observe


@pytest.fixture(scope="module")
def images():
    return mnist.pixels(mnist.sample().calibration.images[:40])


def seen(model, images, names):
    found = {}
    with observe(model, lambda name, value: found.update({name: value})), torch.inference_mode():
        model(images)
    return [found[name].flatten(0, 1) for name in names]


def test_channels_grow_and_layer_norms_give_what_they_gave(images):
    model = checkpoint.load(WEIGHTS)
    changed = outliers.amplified(model, [3, 40], 16.0, images)
    names = ["embedding", "blocks.0.norm1", "blocks.3.norm2", "norm"]
    before, after = seen(model, images, names), seen(changed, images, names)
    ratio = (after[0] / before[0]).nanmedian(0).values
    wanted = torch.ones(64)
    wanted[[3, 40]] = 16.0   # nothing else of the embedding changes
    assert torch.allclose(ratio, wanted, rtol=1e-4)
    for old, new in zip(before[1:], after[1:], strict=True):
        assert torch.allclose(new.mean(0), old.mean(0), atol=2e-3)
        assert torch.allclose(new.std(0), old.std(0), rtol=2e-3)
    assert outliers.spread(changed, images) > 4 * outliers.spread(model, images)
    # The network that was given is left alone.
    assert torch.equal(seen(model, images, ["norm"])[0], before[3])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path, sample = tmp_path_factory.mktemp("data") / "mnist.npz", mnist.sample()
    arrays = {}
    for name, split in (("train", sample.calibration), ("test", sample.test)):
        arrays |= {f"x_{name}": split.images.numpy(), f"y_{name}": split.labels.numpy()}
    np.savez(path, **arrays)
    return path


@pytest.mark.thorough
def test_the_command_trains_and_writes_weights(data, tmp_path, capsys):
    output = tmp_path / "new" / "out.safetensors"
    arguments = ["--data", str(data), "--gain", "6", "--steps", "3", "-o", str(output)]
    assert outliers.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.rstrip().endswith(f"weights in {output}")
    state, notes = checkpoint.read(output)
    changed = checkpoint.load(output)
    shipped = checkpoint.load(WEIGHTS)
    assert f"{notes['channels'].strip('[]')}: the largest" in text
    chosen = [int(part) for part in notes["channels"].strip("[]").split(",")]
    assert len(chosen) == 3
    ratio = state["pos_embed"][0].norm(dim=0) / shipped.pos_embed[0].norm(dim=0)
    assert bool((ratio[chosen] > 4).all()) and ratio.median() < 2
    right = mnist.accuracy(changed, mnist.sample().test)
    assert float(notes["accuracy"]) == pytest.approx(right, abs=1e-4)
    # The same arguments give the same weights.
    assert outliers.main([*arguments[:-1], str(tmp_path / "again.safetensors")]) == 0
    again = checkpoint.read(tmp_path / "again.safetensors")[0]
    assert all(torch.equal(value, again[name]) for name, value in state.items())


@pytest.mark.parametrize(("arguments", "message"), [
    (["--gain", "0"], "--gain above 0"), (["--channels", "17"], "--channels must be 1 to 16"),
    (["--data", "no.npz"], "can't read no.npz"), (["--steps", "x"], "invalid int value"),
    (["-o", "weights.pth"], "weights.pth must be a .safetensors file"),
])
def test_bad_input_gets_one_line(data, arguments, message, tmp_path, capsys):
    output = tmp_path / "out.safetensors"
    assert outliers.main(["--data", str(data), "-o", str(output), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not output.exists()
