# SPDX-License-Identifier: Apache-2.0
"""A network of the user's and pictures to measure it with; without them, the shipped digits.

A point carries where these are, and `Pictures.key`, which says what they are: so a folder may move
and nothing is measured again, and a changed checkpoint measures everything again.
"""

__all__ = ["Pictures", "given"]

import argparse
from dataclasses import dataclass
from pathlib import Path

from gen.compiler.options import MNIST, NAMES
from golden.commands.options import WEIGHTS

#: Checkpoints that come with the project, by network.
SHIPPED = {"cifar10_vit": WEIGHTS.with_name("cifar10_vit.safetensors")}


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where a network and its pictures are.

    Attributes
    ----------
    network
        One of `gen.compiler.options.NAMES`.
    checkpoint, calibration, evaluation, classes
        Paths, as `golden.quantize` takes them; `classes` may be empty.
    resize
        Whether pictures of `evaluation` are scaled first.
    limit, images
        How many are classified, and how many a method is calibrated with; 0: all, and as many as
        the method asks for.
    key
        Digest of all that, with contents in place of paths (`explore.data.identified`).
    """

    network: str
    checkpoint: str
    calibration: str
    evaluation: str
    classes: str = ""
    resize: bool = True
    limit: int = 0
    images: int = 0
    key: str = ""


def given(args: argparse.Namespace) -> Pictures | None:
    """Return what a command line names; None if it names nothing.

    Raises
    ------
    ValueError
        If something is missing.
    """
    named = [name for name in ("network", "checkpoint", "calibration", "evaluate", "classes")
             if getattr(args, name) is not None]
    if not named:
        return None
    network = args.network or ""
    if network not in NAMES or network == MNIST:
        others = ", ".join(name for name in NAMES if name != MNIST)
        raise ValueError(f"--{named[0]} needs --network, one of {others}"
                         + (f", not {network!r}" if network else ""))
    paths: dict[str, Path | None] = {"checkpoint": args.checkpoint or SHIPPED.get(network),
                                     "calibration": args.calibration, "evaluate": args.evaluate}
    there = {option: str(path.absolute()) for option, path in paths.items() if path is not None}
    for option in paths:
        if option not in there:
            raise ValueError(f"--network {network} needs --{option}")
    if args.limit < 0 or args.images < 0:
        raise ValueError("--limit and --images must be at least 0")
    return Pictures(
        network=network, checkpoint=there["checkpoint"], calibration=there["calibration"],
        evaluation=there["evaluate"],
        classes=str(args.classes.absolute()) if args.classes else "",
        resize=not args.no_resize, limit=args.limit, images=args.images)
