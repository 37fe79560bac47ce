# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.outliers``: a digit network whose residual stream has outlier channels.

Large vision transformers have a few channels in the residual stream that are many times as large
as the others; the project's small networks have none. No rescaling makes them without changing
what the network computes, since LayerNorm divides by the deviation of the whole row. So the rows
of all parameters that write a few channels are multiplied with a gain, every LayerNorm gets back
the means and deviations that its channels had, and the network is trained for a little longer.
"""

__all__ = ["amplified", "main", "spread"]

import argparse
import copy
import sys
from collections.abc import Callable, Sequence

from benchmarks.options import outliers as command_line
from vitforge.base.cli import parse_first, run_command
from vitforge.base.progress import progress_bar

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

import torch
from torch import Tensor

from golden.data import mnist
from golden.float import checkpoint
from golden.float.vit import Vit, observe
from golden.training.mnist import MnistTask
from golden.training.task import descend, grouped

#: Ends of the names of parameters that write the residual stream, by channels of their first
#: or last dimension.
_FIRST = ("patch_embed.proj.weight", "patch_embed.proj.bias", "attn.proj.weight", "attn.proj.bias",
          "fc2.weight", "fc2.bias")
_LAST = ("cls_token", "pos_embed")


def _seen(model: Vit, images: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def see(name: str, value: Tensor) -> None:
        if "norm" in name or "residual" in name or name == "embedding":
            found[name] = value.flatten(0, 1)

    with observe(model, see), torch.inference_mode():
        model(images)
    return found


def spread(model: Vit, images: Tensor) -> float:
    """Return how many times the largest channel of the stream is as large as the median one.

    Of the largest magnitudes of the channels before the last LayerNorm.
    """
    peaks = _seen(model, images)[f"blocks.{model.spec.depth - 1}.residual2"].abs().amax(0)
    return float(peaks.max() / peaks.median())


def amplified(model: Vit, channels: Sequence[int], gain: float, images: Tensor) -> Vit:
    """Copy a network with some channels of its residual stream `gain` times as large.

    Parameters
    ----------
    images
        Network input; every LayerNorm's channels keep their mean and deviation there.
    """
    wanted, changed = _seen(model, images), copy.deepcopy(model)
    with torch.no_grad():
        for name, value in changed.named_parameters():
            if name.endswith(_FIRST):
                value[list(channels)] *= gain
            elif name.endswith(_LAST):
                value[..., list(channels)] *= gain
        for name in (name for name in wanted if "norm" in name):
            norm = changed.get_submodule(name)
            assert isinstance(norm, torch.nn.LayerNorm)
            now, before = _seen(changed, images)[name], wanted[name]
            ratio = before.std(0) / now.std(0).clamp_min(1e-6)
            norm.weight.mul_(ratio)
            norm.bias.copy_(before.mean(0) - (now.mean(0) - norm.bias) * ratio)
    return changed


def _trained(model: Vit, split: mnist.Split, steps: int, rate: float, seed: int,
             advance: Callable[[int], object]) -> None:
    """Train for some steps of 128 images at a rate that falls to 0."""
    task, generator = MnistTask(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(grouped(list(model.parameters())), fused=True)
    model.train()
    for step in range(steps):
        chosen = torch.randint(len(split), (task.plan.batch,), generator=generator)
        loss = task.loss(model, split.images[chosen], split.labels[chosen], 0.0, generator)
        descend(model, loss, [optimizer], rate * (1 - step / steps))
        advance(step + 1)
    model.eval()


def _run(args: argparse.Namespace) -> int:
    if args.output.suffix != ".safetensors":
        raise ValueError(f"{args.output} must be a .safetensors file")
    model = checkpoint.load(args.checkpoint)
    if not 0 < args.channels <= model.spec.dim // 4 or args.gain <= 0 or args.steps < 1 \
            or not 0 < args.rate < 1:
        raise ValueError(f"--channels must be 1 to {model.spec.dim // 4}, --gain above 0, --steps "
                         "at least 1 and --rate between 0 and 1")
    split, test = mnist.read(args.data)
    args.output.parent.mkdir(parents=True, exist_ok=True)   # before minutes of training
    some = mnist.pixels(split.images[:500])
    order = torch.randperm(model.spec.dim, generator=torch.Generator().manual_seed(args.seed))
    chosen = sorted(order[:args.channels].tolist())
    changed = amplified(model, chosen, args.gain, some)
    with progress_bar("training", args.steps) as update:
        _trained(changed, split, args.steps, args.rate, args.seed, update)
    accuracy = mnist.accuracy(changed, test)
    checkpoint.save(args.output, changed, {
        "accuracy": f"{accuracy:.4f}", "channels": str(chosen), "data": MnistTask.data,
        "command": f"python -m benchmarks.outliers --data mnist.npz --gain {args.gain} --channels "
                   f"{args.channels} --steps {args.steps} --rate {args.rate} --seed {args.seed} "
                   f"-o {args.output.name}"})
    print(f"channels {', '.join(map(str, chosen))}: the largest is {spread(changed, some):.1f} "
          f"times the median one ({spread(model, some):.1f} before); {accuracy:.2%} of "
          f"{len(test)} test images right; weights in {args.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the weights; exit code 2 with one line for bad input."""
    return run_command(_run, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
