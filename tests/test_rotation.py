# SPDX-License-Identifier: Apache-2.0
"""A turned residual stream: the same function with other weights, and the command."""

import pytest
import torch

from golden.commands import rotate
from golden.commands.options import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.rotation import grid_noise, peaks, rotation, turned
from golden.float.shape import open_checkpoint
from golden.ptq.folding import network
from golden.ptq.method import apply, weight_formats
from golden.ptq.record import Record


@pytest.fixture(scope="module")
def model():
    """Return the digits' network on a 3-bit grid, which is what rotation takes away."""
    plain = checkpoint.load(WEIGHTS)
    record = Record(method="", settings={}, formats=weight_formats(plain, 3))
    return network(plain, dict(apply(plain, record).named_parameters())).eval()


@pytest.fixture(scope="module")
def images():
    return mnist.sample().test.images[:40].float()[:, None] / 255


def test_rotations_are_orthogonal_and_keep_ones(model, images):
    sizes = peaks(model, images.split(20))
    assert sizes.shape == (64,) and bool((sizes > 0).all())
    for group in (2, 8, 24, 64):
        matrix = rotation(sizes, group, 3)
        assert torch.allclose(matrix @ matrix.T, torch.eye(64, dtype=torch.float64), atol=1e-12)
        assert torch.allclose(matrix.sum(1), torch.ones(64, dtype=torch.float64))
    # Channels of one group are neighbours by size.
    mixed = rotation(sizes, 8, 3) != 0
    first = sizes.argsort()[:8]
    assert bool(mixed[first][:, first].all()) and int(mixed[first].sum()) == 64
    assert not torch.equal(rotation(sizes, 8, 3), rotation(sizes, 8, 4))


@pytest.mark.parametrize("group", [1, 65])
def test_groups_that_are_no_groups_are_refused(group):
    with pytest.raises(ValueError, match="between 2 and the 64 channels"):
        rotation(torch.ones(64), group, 0)


def test_logits_stay_and_the_grid_goes(model, images):
    other = turned(model, rotation(peaks(model, [images]), 8, 1))
    with torch.no_grad():
        before, after = model(images), other(images)
    assert float((before - after).abs().max()) <= rotate.BOUND * float(before.abs().max())
    # On its grid there is no error; turned weights are nearly as hard as Gaussian ones, 14.0 dB.
    assert grid_noise(model, 3) > 60 and 12 < grid_noise(other, 3) < 17
    # Large channels stay large: the spread is that of before.
    spread = [float(sizes.max() / sizes.median())
              for sizes in (peaks(net, [images]) for net in (model, other))]
    assert spread[1] == pytest.approx(spread[0], rel=0.35)
    # LayerNorm and classifier are ordinary parameters of the same network.
    assert all(value.shape == dict(model.named_parameters())[name].shape
               for name, value in other.named_parameters())


def test_a_channel_that_layernorm_blots_out_stays_so(model, images):
    dead = network(model, {"blocks.0.norm1.weight": torch.zeros(64)})
    other = turned(dead, rotation(torch.arange(64.0), 8, 1))
    with torch.no_grad():
        assert torch.allclose(dead(images), other(images), atol=1e-4)


def test_the_command_writes_a_checkpoint(tmp_path, capsys, write_digits):
    folder = write_digits(tmp_path / "digits", mnist.sample().test, 12)
    out = tmp_path / "new" / "rotated.safetensors"
    options = ["--checkpoint", str(WEIGHTS), "--calibration", str(folder), "-o"]
    assert rotate.main([*options, str(out)]) == 0
    text = capsys.readouterr().out
    assert "logits differ by" in text and text.endswith(f"results: {out}\n")
    found = open_checkpoint(out).model
    assert found.spec == checkpoint.load(WEIGHTS).spec
    assert rotate.main([*options, str(tmp_path / "rotated.pth")]) == 2
    assert rotate.main([*options, str(out), "--group", "99"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
