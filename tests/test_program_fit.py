# SPDX-License-Identifier: Apache-2.0
"""Any ViT from its file to the machine, on the smallest memories that hold it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from gen.compiler.command import CONFIG, main, memory_image
from gen.compiler.compile import compile_network
from gen.compiler.fit import fit, room, toml
from gen.compiler.model import codes
from gen.compiler.stored import stored
from golden.commands import quantize
from golden.float.models import IMAGENET
from golden.float.vit import VitSpec
from golden.machine.execute import execute
from golden.machine.program import read_logits
from golden.network.inference import run
from golden.network.integers import Network
from tests.test_program import random_network
from tests.test_shape import SPEC, odd
from vitforge.spec.config import Config, load

__all__ = ["odd"]   # a fixture

MEMORIES = ("max_tokens", "max_keys", "max_channels", "scratch_words", "residual_words",
            "stationary_words")


def machine(network: Network, image: torch.Tensor) -> torch.Tensor:
    compiled = compile_network(network)
    memory = memory_image(compiled, image)
    result = execute(memory.program, memory.input, network.config, compiled.output_bytes)
    return torch.from_numpy(read_logits(result.output, network.spec.classes, network.config))


@pytest.mark.thorough
def test_any_vit_goes_from_its_file_to_the_machine(
        odd: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 145 tokens are more than edge8 takes; --fit makes room.
    assert quantize.main(["--method", "minmax", "--checkpoint", str(odd), "--heads", "3",
                          "--calibration", str(colours), "--mean", "0.4", "--crop", "1",
                          "--config", "edge8", "-o", str(tmp_path / "net")]) == 0
    given = [str(tmp_path / "net"), "--pictures", str(colours), "-o", str(tmp_path / "out")]
    capsys.readouterr()
    assert main(given) == 2
    assert "max_tokens must be at least 145" in capsys.readouterr().err
    assert main([*given, "--fit"]) == 0
    assert f"configuration: {tmp_path / 'out' / CONFIG}" in capsys.readouterr().out
    config = load(tmp_path / "out" / CONFIG)
    assert (config.name, config.rows, config.cols, config.lanes) == ("edge8-fit", 8, 8, 4)
    assert (config.max_tokens, config.max_keys, config.max_channels) == (145, 145, 96)
    network = stored(tmp_path / "net", config)
    assert network.spec == SPEC
    # The input is a picture as the network saw it when it was calibrated: whole, not cropped.
    memory = (tmp_path / "out" / "memory.bin").read_bytes()
    place = json.loads((tmp_path / "out" / "memory.json").read_text())["buffers"]["input"]
    image = torch.frombuffer(bytearray(memory[place["address"]:][:3 * 96 * 96]),
                             dtype=torch.uint8).reshape(1, 3, 96, 96)
    how = dataclasses.replace(IMAGENET, size=96)
    assert torch.equal(image, codes(colours, dataclasses.replace(how, crop=1.0), 1))
    assert not torch.equal(image, codes(colours, how, 1))
    expected = run(network, image)[0]
    assert torch.equal(machine(network, image), expected) and expected.unique().numel() == 5
    assert compile_network(network).program == (tmp_path / "out" / "program.bin").read_bytes()


@pytest.mark.parametrize("name", ["tiny", "edge8"])
def test_no_memory_could_be_smaller(name: str) -> None:
    spec = VitSpec(image_size=24, patch_size=4, in_channels=1, classes=5, dim=24, depth=2, heads=3,
                   mlp_hidden=40)
    network = random_network(spec, load(name))
    config = fit(network)
    channels = -(-24 // config.rows) * config.rows
    assert (config.max_tokens, config.max_keys, config.max_channels) == (37, 37, channels)
    same = dataclasses.replace(config, name=network.config.name, **{
        field: getattr(network.config, field) for field in MEMORIES})
    assert same == network.config
    image = torch.randint(256, (1, 1, 24, 24)).to(torch.uint8)
    fitted = dataclasses.replace(network, config=config)
    assert torch.equal(machine(fitted, image), run(fitted, image)[0])
    assert fit(fitted) == config
    for field in MEMORIES:
        step = config.rows if field == "max_channels" else 1
        less = dataclasses.replace(config, **{field: getattr(config, field) - step})
        with pytest.raises(ValueError, match=field):
            compile_network(dataclasses.replace(network, config=less))


def test_what_no_configuration_holds_is_refused() -> None:
    config = load("edge16")
    for changes, message in (({"dim": 2560, "heads": 16}, "max_channels would have to be 2560"),
                             ({"image_size": 280}, "max_tokens would have to be 4901")):
        with pytest.raises(ValueError, match=f"{message} for this network, and may be at most"):
            room(VitSpec(**changes), config)


def test_the_file_of_a_configuration_has_all_of_it(tmp_path: Path) -> None:
    config = Config(name="any-fit", rows=8, cols=8, lanes=2, max_keys=77, attention="two-scale",
                    attention_bits=8)
    (tmp_path / "other.toml").write_text(toml(config))
    assert load(tmp_path / "other.toml") == config


@pytest.mark.parametrize(("given", "message"), [
    (["swin_tiny_patch4_window7_224", "--random", "1"], "max_channels must be at least 1536"),
    (["cifar10_swin", "--random", "1"], "table_tokens must be at least"),
    (["deit_small_distilled_patch16_224"], "a distilled DeiT has no name here"),
    (["resnet50"], "the network must be one of mnist, .*, or vit, not 'resnet50'"),
    (["vit"], "vit needs --checkpoint and --calibration"),
    (["vit", "--random", "1"], "vit needs --checkpoint and --calibration"),
    (["mnist", "--heads", "2"], "--heads does not go with mnist without --checkpoint"),
    (["vit", "--checkpoint", "ODD", "--calibration", "none"], "--heads is needed"),
    (["vit_small_patch16_224", "--checkpoint", "ODD", "--calibration", "none"],
     r"tensor 'patch_embed.proj.weight' of shape \[96, 3, 8, 8\] is not of vit_small_patch16_224"),
])
def test_refusals(odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str],
                  message: str) -> None:
    given = [str(odd) if item == "ODD" else item for item in given]
    assert main([*given, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and re.search(message, error[0]), error
    assert not (tmp_path / "out").exists()


def test_a_patch_that_can_not_be_placed_is_refused_before_calibration() -> None:
    spec = VitSpec(image_size=28, patch_size=14, in_channels=3, dim=16, heads=1)
    with pytest.raises(ValueError, match=r"patch_size must be a multiple of lanes \(4\), not 14"):
        compile_network(random_network(spec, load("edge16")))
