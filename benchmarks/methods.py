# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.methods``: published methods by widths, float-simulated and in integers.

Each row is one method at one setting, and is kept as soon as it is there: a killed run goes on, and
another run with the same inputs adds its rows to the table.
"""

__all__ = ["Row", "Setting", "datapath", "main", "table"]

import argparse
import csv
import dataclasses
import functools
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.options import methods as command_line
from vitforge.base.cli import parse_first, run_command
from vitforge.base.progress import progress_bar

if __name__ == "__main__":
    parse_first(command_line(), "golden")   # what comes next takes seconds

from torch import Tensor

from golden.commands.quantize import classified, configured
from golden.commands.report import weight_bytes
from golden.data.imagenet import Folder, read_classes
from golden.deploy.deploy import deploy, suited
from golden.float import models
from golden.float.models import Preprocessing
from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.formats.formats import Shifted, TwoScale
from golden.network.fast import pixel_network
from golden.network.run import Network
from golden.ptq import METHODS
from golden.ptq.folding import changes, rescaled
from golden.ptq.method import Method
from vitforge.base import markdown, stamps
from vitforge.base.files import replace
from vitforge.spec.config import load

Progress = Callable[[int], object]

#: Bytes of pictures that are kept in memory.
_KEPT = 1 << 30


@dataclass(frozen=True)
class Setting:
    """Widths ``WEIGHTS/ACTIVATIONS[/ATTENTION[/STREAM]]``; what is left out follows the method.

    Attention is as wide as activations, but for FQ-ViT, whose own is 4 bits. So is the residual
    stream, unless the method leaves it in floating point.
    """

    text: str

    def widths(self, method: str) -> dict[str, int]:
        """Return the settings of a method.

        Raises
        ------
        ValueError
            If the text is no such list of numbers.
        """
        try:
            numbers = [int(part) for part in self.text.split("/")]
        except ValueError:
            numbers = []
        if not 2 <= len(numbers) <= 4:
            raise ValueError("a setting must be WEIGHTS/ACTIVATIONS[/ATTENTION[/STREAM]], "
                             f"not {self.text!r}")
        found = dict(zip(("weights", "activations", "attention", "stream"), numbers, strict=False))
        if len(numbers) < 4 and METHODS[method]().settings.stream:
            found["stream"] = found["activations"]
        return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes
    ----------
    method, setting, variant
        What was measured; `variant` is other options of the method.
    images
        How many were classified.
    calibration
        Images that were observed.
    float_right, simulated_right, integer_right
        Rightly classified by the three networks; None: not measured.
    alike
        Classified alike by the last two.
    observe_seconds, simulate_seconds, integer_seconds
        Processor time: of all calibration, and of an image by the two quantized networks.
    weight_bytes, datapath
        Of the integer network: `golden.commands.report.weight_bytes`, and which formats it has.
    refused
        Why a method has no formats at these widths, or the datapath none for them; empty if there
        are.
    """

    method: str
    setting: str
    variant: str
    images: int
    calibration: int
    float_right: int
    simulated_right: int | None = None
    integer_right: int | None = None
    alike: int | None = None
    observe_seconds: float = 0.0
    simulate_seconds: float = 0.0
    integer_seconds: float = 0.0
    weight_bytes: int = 0
    datapath: str = ""
    refused: str = ""

    @property
    def name(self) -> str:
        """Of the row's file."""
        text = f"{self.method} {self.setting} {self.variant}".strip()
        return "".join(c if c.isalnum() or c in "=.-" else "_" for c in text)


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
        self.how: Preprocessing = models.lookup(args.model).preprocessing
        self.config = load(args.config)
        classes = read_classes(args.classes) if args.classes else ()
        self.calibration = Folder.open(args.calibration, classes).choose(args.images, args.seed)
        evaluation = Folder.open(args.evaluate, classes)
        self.evaluation = evaluation.choose(args.limit, 0) if args.limit else evaluation
        model = models.load(args.model, args.checkpoint)
        self.uneven: dict[str, Tensor] = {}
        self.model: Vit | Swin = model
        if args.spread is not None:
            self.model = rescaled(model, args.spread)
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

    def read(self, name: str) -> dict[str, Any]:
        """Return what a file of an earlier run with the same inputs holds; nothing if none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "rows" / f"{name}.json").read_text())
            return found if found.pop("key") == self.key else {}
        except (OSError, ValueError, KeyError, AttributeError):
            return {}

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

    def right(self, classes: list[int]) -> int:
        return sum(int(found == label) for found, label
                   in zip(classes, self.evaluation.labels.tolist(), strict=True))

    def float_right(self, advance: Progress) -> int:
        found = self.read("float")
        if not found:
            found = {"right": self.right(self.classes(self.model, advance, _Clock()))}
            self.write("float", found)
        return int(found["right"])

    def refuse(self, row: Row, error: ValueError, simulated: list[int]) -> Row:
        """Keep why a row is not whole, and what it has."""
        row = dataclasses.replace(row, refused=str(error))
        self.write(row.name, {**dataclasses.asdict(row), "classes": simulated})
        return row

    def measure(self, row: Row, method: Method, advance: Progress) -> Row:
        """Measure what a row lacks; `advance` is told images, of all networks and calibration."""
        total = len(self.evaluation)
        wanted = not (isinstance(self.model, Swin) or self.args.no_integers)
        kept = self.read(row.name)
        simulated: list[int] = kept.pop("classes", [])
        row = Row(**kept) if kept else row
        if kept and (row.refused or not (wanted and row.integer_right is None)):
            return row
        clocks = [_Clock() for _ in range(3)]
        with clocks[0].running():
            statistics = method.observe(
                self.model, (images for images, _ in self.batches["calibration"]), advance)
            try:
                record = method.decide(statistics)
            except ValueError as error:
                return self.refuse(row, error, simulated)
        record = dataclasses.replace(record, parameters={**self.uneven, **record.parameters})
        if not kept:
            simulated = self.classes(method.apply(self.model, record), advance, clocks[1])
            row = dataclasses.replace(row, simulated_right=self.right(simulated),
                                      observe_seconds=clocks[0].seconds,
                                      simulate_seconds=clocks[1].seconds / total)
            self.write(row.name, {**dataclasses.asdict(row), "classes": simulated})
        if not wanted:
            return row
        try:
            network, _ = deploy(self.model, record, suited(self.config, record),
                                statistics=statistics, preprocessing=self.how)
        except ValueError as error:
            return self.refuse(row, error, simulated)
        integers = self.classes(pixel_network(network, self.how), advance, clocks[2])
        row = dataclasses.replace(
            row, integer_right=self.right(integers), integer_seconds=clocks[2].seconds / total,
            alike=sum(map(int.__eq__, simulated, integers)), weight_bytes=weight_bytes(network),
            datapath=datapath(network))
        self.write(row.name, {**dataclasses.asdict(row), "classes": simulated})
        return row


_COLUMNS = ("method", "widths", "options", "simulated", "integer", "simulated %", "integer %",
            "alike", "calibration s", "simulation ms", "integers ms", "weight bytes", "datapath")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    def share(count: int | None, images: int) -> str:
        return "" if count is None else f"{count / images:.2%}".rstrip("%")

    def cells(row: Row) -> tuple[object, ...]:
        return (row.method, row.setting, row.variant,
                "" if row.simulated_right is None else row.simulated_right,
                "" if row.integer_right is None else row.integer_right,
                share(row.simulated_right, row.images), share(row.integer_right, row.images),
                "" if row.alike is None else row.alike, f"{row.observe_seconds:.1f}",
                f"{row.simulate_seconds * 1e3:.0f}", f"{row.integer_seconds * 1e3:.0f}",
                f"{row.weight_bytes:,}" if row.weight_bytes else "",
                f"refused: {row.refused}" if row.refused else row.datapath)

    first = rows[0]
    return (f"{first.images} images, {first.float_right} right in float "
            f"({first.float_right / first.images:.2%}). Times are of the processor; those of "
            "networks are of an image.\n\n"
            + markdown.table(_COLUMNS, map(cells, rows)))


def _comma(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in dataclasses.fields(Row)],
                            lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    return text.getvalue()


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
            _write(args.output / "methods.csv", _comma(rows))
    print(table(rows), end="")
    print(f"results: {args.output / 'methods.csv'}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit code 2 with one line for bad input."""
    return run_command(_run, command_line(), argv)


if __name__ == "__main__":
    sys.exit(main())
