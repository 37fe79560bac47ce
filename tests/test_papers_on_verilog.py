# SPDX-License-Identifier: Apache-2.0
"""A setting of each paper and RepQ-ViT, from a folder of ``golden.quantize`` to the Verilog."""

import dataclasses
from itertools import pairwise

import pytest

import sim.__main__ as simulate
from gen.compiler.compile import compile_network
from gen.compiler.fit import toml
from golden.commands import quantize
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.deploy.widths import stored_widths
from golden.network import file as network_file
from golden.network import inference
from vitforge.spec.config import load

HEADLINES = {
    "fq-vit": ("--weights", "8", "--activations", "8", "--attention", "4"),
    "tsptq-vit": ("--weights", "6", "--activations", "6", "--stream", "8"),
    "mptq-vit": ("--set", "target=5"),
    "erq": ("--weights", "4", "--activations", "4"),
    "dopq-vit": ("--weights", "4", "--activations", "4"),
    "repq-vit": ("--weights", "4", "--activations", "4"),
}


#: All settings on the smallest array, one also with two weights of 4 bits a multiplier.
CASES = [*((method, "tiny") for method in HEADLINES), ("repq-vit", "tiny-pair")]


def _configuration(name, folder):
    """Return a preset's name, or the path of a file with its name."""
    if name != "tiny-pair":
        return name
    path = folder / "tiny-pair.toml"
    path.write_text(toml(dataclasses.replace(load("tiny"), name=name, modes="single+pair")))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "config"), CASES)
def test_a_digit_on_the_verilog(method, config, tmp_path, capsys, write_digits):
    write_digits(tmp_path / "digits", mnist.sample().calibration, 30)
    folder = tmp_path / method
    assert quantize.main([
        "--method", method, *HEADLINES[method], "--model", "mnist_vit", "--checkpoint",
        str(WEIGHTS), "--calibration", str(tmp_path / "digits"), "--config",
        _configuration(config, tmp_path), "--suit",
        "-o", str(folder)]) == 0
    options = dict(pairwise(HEADLINES[method]))
    if "--weights" in options:
        assert stored_widths(network_file.load(folder)).weight == int(options["--weights"])
    assert simulate.main(["accelerator", str(folder), "--count", "1", "-o",
                          str(tmp_path / "sim")]) == 0
    text = capsys.readouterr().out
    assert "all bytes and all counters of all runs equal the golden model's" in text
    found = inference.run(network_file.load(folder), mnist.sample().test.images[:1]).argmax(1)
    assert f"1 runs, classes {int(found)}\n" in text
    names = [item.name for item in (tmp_path / "sim").iterdir()]
    assert any(name.startswith(f"timeline-{method}-tiny") for name in names)
    passes = [item.fields for item in compile_network(network_file.load(folder)).instructions
              if item.kind == "PASS"]
    assert any(fields["mode"] for fields in passes) == (config == "tiny-pair")
