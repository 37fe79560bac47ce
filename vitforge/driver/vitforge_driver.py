# SPDX-License-Identifier: Apache-2.0
"""The driver in Python, for a processor that runs Linux beside the accelerator: copy this file.

It has the calls of ``vitforge.h``, needs nothing but Python 3.8, and knows the registers from
``registers.json``, which ``python -m gen.verilog`` writes::

    import json
    from pynq import Overlay, allocate
    from vitforge_driver import Buffer, Device, Result

    overlay = Overlay("vitforge.bit")
    device = Device(overlay.accelerator.mmio, json.load(open("registers.json")))
    device.probe()
    program, image, output = (Buffer.of_pynq(allocate, size) for size in (189632, 832, 128))
    program.write(open("program.bin", "rb").read())
    image.write(pixels)
    device.load(program, image, output)
    device.start()
    if device.wait(1000) is Result.OK:
        print(device.read_logits(10))

What the C driver returns as an error is an exception here, `DriverError`; what it returns as a
state is a `Result`.
"""

from __future__ import annotations

__all__ = ["Buffer", "Device", "DriverError", "Fault", "MappedRegisters", "Registers", "Result"]

import mmap
import os
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

ALIGNMENT = 64
#: First number of the registers' version that this driver knows.
MAJOR = 1


class Result(IntEnum):
    """State of a run, and errors; the numbers are those of ``enum vitforge_result``."""

    OK = 0
    BUSY = 1
    IDLE = 2
    FAULTED = -1
    TIMEOUT = -2
    NO_DEVICE = -3
    WRONG_VERSION = -4
    WRONG_CONFIG = -5
    INVALID = -6
    REFUSED = -7


class DriverError(Exception):
    """A call that could not be carried out; `result` says why."""

    def __init__(self, result: Result, message: str) -> None:
        super().__init__(message)
        self.result = result


class Fault(NamedTuple):
    """Why a run ended early: a name, the instruction's index, and the address it was about."""

    kind: str
    instruction: int
    address: int


class Registers(Protocol):
    """What a `Device` needs of its registers; offsets are in bytes."""

    def read(self, offset: int) -> int: ...

    def write(self, offset: int, value: int) -> Any: ...


class MappedRegisters:
    """Registers in a file that can be mapped: ``/dev/uio0``, or ``/dev/mem`` with an offset.

    PYNQ's ``MMIO`` has the same two methods and may be used in its place.

    Parameters
    ----------
    path
    offset, size
        Of the registers in the file, in bytes; the offset is a multiple of a page.
    """

    def __init__(self, path: str | os.PathLike[str], offset: int = 0, size: int = 4096) -> None:
        file = os.open(path, os.O_RDWR | getattr(os, "O_SYNC", 0))
        try:
            self._map = mmap.mmap(file, size, offset=offset)
        finally:
            os.close(file)
        # Whole words, in one access each.
        self._words = memoryview(self._map).cast("I")

    def read(self, offset: int) -> int:
        """Return the register at a byte offset."""
        return self._words[offset // 4]

    def write(self, offset: int, value: int) -> None:
        """Write it."""
        self._words[offset // 4] = value

    def close(self) -> None:
        """Give the mapping back."""
        self._words.release()
        self._map.close()


class Buffer:
    """Memory that processor and accelerator share.

    Parameters
    ----------
    address
        As the accelerator sees it, a multiple of 64.
    data
        The same bytes as the processor sees them: anything with a writable buffer, whose length is
        a multiple of 64.
    flush, invalidate
        Called before a start, and before results are read, where caches need it.
    """

    def __init__(self, address: int, data: Any, flush: Callable[[], Any] | None = None,
                 invalidate: Callable[[], Any] | None = None) -> None:
        self.address = address
        self.data = memoryview(data).cast("B")
        self.flush: Callable[[], Any] = flush or (lambda: None)
        self.invalidate: Callable[[], Any] = invalidate or (lambda: None)

    @classmethod
    def of_pynq(cls, allocate: Callable[..., Any], size: int) -> Buffer:
        """Return a buffer of at least `size` bytes that ``pynq.allocate`` has made."""
        array = allocate(shape=(-(-size // ALIGNMENT) * ALIGNMENT,), dtype="u1")
        return cls(array.device_address, array, array.flush, array.invalidate)

    def write(self, data: bytes) -> None:
        """Fill the beginning.

        Raises
        ------
        ValueError
            If there is not as much room.
        """
        if len(data) > len(self.data):
            raise ValueError(f"the buffer has {len(self.data)} bytes, not {len(data)}")
        self.data[:len(data)] = data


class Device:
    """An accelerator.

    Parameters
    ----------
    registers
        Has ``read(offset)`` and ``write(offset, value)``: `MappedRegisters`, or PYNQ's ``MMIO``.
    description
        What ``registers.json`` holds.
    wait
        Called between two polls: to sleep, or to wait for the interrupt. Something true gives up.
    """

    def __init__(self, registers: Registers, description: dict[str, Any],
                 wait: Callable[[], Any] | None = None) -> None:
        self._registers = registers
        self._list = {item["name"]: item for item in description["registers"]}
        self.wait_hook = wait
        self._buffers: tuple[Buffer, Buffer, Buffer] | None = None

    # Registers by name.

    def _get(self, name: str) -> int:
        return self._registers.read(self._list[name]["offset"])

    def _put(self, name: str, value: int) -> None:
        self._registers.write(self._list[name]["offset"], value)

    def _item(self, name: str, field: str) -> dict[str, Any]:
        return next(item for item in self._list[name]["fields"] if item["name"] == field)

    def _mask(self, name: str, field: str) -> int:
        item = self._item(name, field)
        return int((1 << item["width"]) - 1 << item["low"])

    def _field(self, name: str, field: str) -> int:
        low: int = self._item(name, field)["low"]
        return (self._get(name) & self._mask(name, field)) >> low

    # The calls of the C driver.

    def probe(self, config_hash: int | None = None) -> dict[str, int]:
        """Look for the accelerator, turn its interrupts off, and return its sizes by name.

        Parameters
        ----------
        config_hash
            The expected configuration; by default that of the description, if it has one. 0 accepts
            any.

        Raises
        ------
        DriverError
            NO_DEVICE, WRONG_VERSION or WRONG_CONFIG.
        """
        if self._get("ID") != self._list["ID"]["reset"]:
            raise DriverError(Result.NO_DEVICE, "no accelerator at this address")
        if self._field("VERSION", "major") != MAJOR:
            raise DriverError(Result.WRONG_VERSION, "registers of another major version")
        if config_hash is None:
            config_hash = self._list["CONFIG_HASH"]["reset"] or 0
        found = self._get("CONFIG_HASH")
        if config_hash and found != config_hash:
            raise DriverError(Result.WRONG_CONFIG,
                              f"the configuration is {found:08x}, not {config_hash:08x}")
        self.enable_interrupts(0)
        sizes = {item["name"]: self._field("CAPABILITY", item["name"])
                 for item in self._list["CAPABILITY"]["fields"]}
        return {**sizes, "config_hash": found}

    def load(self, program: Buffer, image: Buffer, output: Buffer) -> None:
        """Set the buffers of the runs to come.

        Raises
        ------
        DriverError
            INVALID, BUSY or REFUSED.
        """
        buffers = {"PROGRAM": program, "INPUT": image, "OUTPUT": output}
        for name, buffer in buffers.items():
            size = len(buffer.data)
            if buffer.address % ALIGNMENT or size % ALIGNMENT or not 0 <= buffer.address < 1 << 32 \
                    or buffer.address + size > 1 << 32 or (name == "PROGRAM" and not size):
                raise DriverError(Result.INVALID, f"the {name.lower()} buffer can't be at "
                                  f"0x{buffer.address:x} with {size} bytes")
        if self._field("STATUS", "busy"):
            raise DriverError(Result.BUSY, "a run is under way")
        writes = [(f"{name}_{part}", value) for name, buffer in buffers.items()
                  for part, value in (("ADDRESS", buffer.address), ("BYTES", len(buffer.data)))]
        for name, value in writes:
            self._put(name, value)
        for name, value in writes:
            if self._get(name) != value:
                raise DriverError(Result.REFUSED, f"{name} did not take its value")
        self._buffers = program, image, output

    def start(self) -> None:
        """Start a run; what was written to program and image before is seen by it.

        Raises
        ------
        DriverError
            BUSY.
        """
        if self._field("STATUS", "busy"):
            raise DriverError(Result.BUSY, "a run is under way")
        # An interrupt of an earlier run must not be taken for one of this run.
        self.acknowledge()
        for buffer in self._buffers or ():
            buffer.flush()
        self._put("CONTROL", self._mask("CONTROL", "start"))

    def poll(self) -> Result:
        """Look once: OK if the last run is done, else BUSY, FAULTED or IDLE."""
        status = self._get("STATUS")
        for field, result in (("busy", Result.BUSY), ("fault", Result.FAULTED),
                              ("done", Result.OK)):
            if status & self._mask("STATUS", field):
                return result
        return Result.IDLE

    def wait(self, polls: int) -> Result:
        """Poll up to so often, with the hook between; TIMEOUT if the run is still under way."""
        for left in range(polls, 0, -1):
            result = self.poll()
            if result is not Result.BUSY:
                return result
            if left > 1 and self.wait_hook is not None and self.wait_hook():
                break
        return Result.TIMEOUT

    def stop(self) -> None:
        """Ask for an early end, which comes when the bus is quiet: wait for it."""
        self._put("CONTROL", self._mask("CONTROL", "stop"))

    def read_logits(self, count: int) -> list[int]:
        """Return the first `count` logits of a run that is done.

        Raises
        ------
        DriverError
            What `poll` returns if the run isn't done, or INVALID for more than the buffer holds.
        """
        result = self.poll()
        if result is not Result.OK:
            raise DriverError(result, f"the run is not done: {result.name}")
        if self._buffers is None:
            raise DriverError(Result.INVALID, "no buffers were loaded")
        output = self._buffers[2]
        columns = self._field("CAPABILITY", "cols")
        # A pass of the head writes `columns` results, and begins a line.
        pitch = -(-columns * 4 // ALIGNMENT) * ALIGNMENT
        if not columns or -(-count // columns) > len(output.data) // pitch:
            raise DriverError(Result.INVALID, f"the output buffer does not hold {count} logits")
        output.invalidate()
        return [struct.unpack_from("<i", output.data, place // columns * pitch
                                   + place % columns * 4)[0] for place in range(count)]

    def fault(self) -> Fault:
        """Say why the last run ended early, as a `Fault`; its kind is "none" if it did not."""
        return Fault(self.fault_name(self._field("FAULT", "kind")), self._get("FAULT_INSTRUCTION"),
                     self._get("FAULT_ADDRESS"))

    def fault_name(self, kind: int) -> str:
        """Return the name of a kind of fault, "unknown" for a number without one."""
        return next((str(item["name"]) for item in self._item("FAULT", "kind")["values"]
                     if item["value"] == kind), "unknown")

    def counters(self) -> dict[str, int]:
        """Return the counters of the last run by name, in small letters."""
        found = {}
        for name in self._list:
            if name.endswith("_LOW"):
                # The lower half first: reading it keeps the upper half.
                low = self._get(name)
                found[name[:-4].lower()] = low | self._get(name[:-4] + "_HIGH") << 32
        return found

    def enable_interrupts(self, mask: int) -> None:
        """Choose the interrupts: 1 when a run is done, 2 when it ends early, 3 both, 0 none."""
        self._put("IRQ_ENABLE", mask)

    def acknowledge(self) -> int:
        """Clear the interrupts, and return which there were."""
        events = self._get("IRQ_STATUS")
        # Only those that were seen: what comes between stays for the next call.
        self._put("IRQ_STATUS", events)
        return events
