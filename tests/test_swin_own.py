# SPDX-License-Identifier: Apache-2.0
"""The project's own Swin: a picture through it, and what its files say."""

from pathlib import Path

import pytest
import torch

from gen.compiler.command import input_buffer
from gen.compiler.compile import compile_network
from golden.float import checkpoint, models
from golden.machine.execute import execute
from golden.machine.program import read_logits
from golden.network import inference
from golden.network.calibrate import calibrate
from tests.test_not_square import Work, compare
from tests.test_swin_verilog import CONFIGS

WEIGHTS = Path(models.__file__).parents[1] / "weights" / "cifar10_swin.safetensors"
OWN = CONFIGS[1]


@pytest.fixture(scope="module")
def picture() -> tuple[Work, torch.Tensor]:
    """Return a picture's program, and the network's logits; calibrated on noise."""
    model = models.load("cifar10_swin", WEIGHTS)
    pictures = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    network = calibrate(model, pictures.to(torch.uint8), OWN)
    found = compile_network(network)
    image = input_buffer(pictures[:1].to(torch.uint8), found)
    run = execute(found.program, image, OWN, found.output_bytes)
    return (Work(found.program, image, run.output),
            inference.run(network, pictures[:1].to(torch.uint8))[0])


def test_a_picture_through_the_projects_swin(picture: tuple[Work, torch.Tensor]) -> None:
    work, logits = picture
    assert read_logits(work.wanted, 10, OWN).tolist() == logits.tolist()


# `make check` has tests/test_swin_verilog.py for smaller networks on the same model.
@pytest.mark.rtl
@pytest.mark.slow
def test_the_verilog_is_the_golden_machine(picture: tuple[Work, torch.Tensor]) -> None:
    """Bytes and counters."""
    compare(OWN, [picture[0]], stalls=False, most=500_000)


def test_the_projects_weights_are_as_their_log_says() -> None:
    state, notes = checkpoint.read(WEIGHTS)
    assert sum(value.numel() for value in state.values()) < 600_000
    last = WEIGHTS.with_suffix(".csv").read_text().splitlines()[-1].split(",")
    assert last[0] == "14" and float(last[2]) == float(notes["accuracy"])
