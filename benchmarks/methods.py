# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.methods``: published methods by widths, float-simulated and in integers.

Each row is one method at one setting, and is kept as soon as it is there: a killed run goes on, and
another run with the same inputs adds its rows to the table. A row whose code has changed is
measured again: its integers alone, if the decision and its simulation have not.
"""

__all__ = ["Row", "Setting", "datapath", "main", "table"]

import argparse
import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.options import methods as command_line
from vitforge.base.cli import parse_first, run_command
from vitforge.base.progress import progress_bar

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from torch import Tensor

from benchmarks.intervals import paired
from benchmarks.method_table import Row, Setting, comma, table
from explore.sources import digest
from golden.commands import methods as known
from golden.commands.quantize import classified, configured
from golden.data.imagenet import Folder, read_classes
from golden.deploy.network import deploy, suited
from golden.deploy.widths import weight_bytes
from golden.float import models
from golden.float.models import Preprocessing
from golden.float.preprocessing import one_deviation
from golden.float.swin import Swin
from golden.formats.formats import Shifted, TwoScale
from golden.network.fast import pixel_network
from golden.network.integers import Network
from golden.ptq import METHODS
from golden.ptq.folding import changes, rescaled
from golden.ptq.method import Method
from golden.ptq.reconstruction_run import Kept, decided, plan_of
from golden.ptq.record import Record
from golden.ptq.statistics import Statistics
from vitforge.base import stamps
from vitforge.base.files import replace
from vitforge.spec.config import load

Progress = Callable[[int], object]

#: Bytes of pictures that are kept in memory.
_KEPT = 1 << 30


def datapath(network: Network) -> str:
    """Say which formats of the datapath a network has."""
    config = network.config
    streams = [item for item in network.formats.values() if isinstance(item, Shifted)]
    shifts = max((int(item.shift.max()) for item in streams), default=0)
    regions = [item.m for name, item in network.formats.items()
               if isinstance(item, TwoScale) and name.endswith("mlp.act")]
    return "; ".join((f"attention {config.attention} {config.attention_bits} bits",
                      f"stream shifts to {shifts}" if shifts else "stream uniform",
                      f"GeLU two-scale, m to {max(regions)}" if regions else "GeLU uniform"))


class _Clock:
    """Processor seconds of what is done under `running`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - start


class _Batches:
    """The batches of a folder, read once if there are not too many."""

    def __init__(self, folder: Folder, how: Preprocessing, size: int, resize: bool) -> None:
        self.read = functools.partial(folder.batches, how, size, resize=resize)
        self.kept: list[tuple[Tensor, Tensor]] | None = \
            [] if 4 * 3 * how.size**2 * len(folder) <= _KEPT else None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.kept is None:
            return self.read()
        if not self.kept:
            self.kept = list(self.read())
        return iter(self.kept)


class _Bench:
    """Everything that the rows of a run share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.config = load(args.config)
        classes = read_classes(args.classes) if args.classes else ()
        self.calibration = Folder.open(args.calibration, classes).choose(args.images, args.seed)
        evaluation = Folder.open(args.evaluate, classes)
        self.evaluation = evaluation.choose(args.limit, 0) if args.limit else evaluation
        model = models.load(args.model, args.checkpoint)
        self.model, self.how = one_deviation(model, models.lookup(args.model).preprocessing)
        if args.spread is not None:
            self.model = rescaled(self.model, args.spread)
        self.uneven = changes(model, self.model)
        self.batches = {name: _Batches(folder, self.how, args.batch, resize)
                        for name, folder, resize in (("calibration", self.calibration, True),
                                                     ("evaluation", self.evaluation,
                                                      not args.no_resize))}
        self.folder: Path = args.output
        self.key = self._key()
        (self.folder / "rows").mkdir(parents=True, exist_ok=True)

    def _key(self) -> str:
        """Digest of what all rows depend on; not of the code, so that a table can grow."""
        args = self.args
        listed = [[str(path.relative_to(root)), path.stat().st_size]
                  for root, folder in ((args.calibration, self.calibration),
                                       (args.evaluate, self.evaluation)) for path in folder.files]
        plain = [args.model, hashlib.sha256(args.checkpoint.read_bytes()).hexdigest(),
                 self.config.hash(), args.spread, args.no_resize, self.how.size,
                 self.evaluation.labels.tolist(), listed]
        return stamps.key(plain)

    def read(self, name: str, code: str) -> dict[str, Any]:
        """Return what a file of an earlier run with the same inputs and code holds, or nothing."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "rows" / f"{name}.json").read_text())
            same = (found.pop("key"), found.pop("code")) == (self.key, code)
            return found if same else {}
        except (OSError, ValueError, KeyError, AttributeError):
            return {}

    def kept(self, row: Row, code: str, integer_code: str) -> dict[str, Any]:
        """Return what an earlier run left of a row, without integers of other code."""
        found = self.read(row.name, code)
        if found and found.pop("integer_code", "") != integer_code \
                and found.get("simulated_right") is not None:
            found |= {name: getattr(row, name) for name in _INTEGERS}
        return found

    def write(self, name: str, plain: dict[str, Any]) -> None:
        text = json.dumps({"key": self.key, **plain}, indent=1) + "\n"
        _write(self.folder / "rows" / f"{name}.json", text)

    def classes(self, network: Callable[[Tensor], Tensor], advance: Progress,
                clock: _Clock) -> list[int]:
        """Classify all images."""
        found: list[int] = []
        for batch in self.batches["evaluation"]:
            with clock.running():
                for classes, _ in classified(network, iter([batch])):
                    found += classes.tolist()
            advance(len(batch[1]))
        return found

    def float_right(self, advance: Progress) -> int:
        code = digest("golden.float.preprocessing", "golden.data.imagenet")
        found = self.read("float", code)
        if not found:
            found = {"classes": self.classes(self.model, advance, _Clock())}
            self.write("float", {"code": code, **found})
        self.real = self.hits(found["classes"])
        return sum(self.real)

    def hits(self, classes: list[int]) -> list[bool]:
        return [found == label for found, label
                in zip(classes, self.evaluation.labels.tolist(), strict=True)]

    def loss(self, classes: list[int]) -> str:
        """How much less is right than in float."""
        return str(paired(self.hits(classes), self.real))

    def decide(self, method: Method, row: Row, code: str, advance: Progress,
               ) -> tuple[Statistics, Record]:
        """Observe, decide, and reconstruct if that is what the method does."""
        # The units stay: integers of other code are measured without training again.
        return decided(
            method, self.model, (images for images, _ in self.batches["calibration"]),
            known.images(method.name),
            Kept(self.folder / "rows" / f"{row.name}.units",
                 f"{self.key} {code} {row.calibration}"),
            advance=advance, say=lambda text: print(
                f"python -m benchmarks.methods: {row.name}: {text}", file=sys.stderr))

    def measure(self, row: Row, method: Method, advance: Progress) -> Row:
        """Measure what a row lacks; `advance` is told images, of all networks and calibration."""
        total = len(self.evaluation)
        wanted = not (isinstance(self.model, Swin) or self.args.no_integers)
        code, integer_code = _codes(method)
        codes = {"code": code, "integer_code": integer_code}
        kept = self.kept(row, code, integer_code)
        simulated: list[int] = kept.pop("classes", [])
        integers: list[int] = kept.pop("integer_classes", [])
        row = Row(**kept) if kept else row

        def write(row: Row) -> Row:
            self.write(row.name, {**codes, **dataclasses.asdict(row), "classes": simulated,
                                  "integer_classes": integers})
            return row

        if kept and (row.refused or not (wanted and row.integer_right is None)):
            return row
        integers = []
        clocks = [_Clock() for _ in range(3)]
        with clocks[0].running():
            try:
                statistics, record = self.decide(method, row, code, advance)
            except ValueError as error:
                return write(dataclasses.replace(row, refused=str(error)))
        record = dataclasses.replace(record, parameters={**self.uneven, **record.parameters})
        if not kept:
            simulated = self.classes(method.apply(self.model, record), advance, clocks[1])
            row = dataclasses.replace(row, simulated_right=sum(self.hits(simulated)),
                                      simulated_loss=self.loss(simulated),
                                      observe_seconds=clocks[0].seconds,
                                      simulate_seconds=clocks[1].seconds / total)
            write(row)
        if not wanted:
            return row
        try:
            network, _ = deploy(self.model, record, suited(self.config, record),
                                statistics=statistics, preprocessing=self.how)
        except ValueError as error:
            return write(dataclasses.replace(row, refused=str(error)))
        integers = self.classes(pixel_network(network, self.how), advance, clocks[2])
        return write(dataclasses.replace(
            row, integer_right=sum(self.hits(integers)), integer_loss=self.loss(integers),
            gap=str(paired(self.hits(integers), self.hits(simulated))),
            integer_seconds=clocks[2].seconds / total,
            alike=sum(map(int.__eq__, simulated, integers)), weight_bytes=weight_bytes(network),
            datapath=datapath(network)))


#: Of a row, what is measured of the integer network.
_INTEGERS = ("integer_right", "integer_loss", "gap", "integer_seconds", "alike", "weight_bytes",
             "datapath", "refused")


def _codes(method: Method) -> tuple[str, str]:
    """Digests of the code that decides and simulates, and of that which makes integers."""
    decides = [type(method).__module__, "golden.ptq.method", "golden.data.imagenet",
               "golden.float.preprocessing"]
    if plan_of(method) is not None:
        decides.append("golden.ptq.reconstruction_run")
    return digest(*decides), digest("golden.deploy.network", "golden.network.fast")


def _write(path: Path, text: str) -> None:
    replace(path, lambda temporary: temporary.write_text(text))


def _run(args: argparse.Namespace) -> int:
    methods = args.methods.split(",")
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"a method must be one of {', '.join(METHODS)}, not {unknown[0]!r}")
    if args.images < 1 or args.batch < 1 or (args.limit is not None and args.limit < 1):
        raise ValueError("--images, --batch and --limit must be at least 1")
    planned = [(name, setting, variant,
                configured(name, Setting(setting).widths(name), variant.split()))
               for setting in args.settings.split(",") for name in methods
               for variant in args.variants]
    bench = _Bench(args)
    rows: list[Row] = []
    total = len(bench.evaluation)
    with progress_bar("images", len(planned) * (2 * total + len(bench.calibration))) as update:
        right = bench.float_right(lambda images: None)
        for done, (name, setting, variant, method) in enumerate(planned):
            before = done * (2 * total + len(bench.calibration))
            count = [before]

            def advance(images: int, count: list[int] = count) -> None:
                count[0] += images
                update(count[0])

            row = Row(method=name, setting=setting, variant=variant, images=total,
                      calibration=len(bench.calibration), float_right=right)
            rows.append(bench.measure(row, method, advance))
            update(before + 2 * total + len(bench.calibration))
            _write(args.output / "methods.md", table(rows))
            _write(args.output / "methods.csv", comma(rows))
    print(table(rows), end="")
    print(f"results: {args.output / 'methods.csv'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit code 2 with one line for bad input."""
    return run_command(_run, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
