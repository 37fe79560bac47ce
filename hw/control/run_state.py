# SPDX-License-Identifier: Apache-2.0
"""When a run begins and ends, and how: the part of the registers that watches the datapath."""

__all__ = ["FAULT_LAYOUT", "BufferCheck", "RunState"]

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vitforge.spec.instruction import LINE
from vitforge.spec.register_map import BUFFERS, FAULTS, find

#: A fault; `valid` for one cycle, the rest counts in that cycle only.
FAULT_LAYOUT = data.StructLayout({"valid": 1, "kind": find("FAULT").field("kind").width,
                                  "instruction": 32, "address": 32})


class BufferCheck(wiring.Component):
    """Look for what is wrong with the buffers, all the time.

    In this order: address no multiple of `LINE`, length no multiple of `LINE` (or 0, for the
    program), end beyond ``2**32``; of the first buffer that has a fault. Latency 2.

    Members
    -------
    program_address, program_bytes, input_address, input_bytes, output_address, output_bytes
        The buffers; In(32) each.
    fault : Out(FAULT_LAYOUT)
        `valid` while something is wrong; the address is the buffer's.
    """

    latency = 2

    def __init__(self) -> None:
        super().__init__({
            **{f"{name}_{part}": In(32) for name in BUFFERS for part in ("address", "bytes")},
            "fault": Out(FAULT_LAYOUT),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind = Signal(FAULT_LAYOUT.members["kind"])
        where = Signal(32)
        m.d.sync += [self.fault.valid.eq(kind != FAULTS["none"]), self.fault.kind.eq(kind),
                     self.fault.instruction.eq(0), self.fault.address.eq(where)]
        low = (LINE - 1).bit_length()
        kinds = ("misaligned address", "bad length", "address outside the window")
        # The assignment that comes last wins, so what is reported first comes last.
        for name in reversed(BUFFERS):
            address, length = getattr(self, f"{name}_address"), getattr(self, f"{name}_bytes")
            end = Signal(33 - low, name=f"{name}_end")  # a sum of two numbers of 32 - low bits
            wrong = Signal(len(kinds), name=f"{name}_wrong")
            bad_length = length[:low].any()
            if name == "program":
                bad_length |= length == 0
            m.d.comb += end.eq(address[low:] + length[low:])
            # A buffer may end with the address space: then its end is 2**32 exactly.
            m.d.sync += wrong.eq(Cat(address[:low].any(), bad_length,
                                     end[-1] & end[:-1].any()))
            for bit in reversed(range(len(kinds))):
                with m.If(wrong[bit]):
                    m.d.comb += kind.eq(FAULTS[kinds[bit]])
            with m.If(wrong.any()):
                m.d.comb += where.eq(address)
        return m


class RunState(wiring.Component):
    """Follow a run from its start to its end.

    It begins in the cycle of `start` (or of `running`, if the buffers are wrong) and ends in the
    first cycle in which `busy` is low after, or with, a pulse of `done` or `fault`. The first fault
    is kept, until the next run; a fault counts more than `done`.

    Members
    -------
    begin : In(1)
        Start a run in the next cycle; only while none is `running`.
    begun : Out(1)
        One cycle after `begin`: what many registers wait for.
    wrong : In(FAULT_LAYOUT)
        While `valid`, a run that begins is nothing but this fault.
    busy, done, fault : In
        Of the datapath.
    start : Out(1)
        Pulse.
    running : Out(1)
        From the first to the last cycle of the run.
    succeeded, failed, stopped : Out(1)
        How the last run ended; low while one is `running`.
    report : Out(FAULT_LAYOUT)
        The fault from the cycle after its pulse on; without one, zeros. `valid` is `faulted`.
    ended : Out(2)
        In the last cycle of a run: bit 0 if it succeeded, bit 1 if it failed.
    """

    def __init__(self) -> None:
        super().__init__({
            "begin": In(1), "begun": Out(1), "wrong": In(FAULT_LAYOUT),
            "busy": In(1), "done": In(1), "fault": In(FAULT_LAYOUT),
            "start": Out(1), "running": Out(1), "succeeded": Out(1), "failed": Out(1),
            "stopped": Out(1), "report": Out(FAULT_LAYOUT), "ended": Out(2),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        refused = Signal()
        finished = Signal()
        fault = Signal(FAULT_LAYOUT)
        any_fault = Signal()
        ending = Signal()

        # The buffers stay as they are while a run is under way, so `wrong` does too.
        m.d.sync += [self.start.eq(self.begin & ~self.wrong.valid),
                     refused.eq(self.begin & self.wrong.valid)]
        m.d.comb += [
            fault.eq(Mux(refused, self.wrong, self.fault)),
            any_fault.eq(self.report.valid | fault.valid),
            ending.eq(self.running & ~self.busy & (finished | self.done | any_fault)),
            self.ended.eq(Mux(ending, Cat(~any_fault, any_fault), 0)),
            self.succeeded.eq(~self.running & finished & ~self.report.valid),
            self.failed.eq(~self.running & self.report.valid),
            self.stopped.eq(self.failed & (self.report.kind == FAULTS["stopped"])),
        ]
        with m.If(self.running & self.done):
            m.d.sync += finished.eq(1)
        # `begin` comes late in its cycle, so of the report it only clears what counts at once.
        m.d.sync += self.begun.eq(self.begin)
        with m.If(self.begun):
            m.d.sync += self.report.eq(0)
        with m.If(self.running & fault.valid & ~self.report.valid):
            m.d.sync += self.report.eq(fault)
        with m.If(ending):
            m.d.sync += self.running.eq(0)
        with m.If(self.begin):
            m.d.sync += [self.running.eq(1), finished.eq(0), self.report.valid.eq(0)]
        return m
