# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.quantization``: where the time of one method goes, stage by stage.

Speeds are those of the machine at hand; what carries over is the ratio to the float network, which
runs on the same images in the same run, a batch on each core as everything else. The operators'
shares are of one batch on one core.
"""

__all__ = ["STAGES", "main", "operators", "stages"]

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.options import quantization as command_line
from vitforge.base.cli import parse_first, run_command
from vitforge.base.progress import progress_bar

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.methods import Setting
from golden.commands.quantize import classified, configured
from golden.data.imagenet import Folder, read_classes
from golden.data.parallel import one_thread
from golden.deploy.network import deploy, suited
from golden.float import models
from golden.float.preprocessing import one_deviation
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.network.fast import pixel_network
from golden.ptq.method import Method
from vitforge.base.files import replace
from vitforge.base.markdown import table
from vitforge.spec.config import Config, load

Batch = tuple[Tensor, Tensor]
Networks = dict[str, Callable[[Tensor], Tensor]]

#: In order; the last three are networks.
STAGES = ("read", "observe", "decide", "apply", "deploy", "float", "simulated", "integer")
#: Which are of calibration images, and which of evaluated ones; the others are of neither.
_CALIBRATION, _EVALUATION = ("read", "observe"), STAGES[5:]


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def stages(model: Vit, method: Method, config: Config, read: Callable[[], list[Tensor]],
           evaluation: Sequence[Batch], how: models.Preprocessing,
           ) -> tuple[dict[str, float], Networks]:
    """Go from pictures to two quantized networks, once.

    Parameters
    ----------
    read
        Gives the calibration batches.
    evaluation
        Batches with labels that the three networks classify.

    Returns
    -------
    seconds : dict
        Of every stage of `STAGES`.
    networks : dict
        "float", "simulated" and "integer".
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        batches = read()
    with _timed(seconds, "observe"):
        seen = method.observe(model, iter(batches))
    with _timed(seconds, "decide"):
        record = method.decide(seen)
    with _timed(seconds, "apply"):
        simulated = method.apply(model, record)
    with _timed(seconds, "deploy"):
        network, _ = deploy(model, record, suited(config, record), statistics=seen,
                            preprocessing=how)
        integer = pixel_network(network, how)
    networks: Networks = {"float": model, "simulated": simulated, "integer": integer}
    for name, found in networks.items():
        with _timed(seconds, name):
            for _ in classified(found, iter(evaluation), torch.get_num_threads()):
                pass
    return seconds, networks


def operators(network: Callable[[Tensor], Tensor], images: Tensor, most: int,
              ) -> list[tuple[str, float]]:
    """Return the `most` operators of PyTorch that take longest, and their shares of all time."""
    with one_thread(), torch.inference_mode(), \
            profile(activities=[ProfilerActivity.CPU]) as seen:
        network(images)
    times = sorted(((item.self_cpu_time_total, item.key) for item in seen.key_averages()),
                   reverse=True)
    total = sum(used for used, _ in times)
    return [(name.removeprefix("aten::"), used / total) for used, name in times[:most]]


def _tables(runs: Sequence[dict[str, float]], images: dict[str, int],
            found: dict[str, list[tuple[str, float]]]) -> str:
    middle = {name: statistics.median(run[name] for run in runs) for name in STAGES}
    yardstick = middle["float"] / images["float"]
    rows = []
    for name in STAGES:
        cells = [name, f"{middle[name]:.2f}", f"{min(run[name] for run in runs):.2f}", "", "", ""]
        if count := images.get(name):
            each = middle[name] / count
            cells[3:] = [str(count), f"{each * 1e3:.1f}", f"{each / yardstick:.2f}"]
        rows.append(cells)
    text = table(("stage", "s", "least s", "images", "ms an image", "times the float network"),
                 rows)
    if found:
        text += "\n" + table(("network", "operators, by share of its time on one core"), [
            (name, ", ".join(f"{key} {share:.0%}" for key, share in shares))
            for name, shares in found.items()])
    return text


def _measure(args: argparse.Namespace) -> int:
    if min(args.images, args.limit, args.batch, args.runs) < 1 or args.operators < 0:
        raise ValueError("--images, --limit, --batch and --runs must be at least 1, "
                         "--operators at least 0")
    method = configured(args.method, Setting(args.setting).widths(args.method), args.set)
    config = load(args.config)
    classes = read_classes(args.classes) if args.classes else ()
    calibration = Folder.open(args.calibration, classes).choose(args.images, args.seed)
    chosen = Folder.open(args.evaluate, classes).choose(args.limit, 0)
    model, how = one_deviation(models.load(args.model, args.checkpoint),
                               models.lookup(args.model).preprocessing)
    if isinstance(model, Swin):
        raise ValueError(f"{args.model} has no integer network to measure")
    evaluation = list(chosen.batches(how, args.batch, resize=not args.no_resize))
    runs = []
    with progress_bar(f"runs of {args.method}", args.runs) as update:
        for done in range(args.runs):
            seconds, networks = stages(
                model, method, config,
                lambda: [images for images, _ in calibration.batches(how, args.batch)],
                evaluation, how)
            runs.append(seconds)
            update(done + 1)
    images = dict.fromkeys(_CALIBRATION, len(calibration)) \
        | dict.fromkeys(_EVALUATION, len(chosen))
    found = {name: operators(network, evaluation[0][0], args.operators)
             for name, network in networks.items()} if args.operators else {}
    text = (f"{args.model}, {args.method} at {args.setting}, {torch.get_num_threads()} cores, "
            f"batches of {args.batch}; the median of {args.runs} runs and the least.\n\n"
            + _tables(runs, images, found))
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "quantization.md"
    replace(path, lambda temporary: temporary.write_text(text))
    print(text, end="")
    print(f"results: {path}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; exit code 2 with one line for bad input."""
    return run_command(_measure, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
