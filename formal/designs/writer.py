# SPDX-License-Identifier: Apache-2.0
"""The AXI4 write master, with a memory that takes address and data in any order.

That the bursts of a range are all of it, and nothing else, is proved of `hw.bus.bursts.Bursts`.
"""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Cat, Mux, Signal, Value

from formal.checker import Checker
from formal.designs.ranges import LINE, PAGES, command, held
from formal.streams import soon
from hw.bus.axi import BEAT_ADDRESSES, INCREMENTING
from hw.bus.writer import MemoryWriter
from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit

BITS = PAGES.bit_length()
#: A burst is in one page (IHI 0022, A3.4.1).
PAGE_BITS = 12


class _Burst:
    """The burst under way, as the bus shows it."""

    def __init__(self, check: Checker, axi: Any) -> None:
        m = check.m
        self.open = Signal(name="burst_open")
        self.address_taken = Signal()
        self.data_done = Signal()
        self.beat = Signal(8)
        begins = axi.awvalid & ~self.open
        taken = axi.wvalid & axi.wready
        self.answered = axi.bvalid & axi.bready
        m.d.sync += self.open.eq(self.open | begins)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += self.address_taken.eq(1)
        with m.If(taken):
            m.d.sync += [self.beat.eq(self.beat + 1), self.data_done.eq(axi.wlast)]
        with m.If(self.answered):
            m.d.sync += [self.open.eq(0), self.address_taken.eq(0), self.data_done.eq(0),
                         self.beat.eq(0)]
        self.begins = begins
        self.length = Signal(8, name="burst_length")
        self.first = Signal(BITS, name="burst_address")
        with m.If(begins):
            m.d.sync += [self.length.eq(axi.awlen), self.first.eq(axi.awaddr)]


def _driven(config: Config) -> tuple[Checker, Any, _Burst, Signal]:
    """Return the master with commands, one bit of each sum, a stop, and a memory that answers."""
    design: Any = MemoryWriter(config)
    check = Checker(design, given={"command__payload", "data__payload", "stop"})
    command(check, "command", design.command, multiple=min(config.lanes * 4, LINE))
    # The bits of a sum go side by side: one is enough to see where it goes.
    check.m.d.comb += Cat(Value.cast(design.data.payload)[at] for at in range(
        0, 32 * config.lanes, 32)).eq(check.free(config.lanes, "sums"))
    stopped = held(check, design.stop)
    burst = _Burst(check, design.axi)
    check.assume("answers_what_is_done", ~design.axi.bvalid
                 | burst.address_taken & burst.data_done)
    return check, design, burst, stopped


def writer(config: Config) -> Checker:
    """Check the rules of the bus, and what a stop is promised."""
    check, design, burst, stopped = _driven(config)
    axi = design.axi
    _channels(check, axi, burst, config)
    check.prove("error_is_of_the_answer", design.error.valid
                == check.past(burst.answered & axi.bresp[1], "refused"))
    check.prove("idle_has_nothing_open", ~design.idle | ~burst.open & ~axi.awvalid & ~axi.wvalid)
    check.prove("takes_commands_when_idle", ~design.command.ready | design.idle)
    check.prove("begins_nothing_after_stop", ~burst.begins | ~stopped | check.past(
        ~stopped, "running"))
    check.prove("takes_no_word_after_stop", ~(design.stop & design.data.ready))
    check.prove("finishes_at_once_after_stop", ~(design.stop & burst.open & ~burst.data_done)
                | axi.wvalid)
    willing = axi.awready & axi.wready & (axi.bvalid
                                          | ~(burst.address_taken & burst.data_done))
    soon(check, "is_idle_soon_after_stop", stopped & willing & ~design.idle,
         cycles=burst_limit(config) + 4)
    check.reach("stopped_in_a_burst", stopped & burst.open & axi.wvalid & (axi.wstrb == 0))
    check.reach("data_before_address", burst.data_done & ~burst.address_taken)
    return check


def _channels(check: Checker, axi: Any, burst: _Burst, config: Config) -> None:
    """Prove the rules of AW and W."""
    address = Cat(axi.awaddr, axi.awlen)
    check.prove("aw_stays", ~check.past(axi.awvalid & ~axi.awready, "aw_waits")
                | axi.awvalid & (address == check.past(address, "aw")))
    data = Cat(axi.wdata, axi.wstrb, axi.wlast)
    check.prove("w_stays", ~check.past(axi.wvalid & ~axi.wready & ~axi.wstrb.any(), "w_bare")
                | axi.wvalid & (Cat(axi.wlast) == check.past(axi.wlast, "wlast")))
    check.prove("w_keeps_its_bytes", ~check.past(axi.wvalid & ~axi.wready & axi.wstrb.any(),
                                                 "w_waits")
                | axi.wvalid & (data == check.past(data, "w")))
    low = BEAT_ADDRESSES[config.axi_bits]
    check.prove("aw_is_of_whole_beats", ~axi.awvalid | (axi.awburst == INCREMENTING)
                & (axi.awsize == low) & (axi.awaddr[:low] == 0) & (axi.awid == 0))
    check.prove("aw_is_no_longer_than_a_burst", ~axi.awvalid | (axi.awlen < burst_limit(config)))
    last = axi.awaddr[:PAGE_BITS] + (axi.awlen << low)
    check.prove("aw_stays_in_its_page", ~axi.awvalid | (last < 1 << PAGE_BITS))
    check.prove("aw_comes_once", ~axi.awvalid | ~burst.address_taken)
    check.prove("aw_waits_for_nothing", ~burst.open | burst.address_taken | axi.awvalid)
    check.prove("w_comes_with_a_burst", ~axi.wvalid | axi.awvalid | burst.address_taken)
    length = Mux(burst.open, burst.length, axi.awlen)
    check.prove("w_ends_with_its_burst", ~axi.wvalid | (axi.wlast == (burst.beat == length)))
    check.prove("w_ends", ~burst.data_done | ~axi.wvalid)


DESIGNS = {"writer": writer}
