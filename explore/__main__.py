# SPDX-License-Identifier: Apache-2.0
"""``python -m explore``: measure every design of a space, and show which are worth having."""

__all__ = ["main"]

import argparse
import errno
import functools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explore.measured import Progress
from explore.pictures import given
from explore.point import MEASURES, OPTIONS, repeat, toml
from explore.pool import processes
from explore.run import Steps, explore
from explore.space import FIELDS, Space
from explore.space_file import changed, read, ready
from explore.table import Budget
from vitforge.base.cli import run_command
from vitforge.base.files import replace
from vitforge.base.progress import Bar, progress_bars

if TYPE_CHECKING:
    import pandas

ROOT = Path("build/explore")
NEEDED = ("pandas", "pyarrow", "plotly")
#: Accuracy over speed, of a space that has both.
PICTURE = "bits-to-speed.svg"


def _installed(args: argparse.Namespace) -> None:
    """Refuse before hours of work, not after them."""
    import importlib.util
    wanted = [*NEEDED, *["optuna"] * bool(args.trials),
              *["distributed"] * (args.executor != "local")]
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed: `pip install 'vitforge[explore]'` brings "
                             "it")


def _budget(args: argparse.Namespace, space: Space) -> Budget:
    """Check the limits, each and against what will be measured."""
    budget = Budget(max_lut=args.max_lut, max_dsp=args.max_dsp, min_fps=args.min_fps,
                    max_drop=args.max_drop, target=args.target)
    measured = {name for study in space.studies for name in study.measure}
    needs = {"--max-lut": args.target, "--max-dsp": args.target, "--min-fps": "cycles",
             "--max-drop": "accuracy"}
    for option, _, _, _ in budget.limits():
        whole = any(study.network and "cycles" in study.measure for study in space.studies)
        if needs[option] not in measured or (option == "--min-fps" and not whole):
            raise ValueError(f"{option} can't be met: no study of {space.name} measures "
                             f"{needs[option]}{' of a network' * (option == '--min-fps')}")
    return budget


def _listing(space: Space) -> str:
    lines = [f"{space.name}: {space.title}"]
    for study in space.studies:
        axes = ", ".join(f"{name} {'/'.join(map(str, values))}"
                         for name, values in study.axes.items())
        count = sum(1 for _ in study.points())
        if study.greedy:
            count += study.greedy.points
        lines.append(f"  {study.name}: {study.design}, {count} points"
                     f" ({axes or 'no axes'}): {', '.join(study.measure)}")
    return "\n".join(lines)


@contextmanager
def _shown(total: int) -> Iterator[tuple[Progress, Steps]]:
    """Show points done, failed and the time left: a bar on a terminal, else a line a point."""
    failed = 0
    if not sys.stderr.isatty():
        start = time.monotonic()

        def line(done: int, row: dict[str, Any]) -> None:
            nonlocal failed
            failed += row["status"] == "failed"
            text = f" ({row['reason']})" if row["reason"] else ""
            print(f"{done}/{total} {row['study']} {row['point']} {row['status']}{text}, "
                  f"{row.get('seconds_now', 0):.0f} s, failed {failed}, "
                  f"after {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

        def step(study: str, done: int, steps: int) -> None:
            # One in ten is enough to see that it goes on.
            if done % max(1, steps // 10) == 0:
                print(f"{study}: {done} of {steps} widths of single layers, after "
                      f"{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        yield line, step
        return
    with progress_bars() as bars:
        points = bars.add("points", total)

        def update(done: int, row: dict[str, Any]) -> None:
            nonlocal failed
            failed += row["status"] == "failed"
            points.update(done, f"points, {failed} failed")

        walks: dict[str, Bar] = {}

        def walk(study: str, done: int, steps: int) -> None:
            if study not in walks:
                walks[study] = bars.add("widths", steps)
            walks[study].update(done + 1)
        yield update, walk


def _write(table: "pandas.DataFrame", space: Space, budget: Budget, folder: Path) -> list[str]:
    """Write table, page and configurations; return the answers, one for each design."""
    from explore.page import page
    from explore.picture import picture
    from explore.table import write
    folder.mkdir(parents=True, exist_ok=True)
    write(table, folder)
    drawn = picture(table, space.title)
    if drawn:
        replace(folder / PICTURE, lambda path: path.write_text(drawn, encoding="utf-8"))
    text = page(table, space.title, budget, drawn or "")
    replace(folder / "index.html", lambda path: path.write_text(text, encoding="utf-8"))
    answers = []
    for design, part in table.groupby("design", sort=False):
        best, why = budget.answer(part)
        answers.append(why if best is not None else f"{design}: {why}")
        if best is not None:
            values = {name: best[f"config.{name}"] for name in FIELDS}
            values = {name: value if isinstance(value, str) else int(value)
                      for name, value in values.items()}
            file = folder / f"best-{design}.toml"
            made = toml(values, "\n".join([why, *repeat(json.loads(best["task"]), file)]))
            replace(file, functools.partial(Path.write_text, data=made, encoding="utf-8"))
            answers[-1] += f": {file}"
    return answers


def _given(texts: Sequence[str]) -> dict[str, list[str]]:
    """Take the parameters of ``--set``."""
    found = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE or NAME=VALUE,VALUE, not {text!r}")
        found[name] = values.split(",")
    return found


def _explore(args: argparse.Namespace) -> int:
    space = changed(read(args.space).only(args.study or ()), _given(args.set),
                    args.measure.split(",") if args.measure else ())
    if pictures := given(args):
        from explore.data import identified  # PyTorch, which no other option needs
        space = space.shown(identified(pictures))
    if args.list:
        print(_listing(space))
        return 0
    budget = _budget(args, space)
    if args.trials or space.trials:
        space.searched()
    _installed(args)
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {args.jobs}")
    if args.clock is not None and args.clock <= 0:
        raise ValueError(f"--clock must be positive, not {args.clock:g}")
    trials = args.trials or space.trials
    walks = sum(study.greedy.points for study in space.studies if study.greedy)
    points = trials * len(space.studies) if trials else len(space.points()) + walks
    folder = args.output or ROOT / space.name
    # What two spaces have in common is measured once.
    cache = (args.output or ROOT) / "cache"
    start = time.monotonic()
    try:
        with _shown(points) as (progress, steps):
            table = explore(space, folder=folder, cache=cache, jobs=args.jobs, where=args.executor,
                            retry=args.retry, trials=args.trials, clock=args.clock,
                            progress=progress, steps=steps)
        answers = _write(table, space, budget, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(f"{error.filename or folder}: no space left; what was measured is kept: "
                          "make room and run the same command again") from None
        raise
    return _report(table, answers, folder, time.monotonic() - start)


def _report(table: "pandas.DataFrame", answers: Sequence[str], folder: Path,
            seconds: float) -> int:
    status = table["status"].value_counts().to_dict()
    now, all_ = table.get("seconds_now"), table.get("seconds")
    spent, saved = (0.0 if values is None else float(values.fillna(0).sum())
                    for values in (now, all_))
    print(f"{len(table)} points: {status.get('ok', 0)} measured, {status.get('failed', 0)} failed, "
          f"{status.get('refused', 0)} refused; {seconds:.0f} s, {spent:.0f} s of measurements, "
          f"{saved - spent:.0f} s taken from the cache")
    for reason, count in table.loc[table["status"] != "ok", "reason"].value_counts().items():
        print(f"{count} x {reason}")
    for answer in answers:
        print(f"best {answer}")
    print(f"table: {folder / 'results.parquet'} (and .csv)")
    if (folder / PICTURE).exists():
        print(f"picture: {folder / PICTURE}")
    print(f"page: {folder / 'index.html'}")
    return 0 if status.get("ok", 0) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m explore", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure every design of a space: bit-exactness, area, clock rate, cycles,\n"
                    "accuracy. May be stopped at any time; the same command goes on.",
        epilog="example: python -m explore units --max-lut 2000\n"
               "         python -m explore bits-to-speed --measure cycles,accuracy \\\n"
               "             --set method=minmax,erq --network cifar10_vit \\\n"
               "             --calibration DIR --evaluate DIR\n\n"
               "parameters that a space may vary:\n"
               + "".join(f"  {name}: {item.metadata['help']}\n" for name, item in FIELDS.items())
               + "".join(f"  {name}: {text}\n" for name, (_, text) in OPTIONS.items()))
    parser.add_argument("space", metavar="SPACE",
                        help=f"{', '.join(ready())}, or a .toml file")
    parser.add_argument("--study", action="append", metavar="NAME",
                        help="only this study of the space; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE,...",
                        help="values of a parameter, in every study, instead of the space's; "
                             "repeatable")
    parser.add_argument("--measure", metavar="NAME,...",
                        help=f"measure this alone: some of {', '.join(MEASURES)}")
    parser.add_argument("--list", action="store_true", help="show the studies, measure nothing")
    parser.add_argument("-j", "--jobs", type=int, metavar="N",
                        help=f"processes (default here: {processes()}, by cores and memory)")
    parser.add_argument("--executor", default="local", metavar="WHERE",
                        help="local or dask://HOST:PORT (default: local)")
    parser.add_argument("--trials", type=int, metavar="N",
                        help="search with so many trials a study instead of enumerating")
    parser.add_argument("--retry", action="store_true", help="try again what failed before")
    parser.add_argument("--clock", type=float, metavar="MHZ",
                        help="clock of designs that are not placed (default: the space's)")
    pictures = parser.add_argument_group("another network than the digits', where methods decide "
                                         "and a network runs")
    pictures.add_argument("--network", metavar="NAME",
                          help="timm's name of a ViT or DeiT, or cifar10_vit")
    pictures.add_argument("--checkpoint", type=Path, metavar="FILE",
                          help="its state dict (cifar10_vit has its own)")
    pictures.add_argument("--calibration", type=Path, metavar="DIR",
                          help="folder of class folders with pictures")
    pictures.add_argument("--evaluate", type=Path, metavar="DIR",
                          help="the same, to measure with")
    pictures.add_argument("--classes", type=Path, metavar="FILE",
                          help="class folders in label order, one a line")
    pictures.add_argument("--no-resize", action="store_true",
                          help="pictures of --evaluate are scaled already: only crop")
    pictures.add_argument("--limit", type=int, default=0, metavar="N",
                          help="images of --evaluate, drawn at random (default: all)")
    pictures.add_argument("--images", type=int, default=0, metavar="N",
                          help="images of --calibration (default: what the method asks for)")
    budget = parser.add_argument_group("the budget for which the best design is named")
    budget.add_argument("--max-lut", type=float, metavar="N", help="LUT equivalents")
    budget.add_argument("--max-dsp", type=float, metavar="N", help="multipliers")
    budget.add_argument("--min-fps", type=float, metavar="N", help="images a second")
    budget.add_argument("--max-drop", type=float, metavar="POINTS",
                        help="top-1 below the float network")
    budget.add_argument("--target", choices=("ecp5", "xilinx"), default="ecp5", metavar="T",
                        help="whose area counts: ecp5 or xilinx (default: ecp5)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR",
                        help="folder of table, page and cache (default: build/explore/SPACE, and "
                             "build/explore/cache for all spaces)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Explore; exit code 1 if no point could be measured, 2 for bad input or a full disk."""
    return run_command(_explore, _parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
