# SPDX-License-Identifier: Apache-2.0
"""Machines, networks and memories at random: what a seed stands for, and what became of it."""

__all__ = ["SEEDS", "Drawn", "draw", "ran"]

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen.compiler.compile import compile_network, supported
from golden.float.vit import Vit, VitSpec
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from sim.accelerator.check import check
from sim.run import SimulationError
from vitforge.spec.config import Config, load

#: Seeds that share a machine: it is built once.
SEEDS = 4
#: Networks that are drawn for a machine until another machine is.
_TRIES = 40
_NUMBERS = {"rows": (4, 4, 8), "lanes": (1, 2, 4), "axi_bits": (64, 128, 256),
            "attention_bits": (3, 4, 5, 8), "norm_bits": (10, 12, 15), "burst_beats": (2, 8, 16),
            "exp_table_bits": (2, 3, 5), "rsqrt_bits": (12, 16)}


@dataclass(frozen=True)
class Drawn:
    """A network on a machine, pictures for it, and a memory, as `check` takes them."""

    network: Network
    images: Tensor
    latency: int
    stall: int


def _machines(number: int) -> Iterator[Config]:
    """Draw configurations: any choice of a field, and arrays of 4x4 to 8x32."""
    rng, known = random.Random(f"machine {number}"), load("tiny")
    while True:
        fields: dict[str, Any] = {
            item.name: rng.choice(item.metadata["choices"])
            for item in dataclasses.fields(Config) if "choices" in item.metadata}
        fields |= {name: rng.choice(values) for name, values in _NUMBERS.items()}
        fields["cols"] = fields["rows"] * rng.choice((1, 1, 2, 4))
        try:
            config = dataclasses.replace(known, name=f"soak-{number}", **fields)
            supported(VitSpec(image_size=2, patch_size=2, dim=2, heads=1, gelu=config.gelu), config)
        except ValueError:
            continue
        yield config


def _spec(rng: random.Random, gelu: str) -> VitSpec:
    patch, heads = rng.choice((2, 3, 4, 5)), rng.randint(1, 3)
    dim = heads * rng.randint(2, 8)
    return VitSpec(image_size=patch * rng.randint(1, 4), patch_size=patch,
                   in_channels=rng.randint(1, 3), classes=rng.randint(2, 12), dim=dim,
                   depth=rng.randint(1, 2), heads=heads, mlp_hidden=rng.randint(2, 3 * dim),
                   gelu=gelu)


def _network(config: Config, rng: random.Random) -> tuple[Network, Tensor]:
    """Draw a network with random parameters, and a picture.

    Raises
    ------
    ValueError
        If the machine can't run it.
    """
    spec, number = _spec(rng, config.gelu), rng.randrange(1 << 20)
    bits, codes = rng.randint(2, 8), rng.choice((4, 6, 8))
    size = (4, spec.in_channels, spec.image_size, spec.image_size)
    noise = torch.randint(256, size, generator=torch.Generator().manual_seed(number))
    images = noise.to(torch.uint8)
    network = calibrate(Vit(spec).initialize(number).eval(), images[:2], config, bits,
                        activation_bits=codes)
    compile_network(network)
    return network, images


def draw(seed: int) -> Drawn:
    """Draw until the compiler takes it: that it refuses the rest is not looked at here."""
    rng = random.Random(seed)
    for config in _machines(seed // SEEDS):
        for _ in range(_TRIES):
            try:
                network, images = _network(config, rng)
            except ValueError:
                continue
            return Drawn(network, images, rng.choice((2, 9, 60, 200)),
                         rng.choice((0, 0, 64, 160, 224)))
    raise AssertionError("there is always another machine")


def ran(seed: int, directory: Path) -> dict[str, Any]:
    """Run a seed and return what is to be noted of it; `wrong` is None if all was equal."""
    drawn = draw(seed)
    config, spec = drawn.network.config, drawn.network.spec
    found: dict[str, Any] = {
        "seed": seed, "config": config.hash(),
        "array": f"{config.rows}x{config.cols}", "modes": config.modes,
        "attention": config.attention, "spec": repr(spec), "latency": drawn.latency,
        "stall": drawn.stall}
    try:
        done = check(drawn.network, drawn.images, latency=drawn.latency, stall=drawn.stall,
                     seed=seed + 1, directory=directory)
    except SimulationError as error:
        return found | {"wrong": str(error), "cycles": 0}
    return found | {"wrong": None, "cycles": done.cycles}
