# SPDX-License-Identifier: Apache-2.0
"""Command lines of this room's commands, which are read before PyTorch is imported."""

__all__ = ["exported", "methods", "networks", "outliers", "quantization"]

import argparse
from pathlib import Path

from golden.commands.methods import ABOUT
from golden.commands.options import WEIGHTS
from vitforge.spec.elements import PORTS
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.option import add_config
from vitforge.spec.timing import LATENCY

_RECORD = Path(__file__).parent / "verilog.csv"


def _data(parser: argparse.ArgumentParser, *, images: int) -> None:
    """Add the network, the pictures and the configuration; `images` calibrate by default."""
    parser.add_argument("--model", default="deit_tiny_patch16_224", metavar="NAME",
                        help="network, by timm's name (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE",
                        help="its state dict, .safetensors or .pth")
    for name, text in (("calibration", "calibrate"), ("evaluate", "measure")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR",
                            help=f"folder of class folders with pictures to {text} with")
    parser.add_argument("--classes", type=Path, metavar="FILE",
                        help="class folders in label order, one a line")
    parser.add_argument("--images", type=int, default=images, metavar="N",
                        help="calibration images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="draws the calibration images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=25, metavar="N",
                        help="images at a time (default: %(default)s)")
    parser.add_argument("--no-resize", action="store_true",
                        help="pictures of --evaluate are scaled already: only crop")
    add_config(parser, "edge16",
               about="configuration of the integer networks, with each method's attention codes: ")


def _method(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the method that quantizes, with its widths and options."""
    parser.add_argument("--method", choices=ABOUT, default=default, metavar="NAME",
                        help="as golden.quantize (default: %(default)s)")
    parser.add_argument("--setting", default="8/8", metavar="W/A[/ATTENTION[/STREAM]]",
                        help="widths (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="any other option of the method; repeatable")


def methods() -> argparse.ArgumentParser:
    """Return the parser of `benchmarks.methods`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods",
        description="Published methods by widths, float-simulated and in integers, as one\n"
                    "table. A row is kept at once: a killed run goes on, another adds rows.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m benchmarks.methods --checkpoint F.safetensors \\\n"
               "    --calibration DIR --evaluate DIR --methods repq-vit,erq --settings 8/8,4/4")
    _data(parser, images=32)
    parser.add_argument("--methods", default=",".join(ABOUT), metavar="A,B,...",
                        help="default: all")
    parser.add_argument("--settings", default="8/8", metavar="W/A,...",
                        help="widths of weights and activations, and, behind more slashes, of "
                             "attention and of the residual stream, which else follow the method "
                             "(default: %(default)s)")
    parser.add_argument("--variants", nargs="+", default=[""], metavar="OPTIONS",
                        help="options of the methods, NAME=VALUE with spaces between them; each "
                             "is a row, and '' are the defaults (default: '')")
    parser.add_argument("--limit", type=int, metavar="N",
                        help="images to measure with, drawn (default: all)")
    parser.add_argument("--no-integers", action="store_true",
                        help="measure the float simulation only")
    parser.add_argument("--spread", type=float, metavar="GAIN",
                        help="make LayerNorm outputs uneven first, as golden.quantize does")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/methods"), metavar="DIR",
                        help="methods.md, methods.csv and the rows (default: %(default)s)")
    return parser


def quantization() -> argparse.ArgumentParser:
    """Return the parser of `benchmarks.quantization`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization",
        description="Where the time of one method goes, stage by stage. Speeds are those of the\n"
                    "machine at hand; what carries over is the ratio to the float network.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m benchmarks.quantization --checkpoint F.safetensors \\\n"
               "    --calibration DIR --evaluate DIR --method fq-vit --setting 8/8/4")
    _data(parser, images=100)
    _method(parser, "fq-vit")
    parser.add_argument("--limit", type=int, default=100, metavar="N",
                        help="images that networks classify (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, metavar="N",
                        help="how often everything is measured (default: %(default)s)")
    parser.add_argument("--operators", type=int, default=6, metavar="N",
                        help="how many operators of each network are named (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/quantization"),
                        metavar="DIR", help="quantization.md (default: %(default)s)")
    return parser


def exported() -> argparse.ArgumentParser:
    """Return the parser of `benchmarks.exported`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exported",
        description="A network that a method has quantized, as ONNX, by onnxruntime: of how many\n"
                    "pictures it says the simulation's class, and how far logits are apart.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m benchmarks.exported --checkpoint F.safetensors \\\n"
               "    --calibration DIR --evaluate DIR --no-resize --method repq-vit --setting 4/4")
    _data(parser, images=32)
    _method(parser, "repq-vit")
    parser.add_argument("--limit", type=int, default=100, metavar="N",
                        help="pictures (default: %(default)s)")
    return parser


def networks() -> argparse.ArgumentParser:
    """Return the parser of `benchmarks.networks`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Cycles, utilisation and traffic of whole networks on 8x8 to 32x32 arrays,\n"
                    "beside SCALE-Sim's closed forms. DeiT-Tiny, -Small and -Base take minutes.\n"
                    "With --every the networks that people have, each on memories of its size, on\n"
                    "8x8 and 16x16: what compiles, and what ran on the Verilog.",
        epilog="example: python -m benchmarks.networks deit_tiny_patch16_224 --clock 125 \\\n"
               "    --arrays 16x16 --modes single single+pair single+pair+quad --gelu uniform \\\n"
               "    --weights 4 --activations 4 --probabilities 4 --lanes 8\n"
               "         python -m benchmarks.networks --every --page docs/networks.md")
    parser.add_argument("networks", metavar="NETWORK", nargs="*",
                        help="timm's names (default: DeiT-Tiny, -Small and -Base; with --every "
                             "those of its table)")
    parser.add_argument("--every", action="store_true",
                        help="the table of networks that people have; of the options below it "
                             "takes --arrays (default: 8x8, 16x16). A row is kept at once in the "
                             "output folder: a killed run goes on")
    parser.add_argument("--page", type=Path, metavar="FILE",
                        help="with --every: a page that ends with its table, which is replaced")
    parser.add_argument("--verilog", choices=["whole", "a block"], metavar="PART",
                        help="with --every: run the networks on the generated Verilog instead, "
                             "whole or 'a block', compare every byte and counter, and note it in "
                             "the record")
    parser.add_argument("--record", type=Path, default=_RECORD, metavar="FILE",
                        help="what ran on the Verilog (default: benchmarks/verilog.csv)")
    parser.add_argument("--clock", type=float, default=100.0, metavar="MHZ",
                        help="for images a second (default: 100)")
    parser.add_argument("--latency", type=int, default=LATENCY, metavar="CYCLES",
                        help=f"of the memory (default: {LATENCY})")
    parser.add_argument("--arrays", nargs="+", metavar="RxC",
                        help="arrays of the table (default: 8x8, 8x16, 16x16, 16x32, 32x32)")
    parser.add_argument("--modes", nargs="+", default=["single"],
                        choices=["single", "single+pair", "single+pair+quad"], metavar="MODES",
                        help="products that a multiplier may make: single, single+pair or "
                        "single+pair+quad; several for a row each (default: single)")
    parser.add_argument("--weights", type=int, default=8, metavar="BITS",
                        help="width of all weights (default: 8)")
    parser.add_argument("--activations", type=int, default=CODE_BITS, metavar="BITS",
                        help="width of uniform codes but pixels, scores and the residual stream "
                        "(default: 8)")
    parser.add_argument("--probabilities", type=int, metavar="BITS",
                        help="uniform codes of so many bits (default: log2 codes of 4)")
    parser.add_argument("--multiplier", choices=list(PORTS), default="18x18", metavar="PORTS",
                        help=f"{', '.join(PORTS)} (default: 18x18)")
    parser.add_argument("--gelu", choices=["two-scale", "uniform"], default="two-scale",
                        help="codes of GeLU's result (default: two-scale)")
    parser.add_argument("--lanes", type=int, metavar="N",
                        help="elements a cycle behind the array (default: by its size)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/networks"), metavar="DIR",
                        help="folder of the table (default: build/networks)")
    return parser


def outliers() -> argparse.ArgumentParser:
    """Return the parser of `benchmarks.outliers`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.outliers",
        description="Train the digits' network a little longer with a few channels of its\n"
                    "residual stream many times as large as the others, as large networks have.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m benchmarks.outliers --data mnist.npz "
               "-o build/mnist_outliers.safetensors")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE",
                        help="an .npz file of MNIST, as golden.train takes it")
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS, metavar="FILE",
                        help="the network to begin with (default: the shipped one)")
    parser.add_argument("--gain", type=float, default=20.0, help="default: %(default)s")
    parser.add_argument("--channels", type=int, default=3, metavar="N",
                        help="how many are amplified (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, metavar="N",
                        help="of 128 images each (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=5e-4,
                        help="highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1,
                        help="draws the channels and all that is random (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE",
                        help="weights to write, .safetensors")
    return parser
