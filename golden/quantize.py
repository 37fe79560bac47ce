# SPDX-License-Identifier: Apache-2.0
"""Quantize a checkpoint by a published method and measure it, in float simulation."""

__all__ = ["main"]

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from gen.cli import run_command
from golden import models
from golden.imagenet import Folder, read_classes
from golden.ptq import METHODS
from golden.ptq.folding import changes, rescaled
from golden.ptq.method import Method
from golden.ptq.resume import Ledger, key

_ALIASES = {"weights": "weights", "activations": "activations", "attention": "attention",
            "stream": "stream"}


def right(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]],
          advance: Callable[[int], object] = lambda images: None,
          keep: Callable[[int, int], object] = lambda done, found: None,
          so_far: tuple[int, int] = (0, 0)) -> int:
    """Count the images that a network classifies as labelled.

    `keep` is told after each batch how many images are done and right; `so_far` is what it was
    told last by a run that has done earlier batches.
    """
    done, found = so_far
    with torch.inference_mode():
        for images, labels in batches:
            found += int((model(images).argmax(1) == labels).sum())
            done += len(labels)
            advance(len(labels))
            keep(done, found)
    return found


def _method(args: argparse.Namespace) -> Method:
    """Build the chosen method with the options that were given."""
    kind = METHODS[args.method]
    defaults = kind().settings
    given = {name: getattr(args, name) for name in _ALIASES if getattr(args, name) is not None}
    known = {field.name: field for field in dataclasses.fields(defaults)}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--set must be one of {', '.join(known)} with =VALUE, not {text!r}")
        given[name] = _value(value, getattr(defaults, name))
    return kind(dataclasses.replace(defaults, **given))   # type: ignore[call-arg]


def _value(text: str, default: object) -> object:
    if text in ("true", "false"):
        return text == "true"
    if isinstance(default, tuple):
        return tuple(float(part) for part in text.split(","))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<12}{kind.summary}" for name, kind in METHODS.items())
    parser = argparse.ArgumentParser(
        prog="golden.quantize", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"methods:\n{lines}\n\nexample: python -m golden.quantize --method minmax "
               "--checkpoint F.safetensors \\\n    --calibration DIR --evaluate DIR --weights 6")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--model", default="deit_tiny_patch16_224", metavar="NAME",
                        help="network, by timm's name (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE",
                        help="its state dict, .safetensors or .pth")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR",
                        help="folder of class folders with pictures")
    parser.add_argument("--evaluate", type=Path, metavar="DIR",
                        help="the same, to measure with; labels are the folders in sorted order "
                             "or in that of --classes")
    parser.add_argument("--classes", type=Path, metavar="FILE",
                        help="class folders in label order, one a line")
    for name in _ALIASES:
        parser.add_argument(f"--{name}", type=int, metavar="BITS",
                            help="width, 3 to 8 (stream: 0 is floating point)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="any other option of the method; repeatable")
    parser.add_argument("--images", type=int, default=100, metavar="N",
                        help="calibration images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0,
                        help="draws the calibration images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=25, metavar="N",
                        help="images at a time (default: %(default)s)")
    parser.add_argument("--crop", type=float, metavar="SHARE",
                        help="share of the resized side that is kept (default: the model's)")
    parser.add_argument("--no-resize", action="store_true",
                        help="pictures of --evaluate are scaled already: only crop")
    parser.add_argument("--spread", type=float, metavar="GAIN",
                        help="make LayerNorm outputs uneven first, a channel GAIN times as large, "
                             "without changing what the float network computes")
    parser.add_argument("--no-float", action="store_true",
                        help="don't measure the float network")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help="write the record, JSON, there; a killed run goes on if "
                             "started again with the same arguments")
    return parser


def _ledger(args: argparse.Namespace, calibration: Folder,
            evaluation: Folder | None) -> Ledger | None:
    """Look for what a killed run with the same arguments has done; None without --output."""
    if args.output is None:
        return None
    options = {name: str(value) for name, value in vars(args).items() if name != "output"}
    files = (*calibration.files, *(evaluation.files if evaluation else ()))
    ledger = Ledger.open(args.output, key(options, [
        path for path in (args.checkpoint, args.classes) if path is not None], files))
    if ledger.record is not None:
        print(f"golden.quantize: goes on with {ledger.path}", file=sys.stderr)
    return ledger


def _run(args: argparse.Namespace) -> int:
    method = _method(args)
    named = models.lookup(args.model)
    how = named.preprocessing
    if args.crop is not None:
        if not 0 < args.crop <= 1:
            raise ValueError(f"--crop must be above 0 and at most 1, not {args.crop}")
        how = dataclasses.replace(how, crop=args.crop)
    if args.images < 1 or args.batch < 1:
        raise ValueError("--images and --batch must be at least 1")
    classes = read_classes(args.classes) if args.classes else ()
    calibration = Folder.open(args.calibration, classes).choose(args.images, args.seed)
    evaluation = Folder.open(args.evaluate, classes) if args.evaluate else None
    model = models.load(args.model, args.checkpoint)
    uneven: dict[str, Tensor] = {}
    if args.spread is not None:
        model, before = rescaled(model, args.spread), model
        uneven = changes(before, model)
    ledger = _ledger(args, calibration, evaluation)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        def bar(text: str, total: int) -> Callable[[int], object]:
            return functools.partial(progress.advance, progress.add_task(text, total=total))

        record = ledger.record if ledger else None
        if record is None:
            statistics = method.observe(
                model, (images for images, _ in calibration.batches(how, args.batch)),
                bar("calibration", len(calibration)))
            record = method.decide_visibly(statistics, bar)
            # A record holds what differs from the checkpoint.
            record = dataclasses.replace(record, parameters={**uneven, **record.parameters})
            del statistics
            if ledger:
                ledger.decided(record)
        simulated = method.apply(model, record)
        networks = {"float": model, "simulated": simulated}
        if args.no_float:
            del networks["float"]
        if evaluation is not None:
            total = len(evaluation)
            for name, network in networks.items():
                so_far = ledger.counts.get(name, (0, 0)) if ledger else (0, 0)
                advance = bar(name, total)
                advance(so_far[0])
                rest = Folder(evaluation.files[so_far[0]:], evaluation.labels[so_far[0]:])
                count = right(
                    network, rest.batches(how, args.batch, resize=not args.no_resize), advance,
                    functools.partial(ledger.counted, name) if ledger else lambda *_: None,
                    so_far)
                print(f"{name:<12}{count:>7} of {total}{count / total:>10.2%}", flush=True)
        if ledger:
            ledger.complete()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when it has quantized, 2 for input that can't be used."""
    return run_command(_run, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
