# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench of every unit: each output compared with the golden trace on every cycle.

`sim.run` starts it with environment variables: ``VITFORGE_UNIT``, ``VITFORGE_CONFIG`` (the
configuration as JSON), ``VITFORGE_SEED``, ``VITFORGE_IMAGE`` (the image whose tensors are replayed)
and ``VITFORGE_RESULT`` (a file that gets one JSON line a finished pattern). Every case is run from
reset under every pair of patterns.
"""

__all__ = ["every_cycle"]

import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from hw.config import Config
from hw.units import words
from sim.case import Case
from sim.image import all_cases
from sim.trace import GAPS, STALLS, trace

UNIT = os.environ["VITFORGE_UNIT"]
CONFIG = Config(**json.loads(os.environ["VITFORGE_CONFIG"]))


class Mismatch(AssertionError):
    """The generated Verilog and the golden model disagree."""


@functools.cache
def _cases() -> list[Case]:
    return all_cases(UNIT, CONFIG, int(os.environ["VITFORGE_SEED"]), os.environ["VITFORGE_IMAGE"])


async def _reset(dut: Any, case: Case) -> None:
    for name in case.model.sinks:
        getattr(dut, f"{name}__valid").value = 0
    for name in case.model.sources:
        getattr(dut, f"{name}__ready").value = 0
    for name, value in case.static.items():
        getattr(dut, name).value = value
    dut.rst.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


async def _run(dut: Any, case: Case, gaps: str, stalls: str) -> tuple[int, int]:
    """Run one case; return the cycles and the output words that were compared."""
    ports = {name: (getattr(dut, f"{name}__valid"), getattr(dut, f"{name}__ready"),
                    getattr(dut, f"{name}__payload"))
             for name in (*case.model.sinks, *case.model.sources)}
    await _reset(dut, case)
    number = taken = 0
    for number, cycle in enumerate(trace(case, words(UNIT, CONFIG), gaps, stalls), 1):
        for name, value in cycle.offer.items():
            ports[name][0].value = int(value)
            ports[name][2].value = cycle.payload[name]
        for name, value in cycle.accept.items():
            ports[name][1].value = int(value)
        await ReadOnly()

        where = f"{case.name}, gaps {gaps}, stalls {stalls}, cycle {number - 1}"
        for name, value in cycle.ready.items():
            if str(ports[name][1].value) != str(int(value)):
                raise Mismatch(f"{where}: {name}.ready is {ports[name][1].value}, not {value:d}")
        for name, value in cycle.valid.items():
            if str(ports[name][0].value) != str(int(value)):
                raise Mismatch(f"{where}: {name}.valid is {ports[name][0].value}, not {value:d}")
        for name, want in cycle.result.items():
            if int(ports[name][2].value) != want:
                raise Mismatch(f"{where}: {name}.payload is {int(ports[name][2].value):#x}, "
                               f"not {want:#x}")
            taken += cycle.accept[name]
        await RisingEdge(dut.clk)
    expected = sum(map(len, case.expected.values()))
    if taken != expected:
        raise Mismatch(f"{case.name}: {taken} words came, not {expected}")
    return number, taken


@cocotb.test()
@cocotb.parametrize(gaps=list(GAPS), stalls=list(STALLS))
async def every_cycle(dut: Any, gaps: str, stalls: str) -> None:
    """Every case, from reset, under one pair of patterns."""
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    cycles = taken = 0
    cases = _cases()
    start = time.monotonic()
    for case in cases:
        more = await _run(dut, case, gaps, stalls)
        cycles += more[0]
        taken += more[1]
    result = {"gaps": gaps, "stalls": stalls, "cases": len(cases),
              "image_cases": sum(case.name.startswith("image ") for case in cases),
              "cycles": cycles, "words": taken, "seconds": time.monotonic() - start}
    with Path(os.environ["VITFORGE_RESULT"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
