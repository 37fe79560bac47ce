# SPDX-License-Identifier: Apache-2.0
"""Train one of the project's own vision transformers, on MNIST or CIFAR-10.

The loop and the command; each network's recipe is a module (`golden.training.mnist`,
`golden.training.cifar10`, `golden.training.swin`). The same seed, epochs and number of threads
give the same weights, also after an interruption: every epoch's order and augmentation depend on
the seed and the epoch alone, and everything else is in ``FILE.partial`` until training ends.
"""

__all__ = ["TASKS", "main", "train"]

import argparse
import csv
import dataclasses
import functools
import io
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from golden.commands.options import train as command_line
from golden.data.mnist import Split
from golden.float import checkpoint
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.training.cifar10 import Cifar10Task
from golden.training.mnist import MnistTask
from golden.training.swin import SwinTask
from golden.training.task import Plan, Task, descend
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import Bars, progress_bars

COLUMNS = ("epoch", "loss", "test_accuracy", "seconds")
#: Of every epoch, the columns; the accuracy is None where it was not measured.
History = list[tuple[int, float, float | None, float]]
TASKS: dict[str, Task[Any]] = {"mnist": MnistTask(), "cifar10": Cifar10Task(),
                               "swin": SwinTask()}


def train(task: Task[Any], plan: Plan, split: Split, test: Split, output: Path,
          bars: Bars) -> float:
    """Train, going on from the last finished epoch, and write `output` and its log.

    Returns
    -------
    float
        Accuracy on `test` after the last epoch.
    """
    torch.use_deterministic_algorithms(True)
    model = task.build(plan.seed)
    optimizers = task.optimizers(model)
    partial = output.with_name(output.name + ".partial")
    history = _resume(partial, plan, model, optimizers)
    steps = -(-len(split) // plan.batch)
    bar = bars.add("training", plan.epochs * steps, len(history) * steps)
    for epoch in range(len(history), plan.epochs):
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
        order = torch.randperm(len(split), generator=generator)
        total, start = 0.0, time.monotonic()
        model.train()
        for step, chosen in enumerate(order.split(plan.batch)):
            loss = task.loss(model, split.images[chosen], split.labels[chosen],
                             epoch / plan.epochs, generator)
            descend(model, loss, optimizers, task.rate(plan, epoch * steps + step, steps))
            total += loss.item() * len(chosen)
            bar.advance()
        done = epoch + 1
        measured = done % task.interval == 0 or done == plan.epochs
        accuracy = task.accuracy(model.eval(), test) if measured else None
        history.append((done, round(total / len(split), 5), accuracy,
                        round(time.monotonic() - start, 1)))
        state = {"plan": dataclasses.asdict(plan), "spec": dataclasses.asdict(model.spec),
                 "model": model.state_dict(),
                 "optimizers": [item.state_dict() for item in optimizers], "history": history}
        replace(partial, functools.partial(torch.save, state))
        text = "" if accuracy is None else f", test accuracy {accuracy:.2%}"
        bars.say(f"epoch {done:>3} of {plan.epochs}: loss {history[-1][1]:.4f}{text}")
    reached = history[-1][2]
    assert reached is not None   # the last epoch is always measured
    _write(output, task, model, plan, history)
    partial.unlink(missing_ok=True)
    return reached


def _resume(partial: Path, plan: Plan, model: Vit | Swin,
            optimizers: Sequence[Optimizer]) -> History:
    """Take up the state of an interrupted run; nothing if there is none."""
    if not partial.exists():
        return []
    try:
        state = torch.load(partial, weights_only=True)
        same = (state["plan"] == dataclasses.asdict(plan)
                and state["spec"] == dataclasses.asdict(model.spec))
        if same:
            model.load_state_dict(state["model"])
            for item, content in zip(optimizers, state["optimizers"], strict=True):
                item.load_state_dict(content)
            return list(state["history"])
    except Exception:   # any damage: torch.load has no common error
        raise ValueError(f"{partial} is damaged: delete it to start again") from None
    raise ValueError(f"{partial} is an interrupted run with another network, seed, epochs, batch "
                     "or rate: give the same, or delete it to start again")


def _write(output: Path, task: Task[Any], model: Vit | Swin, plan: Plan,
           history: History) -> None:
    log = io.StringIO()
    writer = csv.writer(log, lineterminator="\n")
    writer.writerows([COLUMNS, *history])
    replace(output.with_suffix(".csv"), lambda path: path.write_text(log.getvalue()))
    checkpoint.save(output, model, {
        "accuracy": f"{history[-1][2]:.4f}", "seed": str(plan.seed),
        "plan": json.dumps(dataclasses.asdict(plan)), "data": task.data,
        "command": f"python -m golden.train {task.example} --seed {plan.seed} "
                   f"--epochs {plan.epochs} --batch {plan.batch} --rate {plan.rate} "
                   f"-o {output.name}"})


def _run(args: argparse.Namespace) -> int:
    task = TASKS[args.network]
    plan = dataclasses.replace(task.plan, **{
        name: getattr(args, name) for name in ("seed", "epochs", "batch", "rate")
        if getattr(args, name) is not None})
    if args.output.suffix != ".safetensors":
        raise ValueError(f"the output must be a .safetensors file, not {args.output}")
    if not args.output.parent.is_dir():
        raise ValueError(f"there is no folder {args.output.parent} to write into")
    if args.output.is_dir():
        raise ValueError(f"{args.output} is a folder")
    split, test = task.read(args.data)
    try:
        with progress_bars() as bars:
            reached = train(task, plan, split, test, args.output, bars)
    except OSError as error:
        raise ValueError(f"can't write {error.filename or args.output}: {error.strerror}") from None
    except KeyboardInterrupt:
        print("stopped: the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    print(f"{reached:.2%} of {len(test)} test images right; weights in {args.output}, "
          f"log in {args.output.with_suffix('.csv')}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when the weights are written, 2 for input that can't be used."""
    return run_command(_run, command_line(), argv)
