# SPDX-License-Identifier: Apache-2.0
"""Build the simulated system, run it, and set its cycles beside the prediction."""

__all__ = ["Measured", "read", "simulate"]

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from examples.litex.build import HERE, digits, firmware, litex, prepare, run
from examples.litex.needs import missing
from examples.litex.options import BOARDS
from gen.compiler.model import quantized
from gen.compiler.options import MNIST
from golden.machine.cycles import Prediction, predict
from sim.toolchain import find
from vitforge.base.errors import ToolchainError
from vitforge.base.progress import progress_bar
from vitforge.base.stamps import filling
from vitforge.spec.config import load

#: The last takes the longest if the model is there already.
STAGES = ("Verilog and program", "LiteX and its BIOS", "firmware", "memory", "Verilator", "run")
#: Cycles after which a run hangs: BIOS and ten images of `edge8` take two million.
LIMIT = 50_000_000
#: Of the constraints; the simulation has no time.
_FREQUENCY = 50.0
_IMAGE = re.compile(r"^image (\d+): class (\d+), (\d+) of (\d+) logits equal; (.*)$", re.MULTILINE)
_MEMORY = re.compile(r"^memory: (\d+) beats; first after (\d+) cycles at the earliest, "
                     r"([\d.]+) on average; then one in ([\d.]+) cycles$", re.MULTILINE)


@dataclass(frozen=True)
class Measured:
    """What the terminal said.

    Attributes
    ----------
    classes
        Of the images, in order.
    equal
        Images whose logits are all the golden model's.
    counters
        Of each image, by name.
    latency, average
        Cycles from an address to its first beat, where nothing else was asked for.
    interval
        Cycles from one beat of a burst to the next, on average.
    """

    classes: tuple[int, ...]
    equal: int
    counters: tuple[Mapping[str, int], ...]
    latency: int
    average: float
    interval: float

    def mean(self, counter: str) -> float:
        """Return a counter's mean over the images."""
        return mean(values[counter] for values in self.counters)


def read(text: str) -> Measured:
    """Read what firmware and bench have printed.

    Raises
    ------
    ValueError
        If the end is not there.
    """
    memory = _MEMORY.search(text)
    if memory is None:
        raise ValueError("the terminal says nothing of the memory: the run has no end")
    images = _IMAGE.findall(text)
    counters = tuple({name: int(value) for name, value in re.findall(r"(\w+) (\d+)", rest)}
                     for *_, rest in images)
    return Measured(classes=tuple(int(found) for _, found, *_ in images),
                    equal=sum(same == of for _, _, same, of, _ in images), counters=counters,
                    latency=int(memory[2]), average=float(memory[3]), interval=float(memory[4]))


def _model(system: Path, folder: Path, log: Path) -> Path:
    """Build the model with Verilator, unless it was built from the same Verilog."""
    tools = find()
    gateware = (system / "gateware").absolute()
    sources = [Path(line) for line in (gateware / "sources.txt").read_text(
        encoding="utf-8").splitlines()] + [gateware / "soc.v", HERE / "bench.cpp"]
    command = [str(tools.verilator), "--cc", "--exe", "--build", "-j", "0", "--top-module", "soc",
               "--prefix", "Vsoc", "-Mdir", str(folder.absolute()), "-Wno-fatal",
               "-Wno-lint", "-Wno-style", *tools.options, *map(str, sources), "-o", "soc"]
    inputs = [tools.version_text, command, *(path.read_text(encoding="utf-8") for path in sources)]
    with filling(folder, inputs) as empty:
        if empty:
            run(command, folder, log, tools.environment)
    return folder / "soc"


def _terminal(model: Path, folder: Path, heard: Callable[[int], None]) -> tuple[int, str]:
    """Run the model; return its exit code and what the UART said.

    `heard` is called with the number of images that are done.
    """
    lines = []
    with subprocess.Popen([str(model.absolute()), str(LIMIT)], cwd=folder,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.decode("ascii", "replace").replace("\r", ""))
            heard(sum(bool(_IMAGE.match(item)) for item in lines))
    return process.returncode, "".join(lines)


def _table(found: Measured, exact: Prediction) -> Table:
    table = Table("counter", title="measured and predicted, cycles an image")
    for name in ("measured, mean", "predicted", "difference"):
        table.add_column(name, justify="right")
    for name in found.counters[0]:
        value, wanted = found.mean(name), getattr(exact, name)
        table.add_row(name, f"{value:,.1f}", f"{wanted:,}", f"{value - wanted:+,.1f}")
    return table


def simulate(args: argparse.Namespace) -> int:
    """Carry out ``python -m examples.litex``."""
    if why := missing():
        raise ToolchainError(why)
    find()
    config = load(args.config)
    output = args.output
    output.mkdir(parents=True, exist_ok=True)
    with progress_bar("LiteX system", len(STAGES) + 10) as update:
        network = quantized(MNIST, config)
        images = digits()
        job = prepare(network, images, output, BOARDS[args.board], _FREQUENCY)
        update(1)
        system = output / "litex"
        words = [args.board, "--verilog", job.verilog.absolute(), "-o", system.absolute()]
        # The firmware's memory map comes from LiteX, and is what LiteX fills the memory with.
        litex("examples.litex.simulated", words, output, output / "litex.log")
        update(2)
        image = firmware(job, system, output / "firmware", output / "firmware.log")
        update(3)
        litex("examples.litex.simulated", [*words, "--memory", image.absolute()], output,
              output / "memory.log")
        update(4)
        model = _model(system, output / "model", output / "verilator.log")
        update(5)
        code, text = _terminal(model, system / "gateware", lambda count: update(5 + count))
    (output / "uart.log").write_text(text, encoding="utf-8")
    said = text[max(text.find("probe:"), 0):]
    print(said.partition("memory:")[0], end="")
    print(f"terminal: {output / 'uart.log'}")
    found = None if code == 3 else read(text)
    if code or found is None or found.equal != len(images):
        print(f"FAILED: exit code {code}", file=sys.stderr)
        return 1
    right = sum(digit == number for number, digit in enumerate(found.classes))
    console = Console()
    console.print(f"{right} of {len(images)} digits right, {found.equal} of {len(images)} equal to "
                  "the golden model in every logit", soft_wrap=True)
    exact = predict(job.compiled.program, job.config, latency=found.latency)
    console.print(_table(found, exact))
    console.print(f"predicted with a memory that has {found.latency} cycles of latency and then "
                  f"gives a beat a cycle; this one gives one in {found.interval:.2f}",
                  soft_wrap=True)
    return 0
