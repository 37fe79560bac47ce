# SPDX-License-Identifier: Apache-2.0
"""The AXI4-Lite slave: one write and one read at a time, each done once and answered."""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Cat, Mux, Signal, Value

from formal.checker import Checker
from formal.streams import soon
from hw.bus.axi_lite import OKAY, SLVERR, AxiLiteSlave
from vitforge.spec.config import Config


def _count(check: Checker, name: str, happens: Value, answered: Value) -> Signal:
    """Return whether something has happened since the answer before."""
    signal = Signal(name=name)
    check.m.d.sync += signal.eq((signal | happens) & ~answered)
    return signal


def write(config: Config) -> Checker:
    """Check address and data in any order; the register is written once, when both are there."""
    design: Any = AxiLiteSlave(4)
    check, bus = Checker(design), design.bus
    answered = bus.bvalid & bus.bready
    taken_address, taken_data = bus.awvalid & bus.awready, bus.wvalid & bus.wready
    address = _count(check, "address_held", taken_address, answered)
    data = _count(check, "data_held", taken_data, answered)
    written = _count(check, "written", design.write, answered)
    kept = Signal(2), Signal(32), Signal(4), Signal()
    with check.m.If(taken_address):
        check.m.d.sync += kept[0].eq(bus.awaddr[2:])
    with check.m.If(taken_data):
        check.m.d.sync += [kept[1].eq(bus.wdata), kept[2].eq(bus.wstrb)]
    with check.m.If(design.write):
        check.m.d.sync += kept[3].eq(design.write_error)
    waits = check.past(bus.bvalid & ~bus.bready, "b_waits")
    check.prove("b_stays", ~waits | bus.bvalid & (bus.bresp == check.past(bus.bresp, "bresp")))
    check.prove("one_address_at_a_time", ~(taken_address & address))
    check.prove("one_data_at_a_time", ~(taken_data & data))
    check.prove("written_when_both_are_there", ~design.write | address & data)
    check.prove("written_once", ~(design.write & written))
    check.prove("written_where", ~design.write | (design.write_address == kept[0]))
    check.prove("written_what", ~design.write | (design.write_data == kept[1]))
    check.prove("written_in_which_bytes", ~design.write | (design.write_mask == Cat(
        strobe.replicate(8) for strobe in kept[2])))
    check.prove("answered_after_the_write", ~bus.bvalid | written)
    check.prove("answered_as_it_went", ~bus.bvalid
                | (bus.bresp == Mux(kept[3], SLVERR, OKAY)))
    soon(check, "answered_soon", address & data & ~bus.bvalid, cycles=1)
    soon(check, "takes_addresses_soon", ~address & ~bus.awready, cycles=1)
    soon(check, "takes_data_soon", ~data & ~bus.wready, cycles=1)
    check.reach("data_first", data & ~address)
    check.reach("refused", bus.bvalid & (bus.bresp == SLVERR))
    return check


def read(config: Config) -> Checker:
    """Check that a register is read once, and nothing of it leaks where the read is refused."""
    design: Any = AxiLiteSlave(4)
    check, bus = Checker(design), design.bus
    answered = bus.rvalid & bus.rready
    taken = bus.arvalid & bus.arready
    address = _count(check, "address_held", taken, answered)
    done = _count(check, "done", design.read, answered)
    where, value, refused = Signal(2), Signal(32), Signal()
    with check.m.If(taken):
        check.m.d.sync += where.eq(bus.araddr[2:])
    with check.m.If(design.read):
        check.m.d.sync += [refused.eq(design.read_error),
                           value.eq(Mux(design.read_error, 0, design.read_data))]
    answer = Cat(bus.rdata, bus.rresp)
    check.prove("r_stays", ~check.past(bus.rvalid & ~bus.rready, "r_waits")
                | bus.rvalid & (answer == check.past(answer, "r")))
    check.prove("one_at_a_time", ~(taken & address))
    check.prove("read_when_asked", ~design.read | address)
    check.prove("read_once", ~(design.read & done))
    check.prove("read_where", ~design.read | (design.read_address == where))
    check.prove("answered_after_the_read", ~bus.rvalid | done)
    check.prove("answered_what_was_read", ~bus.rvalid | (bus.rdata == value))
    check.prove("answered_as_it_went", ~bus.rvalid | (bus.rresp == Mux(refused, SLVERR, OKAY)))
    soon(check, "answered_soon", address & ~bus.rvalid, cycles=1)
    soon(check, "takes_addresses_soon", ~address & ~bus.arready, cycles=1)
    check.reach("refused", bus.rvalid & (bus.rresp == SLVERR))
    return check


DESIGNS = {"axi-lite-write": write, "axi-lite-read": read}
