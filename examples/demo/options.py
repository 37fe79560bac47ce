# SPDX-License-Identifier: Apache-2.0
"""The command line of the demo, which is read before PyTorch is imported."""

__all__ = ["command_line"]

import argparse
from pathlib import Path

from vitforge.spec.option import add_config


def command_line() -> argparse.ArgumentParser:
    """Return the parser of `examples.demo`."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Recognise handwritten digits on the generated Verilog of the accelerator,\n"
                    "and replay the first one's tensors in that of every unit.",
        epilog="example: python -m examples.demo --image 7")
    parser.add_argument("--image", default="0", metavar="N|FILE",
                        help="a shipped image by its number, 0 to 299, or a .npy file of 28x28 "
                             "uint8, white on black (default: 0)")
    parser.add_argument("--count", type=int, default=10, metavar="N",
                        help="so many shipped images, from that one on, 1 to 20 (default: 10)")
    add_config(parser, "edge8")
    parser.add_argument("--build", type=Path, default=Path("build/sim"), metavar="DIR",
                        help="where models and logs are kept (default: build/sim)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/demo"), metavar="DIR",
                        help="folder of the page (default: build/demo)")
    return parser
