# SPDX-License-Identifier: Apache-2.0
"""The command line of `golden.quantize`, which is read before PyTorch is imported."""

__all__ = ["RECONSTRUCTED", "RECONSTRUCTIONS", "WIDTHS", "command_line"]

import argparse
from pathlib import Path

from golden.commands import methods
from golden.commands.methods import ABOUT, About
from golden.float.preprocessing_options import ANY, add_heads, add_preprocessing
from golden.onnx.options import HIGHEST, LOWEST, OPSET
from vitforge.spec.option import add_config

_ABOUT = """\
Quantize a checkpoint by a published method, and measure it in float simulation and in integers.

The integer network (`golden.deploy`) is what `gen.program` takes, and its accuracy always stands
beside that of the float simulation.
"""
RECONSTRUCTIONS = ("no", "quick", "long", "paper")
#: Calibration images of a reconstruction if nothing else is said: 1,024 in the papers.
RECONSTRUCTED = 1000
#: Options of all methods that are widths.
WIDTHS = ("weights", "activations", "attention", "stream")


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    lines = "\n".join(f"  {name:<12}{about.summary}" for name, about in ABOUT.items())
    few = f"{About.images} but for " + ", ".join(
        f"{name}: {about.images}" for name, about in ABOUT.items() if about.images != About.images)
    trained = ", ".join(name for name, about in ABOUT.items() if about.reconstructs)
    parser = argparse.ArgumentParser(
        prog="golden.quantize", description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"methods:\n{lines}\nor package.module:Class, a golden.ptq.method.Method of your "
               "own (docs/own-method.md)\n\nexample: python -m golden.quantize --method minmax "
               "--checkpoint F.safetensors \\\n    --calibration DIR --evaluate DIR --weights 6 "
               "-o build/minmax")
    parser.add_argument("--method", type=methods.name, required=True, metavar="METHOD",
                        help="one of those below, or package.module:Class")
    parser.add_argument("--model", default=ANY, metavar="NAME",
                        help="network, by timm's name; classes and image size are those of its "
                             "file (default: %(default)s, any ViT or DeiT, whose whole shape is "
                             "its file's)")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE",
                        help="its state dict with timm's names, .safetensors, .pth, .pt or .bin; "
                             "or a float ViT, DeiT or Swin as .onnx")
    add_heads(parser)
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR",
                        help="folder of class folders with pictures")
    parser.add_argument("--evaluate", type=Path, metavar="DIR",
                        help="the same, to measure with; labels are the folders in sorted order "
                             "or in that of --classes")
    parser.add_argument("--classes", type=Path, metavar="FILE",
                        help="class folders in label order, one a line")
    for name in WIDTHS:
        parser.add_argument(f"--{name}", type=int, metavar="BITS",
                            help="width, 3 to 8 (stream: 0 is floating point)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="any other option of the method; repeatable")
    parser.add_argument("--reconstruct", choices=RECONSTRUCTIONS, metavar="PRESET",
                        help="train the blocks to make up for their error, by calibration images "
                             "without labels: quick is ten minutes of two cores for DeiT-Tiny, "
                             "long an hour, paper days; no: don't (default: quick for "
                             f"{trained}; no for others)")
    parser.add_argument("--images", type=int, metavar="N",
                        help="calibration images, or all if there are fewer (default: those of "
                             f"the paper, {few}; {RECONSTRUCTED} where blocks are reconstructed, "
                             "of which formats take those first)")
    parser.add_argument("--seed", type=int, default=0,
                        help="draws the calibration images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=25, metavar="N",
                        help="images at a time (default: %(default)s)")
    add_preprocessing(parser)
    parser.add_argument("--no-resize", action="store_true",
                        help="pictures of --evaluate are scaled already: only crop")
    parser.add_argument("--spread", type=float, metavar="GAIN",
                        help="make LayerNorm outputs uneven first, a channel GAIN times as large, "
                             "without changing what the float network computes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="where networks are measured; calibration is on the processor, so "
                             "records and integers are the same (default: a GPU if there is one)")
    parser.add_argument("--no-float", action="store_true",
                        help="don't measure the float network")
    add_config(parser, "edge16", about="configuration of the integer network: ")
    parser.add_argument("--suit", action="store_true",
                        help="give that configuration the method's attention codes")
    parser.add_argument("--onnx", type=Path, metavar="FILE",
                        help="write the simulated network as ONNX with QuantizeLinear and "
                             "DequantizeLinear")
    parser.add_argument("--opset", type=int, default=OPSET, metavar="N",
                        help=f"version of ONNX's operators, {LOWEST} to {HIGHEST}; below 21 codes "
                             "of 4 bits are those of 8, clipped (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR",
                        help="write record.json, the integer network (model.json, "
                             "model.safetensors), notes.json and report.md with pictures there, "
                             "or, if it ends with .json, the record alone; a killed run goes on "
                             "if started again with the same arguments")
    return parser
