# SPDX-License-Identifier: Apache-2.0
"""The accelerator: registers, core, and the run between start and done."""

__all__ = ["Accelerator"]

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi import flat, read_channels, write_channels
from hw.bus.axi_lite import AxiLite
from hw.control.registers import FAULT_LAYOUT, Registers
from hw.core import Core
from vitforge.spec.config import Config
from vitforge.spec.register_map import ADDRESS_BITS, FAULTS


class Accelerator(wiring.Component):
    """Run programs of `vitforge.spec.instruction` from memory, without the host.

    Between runs the core is in reset; it begins one cycle after a start. A run ends with the core's
    `done` if all of the program has been read; and else, or after a fault or a stop, as soon as the
    bus is quiet: what has been asked for is still taken, what has been announced is still written,
    so the memory never sees a broken transfer, and the next run begins from a clean state. Until
    then the core stays stopped.

    Members
    -------
    s_axi : In(flat)
        AXI4-Lite slave: `vitforge.spec.register_map`.
    m_axi : Out(flat)
        AXI4 master of `axi_bits`.
    interrupt : Out(1)
    """

    def __init__(self, config: Config):
        self.config = config
        self.core = Core(config)
        super().__init__({
            **flat("s_axi", AxiLite(ADDRESS_BITS).flip()),
            **flat("m_axi", read_channels(config.axi_bits)),
            **flat("m_axi", write_channels(config.axi_bits)),
            "interrupt": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.registers = registers = Registers(self.config)
        for name, member in AxiLite(ADDRESS_BITS).flip().members.items():
            port, inner = getattr(self, f"s_axi_{name}"), getattr(registers.s_axi, name)
            m.d.comb += inner.eq(port) if member.flow == In else port.eq(inner)
        for name, member in core.signature.members.items():
            if name.startswith("m_axi_"):
                port, inner = getattr(self, name), getattr(core, name)
                m.d.comb += inner.eq(port) if member.flow == In else port.eq(inner)
            elif name.endswith(("_address", "_bytes")):
                m.d.comb += getattr(core, name).eq(getattr(registers, name))

        running = Signal()
        halting = Signal()
        begin = Signal()
        m.d.comb += [
            core.clear.eq(~(running | registers.start)),
            core.begin.eq(begin),
            core.stop.eq(halting),
            self.interrupt.eq(registers.interrupt),
            registers.busy.eq(running),
            registers.done.eq(running & ~halting & core.done),
            registers.events.eq(core.events),
        ]
        m.d.sync += begin.eq(registers.start)
        with m.If(registers.start):
            m.d.sync += [running.eq(1), halting.eq(0)]
        with m.Elif(running & ~halting):
            with m.If(registers.stop | core.fault.valid | core.done):
                m.d.sync += halting.eq(1)
            # What lies behind END may be under way, or be asked for right now.
            with m.If(core.done & core.exhausted & ~registers.stop & ~core.fault.valid):
                m.d.sync += running.eq(0)
        with m.Elif(core.quiet & ~begin):
            m.d.sync += running.eq(0)

        fault = Signal(FAULT_LAYOUT)
        m.d.comb += [fault.eq(core.fault), fault.valid.eq(running & ~halting & core.fault.valid)]
        m.d.comb += registers.fault.eq(fault)
        with m.If(running & ~halting & registers.stop & ~core.fault.valid):
            m.d.comb += [registers.fault.valid.eq(1), registers.fault.kind.eq(FAULTS["stopped"]),
                         registers.fault.address.eq(0)]
        return m
