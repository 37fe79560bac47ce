# SPDX-License-Identifier: Apache-2.0
"""How a run begins and ends: every one that begins ends, once, and says how."""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Signal

from formal.checker import Checker
from formal.streams import soon
from hw.control.run_state import RunState
from vitforge.spec.config import Config
from vitforge.spec.register_map import FAULTS


def run(config: Config) -> Checker:
    """Check the state of a run against what has happened in it."""
    design: Any = RunState()
    check = Checker(design)
    m = check.m
    running = Signal(name="under_way")
    done, failed = Signal(name="was_done"), Signal(name="has_failed")
    kind = Signal.like(design.fault.kind, name="first_kind")
    refused = check.past(design.begin & design.wrong.valid, "refused")
    check.assume("begins_only_while_none_runs", ~(design.begin & design.running))
    check.assume("wrong_stays", ~design.running
                 | (design.wrong.as_value() == check.past(design.wrong.as_value(), "wrong")))
    fault = design.fault.valid | refused & design.wrong.valid
    new_kind = Signal.like(kind)
    m.d.comb += new_kind.eq(design.fault.kind)
    with m.If(refused):
        m.d.comb += new_kind.eq(design.wrong.kind)
    with m.If(running):
        with m.If(design.done):
            m.d.sync += done.eq(1)
        with m.If(fault & ~failed):
            m.d.sync += [failed.eq(1), kind.eq(new_kind)]
    with m.If(design.begin):
        m.d.sync += [running.eq(1), done.eq(0), failed.eq(0)]
    with m.Elif(design.ended != 0):
        m.d.sync += running.eq(0)
    check.prove("runs_from_begin_to_end", design.running == running)
    check.prove("starts_a_cycle_after_begin", design.start == check.past(
        design.begin & ~design.wrong.valid, "begin"))
    check.prove("starts_only_while_running", ~design.start | design.running)
    check.prove("ends_one_way", design.ended != 3)
    check.prove("ends_only_while_running", (design.ended == 0) | running)
    over = running & ~design.busy & (done | design.done | failed | fault)
    check.prove("ends_when_it_is_over", (design.ended != 0) == over)
    check.prove("fails_if_anything_failed", ~design.ended[1] | failed | fault)
    check.prove("succeeds_if_nothing_failed", ~design.ended[0] | ~failed & ~fault)
    soon(check, "ends_with_a_fault_once_idle", running & (failed | fault) & ~design.busy,
         cycles=1)
    check.prove("one_result", design.running + design.succeeded + design.failed <= 1)
    check.prove("stopped_is_a_failure", ~design.stopped | design.failed)
    check.prove("keeps_the_first_fault", ~design.failed | (design.report.kind == kind))
    check.prove("stopped_is_that_fault", design.stopped
                == (design.failed & (design.report.kind == FAULTS["stopped"])))
    check.reach("failed", design.failed)
    check.reach("succeeded", design.succeeded)
    check.reach("stopped", design.stopped)
    return check


DESIGNS = {"run-state": run}
