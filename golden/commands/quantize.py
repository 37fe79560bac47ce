# SPDX-License-Identifier: Apache-2.0
"""Quantize a checkpoint by a published method, and measure it in float simulation and in integers.

The integer network (`golden.deploy`) is what `gen.program` takes, and its accuracy always stands
beside that of the float simulation.
"""

__all__ = ["classified", "configured", "main", "right"]

import argparse
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from golden.commands import methods
from golden.commands.devices import device_of, placed
from golden.commands.quantize_options import RECONSTRUCTED, WIDTHS, command_line
from golden.commands.report import report
from golden.commands.report_figures import FIGURES, figures
from golden.commands.report_layers import noise, observed
from golden.data.imagenet import Folder, read_classes
from golden.data.parallel import ordered
from golden.deploy.network import check, deploy, suited
from golden.deploy.notes import Note, load_notes, save_notes
from golden.deploy.widths import stored_widths
from golden.float import models
from golden.float.models import Preprocessing
from golden.float.preprocessing import chosen, dump, one_deviation, usual
from golden.float.preprocessing_options import ANY
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit
from golden.graph.opened import open_network
from golden.network import file as network_file
from golden.network.fast import pixel_network
from golden.network.integers import Network
from golden.ptq import METHODS, own
from golden.ptq.folding import activated, changes, rescaled
from golden.ptq.folding import network as with_parameters
from golden.ptq.given import Given
from golden.ptq.method import Method
from golden.ptq.reconstruction_run import Kept, plan_of, prepared, reconstructed, refuse
from golden.ptq.record import Record
from golden.ptq.resume import Ledger, key
from golden.ptq.statistics import Statistics
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import progress_bars
from vitforge.spec.config import Config, load

#: Beside the record and the integer network.
NOTES, REPORT = "notes.json", "report.md"
#: Images that the signal-to-noise ratios are of.
LAYERS = 2

Bars = Callable[[str, int], Callable[[int], object]]
"""Starts a bar of a text and a total, and gives the function that moves it on."""
Integer = tuple[Network, tuple[Note, ...]]
"""An integer network, and how it differs from its record."""


def right(model: Callable[[Tensor], Tensor], batches: Iterator[tuple[Tensor, Tensor]],
          advance: Callable[[int], object] = lambda images: None,
          keep: Callable[[int, int], object] = lambda done, found: None,
          so_far: tuple[int, int] = (0, 0), threads: int = 1,
          device: torch.device | str = "cpu") -> int:
    """Count the images that a network classifies as labelled.

    `keep` is told after each batch how many images are done and right; `so_far` is what it was
    told last by a run that has done earlier batches. `threads` batches are computed at a time.
    """
    done, found = so_far
    for classes, labels in classified(model, batches, threads, device):
        found += int((classes == labels).sum())
        done += len(labels)
        advance(len(labels))
        keep(done, found)
    return found


def classified(model: Callable[[Tensor], Tensor], batches: Iterator[tuple[Tensor, Tensor]],
               threads: int = 1, device: torch.device | str = "cpu",
               ) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the classes that a network on a device finds, and the labels, of every batch."""
    def classify(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = batch
        with torch.inference_mode():
            return model(images.to(device)).argmax(1).cpu(), labels

    return ordered(classify, batches, threads)


def configured(name: str, widths: Mapping[str, int | str], assignments: Iterable[str]) -> Method:
    """Build a method by its name, as `golden.ptq.own.kind` takes it.

    Parameters
    ----------
    widths
        Settings, by their names.
    assignments
        More of them, as text ``NAME=VALUE``.

    Raises
    ------
    ValueError
        If there is no such method, or it has no such setting, or not with this value.
    """
    kind = own.kind(name)
    defaults = kind().settings
    given: dict[str, object] = dict(widths)
    known = {field.name: field for field in dataclasses.fields(defaults)}
    for text in assignments:
        setting, equals, value = text.partition("=")
        if not equals or setting not in known:
            raise ValueError(f"--set must be one of {', '.join(known)} with =VALUE, not {text!r}")
        given[setting] = _value(value, getattr(defaults, setting))
    return kind(dataclasses.replace(defaults, **given))   # type: ignore[call-arg,arg-type]


def _method(args: argparse.Namespace) -> Method:
    """Build the chosen method with the options that were given."""
    given = {name: getattr(args, name) for name in (*WIDTHS, "reconstruct")}
    return configured(args.method, {name: value for name, value in given.items()
                                    if value is not None}, args.set)


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


def _ledger(args: argparse.Namespace, method: Method, calibration: Folder,
            evaluation: Folder | None) -> Ledger | None:
    """Look for what a killed run with the same arguments has done; None without --output."""
    if args.output is None:
        return None
    options = {name: str(value) for name, value in vars(args).items()
               if name not in ("output", "onnx", "opset")}
    files = (*calibration.files, *(evaluation.files if evaluation else ()))
    whole = [path for path in (args.checkpoint, args.classes) if path is not None]
    if isinstance(method, Given):
        whole.append(Path(method.settings.file))
    if Path(args.config).is_file():
        whole.append(Path(args.config))
    if args.method not in METHODS:
        whole.append(Path(inspect.getfile(own.kind(args.method))))
    ledger = Ledger.open(_record_path(args.output), key(options, whole, files))
    if ledger.record is not None:
        print(f"golden.quantize: goes on with {ledger.path}", file=sys.stderr)
    return ledger


def _record_path(output: Path) -> Path:
    return output if output.suffix == ".json" else output / "record.json"


@dataclass
class _Work:
    """One run: what it decides, deploys and counts, and where that is written."""

    args: argparse.Namespace
    method: Method
    model: Vit | Swin
    how: Preprocessing
    config: Config
    ledger: Ledger | None
    observe: Callable[[Vit | Swin], Statistics]
    images: Callable[[], Tensor]
    uneven: Mapping[str, Tensor]
    device: torch.device

    @property
    def folder(self) -> Path | None:
        """Where the integer network goes; None if only a record is wanted, or nothing."""
        output: Path | None = self.args.output
        return output if output is not None and output.suffix != ".json" else None

    def decide(self, bar: Bars) -> tuple[Record, Integer]:
        """Make, or take from a killed run, the record and the integer network."""
        ledger = self.ledger
        record = ledger.record if ledger else None
        if record is not None:
            return record, self.deployed(record, bar)
        source = self.prepared(bar)
        statistics = self.observe(source)
        record = self.method.decide_visibly(statistics, bar)
        # A record holds what differs from the checkpoint.
        record = dataclasses.replace(record, parameters={
            **self.uneven, **changes(self.model, source), **record.parameters})
        record = self.reconstruct(record, bar)
        integer = self.deploy(record, statistics)
        if ledger:
            ledger.path.unlink(missing_ok=True)   # its record won't be that of the network
            ledger.output.parent.mkdir(parents=True, exist_ok=True)
            self.save(record, integer)
            ledger.decided(record)
        return record, integer

    @property
    def kept(self) -> Kept:
        """Units of the network that are reconstructed."""
        if self.ledger is None:
            return Kept()
        output = self.ledger.output
        return Kept(output.with_name(f"{output.name}.units"), self.ledger.key)

    def reconstruct(self, record: Record, bar: Bars) -> Record:
        """Train the blocks, if the method's settings say so."""
        if plan_of(self.method) is None:
            return record
        diverged: list[str] = []

        def say(text: str) -> None:
            diverged.append(text)
            print(f"golden.quantize: {text}", file=sys.stderr)

        found = reconstructed(self.method, self.model, record, self.images(), bar, self.kept,
                              say=say)
        if diverged and self.ledger and self.ledger.output.exists():
            raise ValueError(f"{self.ledger.output} holds a record already, which stays: give a "
                             "lower --set rate, or another --output for this one")
        return found

    def save(self, record: Record, integer: Integer) -> None:
        """Write the integer network and its notes, if there is a folder for them."""
        if self.folder:
            network_file.save(self.folder / network_file.NAME, integer[0],
                              {"model": self.args.model, "method": record.method,
                               "preprocessing": dump(self.how)})
            save_notes(self.folder / NOTES, integer[1])

    def prepared(self, bar: Bars) -> Vit | Swin:
        """Return the network that is quantized."""
        return prepared(self.method, self.model, self.images, bar, self.kept)

    def deployed(self, record: Record, bar: Bars) -> Integer:
        """Read the integer network of a killed run, or make it once more."""
        try:
            if self.folder:
                return (network_file.load(self.folder), load_notes(self.folder / NOTES))
        except ValueError:
            pass
        integer = self.deploy(record, self.observe(self.prepared(bar)))
        self.save(record, integer)
        return integer

    def deploy(self, record: Record, statistics: Statistics) -> Integer:
        """Make the integer network."""
        config = suited(self.config, record) if self.args.suit else self.config
        return deploy(self.model, record, config, statistics=statistics, preprocessing=self.how)

    def count(self, name: str, network: Callable[[Tensor], Tensor], evaluation: Folder,
              advance: Callable[[int], object]) -> int:
        """Count the images that one network classifies rightly."""
        args, ledger = self.args, self.ledger
        so_far = ledger.counts.get(name, (0, 0)) if ledger else (0, 0)
        advance(so_far[0])
        rest = Folder(evaluation.files[so_far[0]:], evaluation.labels[so_far[0]:])
        return right(network, rest.batches(self.how, args.batch, resize=not args.no_resize),
                     advance, functools.partial(ledger.counted, name) if ledger
                     else lambda *_: None, so_far,
                     1 if self.device.type == "cuda" else torch.get_num_threads(), self.device)

    def report(self, folder: Path, record: Record, integer: Integer,
               simulated: Callable[[Tensor], Tensor], counts: Mapping[str, tuple[int, int]],
               images: Tensor) -> None:
        """Write the page, its pictures first."""
        model = self.model
        assert isinstance(simulated, Vit | Swin)
        rescaled = activated(with_parameters(model, record.parameters), record.activation)
        pictures = figures(model, record, observed(model, images), observed(rescaled, images))
        for name, picture in pictures.items():
            _write(folder / name, picture)
        _write(folder / REPORT, report(
            self.args.model, record, integer[0], integer[1], counts,
            noise(model, simulated, images, integer=integer[0], how=self.how), FIGURES))


def _write(path: Path, text: str) -> None:
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _opened(args: argparse.Namespace, config: Config,
            ) -> tuple[Vit | Swin, Preprocessing, Config]:
    """Read the checkpoint, and refuse what can't be quantized: calibration may take minutes.

    The configuration gets the network's GELU.
    """
    if args.model != ANY and isinstance((named := models.lookup(args.model)).spec, SwinSpec):
        for option in ("heads", "token"):
            if getattr(args, option) is not None:
                raise ValueError(f"--{option} does not go with {args.model}, whose shape goes by "
                                 "its name")
        check(named.spec, config)
        return models.load(args.model, args.checkpoint), chosen(args, named.preprocessing), config
    found = open_network(args.checkpoint, args.model, args.heads, args.token, args.quick_gelu)
    if (gelu := found.model.spec.gelu) != config.gelu:
        config = dataclasses.replace(config, gelu=gelu, name=f"{config.name}-{gelu}")
    check(found.model.spec, config)
    how = chosen(args, usual(found.model.spec, args.model))
    if args.model == ANY:
        print(f"golden.quantize: {args.checkpoint}: {found}", file=sys.stderr)
    return found.model, how, config


def _run(args: argparse.Namespace) -> int:
    method = _method(args)
    plan, few = plan_of(method), methods.images(args.method)
    args.images = (RECONSTRUCTED if plan else few) if args.images is None else args.images
    if args.images < 1 or args.batch < 1:
        raise ValueError("--images and --batch must be at least 1")
    if args.onnx is not None:
        from golden.commands.quantize_onnx import check_onnx

        check_onnx(args.onnx, args.opset, method)
    config = load(args.config)
    device = device_of(args.device)
    classes = read_classes(args.classes) if args.classes else ()
    calibration = Folder.open(args.calibration, classes).choose(args.images, args.seed)
    evaluation = Folder.open(args.evaluate, classes) if args.evaluate else None
    seen = calibration
    if plan:
        refuse(plan, len(calibration))
        seen = Folder(calibration.files[:few], calibration.labels[:few])
    checkpoint, how, config = _opened(args, config)
    model, how = one_deviation(checkpoint, how)
    if args.spread is not None:
        model = rescaled(model, args.spread)
    uneven = changes(checkpoint, model)
    ledger = _ledger(args, method, calibration, evaluation)
    with progress_bars() as bars:
        def bar(text: str, total: int) -> Callable[[int], object]:
            return bars.add(text, total).advance

        def observe(source: Vit | Swin) -> Statistics:
            return method.observe(
                source, (images for images, _ in seen.batches(how, args.batch)),
                bar("calibration", len(seen)))

        @functools.cache
        def pictures() -> Tensor:
            advance = bar("pictures", len(calibration))
            found = []
            for images, _ in calibration.batches(how, args.batch):
                found.append(images)
                advance(len(images))
            return torch.cat(found)

        work = _Work(args, method, model, how, config, ledger, observe, pictures, uneven, device)
        record, integer = work.decide(bar)
        simulated = method.apply(model, record)
        if args.onnx is not None:
            from golden.commands.quantize_onnx import write_onnx

            print(f"{'onnx':<12}" + write_onnx(args.onnx, args.opset, simulated, record, {
                "model": args.model, "preprocessing": dump(how)}), flush=True)
        networks: dict[str, Callable[[Tensor], Tensor]] = {
            "float": placed(model, device), "simulated": placed(simulated, device)}
        if args.no_float:
            del networks["float"]
        networks["integer"] = pixel_network(integer[0], how, device)
        counts: dict[str, tuple[int, int]] = {}
        if evaluation is not None:
            total = len(evaluation)
            for name, network in networks.items():
                found = work.count(name, network, evaluation, bar(name, total))
                counts[name] = found, total
                print(f"{name:<12}{found:>7} of {total}{found / total:>10.2%}", flush=True)
        print(f"{'deployed':<12}{stored_widths(integer[0])}", flush=True)
        if work.folder:
            shown, _ = next(calibration.batches(how, LAYERS))
            bar("report", 1)
            work.report(work.folder, record, integer, simulated, counts, shown)
        if ledger:
            ledger.complete()
            work.kept.clear()
    if args.output is not None:
        print(f"results: {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 when it has quantized, 2 for input that can't be used."""
    return run_command(_run, command_line(), argv)
