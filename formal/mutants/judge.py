# SPDX-License-Identifier: Apache-2.0
"""Every mutant of a unit against its bench's trace, and what it lets live against the unit."""

__all__ = ["ALIVE", "EQUIVALENT", "KILLED", "Judged", "judge"]

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from formal.mutants.equal import equal
from formal.mutants.netlist import INPUT, Mutant, Mutated, mutated
from gen.elaborate import elaborate
from sim.cases.image import all_cases
from sim.lines import Run, layout, write
from sim.replay import program, replay
from sim.run import SimulationError
from sim.toolchain import find
from vitforge.spec.config import Config

#: What a mutant can be.
KILLED, EQUIVALENT, ALIVE = "killed", "equivalent", "alive"
#: Where a proof came to no end.
UNDECIDED = "undecided"
#: One line a mutant that is judged.
KEPT = "mutants.jsonl"


@dataclass(frozen=True)
class Judged:
    """What came of a mutant.

    Attributes
    ----------
    mutant
        Its number.
    status
        `KILLED`: the bench sees it. `EQUIVALENT`: proved to be the unit. `ALIVE`: neither.
    where
        Case, pattern and cycle of the first difference; of one alive, what the proof came to.
    trace
        Of what stimuli; what is equivalent is so of any.
    seconds
        What it took, of the clock.
    """

    mutant: int
    status: str
    where: str
    trace: str
    seconds: float


def _kept(path: Path, trace: str) -> dict[int, Judged]:
    """Return what is known already of the mutants, for a trace; what is undecided isn't."""
    if not path.exists():
        return {}
    # The last line is half of one if the run was stopped while it was written.
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    known = (Judged(**json.loads(line)) for line in lines)
    return {item.mutant: item for item in known
            if (item.trace == trace and item.where != UNDECIDED) or item.status == EQUIVALENT}


def _since(start: float) -> float:
    return round(time.monotonic() - start, 2)


def _replayed(mutant: Mutant, built: Path, folder: Path, runs: list[Run], trace: str
              ) -> Judged | None:
    """Return what the bench says of a mutant; None if it sees nothing."""
    start = time.monotonic()
    found = replay(built, folder, f"+{INPUT}={mutant.number}")
    if not found.failed:
        return None
    run = next(run for run in runs if found.lines < run.first + run.lines)
    return Judged(mutant.number, KILLED, run.where(found.lines), trace, _since(start))


def _proved(mutant: Mutant, made: Mutated, trace: str, limit: int) -> Judged:
    """Return what can be proved of a mutant that the bench doesn't see."""
    start = time.monotonic()
    verdict = equal(made, mutant.number, limit)
    status = EQUIVALENT if verdict.status == "proved" else ALIVE
    where = (f"differs in {verdict.frame + 1} cycles" if verdict.status == "disproved"
             else verdict.status)
    return Judged(mutant.number, status, where, trace, _since(start))


def judge(unit: str, config: Config, folder: Path, *, count: int, seed: int, bench_seed: int,
          limit: int, progress: Callable[[int], object] = lambda done: None
          ) -> list[tuple[Mutant, Judged]]:
    """Judge `count` mutants of a unit: first all by the bench, then those it lets live by proof.

    Parameters
    ----------
    folder
        Keeps the netlist, the model and a line for every mutant that is judged, which is not judged
        again as long as unit and stimuli stay the same.
    seed, bench_seed
        Of the mutants, and of the bench's random cases.
    limit
        Seconds of a proof that a mutant is the unit.
    progress
        Called with how many are done.

    Raises
    ------
    SimulationError
        If the model doesn't build, or the netlist without a mutant differs from the golden model.
    """
    design = elaborate(unit, config)
    fields = layout(design)
    made = mutated(unit, config, fields, folder / "netlist", count=count, seed=seed)
    built = program(find(), unit, made.verilog, fields, folder / "model")
    runs = write(folder, design, all_cases(unit, config, bench_seed), resets=True)
    trace = hashlib.sha256((folder / "trace.hex").read_bytes()).hexdigest()[:16]
    # Beside the netlist: of another netlist it is worth nothing.
    kept = folder / "netlist" / KEPT
    found = _kept(kept, trace)
    try:
        if replay(built, folder).failed:
            raise SimulationError(f"{unit} of {config.name} differs from the golden model without "
                                  "any mutant")
        with kept.open("a", encoding="utf-8") as file:
            def note(item: Judged) -> None:
                found[item.mutant] = item
                file.write(json.dumps(asdict(item)) + "\n")
                file.flush()

            living = []
            for done, mutant in enumerate(made.mutants, 1):
                if mutant.number not in found:
                    if item := _replayed(mutant, built, folder, runs, trace):
                        note(item)
                    else:
                        living.append(mutant)
                progress(done - len(living))
            for done, mutant in enumerate(living, len(made.mutants) - len(living) + 1):
                note(_proved(mutant, made, trace, limit))
                progress(done)
    finally:
        (folder / "trace.hex").unlink()
    return [(mutant, found[mutant.number]) for mutant in made.mutants]
