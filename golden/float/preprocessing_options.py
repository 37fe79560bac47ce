# SPDX-License-Identifier: Apache-2.0
"""Options of a checkpoint and of its pictures: the same for all commands that take one."""

__all__ = ["ANY", "INTERPOLATIONS", "TOKENS", "add_heads", "add_preprocessing"]

import argparse
import math

#: Stands for a name: a network whose shape is its file's.
ANY = "vit"
#: Filters of the resizing.
INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
#: Tokens of a distilled DeiT that have a classifier.
TOKENS = ("class", "distilled")


def _values(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(math.isfinite(value) for value in values):
        raise ValueError(text)
    return values


_values.__name__ = "list of numbers"   # argparse's message names the type


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Add --mean, --std, --crop and --interpolation; `float.preprocessing.chosen` reads them."""
    usual = "default: the model's; of any ViT, DeiT's; of grey pictures"
    parser.add_argument("--mean", type=_values, metavar="M,...",
                        help="subtracted from pixels of 0..1, a value for each channel or for "
                             f"all ({usual} 0)")
    parser.add_argument("--std", type=_values, metavar="S,...",
                        help=f"then divided into them ({usual} 1)")
    parser.add_argument("--crop", type=float, metavar="SHARE",
                        help="share of the resized side that is kept: pictures are resized to the "
                             f"network's size / SHARE ({usual} 1)")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS,
                        help="filter of the resizing (default: the model's, or bicubic)")


def add_heads(parser: argparse.ArgumentParser) -> None:
    """Add --heads, --token and --quick-gelu."""
    parser.add_argument("--heads", type=int, metavar="N",
                        help="attention heads, which tensors don't show (default: the model's, or "
                             "one for every 64 channels)")
    parser.add_argument("--token", choices=TOKENS,
                        help="of a distilled DeiT: the token whose classifier alone is taken "
                             "(default: the mean of both)")
    parser.add_argument("--quick-gelu", action="store_true",
                        help="MLPs have QuickGELU, x sigmoid(1.702 x), as OpenAI's CLIP: a state "
                             "dict doesn't show it")
