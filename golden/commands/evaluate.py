# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the float network, and of the integer network that calibration makes of it."""

__all__ = ["WEIGHTS", "Result", "evaluate", "main"]

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

from golden.commands.options import WEIGHTS
from golden.commands.options import evaluate as command_line
from golden.data import mnist
from golden.float import checkpoint
from golden.float.vit import Vit
from golden.network import inference
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from vitforge.base.cli import run_command
from vitforge.base.progress import progress_bars
from vitforge.spec.config import load


@dataclass(frozen=True)
class Result:
    """Counts of images: all, rightly classified in float, in integers, and classified alike."""

    images: int
    float_right: int
    integer_right: int
    alike: int


def evaluate(model: Vit, integers: Network, split: mnist.Split,
             advance: Callable[[int], object] = lambda images: None, batch: int = 50) -> Result:
    """Classify every image of `split` twice; `advance` is told how many images are done more."""
    counts = [0, 0, 0]
    with torch.inference_mode():
        for start in range(0, len(split), batch):
            images = split.images[start:start + batch]
            labels = split.labels[start:start + batch]
            real = model(mnist.pixels(images)).argmax(1)
            whole = inference.run(integers, images).argmax(1)
            for index, hits in enumerate((real == labels, whole == labels, real == whole)):
                counts[index] += int(hits.sum())
            advance(len(images))
    return Result(len(split), *counts)


def _run(args: argparse.Namespace) -> int:
    config = load(args.config)
    model = checkpoint.load(args.weights)
    if model.spec.in_channels != 1:
        raise ValueError(f"{args.weights} must take images of 1 channel, "
                         f"not {model.spec.in_channels}")
    sample = mnist.sample()
    split = sample.test
    if args.data is not None:
        split = mnist.read(args.data, model.spec.image_size, model.spec.classes)[1]
    integers = calibrate(model, sample.calibration.images, config)
    with progress_bars() as bars:
        result = evaluate(model, integers, split, bars.add("images", len(split)).advance)
    total = result.images
    print(f"{'images':<10}{total:>8}\n"
          f"{'float':<10}{result.float_right:>8}{result.float_right / total:>10.2%}\n"
          f"{'integer':<10}{result.integer_right:>8}{result.integer_right / total:>10.2%}\n"
          f"{'alike':<10}{result.alike:>8}{result.alike / total:>10.2%}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when it has measured, 2 for input that can't be used."""
    return run_command(_run, command_line(), argv)
