# SPDX-License-Identifier: Apache-2.0
"""Write a ViT whose residual stream is turned: the same function, other weights.

Quantization by few bits is easy on weights that lie near a coarse grid already, as those that come
from a quantized network do. Turned, they are as hard as any others (`golden.float.rotation`).
"""

__all__ = ["BOUND", "main"]

import argparse
import sys

import torch

from golden.commands.options import rotate as command_line
from golden.data.imagenet import Folder
from golden.float import checkpoint
from golden.float.preprocessing import usual
from golden.float.rotation import grid_noise, peaks, rotation, turned
from golden.float.swin import SwinSpec
from golden.float.vit import Vit
from golden.graph.opened import open_network
from golden.network.topology import Spec
from vitforge.base.cli import run_command

#: Logits of both networks are as near, as a share of the largest one.
BOUND = 1e-5
_BATCH = 8


def _fixed(spec: Spec) -> str:
    """Say why a network's stream can't be turned; nothing if it can."""
    if isinstance(spec, SwinSpec):
        return "is a Swin"
    if spec.norm_pre:
        return "has a norm before its blocks"
    return {"token": "", "both": "has a classifier of two tokens (--token takes one)",
            "mean": "classifies a mean of patches"}[spec.pool]


def _run(args: argparse.Namespace) -> int:
    if args.images < 1:
        raise ValueError("--images must be at least 1")
    if args.output.suffix != ".safetensors":
        raise ValueError(f"--output must end with .safetensors, not be {args.output}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    model = open_network(args.checkpoint, args.model, args.heads, args.token,
                         args.quick_gelu).model
    why = _fixed(model.spec)
    if why or not isinstance(model, Vit):
        raise ValueError(f"{args.checkpoint} {why}: its stream can't be turned")
    pictures = Folder.open(args.calibration).choose(args.images, args.seed)
    how = usual(model.spec, args.model)
    images = torch.cat([part for part, _ in pictures.batches(how, _BATCH)])
    other = turned(model, rotation(peaks(model, images.split(_BATCH)), args.group, args.seed))
    with torch.inference_mode():
        before, after = (torch.cat([net(part) for part in images.split(_BATCH)])
                         for net in (model, other))
    apart, largest = float((before - after).abs().max()), float(before.abs().max())
    if not apart <= BOUND * largest:
        raise ValueError(f"{args.checkpoint}: logits differ by {apart:.2g} of {largest:.2g}: "
                         "single precision can't hold the turned network")
    checkpoint.save(args.output, other, {"rotated": f"group {args.group}, seed {args.seed}"})
    print(f"logits differ by {apart:.2g}, the largest is {largest:.3g}")
    for name, net in (("before", model), ("after", other)):
        print(f"weights on grids of 3, 4, 8 bits, {name:<7}"
              + ", ".join(f"{grid_noise(net, bits):.1f}" for bits in (3, 4, 8)) + " dB")
    print(f"results: {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Write the file; exit code 2 with one line for bad input."""
    return run_command(_run, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
