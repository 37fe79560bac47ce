# SPDX-License-Identifier: Apache-2.0
"""Command lines of this room's commands, which are read before PyTorch is imported."""

__all__ = ["PLANS", "WEIGHTS", "Plan", "evaluate", "rotate", "train"]

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from golden.float.preprocessing_options import ANY, add_heads
from vitforge.spec.option import add_config

#: The digits' network that comes with the project.
WEIGHTS = Path(__file__).parents[1] / "weights" / "mnist_vit.safetensors"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides the weights; a resumed run must have the same plan.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    seed: int = 1
    epochs: int = 14
    batch: int = 128
    rate: float = 2e-3

    def __post_init__(self) -> None:
        for name, low, high in (("seed", 0, 2**31 - 1), ("epochs", 1, 1000), ("batch", 1, 4096)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be between {low} and {high}, "
                                 f"not {getattr(self, name)}")
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie between 0 and 1, not {self.rate}")


#: What each network is trained with if the user says nothing else.
PLANS: Mapping[str, Plan] = {"mnist": Plan(), "cifar10": Plan(epochs=18, batch=128, rate=0.02),
                              "swin": Plan(epochs=14, batch=128, rate=0.02)}


def evaluate() -> argparse.ArgumentParser:
    """Return the parser of `golden.evaluate`."""
    parser = argparse.ArgumentParser(
        prog="golden.evaluate", description="Measure the float and the integer-only accuracy.",
        epilog="example: python -m golden.evaluate --data mnist.npz")
    parser.add_argument("--data", type=Path, metavar="NPZ",
                        help="file with x_train, y_train, x_test, y_test; all of x_test is "
                             "classified (default: the 300 images of the project)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, metavar="FILE",
                        help="checkpoint of golden.train (default: the project's)")
    add_config(parser, "edge16", about="configuration that quantizes: ")
    return parser


def train() -> argparse.ArgumentParser:
    """Return the parser of `golden.train`."""
    parser = argparse.ArgumentParser(
        prog="golden.train",
        description="Train a vision transformer on MNIST or CIFAR-10, or a Swin on CIFAR-10.",
        epilog="examples: python -m golden.train --data mnist.npz -o mnist_vit.safetensors; "
               "python -m golden.train --network cifar10 --data cifar-10-batches-bin "
               "-o cifar10_vit.safetensors. "
               "A run that was stopped goes on from its last epoch when started again.")
    parser.add_argument("--network", choices=PLANS, default="mnist", help="default: %(default)s")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH",
                        help="mnist: an .npz file with x_train, y_train, x_test, y_test (28x28 "
                             "uint8 images); cifar10, swin: the folder cifar-10-batches-bin, or "
                             "a .zip of training pictures and an .npz of test images")
    for name, kind, text in (("seed", int, "draws all that is random"), ("epochs", int, ""),
                             ("batch", int, "images a step"),
                             ("rate", float, "highest learning rate")):
        values = ", ".join(f"{key} {getattr(plan, name)}" for key, plan in PLANS.items())
        parser.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper(),
                            help=f"{text} (default: {values})".lstrip())
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE",
                        help="where to write the weights (.safetensors); the log goes beside it")
    return parser


def rotate() -> argparse.ArgumentParser:
    """Return the parser of `golden.rotate`."""
    parser = argparse.ArgumentParser(
        prog="golden.rotate", description="Turn a ViT's residual stream: the same float network "
        "with other weights, off any grid that they were trained for.",
        epilog="example: python -m golden.rotate --checkpoint deit_tiny.safetensors "
               "--calibration DIR -o build/rotated.safetensors")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE",
                        help="state dict with timm's names, .safetensors, .pth, .pt or .bin; or "
                             "the network as .onnx")
    parser.add_argument("--model", default=ANY, metavar="NAME",
                        help="its name, where the file does not say the heads (default: "
                             "%(default)s, any ViT or DeiT)")
    add_heads(parser)
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR",
                        help="folder of class folders with pictures: they say how large channels "
                             "are, and compare both networks")
    parser.add_argument("--images", type=int, default=16, metavar="N",
                        help="pictures that are drawn (default: %(default)s)")
    parser.add_argument("--group", type=int, default=8, metavar="N",
                        help="channels of like size that are mixed with each other "
                             "(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1,
                        help="draws pictures and rotation (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE",
                        help="weights to write, .safetensors")
    return parser
