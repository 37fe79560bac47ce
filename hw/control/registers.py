# SPDX-License-Identifier: Apache-2.0
"""The accelerator's registers: what a host sees of it, over AXI4-Lite, and the interrupt."""

__all__ = ["COUNTED", "FAULT_LAYOUT", "Registers"]

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi_lite import AxiLite, AxiLiteSlave
from hw.control.run_state import FAULT_LAYOUT, BufferCheck, RunState
from hw.lib.counters import Counters
from vitforge.spec.config import Config
from vitforge.spec.register_map import ADDRESS_BITS, BUFFERS, COUNTERS, REGISTERS, constants, find

#: The counters that the datapath drives; `cycles` is counted here.
COUNTED = tuple(name for name in COUNTERS if name != "cycles")


def _choose(bit: Value, low: Any, high: Any) -> Any:
    """Multiplex; where there is no register, the other one will do."""
    if low is None or high is None:
        return low if high is None else high
    return Mux(bit, high, low)


class Registers(wiring.Component):
    """The registers of `vitforge.spec.register_map`, between a host and the datapath.

    A run begins in the cycle of `start` and ends in the first cycle in which `busy` is low after
    (or with) a pulse of `done` or `fault`. CYCLES counts both of these cycles, and STATUS changes
    in the next one. So the datapath may say at once that it fails, and keep `busy` high until its
    bus is quiet; it may raise `busy` as late after `start` as it wants. The first fault is kept; a
    fault counts more than `done`. Events are counted in the cycles of a run only.

    `start` comes only if addresses and lengths of the buffers are multiples of `LINE`, the program
    is not empty, and no buffer reaches beyond the 32-bit address space; otherwise the run is one
    cycle with that fault. So the datapath can add an offset below a length to an address without a
    carry. The buffers don't change during a run.

    Between runs the datapath may be reset, but not the registers: they hold what the host wrote and
    how the run ended.

    Members
    -------
    s_axi : In(AxiLite(12))
        The host's bus.
    interrupt : Out(1)
        High while an enabled event is not cleared; a register.
    start : Out(1)
        Pulse: begin at the program's first byte.
    stop : Out(1)
        Pulse: end the run with a fault of the kind "stopped". Only during a run, but perhaps after
        its `done` or `fault`, and perhaps more than once.
    program_address, program_bytes, input_address, input_bytes, output_address, output_bytes
        The buffers; Out(32) each.
    busy : In(1)
        The datapath or its bus is at work. Low outside a run.
    done : In(1)
        Pulse: END was executed, and everything is written.
    fault : In(FAULT_LAYOUT)
        Something is wrong: `valid` is a pulse.
    events : In(StructLayout)
        A bit for each of `COUNTED`: count it in this cycle.
    """

    def __init__(self, config: Config):
        self.config = config
        buffers = {f"{name}_{part}": Out(32) for name in BUFFERS for part in ("address", "bytes")}
        super().__init__({
            "s_axi": In(AxiLite(ADDRESS_BITS)), "interrupt": Out(1),
            "start": Out(1), "stop": Out(1), **buffers,
            "busy": In(1), "done": In(1), "fault": In(FAULT_LAYOUT),
            "events": In(data.StructLayout({name: unsigned(1) for name in COUNTED})),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = AxiLiteSlave(ADDRESS_BITS)
        m.submodules.run = run = RunState()
        m.submodules.check = check = BufferCheck()
        m.submodules.counters = counters = Counters(tuple(COUNTERS))
        wiring.connect(m, wiring.flipped(self.s_axi), slave.bus)

        enable = Signal(2)
        pending = Signal(2)
        buffers = {register.name: getattr(self, register.name.lower())
                   for register in REGISTERS if register.locked}
        values: dict[str, Any] = {
            **{name: Const(value, 32) for name, value in constants(self.config).items()},
            "CONTROL": Const(0),
            "STATUS": Cat(run.running, run.succeeded, run.failed, run.stopped),
            "FAULT": run.report.kind, "FAULT_INSTRUCTION": run.report.instruction,
            "FAULT_ADDRESS": run.report.address, "IRQ_ENABLE": enable, "IRQ_STATUS": pending,
            **buffers,
            **{f"{name.upper()}_LOW": counters.low[name] for name in COUNTERS},
            **{f"{name.upper()}_HIGH": counters.high for name in COUNTERS},
        }
        self._reads(m, slave, values)
        self._writes(m, slave, run, {**buffers, "IRQ_ENABLE": enable})
        m.d.comb += [
            *(getattr(check, name.lower()).eq(value) for name, value in buffers.items()),
            run.wrong.eq(check.fault), run.busy.eq(self.busy), run.done.eq(self.done),
            run.fault.eq(self.fault), self.start.eq(run.start),
            counters.clear.eq(run.begun), counters.events.cycles.eq(run.running),
            *(counters.events[name].eq(run.running & self.events[name]) for name in COUNTED),
            *(counters.keep[name].eq(slave.read & self._is(slave.read_address,
                                                           f"{name.upper()}_LOW"))
              for name in COUNTERS),
        ]

        clear = Signal(2)
        with m.If(slave.write & self._is(slave.write_address, "IRQ_STATUS")):
            m.d.comb += clear.eq(slave.write_data & slave.write_mask)   # the bits that exist
        # What happens while its bit is being cleared is not lost.
        m.d.sync += [pending.eq(pending & ~clear | run.ended),
                     self.interrupt.eq((pending & enable).any())]
        return m

    @staticmethod
    def _is(address: Value, name: str) -> Value:
        return address == find(name).offset // 4

    def _reads(self, m: Module, slave: AxiLiteSlave, values: dict[str, Any]) -> None:
        # A tree of multiplexers on the address bits: half of the logic of comparing the address
        # with every offset.
        words = {register.offset // 4: values[register.name] for register in REGISTERS}
        bits = max(words).bit_length()
        level = [words.get(number) for number in range(1 << bits)]
        known: list[Any] = [Const(number in words) for number in range(1 << bits)]
        for bit in slave.read_address[:bits]:
            level = [_choose(bit, *pair) for pair in zip(level[::2], level[1::2], strict=True)]
            known = [_choose(bit, *pair) for pair in zip(known[::2], known[1::2], strict=True)]
        m.d.comb += [
            slave.read_data.eq(level[0]),
            slave.read_error.eq(~known[0] | slave.read_address[bits:].any()),
        ]

    def _writes(self, m: Module, slave: AxiLiteSlave, run: RunState,
                storage: dict[str, Any]) -> None:
        bits = slave.write_data & slave.write_mask
        control = find("CONTROL")
        start, stop = (bits[control.field(name).low] for name in ("start", "stop"))
        command = self._is(slave.write_address, control.name)
        accepted: Value = command & ~(start & (stop | run.running))
        for register in REGISTERS:
            here = self._is(slave.write_address, register.name)
            if register.locked:
                here &= ~run.running
            if register.access in ("rw", "w1c"):
                accepted |= here
            if register.access == "rw":
                # A register of few bits takes those that it has.
                target = storage[register.name]
                with m.If(slave.write & here):
                    m.d.sync += target.eq(bits | target & ~slave.write_mask)
        m.d.comb += [
            slave.write_error.eq(~accepted),
            run.begin.eq(slave.write & command & start & ~stop & ~run.running),
        ]
        m.d.sync += self.stop.eq(slave.write & command & stop & ~start & run.running)
