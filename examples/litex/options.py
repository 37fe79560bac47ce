# SPDX-License-Identifier: Apache-2.0
"""Command lines of the LiteX example, and the boards that it knows; neither needs LiteX."""

__all__ = ["BOARDS", "CONFIG", "Board", "board_line", "simulate_line"]

import argparse
from dataclasses import dataclass
from pathlib import Path

from vitforge.spec.option import add_config

#: The configuration where nothing says another.
CONFIG = "edge8"


@dataclass(frozen=True)
class Board:
    """What the tools behind LiteX must know of a board.

    Attributes
    ----------
    device, package, speed
        Options of nextpnr-ecp5.
    frequency
        Of the system and its memory by default, in MHz.
    memory_bytes, memory_bits
        What the SDRAM holds, and what its pins move in a cycle of the system.
    share
        Of `memory_bits`, what LiteDRAM moves while the accelerator reads: as measured in the
        simulated system with the memory of the board (docs/soc.md).
    port_bits
        Of LiteDRAM's port. The accelerator's bus is as wide at least: from a narrower one
        LiteDRAM before 2026.04 doesn't answer every write (docs/soc.md).
    text
        Chip and memory.
    config
        For the digits, where none is given.
    multipliers, memories
        Of the chip: MULT18X18D and DP16KD.
    """

    device: str
    package: str
    speed: int
    frequency: float
    memory_bytes: int
    memory_bits: int
    share: float
    port_bits: int
    text: str
    config: str = CONFIG
    multipliers: int = 156
    memories: int = 208


BOARDS = {
    "ulx3s-85f": Board("85k", "CABGA381", 6, 50.0, 32 << 20, 16, 4 / 5.01, 16,
                       "LFE5U-85F, 32 MB of 16-bit SDRAM"),
    "ecpix5-85f": Board("um5g-85k", "CABGA554", 8, 50.0, 512 << 20, 64, 2 / 2.33, 128,
                        "LFE5UM5G-85F, 512 MB of 16-bit DDR3",
                        "tiny"),    # edge8 is not routed in hours (docs/soc.md)
}

_NETWORK = "mnist, or a folder that golden.quantize has written (default: mnist)"


def simulate_line() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.litex``."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.litex", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Simulate a LiteX system: VexRiscv runs firmware on the C driver, which has\n"
                    "the accelerator classify ten digits in LiteDRAM's memory, and compares every\n"
                    "logit with the golden model's. Exit code 0 only if all are equal.",
        epilog="example: python -m examples.litex --config edge8 -o build/soc")
    parser.add_argument("--board", choices=BOARDS, default=next(iter(BOARDS)), metavar="BOARD",
                        help=f"whose memory it has: {', '.join(BOARDS)} (default: %(default)s)")
    add_config(parser, CONFIG)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/soc"), metavar="DIR",
                        help="where all of it goes; what is unchanged is kept (default: build/soc)")
    return parser


def board_line() -> argparse.ArgumentParser:
    """Return the parser of ``vitforge board``."""
    names = "\n".join(f"  {name:11} {board.text}" for name, board in BOARDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m examples.litex.board",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make bitstream and firmware for a board: Verilog, LiteX, Yosys, nextpnr,\n"
                    "ecppack. What was done to the end is not done again.",
        epilog=f"boards:\n{names}\n\nexample: python -m examples.litex.board ulx3s-85f "
               "--network mnist -o build/ulx3s")
    parser.add_argument("board", metavar="BOARD", help=", ".join(BOARDS))
    parser.add_argument("--network", default="mnist", metavar="N", help=_NETWORK)
    add_config(parser, None, none="the network's own; for mnist " + ", ".join(
        f"{board.config} on {name}" for name, board in BOARDS.items()))
    parser.add_argument("--frequency", type=float, metavar="MHZ",
                        help="clock of system and memory (default: 50)")
    parser.add_argument("--seed", type=int, default=1, metavar="N",
                        help="of the placement (default: 1)")
    parser.add_argument("--synthesize", action="store_true",
                        help="stop before nextpnr: report.md alone, with the cells by module")
    parser.add_argument("--slow-memory", action="store_true",
                        help="build what waits for the board's memory, too")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write: the .bit, firmware.bin, report.md, and what they "
                             "were made from")
    return parser
