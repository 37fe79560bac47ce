# SPDX-License-Identifier: Apache-2.0
"""A checkpoint that can't be quantized is one line that names the tensor."""

import math
import re
import zipfile

import pytest
import torch
from PIL import Image

from gen.program import main as program
from golden.commands.options import WEIGHTS
from golden.data import cifar10, mnist
from golden.float import checkpoint
from golden.float.parameters import check_parameters
from golden.mnist import main as digits
from golden.network import calibrate
from golden.quantize import main as quantize
from tests.sample import leading
from vitforge.spec.config import load


def _changed(change):
    model = checkpoint.load(WEIGHTS)
    with torch.no_grad():
        change(dict(model.named_parameters()))
    return model


def _first(name, value):
    return lambda state: state[name].view(-1)[:1].fill_(value)


def _zeros(state):
    for value in state.values():
        value.zero_()


CASES = {
    "all zeros": (_zeros, "parameter 'patch_embed.proj.weight' is zero throughout"),
    "a layer of zeros": (lambda state: state["blocks.1.mlp.fc1.weight"].zero_(),
                         "parameter 'blocks.1.mlp.fc1.weight' is zero throughout"),
    "a weight": (_first("blocks.0.attn.qkv.weight", -3e38),
                 "parameter 'blocks.0.attn.qkv.weight' holds 3e+38"),
    "a bias": (_first("head.bias", 3e38), "parameter 'head.bias' holds 3e+38"),
    "a position": (_first("pos_embed", 3e38), "parameter 'pos_embed' holds 3e+38"),
    "infinity": (_first("head.weight", math.inf), "tensor 'head.weight' must hold finite"),
    "not a number": (_first("norm.weight", math.nan), "tensor 'norm.weight' must hold finite"),
    "a matrix": (lambda state: state["blocks.0.mlp.fc1.weight"].fill_(9e18),
                 "blocks.0.mlp"),
    "a bias of many steps": (_first("blocks.2.attn.qkv.bias", 1e12), "blocks.2"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    assert digits(["-o", str(folder)]) == 0
    return folder / "calibration"


@pytest.mark.parametrize("name", leading(3, CASES))
def test_both_commands_name_the_tensor(name, tmp_path, pictures, capsys):
    change, words = CASES[name]
    file, out = tmp_path / "net.safetensors", tmp_path / "out"
    checkpoint.save(file, _changed(change), {})
    for command, arguments in (
            (program, ["mnist", "--config", "tiny", "--checkpoint", str(file), "-o", str(out)]),
            (quantize, ["--method", "minmax", "--model", "mnist_vit", "--checkpoint", str(file),
                        "--calibration", str(pictures), "--images", "4", "--config", "edge8",
                        "-o", str(out)])):
        capsys.readouterr()
        assert command(arguments) == 2
        error = capsys.readouterr().err.strip()
        assert words in error and "\n" not in error, error
        assert not out.exists()


def test_values_that_are_not_finite_are_named():
    """Each parameter is small enough, and their products are not."""
    model = _changed(lambda state: [state[f"blocks.0.norm1.{name}"].fill_(1e18)
                                    for name in ("weight", "bias")]
                     + [state["blocks.0.attn.qkv.weight"].fill_(9e18)])
    with pytest.raises(ValueError, match=r"^calibration makes values at blocks\.0\.attn\.\w+ that "
                                         r"are not finite$"):
        calibrate.calibrate(model, mnist.sample().calibration.images[:4], load("tiny"))


def test_shipped_networks_pass():
    check_parameters(checkpoint.load(WEIGHTS))


@pytest.mark.parametrize("limit", [100, 500])
def test_picture_above_pillows_limit_is_one_line(limit, tmp_path, pictures, monkeypatch, capsys):
    """Of which it only warns below twice the limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert quantize(["--method", "minmax", "--model", "mnist_vit", "--checkpoint", str(WEIGHTS),
                     "--calibration", str(pictures), "--images", "4", "--config", "edge8",
                     "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert re.fullmatch(rf"golden.quantize: error: can't use {pictures}/\d/\d+\.png: Image size "
                        rf"\(784 pixels\) exceeds limit of {2 * limit if limit < 392 else limit} "
                        r"pixels, could be decompression bomb DOS attack\.", error)
    archive = tmp_path / "train.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(next(pictures.rglob("*.png")), "cat/1.png")
    with pytest.raises(mnist.DataError, match=r"train\.zip: cat/1\.png: Image size \(784 pixels\)"):
        cifar10.read([archive, tmp_path / "test.npz"])
