# SPDX-License-Identifier: Apache-2.0
"""A reconstruction as a command runs it: refused early, seen while it runs, stopped and resumed.

Each finished unit is a safetensors file, written whole or not at all, in a folder beside the
record, with a key of everything that it depends on. A file of another key, or one that can't be
read, counts for nothing. The folder goes when the run is complete.
"""

__all__ = ["Kept", "decided", "plan_of", "prepared", "reconstructed", "refuse"]

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.folding import changes
from golden.ptq.formats import TensorFormat
from golden.ptq.method import Method
from golden.ptq.reconstruction import Trained, memory, reconstruct
from golden.ptq.reconstruction_plan import Plan
from golden.ptq.record import Record
from golden.ptq.rectify import rectified
from golden.ptq.statistics import Statistics
from golden.ptq.units import units
from vitforge.base.files import replace

_FREE = "/proc/meminfo"


def plan_of(method: Method) -> Plan | None:
    """Return what is to be reconstructed; None: nothing, or settings that know nothing of it."""
    plan = getattr(method.settings, "plan", None)
    found = plan() if callable(plan) else None
    assert found is None or isinstance(found, Plan)
    return found


def refuse(plan: Plan, images: int) -> None:
    """Refuse what can't be done, before anything takes long.

    Parameters
    ----------
    images
        Of calibration, that there are.

    Raises
    ------
    ValueError
        If a step takes more images than there are.
    """
    if images < plan.batch:
        raise ValueError(f"reconstruction takes {plan.batch} images a step, and there are "
                         f"{images} to calibrate with: give more, or --set step_images=N")


@dataclass(frozen=True)
class Kept:
    """Finished units of a run, in a folder; None keeps nothing."""

    folder: Path | None = None
    key: str = ""

    def path(self, unit: str) -> Path:
        """File of a unit."""
        assert self.folder is not None
        return self.folder / f"{unit}.safetensors"

    def load(self, unit: str) -> Trained | None:
        """Return a unit that an earlier run with the same key has finished."""
        if self.folder is None:
            return None
        try:
            with safe_open(self.path(unit), framework="pt") as file:
                plain = json.loads((file.metadata() or {})["unit"])
                if plain["key"] != self.key:
                    return None
                return Trained({name: file.get_tensor(name) for name in file.keys()},
                               {name: TensorFormat.from_dict(item)
                                for name, item in plain["formats"].items()},
                               float(plain["before"]), float(plain["after"]), str(plain["note"]))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, unit: str, found: Trained) -> None:
        """Write a unit."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = {"key": self.key, "before": found.before, "after": found.after,
                 "note": found.note,
                 "formats": {name: item.to_dict() for name, item in found.formats.items()}}
        tensors = {name: value.contiguous() for name, value in found.tensors.items()}
        replace(self.path(unit), lambda temporary: save_file(
            tensors, temporary, metadata={"unit": json.dumps(plain)}))

    def clear(self) -> None:
        """Remove everything: the record is there."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _free() -> int | None:
    """Bytes of memory that can still be taken; None where nothing says so."""
    try:
        lines = Path(_FREE).read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines
                    if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _threads() -> int:
    return min(2, torch.get_num_threads(), os.cpu_count() or 1)


def _check_memory(model: Vit | Swin, images: Tensor, plan: Plan) -> None:
    needed, free = memory(model, images, plan), _free()
    if free is not None and needed > free:
        raise ValueError(f"reconstruction needs about {needed / 2**30:.1f} GiB of memory for "
                         f"{len(images)} images and {plan.batch} a step, and "
                         f"{free / 2**30:.1f} GiB are free: take fewer --images")


def prepared(method: Method, model: Vit | Swin, images: Callable[[], Tensor],
             bars: Callable[[str, int], Callable[[int], object]],
             kept: Kept | None = None) -> Vit | Swin:
    """Return the network that a method quantizes: the float one, unless it trains another first.

    Parameters and errors as those of `reconstructed`.
    """
    plan = plan_of(method)
    if plan is None or not method.prepares:
        return model
    kept = kept or Kept()

    def train(model: Vit | Swin, images: Tensor) -> Vit | Swin:
        _check_memory(model, images, plan)
        blocks = sum("blocks" in unit.name for unit in units(model))
        return rectified(model, images, plan, threads=_threads(), load=kept.load, save=kept.save,
                         advance=bars("MLPs with ReLU", plan.steps * blocks))

    return method.prepare(model, images(), train)


def reconstructed(method: Method, model: Vit | Swin, record: Record, images: Tensor,
                  bars: Callable[[str, int], Callable[[int], object]],
                  kept: Kept | None = None, *,
                  say: Callable[[str], object] = lambda text: None) -> Record:
    """Reconstruct a method's record as its settings say; unchanged if they say nothing.

    Parameters
    ----------
    model
        The float network, without the record's parameters.
    images
        ``[N, channels, H, W]``.
    bars
        ``bars(text, total)`` starts a bar and gives the function that moves it on.
    kept
        Where finished units are.
    say
        As `golden.ptq.reconstruction.reconstruct`.

    Raises
    ------
    ValueError
        If there are too few images, or there is too little memory; the message says how much.
    """
    plan = plan_of(method)
    if plan is None:
        return record
    kept = kept or Kept()
    refuse(plan, len(images))
    _check_memory(model, images, plan)
    return reconstruct(model, record, images, plan, threads=_threads(), load=kept.load,
                       save=kept.save, say=say,
                       advance=bars("reconstruction", plan.work(len(units(model)))))


def decided(method: Method, model: Vit | Swin, batches: Iterable[Tensor], few: int, kept: Kept, *,
            advance: Callable[[int], object] = lambda images: None,
            say: Callable[[str], object] = lambda text: None) -> tuple[Statistics, Record]:
    """Observe, decide, and reconstruct if that is what a method's settings say, without a bar.

    Parameters
    ----------
    batches
        Calibration images; of a reconstruction, which takes all of them, formats are found with
        the first `few`.
    advance
        Is told how many images were observed.
    kept, say
        As in `reconstructed`, whose errors there may be.
    """
    plan = plan_of(method)
    if plan is None:
        statistics = method.observe(model, batches, advance)
        return statistics, method.decide(statistics)
    parts = list(batches)
    images = torch.cat(parts)
    refuse(plan, len(images))

    def silent(text: str, total: int) -> Callable[[int], object]:
        return lambda done: None

    source = prepared(method, model, lambda: images, silent, kept)
    statistics = method.observe(source, images[:few].split(len(parts[0])), advance)
    record = method.decide(statistics)
    record = dataclasses.replace(record, parameters={
        **changes(model, source), **record.parameters})
    return statistics, reconstructed(method, model, record, images, silent, kept, say=say)
