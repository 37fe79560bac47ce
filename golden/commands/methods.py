# SPDX-License-Identifier: Apache-2.0
"""What every quantization method is called, does, and is calibrated with: no PyTorch is needed."""

__all__ = ["ABOUT", "About", "images", "name"]

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """One method, for those who choose one.

    Attributes
    ----------
    summary
        One line: what it does, and its paper.
    images
        How many images its formats are found with if nothing else is said: 32 in RepQ-ViT, ERQ and
        the works that the reconstructions build on.
    reconstructs
        Whether it reconstructs blocks if nothing else is said, which takes many more images.
    """

    summary: str
    images: int = 32
    reconstructs: bool = False


ABOUT: Mapping[str, About] = {
    "minmax": About("per-tensor min-max ranges, the baseline of all papers"),
    # Ten batches of 100 in the official code.
    "fq-vit": About("power-of-two factor and log-integer-softmax (arXiv 2111.13824)", images=1000),
    "tsptq-vit": About("two scaled factors, a reconstruction (arXiv 2305.12901)"),
    "mptq-vit": About("smoothing with bias, searched ratios, mixed precision, "
                      "a reconstruction (arXiv 2401.14895)"),
    "repq-vit": About("scale reparameterization, log-sqrt2 attention (arXiv 2212.08254)"),
    "gptq": About("column-by-column rounding on RepQ-ViT's formats, the baseline of ERQ "
                  "(arXiv 2210.17323)"),
    "erq": About("error reduction by ridge regression and rounding (arXiv 2407.06794)"),
    "dopq-vit": About("tangent quantizer, median scales, blocks reconstructed, a reconstruction "
                      "(arXiv 2408.03291)", reconstructs=True),
    "fima-q": About("uniform codes, blocks reconstructed by a Fisher matrix (CVPR 2025)",
                    reconstructs=True),
    "aphq-vit": About("uniform codes, blocks reconstructed by an average-perturbation Hessian "
                      "(CVPR 2025)", reconstructs=True),
}
"""The methods of `golden.ptq.METHODS`, by their name on the command line."""


def name(text: str) -> str:
    """Take the name of a method, or ``package.module:Class``, from a command line.

    Raises
    ------
    argparse.ArgumentTypeError
        If it can be neither. Whether there is such a class is found when PyTorch is there.
    """
    if text in ABOUT or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", text):
        return text
    raise argparse.ArgumentTypeError(
        f"invalid choice: {text!r} (choose from {', '.join(ABOUT)}, or a package.module:Class)")


def images(method: str) -> int:
    """Return how many images a method is calibrated with if nothing else is said."""
    return ABOUT[method].images if method in ABOUT else About.images
