# SPDX-License-Identifier: Apache-2.0
"""One setting of every paper, from a folder of ``golden.quantize`` to the generated Verilog."""

import pytest
import torch
from PIL import Image

import sim.__main__ as simulate
from golden import mnist, network, network_file, quantize
from golden.evaluate import WEIGHTS

HEADLINES = {
    "fq-vit": ("--weights", "8", "--activations", "8", "--attention", "4"),
    "tsptq-vit": ("--weights", "6", "--activations", "6", "--stream", "8"),
    "mptq-vit": ("--set", "target=5"),
    "erq": ("--weights", "4", "--activations", "4"),
    "dopq-vit": ("--weights", "4", "--activations", "4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", HEADLINES)
def test_a_digit_on_the_verilog(method, tmp_path, capsys):
    torch.set_num_threads(1)
    split = mnist.sample().calibration
    for index in range(30):
        path = tmp_path / "digits" / str(int(split.labels[index])) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(split.images[index].numpy()).save(path)
    folder = tmp_path / method
    assert quantize.main([
        "--method", method, *HEADLINES[method], "--model", "mnist_vit", "--checkpoint",
        str(WEIGHTS), "--calibration", str(tmp_path / "digits"), "--config", "tiny", "--suit",
        "-o", str(folder)]) == 0
    assert simulate.main(["accelerator", str(folder), "--count", "1", "-o",
                          str(tmp_path / "sim")]) == 0
    text = capsys.readouterr().out
    assert "all bytes and all counters of all runs equal the golden model's" in text
    found = network.run(network_file.load(folder), mnist.sample().test.images[:1]).argmax(1)
    assert f"1 runs, classes {int(found)}\n" in text
    names = [item.name for item in (tmp_path / "sim").iterdir()]
    assert any(name.startswith(f"timeline-{method}-tiny") for name in names)
