# SPDX-License-Identifier: Apache-2.0
"""The C driver of ``vitforge/driver`` on the simulated registers.

The driver is compiled to a shared library, and each of its accesses becomes a transfer on the bus
of `hw.control.registers.Registers` in Amaranth's simulator. Behind the registers a `Plan` plays the
datapath. Time goes on with accesses and with `Machine.advance` only, so a run is reproducible.
"""

__all__ = ["DRIVER", "Buffers", "Capability", "Counters", "Device", "FaultReport", "Machine",
           "Plan", "WAIT_HOOK", "build"]

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, c_int, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.sim import Simulator

from gen.registers import header
from hw.control.registers import COUNTED, Registers
from sim.testing.axi_lite import Master, monitor
from vitforge.spec.config import Config
from vitforge.spec.register_map import BUFFERS, COUNTERS, FAULTS

DRIVER = Path(__file__).parents[2] / "vitforge" / "driver"
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")

READ_HOOK = CFUNCTYPE(c_uint32, c_void_p, c_uint32)
WRITE_HOOK = CFUNCTYPE(None, c_void_p, c_uint32, c_uint32)
WAIT_HOOK = CFUNCTYPE(c_int, c_void_p)

#: The functions of ``port_functions.h``, which ask whoever loaded the library.
_HOOKS = """\
#include "port_functions.h"
uint32_t (*read_hook)(volatile uint32_t *, uint32_t);
void (*write_hook)(volatile uint32_t *, uint32_t, uint32_t);
uint32_t vitforge_bus_read(volatile uint32_t *registers, uint32_t offset)
{
    return read_hook(registers, offset);
}
void vitforge_bus_write(volatile uint32_t *registers, uint32_t offset, uint32_t value)
{
    write_hook(registers, offset, value);
}
"""


def _structure(name: str, fields: Sequence[tuple[str, Any]]) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields)})


# The structures of vitforge.h.
Device = _structure("Device", [("registers", c_void_p), ("wait", WAIT_HOOK),
                               ("context", c_void_p)])
Capability = _structure("Capability", [(name, c_uint32) for name in (
    "config_hash", "rows", "cols", "lanes", "axi_bytes")])
Buffers = _structure("Buffers", [(f"{name}_{part}", c_uint32) for name in BUFFERS
                                 for part in ("address", "bytes")])
FaultReport = _structure("FaultReport", [(name, c_uint32) for name in (
    "kind", "instruction", "address")])
Counters = _structure("Counters", [(name, c_uint64) for name in COUNTERS])


def build(folder: Path, config: Config, *, compiler: str = "gcc") -> Path:
    """Compile driver and example against the generated header, and return the library.

    Raises
    ------
    subprocess.CalledProcessError
        If the compiler refuses them.
    """
    (folder / "vitforge_registers.h").write_text(header(config), encoding="utf-8")
    (folder / "hooks.c").write_text(_HOOKS, encoding="utf-8")
    library = folder / "driver.so"
    subprocess.run([compiler, *FLAGS, "-O1", "-shared", "-fPIC", "-I", str(DRIVER), "-I",
                    str(folder), '-DVITFORGE_PORT="port_functions.h"', "-o", str(library),
                    str(DRIVER / "vitforge.c"), str(DRIVER / "example.c"),
                    str(folder / "hooks.c")], check=True, timeout=120)
    return library


@dataclass(frozen=True)
class Plan:
    """What the datapath does in the next run.

    Attributes
    ----------
    cycles
        Busy cycles until `done` or the fault; ``None``: until it is stopped.
    fault
        Kind, instruction and address, or ``None``.
    quiet
        Busy cycles after a fault or a stop.
    results
        What is written to the output buffer with `done`.
    """

    cycles: int | None = 100
    fault: tuple[str, int, int] | None = None
    quiet: int = 5
    results: bytes = b""


class Machine:
    """Registers, the datapath of a `Plan`, the output buffer, and the driver's library.

    Parameters
    ----------
    library
        As `build` made it.
    config
        The configuration of the registers.
    limit
        Cycles after which a simulation that does not come to an end raises TimeoutError.

    Attributes
    ----------
    lib
        The driver's functions.
    plan
        Of the next run.
    output
        The output buffer.
    refused
        Offsets of the accesses that got an error response.
    windows
        Buffers as the datapath saw them, one dictionary a run.
    """

    def __init__(self, library: Path, config: Config, *, limit: int = 100_000):
        self.dut: Any = Registers(config)
        self.plan = Plan()
        self.output = ctypes.create_string_buffer(4096)
        self.refused: list[int] = []
        self.windows: list[dict[str, int]] = []
        self.cycle = 0
        self.limit = limit
        self._error: BaseException | None = None
        self._request: tuple[int, int | None] | None = None
        self._answer: tuple[int, int] | None = None
        self._interrupt = 0
        self._simulator = Simulator(self.dut)
        self._simulator.add_clock(1e-6)
        for process in (self._bus, self._datapath, self._watch, self._monitor):
            self._simulator.add_testbench(process, background=process != self._bus)
        # Begin, so that a machine that is never used leaves no process that was never begun.
        self._simulator.advance()
        self.lib = ctypes.CDLL(str(library))
        self.lib.vitforge_fault_name.restype = ctypes.c_char_p
        # The library calls these as long as it lives.
        self._hooks = READ_HOOK(self._on_read), WRITE_HOOK(self._on_write)
        for name, hook in zip(("read_hook", "write_hook"), self._hooks, strict=True):
            c_void_p.in_dll(self.lib, name).value = ctypes.cast(hook, c_void_p).value
        self.device = Device()

    # The simulation.

    async def _bus(self, ctx: Any) -> None:
        master = Master(self.dut.s_axi)
        while True:
            if self._request is None:
                await ctx.tick()
                continue
            offset, value = self._request
            self._request = None
            if value is None:
                self._answer = await master.read(ctx, offset)
            else:
                self._answer = 0, await master.write(ctx, offset, value)

    async def _watch(self, ctx: Any) -> None:
        async for _, _, interrupt in ctx.tick().sample(self.dut.interrupt):
            self.cycle += 1
            self._interrupt = interrupt

    async def _monitor(self, ctx: Any) -> None:
        await monitor(ctx, self.dut.s_axi)

    async def _datapath(self, ctx: Any) -> None:
        dut = self.dut
        while True:
            # No `until` or `repeat`: they complain when a simulation is dropped in the middle.
            while not ctx.get(dut.start):
                await ctx.tick()
            plan = self.plan
            self.windows.append({f"{name}_{part}": ctx.get(getattr(dut, f"{name}_{part}"))
                                 for name in BUFFERS for part in ("address", "bytes")})
            ctx.set(dut.busy, 1)
            ctx.set(dut.events, dict.fromkeys(COUNTED, 1))
            fault = plan.fault
            cycle = 0
            while plan.cycles is None or cycle < plan.cycles:
                _, _, stop = await ctx.tick().sample(dut.stop)
                cycle += 1
                if stop:
                    fault = "stopped", 1, 0
                    break
            ctx.set(dut.events, dict.fromkeys(COUNTED, 0))
            if fault is None:
                ctypes.memmove(self.output, plan.results, len(plan.results))
                ctx.set(dut.busy, 0)
                ctx.set(dut.done, 1)
                await ctx.tick()
                ctx.set(dut.done, 0)
                continue
            kind, instruction, address = fault
            ctx.set(dut.fault, {"valid": 1, "kind": FAULTS[kind], "instruction": instruction,
                                "address": address})
            await ctx.tick()
            ctx.set(dut.fault, {"valid": 0})
            for _ in range(plan.quiet):
                await ctx.tick()
            ctx.set(dut.busy, 0)

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self.cycle > self.limit:
                raise TimeoutError(f"no end after {self.limit} cycles")
            self._simulator.advance()

    def advance(self, cycles: int, *, until_interrupt: bool = False) -> bool:
        """Let time pass, up to an interrupt if wanted; return whether there is one."""
        end = self.cycle + cycles
        self._until(lambda: self.cycle >= end or bool(until_interrupt and self._interrupt))
        return bool(self._interrupt)

    # The driver.

    def _access(self, offset: int, value: int | None) -> int:
        # An exception can't pass through C: it is raised when the driver has returned.
        if self._error is not None:
            return 0
        try:
            self._answer = None
            self._request = offset, value
            self._until(lambda: self._answer is not None)
            data, response = self._answer or (0, 0)
            if response:
                self.refused.append(offset)
            return data
        except Exception as error:
            self._error = error
            return 0

    def _on_read(self, registers: Any, offset: int) -> int:
        return self._access(offset, None)

    def _on_write(self, registers: Any, offset: int, value: int) -> None:
        self._access(offset, value)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the driver; the device comes first by itself.

        Raises
        ------
        TimeoutError, AssertionError
            If the simulation did not come to an end, or the bus broke a rule, below the call.
        """
        result = getattr(self.lib, f"vitforge_{name}")(ctypes.byref(self.device), *arguments)
        self.check()
        return result

    def check(self) -> None:
        """Raise what could not be raised below a call of the driver."""
        if self._error is not None:
            raise self._error

    def probe(self, config_hash: int = 0) -> tuple[int, Any]:
        """Call ``vitforge_probe``, and return its result and the capability."""
        capability = Capability()
        # The hooks don't look at the address; only NULL would be refused.
        result = self.call("probe", c_void_p(4096), c_uint32(config_hash),
                           ctypes.byref(capability))
        return result, capability

    def structure(self, name: str, kind: Any) -> Any:
        """Call a function that fills in a structure, and return this."""
        value = kind()
        self.call(name, ctypes.byref(value))
        return value

    def on_wait(self, function: Callable[[], int] | None) -> None:
        """Set the wait hook of the device."""
        def guarded(context: Any) -> int:
            try:
                return function() if function else 0
            except Exception as error:
                self._error = error
                return 1

        self._wait = WAIT_HOOK(guarded) if function else WAIT_HOOK()
        self.device.wait = self._wait
