# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench of every unit: each output compared with the cycle model on every cycle.

`sim.run` starts it with three environment variables: ``VITFORGE_UNIT``, ``VITFORGE_CONFIG`` (the
configuration as JSON) and ``VITFORGE_RESULT`` (a file that gets one JSON line a finished pattern).
Every case of ``sim/<unit>.py`` is run from reset under every pair of a gap pattern (cycles in which
the source offers nothing) and a stall pattern (cycles in which the consumer isn't ready).
"""

__all__ = ["GAPS", "STALLS", "every_cycle"]

import copy
import functools
import importlib
import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from hw.config import Config
from sim.case import Case

#: Pause patterns, cycled; ``None`` is a coin that is thrown anew each cycle.
GAPS: dict[str, tuple[int, ...] | None] = {
    "flow": (0,), "every_third": (1, 0, 0), "random": None}
STALLS: dict[str, tuple[int, ...] | None] = {
    "flow": (0,), "bursts": (1, 1, 1, 0, 0), "random": None}

#: Cycles without any transfer after which a case is declared to hang.
WATCHDOG = 5_000
#: Cycles that are watched after the last expected word, for words that must not come.
AFTERMATH = 20


class Mismatch(AssertionError):
    """The generated Verilog and the golden model disagree."""


def _pauses(pattern: tuple[int, ...] | None, seed: str) -> Iterator[int]:
    if pattern is not None:
        return itertools.cycle(pattern)
    return map(random.Random(seed).getrandbits, itertools.repeat(1))


@functools.cache
def _cases() -> list[Case]:
    unit = importlib.import_module(f"sim.{os.environ['VITFORGE_UNIT']}")
    config = Config(**json.loads(os.environ["VITFORGE_CONFIG"]))
    return list(unit.cases(config, int(os.environ["VITFORGE_SEED"])))


async def _reset(dut: Any, sinks: tuple[str, ...], sources: tuple[str, ...]) -> None:
    for name in sinks:
        getattr(dut, f"{name}__valid").value = 0
    for name in sources:
        getattr(dut, f"{name}__ready").value = 0
    dut.rst.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


async def _run(dut: Any, case: Case, gaps: str, stalls: str) -> tuple[int, int]:
    """Run one case; return the cycles and the output words that were compared."""
    model = copy.deepcopy(case.model)
    for name, value in case.static.items():
        getattr(dut, name).value = value
    await _reset(dut, model.sinks, model.sources)

    put = {name: (getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__payload"),
                  getattr(dut, f"{name}__ready")) for name in model.sinks}
    get = {name: (getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__payload"),
                  getattr(dut, f"{name}__ready")) for name in model.sources}
    gap = {name: _pauses(GAPS[gaps], f"{case.name} gap {name}") for name in model.sinks}
    stall = {name: _pauses(STALLS[stalls], f"{case.name} stall {name}") for name in model.sources}
    sent = dict.fromkeys(model.sinks, 0)
    received = dict.fromkeys(model.sources, 0)
    offered = dict.fromkeys(model.sinks, False)
    total = sum(map(len, case.expected.values())) + sum(map(len, case.words.values()))
    moved = idle = left = 0

    for cycle in itertools.count():
        ready = {}
        for name, (wire, payload, _) in put.items():
            pause = next(gap[name])
            # A word that has been offered stays until it is taken.
            if not offered[name] and not pause and sent[name] < len(case.words[name]):
                offered[name] = True
                payload.value = case.words[name][sent[name]]
                wire.value = 1
        for name, (_, _, wire) in get.items():
            ready[name] = not next(stall[name])
            wire.value = int(ready[name])
        await ReadOnly()

        want_ready, want_valid = model.settle(dict(offered), ready)
        where = f"{case.name}, gaps {gaps}, stalls {stalls}, cycle {cycle}"
        for name, (_, _, wire) in put.items():
            if str(wire.value) != str(int(want_ready[name])):
                raise Mismatch(f"{where}: {name}.ready is {wire.value}, not "
                               f"{int(want_ready[name])} (word {sent[name]})")
        for name, (wire, payload, _) in get.items():
            if str(wire.value) != str(int(want_valid[name])):
                raise Mismatch(f"{where}: {name}.valid is {wire.value}, not "
                               f"{int(want_valid[name])} (word {received[name]})")
            if want_valid[name]:
                if received[name] == len(case.expected[name]):
                    raise Mismatch(f"{where}: {name} has a word too many")
                want = case.expected[name][received[name]]
                if int(payload.value) != want:
                    raise Mismatch(f"{where}: {name}.payload of word {received[name]} is "
                                   f"{int(payload.value):#x}, not {want:#x}")
        before = moved
        model.clock(dict(offered), ready)
        taken = [name for name in model.sinks if offered[name] and want_ready[name]]
        for name in taken:
            sent[name] += 1
            offered[name] = False
            moved += 1
        for name in model.sources:
            if want_valid[name] and ready[name]:
                received[name] += 1
                moved += 1
        await RisingEdge(dut.clk)
        for name in taken:
            put[name][0].value = 0
        idle = 0 if moved > before else idle + 1
        if moved == total:
            left += 1
            if left > AFTERMATH:
                return cycle + 1, sum(received.values())
        elif idle > WATCHDOG:
            raise Mismatch(f"{where}: nothing moved for {WATCHDOG} cycles; sent {sent}, "
                           f"received {received}")
    raise AssertionError("unreachable")


@cocotb.test()
@cocotb.parametrize(gaps=list(GAPS), stalls=list(STALLS))
async def every_cycle(dut: Any, gaps: str, stalls: str) -> None:
    """Every case, from reset, under one pair of patterns."""
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    cycles = words = 0
    for case in _cases():
        more = await _run(dut, case, gaps, stalls)
        cycles += more[0]
        words += more[1]
    result = {"gaps": gaps, "stalls": stalls, "cases": len(_cases()), "cycles": cycles,
              "words": words}
    with Path(os.environ["VITFORGE_RESULT"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
