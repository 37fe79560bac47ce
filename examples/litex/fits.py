# SPDX-License-Identifier: Apache-2.0
"""Whether a board has what a network's accelerator and its system need, before they are built."""

__all__ = ["Fit", "check_cells", "fit"]

from collections.abc import Iterable
from dataclasses import dataclass

from examples.litex.build import Job
from examples.litex.options import Board
from gen.synthesis import expected
from golden.machine.cycles import predict

#: VexRiscv's variants, the fastest first: multipliers, and block memories with ROM, SRAM, L2.
PROCESSORS = {"standard": (4, 31), "lite": (0, 25)}
#: Of the memory beside program, inputs and outputs: the firmware's code, with its stack.
FIRMWARE = 1 << 20


@dataclass(frozen=True)
class Fit:
    """What a network will do on a board.

    Attributes
    ----------
    processor
        A name of `PROCESSORS`.
    cycles
        An image, by the exact model, with a memory that is fast enough.
    images
        A second; what the memory allows if that is less.
    needed, there
        Megabytes a second: what the accelerator would move with a memory that is fast enough, and
        what this one can.
    """

    processor: str
    cycles: int
    images: float
    needed: float
    there: float

    def __str__(self) -> str:
        return (f"{self.cycles:,} cycles an image, {self.images:.4g} images/s; "
                f"the memory must move {self.needed:.1f} MB/s and can {self.there:.1f}")


def fit(board: Board, job: Job, frequency: float, slow: bool = False) -> Fit:
    """Choose the processor, and predict what a compiled network will do.

    Parameters
    ----------
    frequency
        Of the system and its memory, in MHz.
    slow
        Whether the memory may be slower than the accelerator.

    Raises
    ------
    ValueError
        If the chip, its memory or that memory's speed is too small; the message says what is.
    """
    name, verilog = job.config.name, job.source
    products, blocks = expected.multipliers(verilog), expected.memories(verilog)
    if products > board.multipliers:
        raise ValueError(f"{name} has {products} multipliers, and the chip has "
                         f"{board.multipliers}")
    processor = next(item for item, (own, _) in PROCESSORS.items()
                     if products + own <= board.multipliers)
    blocks += PROCESSORS[processor][1]
    if blocks > board.memories:
        raise ValueError(f"{name} with its system needs {blocks} block memories, and the "
                         f"chip has {board.memories}")
    size = job.memory_bytes + FIRMWARE
    if size > board.memory_bytes:
        raise ValueError(f"program, inputs and firmware take {size / (1 << 20):.1f} MiB, and the "
                         f"board's memory has {board.memory_bytes >> 20}")
    exact = predict(job.compiled.program, job.config)
    moved = exact.read_bytes + exact.written_bytes
    there = min(board.memory_bits * board.share, job.config.axi_bits) / 8 * frequency
    found = Fit(processor, exact.cycles, min(frequency * 1e6 / exact.cycles, there * 1e6 / moved),
                frequency * moved / exact.cycles, there)
    if found.needed > there and not slow:
        raise ValueError(f"{name} needs {found.needed:.1f} MB/s, and the board's memory has "
                         f"{there:.1f} at {frequency:g} MHz: {found.images:.4g} images/s instead "
                         f"of {frequency * 1e6 / exact.cycles:.4g}, with --slow-memory")
    return found


def check_cells(board: Board, cells: Iterable[str]) -> None:
    """Refuse a netlist with more multipliers or block memories than the chip has.

    Raises
    ------
    ValueError
        The message says how many.
    """
    kinds = list(cells)
    for kind, what, most in (("MULT18X18D", "multipliers", board.multipliers),
                             ("DP16KD", "block memories", board.memories)):
        if (found := kinds.count(kind)) > most:
            raise ValueError(f"the system has {found} {what}, and the chip has {most}")
