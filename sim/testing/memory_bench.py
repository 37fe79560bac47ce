# SPDX-License-Identifier: Apache-2.0
"""The cocotb bench of `sim/memory.v`: plays inputs, cycle by cycle, and notes the outputs.

``VITFORGE_PLAY`` is a JSON list of scenes: lists with the inputs that change, for every cycle.
``VITFORGE_RESULT`` is a file that gets the same list with what the outputs are at the end of each
cycle. Every scene begins with a reset, and inputs of 0.
"""

__all__ = ["INPUTS", "OUTPUTS", "RESET", "play"]

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

INPUTS = ("araddr", "arlen", "arsize", "arburst", "arvalid", "rready", "awaddr", "awlen", "awsize",
          "awburst", "awvalid", "wdata", "wstrb", "wlast", "wvalid", "bready", "peek_address",
          "write_low", "write_high", "rst")
OUTPUTS = ("arready", "rdata", "rresp", "rlast", "rvalid", "awready", "wready", "bresp", "bvalid",
           "peek_data", "violation", "stray", "pending", "read_beats", "write_beats")
RESET = 3


@cocotb.test()
async def play(dut: Any) -> None:
    """Play all scenes."""
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    found = []
    for scene in json.loads(Path(os.environ["VITFORGE_PLAY"]).read_text(encoding="utf-8")):
        for name in INPUTS:
            getattr(dut, name).value = 0
        dut.rst.value = 1
        for _ in range(RESET):
            await RisingEdge(dut.clk)
        dut.rst.value = 0
        outputs = []
        for step in scene:
            for name, value in step.items():
                getattr(dut, name).value = value
            await RisingEdge(dut.clk)
            outputs.append({name: int(getattr(dut, name).value) for name in OUTPUTS})
        found.append(outputs)
    Path(os.environ["VITFORGE_RESULT"]).write_text(json.dumps(found), encoding="utf-8")
