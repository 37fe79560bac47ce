# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench of every unit: the lines of a trace, and a verdict on every cycle.

`sim.run` starts it in a folder with ``trace.hex`` and ``trace.json`` (`sim.lines`) and
``results.jsonl``, which gets one JSON line a finished test. Beside a player (`sim.player`, if
``VITFORGE_PLAYER`` is 1) this bench sets up, starts it, and says what it found; Python itself then
plays the first case only. Without one Python plays every case, under every pair of patterns.
"""

__all__ = ["in_python", "in_verilog"]

import json
import os
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from sim.cases.trace import GAPS, STALLS
from sim.lines import Layout, Run, read, read_lines

HERE = Path()
PLAYER = os.environ["VITFORGE_PLAYER"] == "1"


class Mismatch(AssertionError):
    """The generated Verilog and the golden model disagree."""


def _note(start: float, **result: Any) -> None:
    with Path("results.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**result, "seconds": time.monotonic() - start}) + "\n")


async def _play(dut: Any, fields: Layout, run: Run) -> tuple[int, int]:
    """Play one run; return the cycles and the output words that were compared."""
    inputs = [(port, getattr(dut, port.name)) for port in fields.inputs]
    outputs = {port: getattr(dut, port.name) for port, _ in fields.compared}
    before = None
    cycles = words = 0
    for line, (stimulus, expected) in enumerate(
            read_lines(HERE, fields, run.first, run.lines), run.first):
        for port, handle in inputs:
            value = port.of(stimulus)
            if before is None or value != port.of(before):
                handle.value = value
        before = stimulus
        await ReadOnly()
        found = fields.difference(expected, lambda port: int(outputs[port].value))
        if found:
            raise Mismatch(f"{run.where(line)}: {found}")
        cycles += expected & 1
        words += fields.moved(stimulus, expected)
        await RisingEdge(dut.clk)
    return cycles, words


@cocotb.test()
@cocotb.parametrize(gaps=["random"] if PLAYER else list(GAPS),
                    stalls=["random"] if PLAYER else list(STALLS))
async def in_python(dut: Any, gaps: str, stalls: str) -> None:
    """Play every case, from reset, under one pair of patterns; beside a player the first case."""
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    if PLAYER:
        dut.play.value = 0
    start = time.monotonic()
    fields, runs = read(HERE)
    chosen = [run for run in runs if (run.gaps, run.stalls) == (gaps, stalls)]
    cycles = words = 0
    for run in chosen[:1] if PLAYER else chosen:
        more = await _play(dut, fields, run)
        cycles += more[0]
        words += more[1]
    _note(start, player=False, cycles=cycles, words=words)


@cocotb.test(skip=not PLAYER)
async def in_verilog(dut: Any) -> None:
    """Let the player play all lines."""
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    start = time.monotonic()
    fields, runs = read(HERE)
    dut.play.value = 1
    await RisingEdge(dut.done)
    await ReadOnly()
    line = int(dut.lines.value)
    if dut.failed.value == 1:
        (_, expected), = read_lines(HERE, fields, line, 1)
        seen = int(dut.seen.value)
        run = next(run for run in runs if line < run.first + run.lines)
        raise Mismatch(f"{run.where(line)}: {fields.difference(expected, lambda p: p.of(seen))}")
    _note(start, player=True, cycles=int(dut.cycles.value),
          words=int(dut.words.value))
