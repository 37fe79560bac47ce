# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.exported``: a quantized network as ONNX, by onnxruntime, on pictures.

The logits of onnxruntime, node by node, beside those of the float simulation that was exported.
QuantizeLinear rounds halves to the even code, the simulation up, and sums are added in another
order: so a value near a half may have the neighbouring code.
"""

__all__ = ["Compared", "compare", "main"]

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.options import exported as command_line
from vitforge.base.cli import parse_first, run_command
from vitforge.base.progress import progress_bars

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

import onnx
import onnxruntime
import torch
from torch import Tensor

from benchmarks.methods import Setting
from golden.commands.quantize import configured
from golden.data.imagenet import Folder, read_classes
from golden.float import models
from golden.float.preprocessing import one_deviation
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.onnx.export import model as as_onnx


@dataclass(frozen=True)
class Compared:
    """Images of which both say the same class, of how many; and the largest differences.

    Attributes
    ----------
    apart
        Largest absolute difference of a logit.
    largest
        Largest absolute logit.
    alike
        Images all of whose logits are equal but for rounding of single precision (1e-3).
    """

    same: int
    images: int
    apart: float
    largest: float
    alike: int


def compare(made: onnx.ModelProto, simulated: Vit | Swin, batches: Iterable[Tensor]) -> Compared:
    """Run an exported network and what it was made of on batches ``[B, channels, H, W]``."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    name, pairs = session.get_inputs()[0].name, list[tuple[Tensor, Tensor]]()
    for images in batches:
        with torch.inference_mode():
            pairs.append((torch.from_numpy(session.run(None, {name: images.numpy()})[0]),
                          simulated(images)))
    got, wanted = (torch.cat(part) for part in zip(*pairs, strict=True))
    apart = (got - wanted).abs().amax(1)
    return Compared(int((got.argmax(1) == wanted.argmax(1)).sum()), len(got), float(apart.max()),
                    float(wanted.abs().max()), int((apart < 1e-3).sum()))


def _measure(args: argparse.Namespace) -> int:
    if min(args.images, args.limit, args.batch) < 1:
        raise ValueError("--images, --limit and --batch must be at least 1")
    method = configured(args.method, Setting(args.setting).widths(args.method), args.set)
    classes = read_classes(args.classes) if args.classes else ()
    calibration = Folder.open(args.calibration, classes).choose(args.images, args.seed)
    chosen = Folder.open(args.evaluate, classes).choose(args.limit, 0)
    model, how = one_deviation(models.load(args.model, args.checkpoint),
                               models.lookup(args.model).preprocessing)
    with progress_bars() as bars:
        advance = bars.add("calibration", len(calibration)).advance
        seen = method.observe(model, (images for images, _ in calibration.batches(
            how, args.batch)), advance)
        record = method.decide(seen)
        simulated = method.apply(model, record)
        shown = bars.add("pictures", len(chosen)).advance

        def pictures() -> Iterable[Tensor]:
            for images, _ in chosen.batches(how, args.batch, resize=not args.no_resize):
                yield images
                shown(len(images))

        found = compare(as_onnx(simulated, record), simulated, pictures())
    print(f"{args.model}, {args.method} at {args.setting}: the same class of {found.same} of "
          f"{found.images} pictures; all logits alike of {found.alike}; the largest difference of "
          f"a logit is {found.apart:.3g}, the largest logit {found.largest:.3g}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; exit code 2 with one line for bad input."""
    return run_command(_measure, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
