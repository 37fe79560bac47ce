# SPDX-License-Identifier: Apache-2.0
"""What an accelerator may be: the core and the compiler agree, for any configuration."""

import dataclasses
import random
import re
from collections import Counter
from typing import Any

import pytest
import torch

from gen.compiler.compile import compile_network, supported
from golden.float.vit import Vit, VitSpec
from golden.network.calibrate import calibrate
from hw.units import create
from vitforge.spec.config import Config, ConfigError

#: Two tokens of one patch, which lanes of any number divide: it fits whatever can be built.
SMALL = VitSpec(image_size=32, patch_size=32, in_channels=1, classes=2, dim=8, depth=1, heads=1,
                mlp_hidden=8)
#: Configurations that core and compiler judged differently when each had its own list.
KNOWN: list[dict[str, Any]] = [
    {"acc_bits": 30},
    {"lanes": 1, "rows": 16, "cols": 16},
    {"mantissa_bits": 8},
    {"rows": 16, "cols": 16, "max_channels": 100},
    {"rows": 2, "cols": 2, "lanes": 1},
    {"rows": 8, "cols": 16, "lanes": 1},
    {"rows": 16, "cols": 8},
    {"rows": 4, "cols": 12, "lanes": 2},
    {"modes": "single+pair", "lanes": 2},
    {"modes": "single+pair", "rows": 16, "cols": 32, "lanes": 4},
    {"modes": "single+pair", "pe_style": "shift"},
    {"modes": "single+pair", "packed_weight_bits": 5, "multiplier": "25x18"},
    {"modes": "pair"}, {"modes": "single+pair+quad"},
    {"modes": "single+pair+quad", "table_tokens": 64}, {"modes": "single+pair", "table_tokens": 64},
    {"formats": "uniform"}, {"formats": "uniform", "attention": "uniform"},
    {"formats": "uniform", "attention": "uniform", "operand_bits": 9},
    {"formats": "uniform+table", "attention": "two-scale"},
]


@pytest.fixture(scope="module")
def model() -> Vit:
    return Vit(SMALL).initialize(0).eval()


def judged(config: Config, model: Vit) -> list[str | None]:
    """Return what the core, the compiler, and all on the way to a program have against it."""
    images = torch.randint(256, (2, 1, 32, 32), generator=torch.Generator().manual_seed(0))

    def program() -> object:
        return compile_network(calibrate(model, images.to(torch.uint8), config,
                                         gelu="uniform"))

    said: list[str | None] = []
    for ask in (lambda: create("accelerator", config), lambda: supported(SMALL, config), program):
        try:
            ask()
            said.append(None)
        except ValueError as error:
            said.append(str(error))
    return said


def drawn(chosen: random.Random) -> Config | None:
    """Draw a configuration: an accelerator, of which up to three fields are anything at all."""
    modes = chosen.choice(("single", "single+pair", "single+pair+quad"))
    side = chosen.choice((4, 8, 16, 32, 64))
    most = chosen.choice((1, 1, 2, 4) if modes == "single" else (1, 1, 2))
    made = most * side * min(2, len(modes.split("+")))
    values: dict[str, Any] = {
        "modes": modes, "rows": side, "cols": most * side,
        "max_channels": side * chosen.randint(1, 1024 // side),
        "lanes": chosen.choice([lanes for lanes in (1, 2, 4, 8, 16, 32)
                                if lanes < side and made <= 8 * lanes])}
    fields = [item for item in dataclasses.fields(Config) if item.name != "name"]
    for item in chosen.sample(fields, chosen.randint(0, 3)):
        low, high = item.metadata.get("low"), item.metadata.get("high")
        values[item.name] = chosen.choice(item.metadata["choices"]) if low is None else \
            chosen.choice((low, high, chosen.randint(low, high), item.default - 1))
    try:
        return Config(**values)
    except ConfigError:
        return None     # no configuration at all


def fits(config: Config) -> bool:
    """Whether its memories and rows hold the network, and its multipliers reach its values."""
    return min(config.scratch_words, config.residual_words, config.stationary_words) >= 2048 \
        and config.max_tokens >= SMALL.tokens and config.max_keys >= SMALL.tokens \
        and config.value_bits <= 12 + config.multiplier_bits \
        and config.value_bits != config.norm_bits    # the stream's steps differ


@pytest.mark.parametrize("changes", KNOWN, ids=str)
def test_core_and_compiler_agree_where_they_did_not(changes: dict[str, Any], model: Vit) -> None:
    said = judged(Config(**changes), model)
    assert len({text is None for text in said}) == 1, said


@pytest.mark.parametrize(("seed", "count"), [
    (3, 120), pytest.param(3, 300, marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_core_builds_exactly_what_the_compiler_accepts(model: Vit, seed: int, count: int) -> None:
    chosen, good, refusals, shapes = random.Random(seed), 0, Counter[str](), Counter[int]()
    modes = Counter[str]()
    while good + refusals.total() < count:
        config = drawn(chosen)
        if config is None or not fits(config):
            continue
        core, compiler, program = judged(config, model)
        assert core == compiler and (core is None) == (program is None), (
            config, core, compiler, program)
        if core is None or program is None:
            good += 1
            shapes[config.cols // config.rows] += 1
            modes[config.modes] += 1
            continue
        for text in (core, program):
            found = re.fullmatch(r"(\w+) must be (.+) for .+, not ([\w+-]+)", text)
            assert found and found[3] == str(getattr(config, found[1])), text
        refusals[core.split()[0]] += 1
    assert good > count // 5 and len(refusals) > 9, (good, refusals)
    assert set(shapes) == {1, 2, 4}, shapes
    assert set(modes) == {"single", "single+pair", "single+pair+quad"}, modes
