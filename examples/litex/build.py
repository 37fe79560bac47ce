# SPDX-License-Identifier: Apache-2.0
"""What simulation and boards share: Verilog, program, LiteX, and the firmware's compiler."""

__all__ = ["HERE", "Job", "digits", "firmware", "litex", "prepare", "run"]

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from examples.litex.options import Board
from gen.compiler.command import bundle, compile_network
from gen.compiler.compile import Compiled
from gen.compiler.emit import emit
from gen.verilog import package
from golden.data import mnist
from golden.network.integers import Network
from vitforge.base.cli import replace_folder
from vitforge.base.errors import ToolchainError
from vitforge.spec.config import Config

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Job:
    """A network, its inputs, and the folders that were made of them.

    Attributes
    ----------
    compiled
        The program.
    verilog, program
        Folders of `gen.verilog` and of `gen.compiler.emit`.
    source
        The accelerator's Verilog.
    memory_bytes
        Of the program, all inputs, and the output buffer.
    """

    config: Config
    compiled: Compiled
    verilog: Path
    program: Path
    source: str
    memory_bytes: int


def digits() -> Tensor:
    """Return a shipped test image of each digit, in order, uint8 ``[10, H, W]``."""
    test = mnist.sample().test
    return torch.stack([test.images[int((test.labels == digit).nonzero()[0])]
                        for digit in range(10)])


def prepare(network: Network, images: Tensor, folder: Path, board: Board, frequency: float) -> Job:
    """Write the accelerator's Verilog, and program and inputs as firmware takes them.

    The accelerator is that of the network, with a bus as wide as the port of the board's memory.
    """
    config = dataclasses.replace(network.config,
                                 axi_bits=max(network.config.axi_bits, board.port_bits))
    network = dataclasses.replace(network, config=config)
    compiled = compile_network(network)
    files = package(["accelerator"], config, frequency)
    job = Job(config, compiled, folder / "verilog", folder / "program",
              files["rtl/accelerator.v"], len(compiled.program)
              + len(images) * compiled.input_bytes + compiled.output_bytes)
    with replace_folder(job.verilog) as output:
        for name, text in files.items():
            path = output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    with replace_folder(job.program) as output:
        for name, data in emit(bundle(compiled, network, images), ["elf"]).items():
            (output / name).write_bytes(data)
    return job


def _environment() -> dict[str, str]:
    """Return an environment in which LiteX finds this Python's packages and programs.

    LiteX writes sets into the comments of its Verilog: with one order of them, a second run has the
    same text, and what was synthesised of it is found again.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}


def run(command: Sequence[str | Path], folder: Path, log: Path,
        environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run a program in a folder, with all that it prints in a file; more variables may be given.

    Raises
    ------
    ToolchainError
        If it fails; the message has its last line that speaks of an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run([str(word) for word in command], cwd=folder, stdout=output,
                              stderr=subprocess.STDOUT, check=False,
                              env={**_environment(), **environment})
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        telling = [line for line in lines if re.search(r"error", line, re.IGNORECASE)] or lines
        raise ToolchainError(f"{telling[-1] if telling else command[0]}; see {log}")


def litex(module: str, arguments: Sequence[str | Path], folder: Path, log: Path) -> None:
    """Run one of this package's modules that need LiteX, in a process of its own.

    LiteX keeps what it makes in global state, prints much, and ends the process where it fails.
    """
    run([sys.executable, "-m", module, *arguments], folder, log)


def firmware(job: Job, system: Path, folder: Path, log: Path) -> Path:
    """Compile the firmware for a system that LiteX has written, and return its image."""
    run(["make", "-f", HERE / "firmware" / "Makefile", f"BUILD_DIR={system.absolute()}",
         f"DRIVER={ROOT / 'vitforge' / 'driver'}",
         f"REGISTERS={(job.verilog / 'registers').absolute()}",
         f"NETWORK={job.program.absolute()}"], folder, log)
    return folder / "firmware.bin"
