# SPDX-License-Identifier: Apache-2.0
"""AXI4-Lite: the signals of the bus, and the slave's side of its handshakes."""

__all__ = ["AxiLite", "AxiLiteSlave", "OKAY", "SLVERR"]

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

OKAY = 0b00
SLVERR = 0b10


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32 bits of data, seen from the master.

    The members have the names of the specification, in small letters, so that a top module with
    members ``s_axi_<name>`` has the ports that integration tools look for.

    Parameters
    ----------
    address_bits
        Width of the byte addresses.
    """

    def __init__(self, address_bits: int):
        self.address_bits = address_bits
        super().__init__({
            "awaddr": Out(address_bits), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address_bits), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AxiLite) and other.address_bits == self.address_bits


class AxiLiteSlave(wiring.Component):
    """Turn bus transfers into one-cycle accesses of 32-bit registers.

    One write and one read may be under way at a time, independently of each other. Address and data
    of a write may come in any order. Every output of the bus is a register. With a master that is
    always ready, a write is done 1 cycle after the later of its address and data was taken and a
    read 1 cycle after its address; the response is valid in the next cycle. The protection bits and
    the two lowest bits of an address are ignored.

    Members
    -------
    bus : In(AxiLite(address_bits))
        The bus.
    write : Out(1)
        A write is done in this cycle, ...
    write_address, write_data, write_mask : Out
        ... to this register (the address without its two lowest bits), with this value, in the
        bits that are ones in the mask.
    write_error : In(1)
        In the same cycle: answer SLVERR.
    read : Out(1)
        A register is read in this cycle.
    read_address : Out
        Which one.
    read_data, read_error : In
        In the same cycle: its value, and whether to answer SLVERR.
    """

    def __init__(self, address_bits: int):
        super().__init__({
            "bus": In(AxiLite(address_bits)),
            "write": Out(1), "write_address": Out(address_bits - 2), "write_data": Out(32),
            "write_mask": Out(32), "write_error": In(1),
            "read": Out(1), "read_address": Out(address_bits - 2), "read_data": In(32),
            "read_error": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._write(m)
        self._read(m)
        return m

    def _write(self, m: Module) -> None:
        bus = self.bus
        address = Signal.like(self.write_address, name="held_address", reset_less=True)
        value = Signal(32, name="held_data", reset_less=True)
        strobes = Signal(4, name="held_strobes", reset_less=True)
        # Registers of their own, and not the inverse of what is held, so that they are low during
        # reset: a master that is out of reset before this slave must not see its transfer taken.
        awready = Signal()
        wready = Signal()
        address_held = Signal()
        value_held = Signal()
        m.d.comb += [
            bus.awready.eq(awready), bus.wready.eq(wready),
            self.write.eq(address_held & value_held & ~bus.bvalid),
            self.write_address.eq(address), self.write_data.eq(value),
            self.write_mask.eq(Cat(strobe.replicate(8) for strobe in strobes)),
        ]
        m.d.sync += [awready.eq(~address_held), wready.eq(~value_held)]
        with m.If(bus.awvalid & awready):
            m.d.sync += [awready.eq(0), address_held.eq(1), address.eq(bus.awaddr[2:])]
        with m.If(bus.wvalid & wready):
            m.d.sync += [wready.eq(0), value_held.eq(1), value.eq(bus.wdata),
                         strobes.eq(bus.wstrb)]
        with m.If(self.write):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(OKAY)]
            with m.If(self.write_error):
                m.d.sync += bus.bresp.eq(SLVERR)
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += [bus.bvalid.eq(0), address_held.eq(0), value_held.eq(0),
                         awready.eq(1), wready.eq(1)]

    def _read(self, m: Module) -> None:
        bus = self.bus
        address = Signal.like(self.read_address, name="read_held", reset_less=True)
        arready = Signal()
        held = Signal()
        m.d.comb += [
            bus.arready.eq(arready),
            self.read.eq(held & ~bus.rvalid),
            self.read_address.eq(address),
        ]
        m.d.sync += arready.eq(~held)
        with m.If(bus.arvalid & arready):
            m.d.sync += [arready.eq(0), held.eq(1), address.eq(bus.araddr[2:])]
        with m.If(self.read):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(self.read_data), bus.rresp.eq(OKAY)]
            with m.If(self.read_error):
                # Nothing of a register leaks into a refused read.
                m.d.sync += [bus.rdata.eq(0), bus.rresp.eq(SLVERR)]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += [bus.rvalid.eq(0), held.eq(0), arready.eq(1)]
