# SPDX-License-Identifier: Apache-2.0
"""What many tests need: one thread, global switches put back, digits as folders of pictures.

What takes long to import is imported where it is used: the process that starts those of the tests
reads this file too.
"""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from golden.data.mnist import Split

#: Writes the first images of a split as ``<folder>/digit<label>/<number>.png``.
WriteDigits = Callable[[Path, "Split", int], Path]

#: The files that take longest begin, so that all processes end at about the same time. Neighbours
#: build no model that is the same: one of them would wait.
FIRST = ("accelerator", "notebooks", "quad", "demo", "drain", "waves", "icarus", "softmax",
         "verilog", "swin_verilog", "systolic", "machine_formats", "tables", "pair", "synth",
         "coverage", "requant", "memory_model", "operand", "packed", "explore", "driver_python",
         "driver", "vectors", "layernorm", "registers", "accelerator_golden", "wheel",
         "benchmarks", "reconstruction", "explore_records", "accelerator_check", "memory_writer",
         "ptq_mptq", "quantize_integer", "memory_reader", "quantize_command", "onnx", "any_vit",
         "sim", "accelerator_corrupt", "axi_peer", "litex", "ptq_erq", "site", "mutants", "fusesoc")
#: The variable with the folder of generated designs.
DESIGNS = "VITFORGE_TEST_DESIGNS"


def pytest_configure(config: pytest.Config) -> None:
    """Compile models without optimisation, but for long regressions: it takes longer than it saves.

    `sim.toolchain` has the figures. Nothing that is imported becomes garbage, so none is looked for
    until all is collected: that was a quarter of the time of a collection.
    """
    gc.disable()
    if "not slow" in config.option.markexpr:
        for name in ("OPT_FAST", "OPT_GLOBAL"):
            os.environ.setdefault(name, "-O0")
    # The first process makes the folder, and those that it starts find its name.
    if DESIGNS not in os.environ:
        folder = os.environ[DESIGNS] = tempfile.mkdtemp(prefix="vitforge-designs-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        from tests import designs

        designs.share(Path(os.environ[DESIGNS]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps that for several processes."""
    rank = {f"test_{name}": number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_collection_finish() -> None:
    """Look for garbage among what tests make alone, not among what was imported for all of them."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Run PyTorch on one thread: there is a test process for each processor, and sums are equal."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def global_switches() -> Iterator[None]:
    """Put back what training changes for the whole process."""
    import torch

    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def write_digits() -> WriteDigits:
    """Return the function that writes digits as folders of pictures, a folder a class."""
    def write(folder: Path, split: "Split", count: int) -> Path:
        for index in range(count):
            path = folder / f"digit{split.labels[index]}" / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(split.images[index].numpy()).save(path)
        return folder
    return write


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with six pictures of noise, 20x24 and in colour, in two class folders."""
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(1)
    for number in range(6):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    return folder


@pytest.fixture
def fast(request: pytest.FixtureRequest) -> bool:
    """Whether a bench's player compares (see `sim.run.regress`): in all but long regressions."""
    return request.node.get_closest_marker("slow") is None
