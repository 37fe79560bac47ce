# SPDX-License-Identifier: Apache-2.0
"""Options that name a network and its pictures: the same for all commands that run one.

They are read before PyTorch is imported, by `gen.compiler.arguments` and those who use it.
"""

__all__ = ["CONFIG", "MNIST", "NAMES", "add_model", "command_line"]

import argparse
from pathlib import Path

from gen.compiler.emit import EMITTED
from golden.float.preprocessing_options import ANY, add_heads, add_preprocessing
from vitforge.spec.option import add_config

#: The configuration that --fit has found, in the output folder.
CONFIG = "config.toml"
#: Beside timm's names.
MNIST = "mnist"
#: The project's digits, and all of `golden.float.models` that compile; a test compares.
NAMES = (MNIST, "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224",
         "deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224",
         "vit_small_patch16_384", "vit_base_patch16_384", "vit_large_patch16_384",
         "deit_base_patch16_384", "swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224",
         "swin_base_patch4_window7_224", "cifar10_vit", "cifar10_swin")


def add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add MODEL, which may be left out if there is a default, and how to get and quantize it."""
    text = (f"one of {', '.join(NAMES)}; {ANY}, any ViT or DeiT, whose shape is that of its "
            "checkpoint; or a folder that golden.quantize has written")
    if default is None:
        parser.add_argument("model", metavar="MODEL", help=text)
    else:
        parser.add_argument("model", metavar="MODEL", nargs="?", default=default,
                            help=f"{text} (default: {default})")
    add_config(parser, None, none="edge16, or the one that golden.quantize had")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE",
                        help="its state dict with timm's names, .safetensors, .pth, .pt or "
                             ".bin, or the network as .onnx: its classes and image size count "
                             "(mnist has its own)")
    add_heads(parser)
    parser.add_argument("--calibration", type=Path, metavar="DIR",
                        help="folder of class folders with pictures (mnist has its own)")
    parser.add_argument("--images", type=int, default=10, metavar="N",
                        help="calibration pictures (default: 10)")
    parser.add_argument("--random", type=int, metavar="SEED",
                        help="random parameters and pictures: the same program but for its values")
    parser.add_argument("--weights", type=int, metavar="BITS",
                        help="width of the weights, 2 to 8 (default: the configuration's)")
    parser.add_argument("--activations", type=int, metavar="BITS",
                        help="width of uniform codes but pixels, scores and the residual stream, "
                             "2 to 8 (default: 8)")
    parser.add_argument("--image", metavar="N|FILE",
                        help="the input: a shipped digit by its number, or a .npy file of one")
    parser.add_argument("--pictures", type=Path, metavar="DIR",
                        help="the inputs: a folder of class folders with pictures (mnist has its "
                             "own; other networks have random inputs without it)")
    add_preprocessing(parser)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of `gen.program`."""
    parser = argparse.ArgumentParser(
        prog="python -m gen.program", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Quantize a network, or take one that golden.quantize has written, compile it\n"
                    "for the accelerator, and write the program, a memory image with an input,\n"
                    "and a listing.",
        epilog="examples: python -m gen.program mnist --config edge8 -o build/program\n"
               "          python -m gen.program build/fq-vit -o build/program\n"
               "          python -m gen.program mnist --config edge8 --emit c --count 10 -o "
               "build/program\n"
               "          python -m gen.program vit --checkpoint my.pth --calibration DIR --fit "
               "-o build/my")
    add_model(parser)
    parser.add_argument("--fit", action="store_true",
                        help="take the smallest memories that hold the network instead of the "
                             f"configuration's, and write them as {CONFIG}, which gen.verilog and "
                             "all other commands take as --config")
    parser.add_argument("--emit", nargs="+", choices=EMITTED, metavar="KIND",
                        help="for firmware as well: c (arrays), elf (an assembler file of a "
                             "section), litex (words of a memory, network.init); network.h "
                             "declares them, with the golden model's logits")
    parser.add_argument("--count", type=int, default=1, metavar="N",
                        help="inputs for --emit (default: 1)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder to write: program.bin, memory.bin, memory.json, listing.txt; "
                             "memory.hex, expected.hex, host.args, and fusesoc.args for FuseSoC, "
                             "for the bench in Verilog")
    return parser
