# SPDX-License-Identifier: Apache-2.0
"""Build a unit's generated Verilog with Verilator and run its bench."""

__all__ = ["Result", "Runner", "SimulationError", "regress", "tail", "watching"]

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cocotb_tools.runner import Verilator, get_results

from gen.elaborate import generate
from hw.config import Config
from sim.toolchain import OPTIONS, Toolchain, find
from sim.trace import PATTERNS

#: The warnings that generated Verilog may give, with the reasons; any other stops the build.
WAIVERS = Path(__file__).parent / "waivers.vlt"


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
        """Simulated clock cycles per second of the bench, with the comparison in Python."""
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

    def _build_command(self) -> list[list[str]]:
        verilate, *rest = super()._build_command()
        verilate[1:1] = OPTIONS
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


def _build(runner: Runner, unit: str, config: Config, directory: Path, waves: bool) -> None:
    text = generate(unit, config)
    inputs = (text, WAIVERS.read_text(encoding="utf-8"), waves, runner.toolchain.version_text)
    key = hashlib.sha256(repr(inputs).encode())
    stamp = directory / "built"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key.hexdigest():
        # The model is there: the runner only has to know where.
        runner.build_dir = directory.resolve()
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    source = directory / f"{unit}.v"
    source.write_text(text, encoding="utf-8")
    log = directory / "build.log"
    try:
        runner.build(sources=[WAIVERS, source], hdl_toplevel=unit,
                     build_dir=directory.resolve(), timescale=("1ns", "1ps"), waves=waves,
                     log_file=log)
    except (SystemExit, RuntimeError) as error:
        raise SimulationError(f"{unit} of {config.name} does not build: {error}; see {log}\n"
                              f"{tail(log)}") from None
    stamp.write_text(key.hexdigest(), encoding="utf-8")


def regress(unit: str, config: Config, *, seed: int = 1, image: str = "0", waves: bool = False,
            directory: Path | str = "build/sim",
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
        Whose tensors are replayed, as `sim.image.read_image` takes it.
    waves
        Whether to write a VCD of everything.
    directory
        Where builds are kept; a build whose Verilog is unchanged is used again.
    progress
        Called with the number of patterns that are done, several times a second.

    Raises
    ------
    SimulationError
        If the Verilog doesn't build, or anything differs from the golden model on any cycle.
    """
    folder = Path(directory) / f"{unit}-{config.name}-{config.hash()}{'-waves' * waves}"
    runner = Runner(find(), waves)
    start = time.monotonic()
    _build(runner, unit, config, folder, waves)
    built = time.monotonic()

    results, log = (folder / "results.jsonl").resolve(), folder / "run.log"
    results.write_text("", encoding="utf-8")
    environment = {"VITFORGE_UNIT": unit, "VITFORGE_CONFIG": json.dumps(config.to_dict()),
                   "VITFORGE_SEED": str(seed), "VITFORGE_IMAGE": image,
                   "VITFORGE_RESULT": str(results),
                   # The golden model is small here: two threads would only wait for each other.
                   "OMP_NUM_THREADS": "1"}
    try:
        with watching(results, lambda lines: progress(len(lines))):
            report = runner.test(test_module="sim.bench", hdl_toplevel=unit,
                                 hdl_toplevel_lang="verilog", build_dir=folder.resolve(),
                                 test_dir=folder.resolve(), seed=seed,
                                 extra_env=environment, waves=waves, log_file=log)
        tests, failures = get_results(report)
    except SystemExit:   # it says no more than that a pattern failed, or the simulator
        raise SimulationError(f"{unit} of {config.name} fails its bench; see {log}\n{tail(log)}") \
            from None
    except RuntimeError as error:
        raise SimulationError(f"{unit} of {config.name}: {error}; see {log}\n{tail(log)}") \
            from None
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    if failures or tests != len(PATTERNS) or len(lines) != len(PATTERNS):
        raise SimulationError(f"{unit} of {config.name}: {failures} of {tests} patterns failed; "
                              f"see {log}\n{tail(log)}")
    return Result(unit=unit, config=config.name, cases=lines[0]["cases"],
                  image_cases=lines[0]["image_cases"], patterns=tests,
                  cycles=sum(line["cycles"] for line in lines),
                  words=sum(line["words"] for line in lines),
                  build_seconds=built - start, run_seconds=time.monotonic() - built,
                  bench_seconds=sum(line["seconds"] for line in lines),
                  directory=folder, waves=folder / "dump.vcd" if waves else None)
