# SPDX-License-Identifier: Apache-2.0
"""Command lines of `golden.mnist` and `golden.cifar10`, read before PyTorch is imported."""

__all__ = ["cifar10", "mnist"]

import argparse
from pathlib import Path


def mnist() -> argparse.ArgumentParser:
    """Return the parser of `golden.mnist`."""
    parser = argparse.ArgumentParser(
        prog="golden.mnist", description="Write MNIST as folders of pictures: training images to "
        "calibrate with, and the test set.",
        epilog="example: python -m golden.mnist --data mnist.npz -o build/mnist")
    parser.add_argument("--data", type=Path, metavar="FILE",
                        help=".npz file with x_train, y_train, x_test and y_test (default: the "
                             "sample that comes with the project, 100 and 300 images)")
    parser.add_argument("--calibration", type=int, default=100, metavar="N",
                        help="training images of --data, drawn at random (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws them (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder for calibration/<digit>/ and test/<digit>/")
    return parser


def cifar10() -> argparse.ArgumentParser:
    """Return the parser of `golden.cifar10`."""
    parser = argparse.ArgumentParser(
        prog="golden.cifar10", description="Write CIFAR-10 as folders of pictures: training "
        "images to calibrate with, and the test set.",
        epilog="example: python -m golden.cifar10 --data cifar-10-batches-bin -o build/cifar10")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="PATH",
                        help="the folder cifar-10-batches-bin; or a .zip of training pictures and "
                             "an .npz of test images")
    parser.add_argument("--train", type=int, default=1000, metavar="N",
                        help="training images, drawn at random (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="draws them (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="folder for train/<class>/ and test/<class>/")
    return parser
