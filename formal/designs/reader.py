# SPDX-License-Identifier: Apache-2.0
"""The AXI4 read master, with a memory that ends bursts wherever it likes.

So what is proved holds whatever a memory does with RLAST; that a beat of the program always finds
room, which depends on the lengths, is not among it.
"""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Cat, Signal

from formal.checker import Checker
from formal.designs.ranges import command, held
from formal.streams import soon
from hw.bus.axi import BEAT_ADDRESSES, INCREMENTING
from hw.bus.reader import MemoryReader
from vitforge.spec.config import Config
from vitforge.spec.packing import OUTSTANDING, burst_limit

#: A burst is in one page (IHI 0022, A3.4.1).
PAGE_BITS = 12


def reader(config: Config) -> Checker:
    """Check the rules of AR and R, and what a stop is promised."""
    design: Any = MemoryReader(config)
    check = Checker(design, given={"start__payload", "load__payload", "stop", "axi__rdata"})
    for name in ("start", "load"):
        command(check, name, getattr(design, name))
    # The bits of a beat go side by side: one is enough to see where it goes.
    check.m.d.comb += design.axi.rdata.eq(check.free(1, "rdata"))
    stopped, axi = held(check, design.stop), design.axi
    asked, come = axi.arvalid & axi.arready, axi.rvalid & axi.rready
    outstanding = Signal(range(2 * OUTSTANDING))
    check.m.d.sync += outstanding.eq(outstanding + asked - (come & axi.rlast))
    check.assume("answers_what_was_asked", ~axi.rvalid | (outstanding != 0))
    _addresses(check, axi, config)
    beat = Cat(axi.rdata, axi.rresp, axi.rlast)
    check.assume("r_stays", ~check.past(axi.rvalid & ~axi.rready, "r_waits")
                 | axi.rvalid & (beat == check.past(beat, "r")))
    check.prove("idle_expects_nothing", ~design.idle | (outstanding == 0))
    check.prove("waits_for_what_was_chosen", ~design.waiting | ~design.idle)
    check.prove("error_is_of_the_beat", design.error.valid
                == check.past(come & axi.rresp[1], "refused"))
    payload = design.data.payload
    check.prove("data_stays", ~check.past(design.data.valid & ~design.data.ready, "data_waits")
                | design.stop | design.data.valid
                & (payload == check.past(payload, "data")))
    check.prove("words_stay", ~check.past(design.words.valid & ~design.words.ready, "words_wait")
                | design.words.valid
                & (design.words.payload == check.past(design.words.payload, "words")))
    check.prove("data_is_the_beat", ~design.data.valid | axi.rvalid & (payload == axi.rdata))
    check.prove("data_taken_is_r_taken", ~(design.data.valid & design.data.ready) | come)
    # Stop.
    begins = axi.arvalid & ~check.past(axi.arvalid & ~axi.arready, "ar_waiting")
    check.prove("asks_nothing_new_after_stop", ~begins | ~check.past(design.stop, "stop"))
    check.prove("hands_out_no_data_after_stop", ~(design.stop & design.data.valid))
    check.prove("takes_all_after_stop", ~(design.stop & axi.rvalid) | axi.rready)
    willing = axi.arready & (axi.rvalid & axi.rlast | (outstanding == 0))
    soon(check, "is_idle_soon_after_stop", stopped & willing & ~design.idle,
         cycles=OUTSTANDING, left=outstanding + axi.arvalid + (axi.arvalid & (outstanding == 0)))
    check.reach("four_outstanding", outstanding == 4)
    check.reach("stopped_while_asking", stopped & axi.arvalid)
    return check


def _addresses(check: Checker, axi: Any, config: Config) -> None:
    """Prove the rules of AR."""
    low = BEAT_ADDRESSES[config.axi_bits]
    address = Cat(axi.araddr, axi.arlen)
    check.prove("ar_stays", ~check.past(axi.arvalid & ~axi.arready, "ar_waits")
                | axi.arvalid & (address == check.past(address, "ar")))
    check.prove("ar_is_of_whole_beats", ~axi.arvalid | (axi.arburst == INCREMENTING)
                & (axi.arsize == low) & (axi.araddr[:low] == 0) & (axi.arid == 0))
    check.prove("ar_is_no_longer_than_a_burst", ~axi.arvalid | (axi.arlen < burst_limit(config)))
    last = axi.araddr[:PAGE_BITS] + (axi.arlen << low)
    check.prove("ar_stays_in_its_page", ~axi.arvalid | (last < 1 << PAGE_BITS))


DESIGNS = {"reader": reader}
