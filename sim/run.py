# SPDX-License-Identifier: Apache-2.0
"""Build a unit's generated Verilog with Verilator and run its bench."""

__all__ = ["Result", "Runner", "SimulationError", "alone", "build", "regress", "tail", "watching"]

import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocotb_tools.runner import Verilator, get_results

from gen.convert import WAIVERS
from gen.elaborate import Design, elaborate
from sim.cases.image import all_cases
from sim.cases.trace import PATTERNS
from sim.lines import layout, write
from sim.player import TOP, player
from sim.toolchain import Toolchain, find
from sim.waves import annotated, fst, state
from vitforge.base.stamps import filling
from vitforge.spec.config import Config


class SimulationError(AssertionError):
    """The generated Verilog doesn't build, or doesn't do what the golden model says."""


@dataclass(frozen=True)
class Result:
    """What one regression compared, and how fast."""

    unit: str
    config: str
    cases: int
    image_cases: int
    patterns: int
    cycles: int
    words: int
    build_seconds: float
    run_seconds: float
    bench_seconds: float
    directory: Path
    waves: Path | None

    @property
    def cycles_per_second(self) -> float:
        """Simulated clock cycles per second of the bench, with the comparison."""
        return self.cycles / self.bench_seconds


class Runner(Verilator):
    """cocotb's runner with the toolchain that was found, and only the ports public.

    cocotb makes every signal readable, which slows a large array down several times.
    """

    def __init__(self, toolchain: Toolchain, waves: bool) -> None:
        self.toolchain = toolchain
        self._everything = waves
        super().__init__()

    def _simulator_in_path_build_only(self) -> None:
        self.executable = str(self.toolchain.verilator)

    def _set_env_common(self) -> None:
        super()._set_env_common()
        self.env.update(self.toolchain.environment)
        # The benches raise their own errors; cocotb would import pytest for theirs: 0.2 s a run.
        self.env.setdefault("COCOTB_REWRITE_ASSERTION_FILES", "")

    def _build_command(self) -> list[list[str]]:
        verilate, *rest = super()._build_command()
        verilate[1:1] = self.toolchain.options
        if self._everything and fst(self.toolchain):
            verilate[verilate.index("--trace")] = "--trace-fst"
        if not self._everything:
            at = verilate.index("--public-flat-rw")
            verilate[at:at + 1] = ["--public-depth", "1"]
        return [verilate, *rest]


def tail(log: Path, lines: int = 12) -> str:
    """Return the lines of a log that say what went wrong, else its last ones."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    wanted = [line for line in text.splitlines() if "Mismatch" in line or "Error" in line]
    return "\n".join((wanted or text.splitlines())[-lines:])


@contextmanager
def watching(file: Path, tell: Callable[[list[str]], object]) -> Iterator[None]:
    """Call `tell` with the lines of a growing file, several times a second."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            tell(file.read_text(encoding="utf-8").splitlines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from a folder, which needn't be there yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(runner: Runner, directory: Path, source: str, verilog: str, top: str, what: str, *,
          waves: bool, others: Sequence[Path] = (),
          parameters: Mapping[str, object] | None = None) -> None:
    """Build Verilog, which is kept as the file `source`, and `others`, unless that is done already.

    Raises
    ------
    SimulationError
        If it doesn't build; the message begins with `what`.
    """
    texts = [verilog, *(path.read_text(encoding="utf-8") for path in (WAIVERS, *others))]
    tools = runner.toolchain
    inputs = [texts, tools.options, waves and fst(tools), tools.version_text,
              tools.environment["MAKEFLAGS"], dict(parameters or {})]
    with filling(directory, inputs) as missing:
        if missing:
            path, log = directory / source, directory / "build.log"
            path.write_text(verilog, encoding="utf-8")
            try:
                runner.build(sources=[WAIVERS, path, *others], hdl_toplevel=top,
                             build_dir=directory.resolve(), timescale=("1ns", "1ps"), waves=waves,
                             parameters=parameters or {}, log_file=log)
            except (SystemExit, RuntimeError) as error:
                raise SimulationError(f"{what} does not build: {error}; see {log}\n"
                                      f"{tail(log)}") from None
    # Of a model that was there the runner only has to know where.
    runner.build_dir = directory.resolve()


def _build(runner: Runner, design: Design, config: Config, directory: Path, *, fast: bool,
           waves: bool) -> str:
    """Build the unit, beside a player if `fast`, and return the name of the top module."""
    unit, text = design.unit, annotated(design) if waves else design.verilog
    if fast:
        text += player(unit, layout(design))
    top = TOP if fast else unit
    build(runner, directory, f"{unit}.v", text, top, f"{unit} of {config.name}", waves=waves)
    return top


def _simulate(runner: Runner, top: str, folder: Path, what: str, *, fast: bool, seed: int,
              waves: bool, progress: Callable[[int], None]) -> list[dict[str, Any]]:
    """Run the bench on a built model with a trace in its folder; return what its tests noted."""
    results, log = (folder / "results.jsonl").resolve(), folder / "run.log"
    results.write_text("", encoding="utf-8")
    try:
        with watching(results, lambda noted: progress(len(noted))):
            report = runner.test(test_module="sim.bench", hdl_toplevel=top,
                                 hdl_toplevel_lang="verilog", build_dir=folder.resolve(),
                                 test_dir=folder.resolve(), seed=seed, waves=waves, log_file=log,
                                 extra_env={"VITFORGE_PLAYER": str(int(fast))})
        _, failures = get_results(report)
    except SystemExit:   # it says no more than that a test failed, or the simulator
        raise SimulationError(f"{what} fails its bench; see {log}\n{tail(log)}") from None
    except RuntimeError as error:
        raise SimulationError(f"{what}: {error}; see {log}\n{tail(log)}") from None
    if failures:
        raise SimulationError(f"{what}: {failures} tests failed; see {log}\n{tail(log)}")
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def regress(unit: str, config: Config, *, seed: int = 1, image: str = "0", fast: bool = False,
            waves: bool = False, directory: Path | str = "build/sim",
            progress: Callable[[int], None] = lambda done: None) -> Result:
    """Generate, build and run the bench of one unit.

    Parameters
    ----------
    unit
        A name of `hw.units.UNITS`.
    config
        The configuration to generate.
    seed
        Seed of the random cases.
    image
        Whose tensors are replayed, as `golden.data.mnist_inputs.read_image` takes it.
    fast
        Whether a module in Verilog (`sim.player`) plays and compares, and Python only one case. It
        compares the same cycles, and finds the same first difference.
    waves
        Whether to record everything as FST, or as VCD where FST can't be built (`sim.waves`), with
        a save file for GTKWave beside it.
    directory
        Where builds are kept; a build whose Verilog is unchanged is used again.
    progress
        Called with the number of patterns that are done, several times a second.

    Raises
    ------
    SimulationError
        If the Verilog doesn't build, or anything differs from the golden model on any cycle.
    """
    folder = Path(directory) / (f"{unit}-{config.name}-{config.hash()}{'-fast' * fast}"
                                f"{'-waves' * waves}")
    runner, what = Runner(find(), waves), f"{unit} of {config.name}"
    cases = all_cases(unit, config, seed, image)
    with alone(folder):
        start = time.monotonic()
        design = elaborate(unit, config)
        top = _build(runner, design, config, folder, fast=fast, waves=waves)
        built = time.monotonic()
        runs = write(folder, design, cases)
        noted = _simulate(runner, top, folder, what, fast=fast, seed=seed, waves=waves,
                          progress=progress)
        (folder / "trace.hex").unlink()   # megabytes; kept where something differs
        dump = folder / f"dump.{'fst' if fst(runner.toolchain) else 'vcd'}"
        if waves:
            scope = f"{TOP}.unit" if fast else top
            dump.with_suffix(".gtkw").write_text(state(design, scope, dump), encoding="ascii")
    compared = [note for note in noted if note["player"] == fast]
    cycles, words = (sum(note[name] for note in compared) for name in ("cycles", "words"))
    wanted = sum(run.cycles for run in runs), sum(run.words for run in runs)
    if (cycles, words) != wanted or len(noted) != (2 if fast else len(PATTERNS)):
        raise SimulationError(f"{what}: {cycles} cycles and {words} words in {len(noted)} tests, "
                              f"not {wanted[0]} and {wanted[1]}; see {folder / 'run.log'}")
    progress(len(PATTERNS))
    return Result(unit=unit, config=config.name, cases=len(cases),
                  image_cases=sum(case.name.startswith("image ") for case in cases),
                  patterns=len({(run.gaps, run.stalls) for run in runs}),
                  cycles=cycles, words=words,
                  build_seconds=built - start, run_seconds=time.monotonic() - built,
                  bench_seconds=sum(note["seconds"] for note in compared),
                  directory=folder, waves=dump if waves else None)
