# SPDX-License-Identifier: Apache-2.0
"""The system on boards: LiteX's own target for each, and the accelerator beside its memory.

``python -m examples.litex.boards NAME --verilog DIR --frequency MHZ -o DIR`` writes the Verilog,
the pins and the software; it is run by `examples.litex.board`, which runs the rest.
"""

__all__ = ["TARGETS", "main"]

import argparse
import importlib
import sys
from pathlib import Path

from litex.soc.integration.builder import Builder

from examples.litex.options import BOARDS
from examples.litex.vitforge_litex import ViTForge

#: What every target gets: a small processor, little cache, no lights.
_COMMON = {"cpu_type": "vexriscv", "integrated_rom_size": 0x8000,
           "integrated_sram_size": 0x4000, "with_led_chaser": False, "l2_size": 2048,
           "ident_version": False}


#: LiteX's modules of the boards, and what their systems are called with.
TARGETS = dict(zip(BOARDS, (
    ("litex_boards.targets.radiona_ulx3s", {"device": "LFE5U-85F"}),
    ("litex_boards.targets.lambdaconcept_ecpix5", {"device": "85F"}),
), strict=True))


def main(argv=None):
    """Write what the board's bitstream and firmware are made from."""
    parser = argparse.ArgumentParser(prog="python -m examples.litex.boards")
    parser.add_argument("board", choices=TARGETS)
    parser.add_argument("--verilog", type=Path, required=True, help="folder of gen.verilog")
    parser.add_argument("--frequency", type=float, required=True, help="of the system, in MHz")
    parser.add_argument("--processor", required=True, help="variant of VexRiscv")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args(argv)
    module, options = TARGETS[args.board]
    target = importlib.import_module(module)
    system = target.BaseSoC(sys_clk_freq=args.frequency * 1e6, cpu_variant=args.processor,
                            **options, **_COMMON)
    system.vitforge = ViTForge(system.platform, args.verilog)
    system.vitforge.join(system)
    builder = Builder(system, output_dir=str(args.output))
    builder.build(run=False, build_name="soc")
    sources = [source[0] for source in system.platform.sources]
    (args.output / "sources.txt").write_text("".join(f"{name}\n" for name in sources),
                                             encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
