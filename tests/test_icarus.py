# SPDX-License-Identifier: Apache-2.0
"""The accelerator and its bench in Verilog, under Icarus Verilog in both of its languages."""

import dataclasses
import subprocess
from functools import cache
from pathlib import Path

import pytest
import torch
from optional_tools import ICARUS
from test_pair import network as narrow
from test_quad import network as narrowest
from torch import Tensor

from gen.compiler.command import host_files, memory_image
from gen.compiler.compile import compile_network
from gen.verilog import package
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import Buffers, predict
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from tests.sample import later
from vitforge.spec.config import Config, load

pytestmark = [pytest.mark.rtl, ICARUS]

#: Every kind of pass in a few thousand cycles.
SPEC = VitSpec(image_size=8, patch_size=4, in_channels=1, classes=5, dim=8, depth=1, heads=2,
               mlp_hidden=8)


TINY = load("tiny")
#: Twice as many columns as rows, and two weights a multiplier; by the operands of two tokens.
PAIRS = dataclasses.replace(TINY, name="tiny4x8-pair", cols=8, modes="single+pair")
QUADS = dataclasses.replace(TINY, name="tiny-quad", modes="single+pair+quad", attention="uniform",
                            max_tokens=32)
#: Tables of tokens, for the windows of a Swin.
TABLES = dataclasses.replace(TINY, name="tiny-tables", table_tokens=256, max_channels=128)
WINDOWS = SwinSpec(image_size=8, patch_size=2, in_channels=1, classes=5, dim=4, depths=(2,),
                   heads=(1,), window=2)


def network(config: Config, images: Tensor) -> Network:
    """Return a small network of random parameters that needs what a configuration has."""
    if config is PAIRS:
        return narrow(dataclasses.replace(SPEC, mlp_hidden=20), config)
    if config is QUADS:
        return narrowest(dataclasses.replace(SPEC, image_size=16), config)
    model = Swin(WINDOWS) if config is TABLES else Vit(SPEC)
    return calibrate(model.initialize(5).eval(), images, config)


@cache
def run_files(config: Config = TINY) -> tuple[dict[str, str], int]:
    """Return the files of the accelerator and of a run of a small network, and its cycles."""
    side = 16 if config is QUADS else 8
    images = torch.randint(256, (3, 1, side, side), generator=torch.Generator().manual_seed(3),
                           ).to(torch.uint8)
    compiled = compile_network(network(config, images))
    fields = [item.fields for item in compiled.instructions]
    assert max(item.get("mode", 0) for item in fields) == {PAIRS: 1, QUADS: 2}.get(config, 0)
    assert any(item.get("gathers") for item in fields) == (config is TABLES)
    image = memory_image(compiled, images[:1])
    buffers = Buffers(*(image.buffers[name][0] for name in ("program", "input", "output")))
    exact = predict(compiled.program, config, buffers=buffers)
    return {**package(["accelerator"], config), **host_files(compiled, image)}, exact.cycles


def simulate(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = (folder / "host.args").read_text().split()
    return subprocess.run(["vvp", "-n", "host.vvp", *arguments, *more], cwd=folder, timeout=300,
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("config", "language"), [
    later(TINY, "-g2005"), later(TINY, "-g2012"), later(PAIRS, "-g2012"), (QUADS, "-g2012"),
    (TABLES, "-g2005")],
    ids=lambda item: getattr(item, "name", item))
@pytest.mark.thorough
def test_accelerator_runs_a_network(tmp_path: Path, config: Config, language: str) -> None:
    texts, cycles = run_files(config)
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["iverilog", language, "-Wall", "-Iregisters", "-s", "accelerator_host",
                    "-P", "accelerator_host.BITS=64", "-P", f"accelerator_host.BYTES={1 << 16}",
                    "-o", "host.vvp", "rtl/accelerator.v",
                    *(name for name in texts if name.startswith("sim/"))],
                   cwd=tmp_path, check=True, timeout=300, capture_output=True)
    done = simulate(tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "PASSED"
    assert f"{cycles} cycles, array busy in " in done.stdout

    done = simulate(tmp_path, "+limit=100")
    assert done.returncode != 0 and "FAILED: no interrupt" in done.stdout
    (tmp_path / "host.args").write_text("")
    done = simulate(tmp_path)
    assert done.returncode != 0 and "FAILED: plusargs are missing" in done.stdout
