# SPDX-License-Identifier: Apache-2.0
"""Arrays with more columns than rows: the generated Verilog is the golden machine, to the cycle."""

import dataclasses
import itertools
from functools import cache

import numpy as np
import pytest
import torch

from gen.compiler.command import input_buffer
from gen.compiler.compile import compile_network
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import Buffers, predict
from golden.machine.execute import execute
from golden.machine.program import parse, read_logits
from golden.network import inference
from golden.network.calibrate import calibrate
from sim.accelerator.model import Case, Job, Outcome, Simulation, build
from tests import random_passes
from tests.sample import leading
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import LINE, OPERATIONS
from vitforge.spec.register_map import COUNTERS

SIZE = 1 << 20
DONE = 2
UNPLEASANT = {"stall": 128, "jitter": 63, "order": 4}
SPECS = [
    VitSpec(image_size=8, patch_size=4, in_channels=1, classes=6, dim=8, depth=1, heads=2,
            mlp_hidden=12),
    VitSpec(image_size=12, patch_size=4, in_channels=3, classes=21, dim=18, depth=2, heads=3,
            mlp_hidden=22),
    VitSpec(image_size=8, patch_size=8, in_channels=2, classes=37, dim=24, depth=1, heads=1,
            mlp_hidden=40),
]
TINY = load("tiny")
SHAPES = [dataclasses.replace(TINY, name="tiny4x8", cols=8),
          dataclasses.replace(TINY, name="tiny4x16", cols=16),
          dataclasses.replace(TINY, name="tiny8x16", rows=8, cols=16, lanes=4, axi_bits=128)]

#: Programs of random passes for each.
PASSES = 5


def named(config: Config) -> str:
    return config.name


@cache
def machine(config: Config) -> Simulation:
    return build(config, size=SIZE, brief=True)


@dataclasses.dataclass(frozen=True)
class Work:
    """A program with its input, and what it leaves in an output buffer of zeros."""

    program: bytes
    image: bytes
    wanted: bytes


def of_network(spec: VitSpec, config: Config) -> Work:
    """Compile a network; the golden machine's logits are the network's."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(256, (3, spec.in_channels, spec.image_size, spec.image_size),
                           generator=generator).to(torch.uint8)
    integers = calibrate(Vit(spec).initialize(7).eval(), images, config)
    compiled = compile_network(integers)
    image = input_buffer(images[2:], compiled)
    run = execute(compiled.program, image, config, compiled.output_bytes)
    assert read_logits(run.output, spec.classes, config).tolist() \
        == inference.run(integers, images[2:])[0].tolist()
    return Work(compiled.program, image, run.output)


def of_passes(config: Config, seed: int, passes: int) -> Work:
    program, size = random_passes.program(config, seed, passes)
    image = bytes(LINE)
    return Work(program, image, execute(program, image, config, size).output)


def outcomes(config: Config, works: list[Work], most: int = 400_000, **plusargs: int,
             ) -> list[tuple[Outcome, Job]]:
    """Run programs of `most` cycles one after the other, each with an output buffer of its own."""
    data, jobs = bytearray(LINE), []

    def add(block: bytes) -> tuple[int, int]:
        buffer = len(data), len(block)
        data.extend(block + bytes(-len(block) % LINE + LINE))
        return buffer

    for number, work in enumerate(works):
        jobs.append(Job(str(number), add(work.program), add(work.image),
                        add(bytes(len(work.wanted))), most))
    found = machine(config).run(Case(bytes(data), jobs, plusargs))
    return list(zip(found, jobs, strict=True))


def compare(config: Config, works: list[Work], *, stalls: bool = True,
            most: int = 400_000) -> None:
    """Bytes on a memory with stalls, then bytes and all counters on the one that is modelled.

    A dozen programs at a time, which a memory of `SIZE` bytes holds.
    """
    parts = [works[first:first + 12] for first in range(0, len(works), 12)]
    for part, how in itertools.product(parts, (UNPLEASANT, {}) if stalls else ({},)):
        for work, (found, job) in zip(part, outcomes(config, part, most, seed=3, **how),
                                      strict=True):
            marks = [found.values[name] for name in ("pending", "late", "violation", "stray")]
            assert (found.interrupt, found.STATUS, found.FAULT, marks) == (1, DONE, 0, [0] * 4)
            assert found.output == work.wanted, (found.name, how)
            if how:
                continue
            wanted = predict(work.program, config, buffers=Buffers(
                job.program[0], job.input[0], job.output[0]))
            assert {name: found.values[name] for name in COUNTERS} == {
                name: getattr(wanted, name) for name in COUNTERS}, found.name


# `make check` has tests/test_pair.py for that, with 4x8.
@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("config", SHAPES, ids=named)
def test_networks_and_random_passes_are_exact(config: Config) -> None:
    compare(config, [*(of_network(spec, config) for spec in SPECS),
                     *(of_passes(config, seed, 40) for seed in range(PASSES))])


@pytest.mark.rtl
def test_stationary_passes_follow_each_other_on_a_square_array_too() -> None:
    # A pass's first key is read before the last one of the pass before is taken, and the array
    # waits for both.
    compare(TINY, [of_passes(TINY, 34, 40)])


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.parametrize("config", SHAPES, ids=named)
def test_many_random_passes_are_exact(config: Config) -> None:
    compare(config, [of_passes(config, seed, 80) for seed in range(100, 160)])


@pytest.mark.parametrize("config", leading(1, SHAPES), ids=named)
def test_random_passes_are_of_all_kinds(config: Config) -> None:
    most, seen = config.cols // config.rows, set()
    for seed in range(12):
        program, _ = random_passes.program(config, seed, 40)
        for item in parse(program, config):
            if item.kind == "PASS":
                fields = item.fields
                seen.add((fields["words"] + 1, "column" if fields["by_column"] else "row"
                          if fields["stationary"] else "stream"))
                seen.add((fields["words"] + 1, fields["operation"]))
    for words in range(1, most + 1):
        assert {(words, kind) for kind in ("column", "row", "stream")} <= seen
        assert {(words, operation) for operation in OPERATIONS.values()} <= seen


@pytest.mark.parametrize(("rows", "cols", "lanes"), [
    (4, 8, 2), (4, 16, 2), (8, 16, 2), (8, 16, 4), (8, 32, 4), (16, 32, 4), (16, 64, 8),
    (32, 64, 8)])
def test_logits_are_the_networks_on_any_shape(rows: int, cols: int, lanes: int) -> None:
    config = dataclasses.replace(TINY, rows=rows, cols=cols, lanes=lanes)
    for spec in SPECS:
        if lanes <= spec.patch_size:
            of_network(spec, config)


def test_passes_have_the_words_that_are_there() -> None:
    # 18 channels are 5 words of 4: of 4 and 1, or of 2, 2 and 1.
    config = dataclasses.replace(TINY, cols=16)
    work = of_network(SPECS[1], config)
    embedding = [item.fields for item in parse(work.program, config) if item.kind == "PASS"][:2]
    assert [fields["words"] + 1 for fields in embedding] == [4, 1]
    assert [fields["d_pitch"] for fields in embedding] == [10, 0]
    assert np.diff([fields["d_base"] for fields in embedding]) == 40
