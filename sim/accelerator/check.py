# SPDX-License-Identifier: Apache-2.0
"""A whole network on the generated Verilog, against the golden machine and the cycle model."""

__all__ = ["Check", "check"]

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gen.compiler.command import input_buffer
from gen.compiler.compile import Compiled, compile_network
from golden.machine.cycles import Buffers, Prediction, predict
from golden.machine.execute import execute
from golden.machine.program import read_logits
from golden.network import inference
from golden.network.integers import Network
from sim.accelerator.model import Case, Job, Netlist, Outcome, build, place
from sim.run import SimulationError
from vitforge.spec.register_map import COUNTERS
from vitforge.spec.timing import LATENCY

#: More than this many times the predicted cycles, and a run hangs.
_PATIENCE = 3
#: Fewer cycles than this run sooner than a model is optimised.
_BRIEF = 400_000
_DONE = 0b10   # of the register STATUS: done, no fault


@dataclass(frozen=True)
class Check:
    """Runs that were equal to the golden model in every byte, and in every cycle without stalls.

    Attributes
    ----------
    logits
        ``[N, classes]``, int64.
    counters
        Of every run, by name.
    predicted
        Without stalls: what the counters of every run say.
    """

    compiled: Compiled
    logits: Tensor
    counters: tuple[Mapping[str, int], ...]
    predicted: Prediction
    build_seconds: float
    run_seconds: float
    directory: Path

    @property
    def cycles(self) -> int:
        """Of all runs."""
        return sum(counters["cycles"] for counters in self.counters)


def _differences(outcome: Outcome, want: bytes, exact: Prediction | None) -> list[str]:
    """Say what of a run isn't as it must be."""
    if outcome.STATUS != _DONE:
        return [(f"the run did not end: status {outcome.STATUS:#x}, fault {outcome.FAULT} of "
                 f"instruction {outcome.FAULT_INSTRUCTION} at {outcome.FAULT_ADDRESS:#x}")]
    found = []
    if outcome.output != want:
        place = next(place for place, (got, wanted) in enumerate(zip(outcome.output, want,
                                                                     strict=True))
                     if got != wanted)
        found.append(f"byte {place} of the output is {outcome.output[place]}, not {want[place]}")
    if exact is not None:
        found += [f"{name} is {outcome.values[name]:,}, not {getattr(exact, name):,}"
                  for name in COUNTERS if outcome.values[name] != getattr(exact, name)]
    if outcome.stray:
        found.append("a byte outside the output buffer was written")
    if outcome.violation:
        found.append("a rule of AXI4 was broken")
    return found


def check(network: Network, images: Tensor, *, latency: int = LATENCY, stall: int = 0,
          seed: int = 1, waves: bool = False, netlist: Netlist | None = None,
          directory: Path | str = "build/sim",
          progress: Callable[[int], None] = lambda percent: None) -> Check:
    """Build the accelerator, run a network on images one after the other, and compare.

    The program runs from start to interrupt without the host. Every byte of the output buffer is
    compared with `golden.machine.execute`, the logits with `golden.network`, and without stalls
    every counter with `golden.machine.cycles`.

    Parameters
    ----------
    images
        Codes, uint8 ``[N, H, W]`` or ``[N, channels, H, W]``.
    latency
        Of the memory, 2 cycles or more.
    stall
        Every channel of the memory bus is stalled with this probability, in 256ths.
    waves
        Whether to write a VCD of everything.
    netlist
        What runs instead of the generated Verilog.
    progress
        Called with the share of the predicted cycles that is done, in percent, now and then.

    Raises
    ------
    SimulationError
        If the Verilog doesn't build, or anything differs.
    """
    config, compiled = network.config, compile_network(network)
    inputs = [input_buffer(image[None], compiled) for image in images]
    results = [execute(compiled.program, data, config, compiled.output_bytes).output
               for data in inputs]
    logits = torch.stack([torch.from_numpy(read_logits(result, compiled.spec.classes, config))
                          for result in results])
    if not torch.equal(logits, inference.run(network, images)):
        raise SimulationError("the golden machine and the golden network differ")
    addresses, data = place([compiled.program, *inputs, *(bytes(len(item)) for item in results)])
    program, *rest = addresses
    exact = predict(compiled.program, config, latency=latency,
                    buffers=Buffers(program, rest[0], rest[len(inputs)]), record=True)
    limit = _PATIENCE * exact.cycles * 256 // (256 - stall) + 10_000
    jobs = [Job(f"image {number}", (program, len(compiled.program)),
                (rest[number], len(inputs[number])),
                (rest[len(inputs) + number], len(results[number])), limit)
            for number in range(len(inputs))]

    start = time.monotonic()
    size = 1 << max(20, (len(data) - 1).bit_length())
    whole = exact.cycles * len(jobs)
    model = build(config, size=size, waves=waves, brief=whole < _BRIEF,
                  netlist=netlist, directory=directory)
    ready = time.monotonic()
    plusargs = {"latency": latency}
    if stall:
        plusargs |= {"stall": stall, "jitter": 15, "seed": seed}
    outcomes = model.run(Case(data, jobs, plusargs),
                         lambda cycles: progress(min(99, 100 * cycles // whole)))
    end = time.monotonic()
    for job, outcome, want in zip(jobs, outcomes, results, strict=True):
        if found := _differences(outcome, want, None if stall else exact):
            raise SimulationError(f"{job.name} on {config.name}: {'; '.join(found)}")
    return Check(compiled=compiled, logits=logits, predicted=exact,
                 counters=tuple({name: outcome.values[name] for name in COUNTERS}
                                for outcome in outcomes),
                 build_seconds=ready - start, run_seconds=end - ready, directory=model.folder)
