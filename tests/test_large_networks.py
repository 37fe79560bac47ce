# SPDX-License-Identifier: Apache-2.0
"""Networks up to ViT-L compile, on memories of their size and in 6 GB."""

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gen.compiler.compile import compile_network
from gen.compiler.fit import fit, room
from gen.compiler.model import NAMES, Reading, quantized
from golden.float.models import MODELS
from golden.float.vit import VitSpec
from golden.network.inference import run
from tests.test_program import random_network
from tests.test_program_fit import machine
from vitforge.spec.config import load

#: Largest memory of a process that quantizes and compiles one of them, in bytes.
MOST = 6 * 10**9


def compile_named(name: str) -> None:
    """Quantize and compile a network of random parameters, and print what it takes."""
    torch.set_num_threads(1)
    network = quantized(name, load("edge16"), seed=1, reading=Reading(suit=room))
    compiled = compile_network(dataclasses.replace(network, config=fit(network)))
    print(len(compiled.steps), len(compiled.program),
          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def test_every_network_can_be_named() -> None:
    assert set(NAMES) == {"mnist"} | {name for name in MODELS if not name.startswith("mnist")}
    assert {"vit_large_patch16_224", "vit_large_patch16_384", "deit_base_patch16_384"} < set(NAMES)


def block_of_vit_l() -> VitSpec:
    spec = MODELS["vit_large_patch16_224"].spec
    assert isinstance(spec, VitSpec) and (spec.dim, spec.heads, spec.mlp_hidden) == (1024, 16, 4096)
    return dataclasses.replace(spec, depth=1)


@pytest.mark.slow
def test_one_block_of_vit_l_compiles() -> None:
    block = block_of_vit_l()
    network = random_network(block, room(block, load("edge16")), images=1)
    config = fit(network)
    # All of the hidden layer beside each other is what takes the room.
    assert config.scratch_words >= 4096 // 16 * 197 and config.max_channels == 1024
    compiled = compile_network(dataclasses.replace(network, config=config))
    layers = 3 * 64 + 16 * (13 + 4) + 64 + 256 + 64
    assert len(compiled.steps) == 64 + layers + -(-1000 // 16)


@pytest.mark.slow
def test_one_block_of_vit_l_runs() -> None:
    # On an image of few patches: every channel of every layer is computed.
    small = dataclasses.replace(block_of_vit_l(), image_size=32)
    network = random_network(small, room(small, load("edge16")))
    network = dataclasses.replace(network, config=fit(network))
    image = torch.randint(256, (1, 3, 32, 32)).to(torch.uint8)
    assert torch.equal(machine(network, image), run(network, image)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_name_compiles_in_six_gigabytes(name: str) -> None:
    code = f"from tests.test_large_networks import compile_named; compile_named({name!r})"
    found = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True,
                           stdout=subprocess.PIPE, text=True)
    passes, size, memory = map(int, found.stdout.split())
    assert passes > 0 and memory < MOST
    if name != "mnist":
        model = MODELS[name].spec
        assert isinstance(model, VitSpec)
        dim = model.dim
        weights = model.depth * dim * (4 * dim + 2 * model.mlp_hidden) + dim * (
            model.patch_values + model.classes)
        assert weights <= size < weights * 1.2 + 2**21
