# SPDX-License-Identifier: Apache-2.0
"""The whole accelerator as generated Verilog, with a memory on its bus, under Verilator."""

__all__ = ["Case", "Job", "Netlist", "Outcome", "Simulation", "build", "place"]

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cocotb_tools.runner import get_results

from gen.elaborate import generate
from sim import run
from sim.accelerator.waves import annotated, state
from sim.run import Runner, SimulationError, alone, tail, watching
from sim.toolchain import OPTIMISATION, find
from vitforge.spec.config import Config
from vitforge.spec.instruction import LINE
from vitforge.spec.timing import LATENCY

HERE = Path(__file__).parents[1]
SOURCES = (HERE / "memory.v", HERE / "accelerator_top.v")


@dataclass(frozen=True)
class Job:
    """One run of the accelerator on a memory: buffers as (address, bytes).

    Attributes
    ----------
    limit
        Cycles after which the bench gives up: the watchdog.
    stop
        Cycles after which the host asks it to stop; 0 never.
    repeat
        How often it is started again, at once after its interrupt; the last run is reported.
    reset
        Cycles after which accelerator and memory are reset, for two cycles; 0 never. What is in the
        memory stays.
    error
        Address of a beat, and AXI4's answer to it; 0 is OKAY. It is the memory's window of errors
        from here on; None leaves the window as it is.
    """

    name: str
    program: tuple[int, int]
    input: tuple[int, int]
    output: tuple[int, int]
    limit: int
    stop: int = 0
    repeat: int = 0
    reset: int = 0
    error: tuple[int, int] | None = None


@dataclass(frozen=True)
class Case:
    """A memory with its jobs, and how unpleasant the memory is (plusargs of `sim/memory.v`)."""

    data: bytes
    jobs: Sequence[Job]
    plusargs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Netlist:
    """What runs instead of the generated Verilog.

    Attributes
    ----------
    name
        Of the folder of its model.
    of
        Makes it of the Verilog; module and ports are the same.
    """

    name: str
    of: Callable[[str], str]


@dataclass(frozen=True)
class Outcome:
    """What a job left: registers and counters by name, and the bytes of the output buffer.

    Of the bench there are also `interrupt` (0: it gave up after `limit`), and of the memory
    `pending` (something on the bus was not answered at the interrupt), `late` (beats that came
    after it), `violation` (rules of AXI4 that were broken, bits of `sim/memory.v`) and `stray` (a
    byte was written outside the output buffer), the last two by this job or one before.
    """

    values: dict[str, Any]
    output: bytes

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


def place(blocks: Sequence[bytes], start: int = 4096) -> tuple[list[int], bytes]:
    """Lay blocks out one after the other, each in pages of 4096 bytes: addresses, and all bytes."""
    addresses, data = [], bytearray(start)
    for block in blocks:
        addresses.append(len(data))
        data += block
        data += bytes(-len(data) % 4096)
    return addresses, bytes(data)


class Simulation:
    """A built model; `run` may be called many times, by several processes at once.

    Every run has a folder of its own, which stays if the run fails, or has waves; `shown` is the
    Verilog whose words GTKWave is told to show.
    """

    def __init__(self, runner: Runner, folder: Path, config: Config, size: int,
                 waves: bool = False, shown: str | None = None) -> None:
        self._runner, self.folder, self.config, self.size = runner, folder, config, size
        self._waves, self._shown = waves, shown

    def _inside(self, address: int, size: int) -> tuple[int, int]:
        """Return the part of a buffer that the memory has."""
        return address, max(0, min(size, self.size - address))

    def run(self, case: Case, progress: Callable[[int], object] = lambda cycles: None,
            module: str = "sim.accelerator.bench") -> list[Outcome]:
        """Run the jobs of a case, in order, without a reset between.

        `progress` is called with the cycles that are done, now and then. `module` is the host, in
        cocotb.

        Raises
        ------
        SimulationError
            If the simulator fails. What the accelerator does is the caller's to judge.
        """
        if len(case.data) > self.size:
            raise ValueError(f"the memory must have at most {self.size} bytes, "
                             f"not {len(case.data)}")
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.folder.resolve()))
        outcomes = self._run(case, folder, progress, module)
        if not self._waves:
            shutil.rmtree(folder)
        return outcomes

    def _run(self, case: Case, folder: Path, progress: Callable[[int], object],
             module: str) -> list[Outcome]:
        step = self.config.axi_bits // 8
        data = case.data + bytes(-len(case.data) % max(step, LINE))
        image, jobs, results, told, log = (folder / name for name in (
            "memory.hex", "runs.json", "results.jsonl", "progress.txt", "run.log"))
        image.write_text("\n".join(data[place:place + step][::-1].hex()
                                   for place in range(0, len(data), step)) + "\n",
                         encoding="ascii")
        jobs.write_text(json.dumps([vars(job) | {"peek": self._inside(*job.output)}
                                    for job in case.jobs]), encoding="utf-8")
        results.write_text("", encoding="utf-8")
        told.write_text("", encoding="utf-8")
        plusargs = {"memory": image, **case.plusargs}
        environment = {"VITFORGE_RUNS": str(jobs), "VITFORGE_RESULT": str(results),
                       "VITFORGE_PROGRESS": str(told)}
        try:
            with watching(told, lambda lines: progress(int(lines[-1]) if lines else 0)):
                report = self._runner.test(
                    test_module=module, hdl_toplevel="accelerator_top",
                    hdl_toplevel_lang="verilog", build_dir=self.folder.resolve(),
                    test_dir=folder, extra_env=environment, waves=self._waves, log_file=log,
                    plusargs=[f"+{name}={value}" for name, value in plusargs.items()])
            _, failures = get_results(report)
        except (SystemExit, RuntimeError) as error:
            raise SimulationError(f"{error}; see {log}\n{tail(log)}") from None
        if self._shown:
            [dump] = folder.glob("dump.*")
            dump.with_suffix(".gtkw").write_text(state(self._shown, dump), encoding="ascii")
        if failures:
            raise SimulationError(f"the bench failed; see {log}\n{tail(log)}")
        found = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        return [Outcome(values, bytes.fromhex(values.pop("output"))) for values in found]


@functools.lru_cache(maxsize=4)
def _verilog(config: Config) -> str:
    """Return the Verilog; it takes seconds, and a process may build one design several times."""
    return generate("accelerator", config)


def build(config: Config, *, size: int = 1 << 20, latency: int = LATENCY, waves: bool = False,
          brief: bool = False, netlist: Netlist | None = None,
          directory: Path | str = "build/sim") -> Simulation:
    """Generate and build the accelerator with a memory of `size` bytes.

    A model whose sources are unchanged is used again. A `brief` one is for short programs: it is
    compiled without optimisation, in less than half the time, and runs at two fifths of the speed.
    A `netlist` takes the place of the Verilog that it is made of.

    Raises
    ------
    SimulationError
        If the Verilog doesn't build.
    """
    folder = Path(directory) / (f"accelerator-{config.name}-{config.hash()}-{size:x}-{latency}"
                                f"{'-waves' * waves}{'-brief' * brief}"
                                f"{f'-{netlist.name}' if netlist else ''}")
    runner = Runner(find(optimisation="-O0" if brief else OPTIMISATION["OPT_FAST"]), waves)
    with alone(folder):
        plain = text = _verilog(config)
        if netlist:
            text = netlist.of(text)
        elif waves:
            text = annotated(text)
        run.build(runner, folder, "accelerator.v", text, "accelerator_top", folder.name,
                  waves=waves, others=SOURCES,
                  parameters={"BITS": config.axi_bits, "BYTES": size, "LATENCY": latency})
    return Simulation(runner, folder, config, size, waves,
                      shown=plain if waves and not netlist else None)
