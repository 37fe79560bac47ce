# SPDX-License-Identifier: Apache-2.0
"""A fault at every beat, a stop and a reset at every cycle: how it ends, and the run after it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest
from test_accelerator import (
    DECERR,
    DONE,
    FILL,
    SLVERR,
    UNPLEASANT,
    Memory,
    Work,
    faulty,
    good,
    image_load,
    output_of,
    random_network,
    raw_pass,
)

from gen.compiler.image import inline_load
from golden.float.vit import VitSpec
from golden.machine.program import Instruction, assemble
from sim.accelerator.model import Job, Outcome
from tests.sample import later
from vitforge.spec.config import load
from vitforge.spec.instruction import LINE
from vitforge.spec.packing import burst_limit
from vitforge.spec.register_map import COUNTERS

pytestmark = pytest.mark.rtl

TINY = load("tiny")
BEAT = TINY.axi_bits // 8
#: Bytes of a longest burst: as many as every buffer is a multiple of, so bursts begin there.
BURST = BEAT * burst_limit(TINY)
OKAY = (0, 0)
#: Cycles of a write of the host at most.
HOST = 8
RESPONSES = {"SLVERR": SLVERR, "DECERR": DECERR}
#: What a run may be given.
Change = Callable[[Job], Job]
#: A network with every instruction and engine, and as few cycles as there can be.
SMALLEST = VitSpec(image_size=4, patch_size=4, in_channels=1, classes=2, dim=4, depth=1, heads=1,
                   mlp_hidden=4)
#: A program, one of how many beats or cycles is tried, and a memory: `make regress` tries each.
played = pytest.mark.parametrize(("name", "step", "stalls"), [
    ("network", 97, {}), later("network", 1, {}), later("writes", 1, {}),
    later("network", 7, UNPLEASANT), later("writes", 5, UNPLEASANT)], ids=str)


@cache
def work_of(name: str) -> Work:
    """Return the smallest network, or passes that write bursts."""
    if name == "network":
        return random_network(SMALLEST, TINY)
    words = Instruction("LOAD", inline_load(0, 16, TINY), data=bytes(range(16 * TINY.rows)))
    program = assemble([image_load(TINY), words, raw_pass(TINY, tokens=5),
                        raw_pass(TINY, tokens=16, offset=128), Instruction("END", {})], TINY)
    image = bytes(range(LINE))
    return Work(program, image, output_of(program, image, TINY, 512))


def pairs(work: Work, changes: Sequence[Change], stalls: dict[str, int]
          ) -> list[tuple[Job, Outcome]]:
    """Run each changed job, and a plain one after it, with an output buffer of their own.

    The plain one is right; what the other leaves in the buffer is right or not written. The
    changed ones are returned.
    """
    memory = Memory()
    first = memory.job(work, error=OKAY)
    jobs: list[Job] = []
    for change in changes:
        job = replace(first, output=memory.add(FILL * len(work.wanted)))
        jobs += [change(job), job]
    outcomes = memory.run(TINY, jobs, seed=3, **stalls)
    for bad, after in zip(outcomes[::2], outcomes[1::2], strict=True):
        good(after, work)
        assert all(byte in (right, FILL[0]) for byte, right in
                   zip(bad.output, work.wanted, strict=True)), bad.values
    return list(zip(jobs[::2], outcomes[::2], strict=True))


@cache
def plain(name: str) -> Outcome:
    """Return what a run is that nothing happens to."""
    memory = Memory()
    (outcome,) = memory.run(TINY, [memory.job(work_of(name))])
    good(outcome, work_of(name))
    return outcome


def errors_end_runs(name: str, beats: Sequence[tuple[str, int]], step: int,
                    stalls: dict[str, int]) -> None:
    """Answer beats, each a buffer and a place in it, with an error: one in `step`, one a run."""
    def change(buffer: str, place: int, response: int) -> Change:
        return lambda job: replace(job, name=f"{buffer} {place}",
                                   error=(getattr(job, buffer)[0] + place, response))

    tried = [(*beat, answer) for answer in RESPONSES for beat in beats][::step]
    found = pairs(work_of(name), [change(buffer, place, RESPONSES[answer])
                                  for buffer, place, answer in tried], stalls)
    for (buffer, place, answer), (job, bad) in zip(tried, found, strict=True):
        address = getattr(job, buffer)[0] + place
        which = "write" if buffer == "output" else "read"
        faulty(bad, f"{which} {answer}", address=address // BURST * BURST)


@played
def test_an_error_of_any_read_ends_the_run(name: str, step: int, stalls: dict[str, int]) -> None:
    work = work_of(name)
    beats = [(buffer, place) for buffer, size in (("program", len(work.program)),
                                                  ("input", len(work.image)))
             for place in range(0, size, BEAT)]
    # Each is read once, so its address names a beat.
    assert len(beats) == plain(name).read_beats
    errors_end_runs(name, beats, step, stalls)


@played
def test_an_error_of_any_write_ends_the_run(name: str, step: int, stalls: dict[str, int]) -> None:
    wanted = work_of(name).wanted
    beats = [("output", place) for place in range(0, len(wanted), BEAT)
             if wanted[place:place + BEAT] != FILL * BEAT]
    assert len(beats) == plain(name).write_beats
    errors_end_runs(name, beats, step, stalls)


@played
def test_a_stop_in_any_cycle_ends_the_run(name: str, step: int, stalls: dict[str, int]) -> None:
    cycles = plain(name).cycles
    ends = range(1, cycles + 30, step)
    found = pairs(work_of(name), [lambda job, at=at: replace(job, name=f"stop {at}", stop=at)
                                  for at in ends], stalls)
    for job, bad in found:
        if bad.STATUS == DONE:
            # It came too late: the host's write takes a few cycles.
            assert bad.cycles <= job.stop + HOST
            good(bad, work_of(name))
        else:
            assert bad.cycles > job.stop
            faulty(bad, "stopped")
    assert found[-1][1].STATUS == DONE or stalls


@played
def test_a_reset_in_any_cycle_leaves_nothing(name: str, step: int, stalls: dict[str, int]) -> None:
    found = pairs(work_of(name), [lambda job, at=at: replace(job, name=f"reset {at}", reset=at)
                                  for at in range(1, plain(name).cycles + 30, step)], stalls)
    silent = ("interrupt", "pending", "late", "violation", "stray", "read_beats", "write_beats",
              "STATUS", "FAULT", "FAULT_INSTRUCTION", "FAULT_ADDRESS", "IRQ_STATUS", *COUNTERS)
    for _, bad in found:
        assert {name: bad.values[name] for name in silent} == dict.fromkeys(silent, 0), bad.name
