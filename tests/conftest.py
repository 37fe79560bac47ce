# SPDX-License-Identifier: Apache-2.0
"""What many tests need: one thread, global switches put back, digits as folders of pictures."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from golden.data.mnist import Split

#: Writes the first images of a split as ``<folder>/digit<label>/<number>.png``.
WriteDigits = Callable[[Path, Split, int], Path]


def pytest_configure(config: pytest.Config) -> None:
    """Compile models without optimisation, but for long regressions: it takes longer than it saves.

    `sim.toolchain` has the figures.
    """
    if config.option.markexpr == "not slow":
        os.environ.setdefault("OPT_FAST", "-O0")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Run PyTorch on one thread: there is a test process for each processor, and sums are equal."""
    torch.set_num_threads(1)


@pytest.fixture
def global_switches() -> Iterator[None]:
    """Put back what training changes for the whole process."""
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def write_digits() -> WriteDigits:
    """Return the function that writes digits as folders of pictures, a folder a class."""
    def write(folder: Path, split: Split, count: int) -> Path:
        for index in range(count):
            path = folder / f"digit{split.labels[index]}" / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.images[index].numpy()).save(path)
        return folder
    return write


@pytest.fixture
def fast(request: pytest.FixtureRequest) -> bool:
    """Whether a bench's player compares (see `sim.run.regress`): in all but long regressions."""
    return request.node.get_closest_marker("slow") is None
