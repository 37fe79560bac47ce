# SPDX-License-Identifier: Apache-2.0
"""Train the project's own vision transformer on MNIST.

AdamW with weight decay 0.05, one epoch of warm-up and a cosine to zero, cross-entropy with label
smoothing 0.05, and random shifts of up to two pixels. The same seed, epochs and number of threads
give the same weights, also after an interruption: every epoch's order and shifts depend on the seed
and the epoch alone, and everything else is in ``FILE.partial`` until training ends.
"""

__all__ = ["Plan", "main", "train"]

import argparse
import csv
import dataclasses
import functools
import io
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from golden import checkpoint, mnist
from golden.vit import Vit, VitSpec

COLUMNS = ("epoch", "loss", "test_accuracy", "seconds")


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


def shifted(images: Tensor, generator: torch.Generator, reach: int = 2) -> Tensor:
    """Shift every image ``[B, H, W]`` by up to `reach` pixels each way, filling with black."""
    batch, height, width = images.shape
    padded = functional.pad(images, (reach, reach, reach, reach))
    dy, dx = torch.randint(0, 2 * reach + 1, (2, batch, 1, 1), generator=generator)
    rows = torch.arange(height).reshape(1, -1, 1) + dy
    columns = torch.arange(width).reshape(1, 1, -1) + dx
    return padded[torch.arange(batch).reshape(-1, 1, 1), rows, columns]


def learning_rate(plan: Plan, step: int, steps: int) -> float:
    """Linear warm-up over the first epoch's `steps`, then a cosine to zero at the last step."""
    warm, total = steps, steps * plan.epochs
    if step < warm and plan.epochs > 1:
        return plan.rate * (step + 1) / warm
    return plan.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def train(plan: Plan, spec: VitSpec, split: mnist.Split, test: mnist.Split, output: Path,
          progress: Progress) -> float:
    """Train, going on from the last finished epoch, and write `output` and its log.

    Returns
    -------
    float
        Accuracy on `test` after the last epoch.
    """
    torch.use_deterministic_algorithms(True)
    model = Vit(spec).initialize(plan.seed)
    decayed = [p for p in model.parameters() if p.ndim == 2 or p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim != 2 and p.ndim != 4]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05},
                                   {"params": others, "weight_decay": 0.0}], fused=True)
    partial = output.with_name(output.name + ".partial")
    history = _resume(partial, plan, spec, model, optimizer)
    steps = -(-len(split) // plan.batch)
    bar = progress.add_task("training", total=plan.epochs * steps,
                            completed=len(history) * steps)
    for epoch in range(len(history), plan.epochs):
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
        order = torch.randperm(len(split), generator=generator)
        total, start = 0.0, time.monotonic()
        model.train()
        for step, chosen in enumerate(order.split(plan.batch)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(plan, epoch * steps + step, steps)
            logits = model(mnist.pixels(shifted(split.images[chosen], generator)))
            loss = functional.cross_entropy(logits, split.labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(chosen)
            progress.advance(bar)
        history.append((epoch + 1, round(total / len(split), 5),
                        mnist.accuracy(model.eval(), test), round(time.monotonic() - start, 1)))
        state = {"plan": dataclasses.asdict(plan), "spec": dataclasses.asdict(spec),
                 "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                 "history": history}
        checkpoint.replace(partial, functools.partial(torch.save, state))
        progress.console.print(f"epoch {epoch + 1:>3} of {plan.epochs}: loss {history[-1][1]:.4f}, "
                               f"test accuracy {history[-1][2]:.2%}")
    reached = float(history[-1][2])
    _write(output, model, plan, history)
    partial.unlink(missing_ok=True)
    return reached


def _resume(partial: Path, plan: Plan, spec: VitSpec, model: Vit,
            optimizer: torch.optim.Optimizer) -> list[tuple[float, ...]]:
    """Take up the state of an interrupted run; nothing if there is none."""
    if not partial.exists():
        return []
    try:
        state = torch.load(partial, weights_only=True)
        same = (state["plan"] == dataclasses.asdict(plan)
                and state["spec"] == dataclasses.asdict(spec))
        if same:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            return list(state["history"])
    except Exception:   # any damage: torch.load has no common error
        raise ValueError(f"{partial} is damaged: delete it to start again") from None
    raise ValueError(f"{partial} is an interrupted run with another seed, epochs, batch or rate: "
                     "give the same, or delete it to start again")


def _write(output: Path, model: Vit, plan: Plan, history: list[tuple[float, ...]]) -> None:
    log = io.StringIO()
    writer = csv.writer(log, lineterminator="\n")
    writer.writerows([COLUMNS, *history])
    checkpoint.replace(output.with_suffix(".csv"), lambda path: path.write_text(log.getvalue()))
    checkpoint.save(output, model, {
        "accuracy": f"{history[-1][2]:.4f}", "seed": str(plan.seed),
        "plan": json.dumps(dataclasses.asdict(plan)), "data": "MNIST, all 60000 training images",
        "command": f"python -m golden.train --data mnist.npz --seed {plan.seed} "
                   f"--epochs {plan.epochs} --batch {plan.batch} --rate {plan.rate} "
                   f"-o {output.name}"})


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the weights are written, 2 for input that can't be used."""
    parser = argparse.ArgumentParser(
        prog="golden.train", description="Train the 28x28 vision transformer on MNIST.",
        epilog="example: python -m golden.train --data mnist.npz -o mnist_vit.safetensors. "
               "A run that was stopped goes on from its last epoch when started again.")
    parser.add_argument("--data", type=Path, required=True, metavar="NPZ",
                        help="file with x_train, y_train, x_test, y_test (28x28 uint8 images)")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=Plan.epochs, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=Plan.batch, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=Plan.rate,
                        help="highest learning rate (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE",
                        help="where to write the weights (.safetensors); the log goes beside it")
    args = parser.parse_args(argv)
    console = Console(stderr=True)
    try:
        plan = Plan(seed=args.seed, epochs=args.epochs, batch=args.batch, rate=args.rate)
        if args.output.suffix != ".safetensors":
            raise ValueError(f"the output must be a .safetensors file, not {args.output}")
        if not args.output.parent.is_dir():
            raise ValueError(f"there is no folder {args.output.parent} to write into")
        if args.output.is_dir():
            raise ValueError(f"{args.output} is a folder")
        split, test = mnist.read(args.data)
        with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                      TimeRemainingColumn(), console=console) as progress:
            reached = train(plan, VitSpec(), split, test, args.output, progress)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"can't write {error.filename or args.output}: {error.strerror}")
    except KeyboardInterrupt:
        console.print("stopped: the same command goes on from the last finished epoch")
        return 130
    print(f"{reached:.2%} of {len(test)} test images right; weights in {args.output}, "
          f"log in {args.output.with_suffix('.csv')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
