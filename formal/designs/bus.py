# SPDX-License-Identifier: Apache-2.0
"""The memory bus: the buffer of fetched words, bursts."""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Signal

from formal.checker import Checker
from formal.designs.lib import PLACES
from formal.streams import promised, soon, stored
from hw.bus.bursts import Bursts
from hw.bus.fetch_buffer import FetchBuffer
from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit


def fetch_buffer(config: Config) -> Checker:
    """Check a ring of four words of two bits: more of either is the same again."""
    return stored(FetchBuffer(2, PLACES), places=PLACES, held=PLACES + 2)


def bursts(config: Config) -> Checker:
    """Cut a range of a memory of 16 blocks: all of it, once, in order, no burst across a block."""
    limit = burst_limit(config)
    bits = limit.bit_length() + 3
    design: Any = Bursts(bits, limit)
    check = Checker(design)
    m = check.m
    wanted, burst = design.range.payload, design.o.payload
    following, end = Signal(bits + 1), Signal(bits + 1)
    active = Signal()
    taken = design.range.valid & design.range.ready
    check.assume("range_is_in_memory", ~design.range.valid
                 | (wanted.address + wanted.beats <= 1 << bits))
    after = burst.address + burst.more + 1
    with m.If(taken):
        m.d.sync += [following.eq(wanted.address), end.eq(wanted.address + wanted.beats),
                     active.eq(wanted.beats != 0)]
    with m.Elif(design.o.valid & design.o.ready):
        m.d.sync += following.eq(after)
        with m.If(design.last):
            m.d.sync += active.eq(0)
    promised(check, "o", design.o)
    check.prove("last_stays", ~check.past(design.o.valid & ~design.o.ready, "offered")
                | (design.last == check.past(design.last, "last")))
    check.prove("one_range_at_a_time", ~taken | ~active)
    check.prove("nothing_without_a_range", ~design.o.valid | active)
    check.prove("begins_where_the_one_before_ends", ~design.o.valid
                | (burst.address == following))
    check.prove("crosses_no_block", ~design.o.valid
                | (burst.address[:limit.bit_length() - 1] + burst.more < limit))
    check.prove("stays_in_the_range", ~design.o.valid | (after <= end))
    check.prove("last_ends_the_range", ~design.o.valid | (design.last == (after == end)))
    soon(check, "offered_within_three_cycles", active & ~design.o.valid, cycles=3)
    check.reach("whole_burst", design.o.valid & (burst.more == limit - 1))
    return check


DESIGNS = {"fetch-buffer": fetch_buffer, "bursts": bursts}
