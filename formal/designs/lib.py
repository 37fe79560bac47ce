# SPDX-License-Identifier: Apache-2.0
"""Skid buffers, queues and counters."""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Cat, Signal

from formal.checker import Checker
from formal.streams import ordered, promised
from hw.lib.counters import Counters
from hw.lib.queue import Queue
from hw.lib.stream import Skid
from vitforge.spec.config import Config
from vitforge.spec.words import Field, Word

#: Of the queue: more make the proof much longer, and say no more.
PLACES = 4


def _word(config: Config) -> Word:
    return Word((Field("x", config.score_bits, count=config.lanes, text="codes"),))


def skid(config: Config) -> Checker:
    """Two places; ready is a function of how many are taken alone."""
    design: Any = Skid(_word(config))
    check = Checker(design)
    promised(check, "o", design.o)
    inside = ordered(check, "words", design.i, design.o, held=2)
    check.prove("ready_unless_full", design.i.ready == (inside != 2))
    check.prove("offers_what_it_holds", design.o.valid == (inside != 0))
    return check


def skid_flowing(config: Config) -> Checker:
    """One register, for a consumer that is always ready."""
    design: Any = Skid(_word(config), flowing=True)
    check = Checker(design)
    before = check.past(Cat(design.i.valid, design.i.payload.as_value()), "i")
    check.prove("ready", design.i.ready)
    check.prove("valid_a_cycle_later", design.o.valid == before[0])
    check.prove("payload_a_cycle_later", ~before[0]
                | (design.o.payload.as_value() == before[1:]))
    check.reach("word", design.o.valid)
    return check


def queue(config: Config) -> Checker:
    """Check four places of two bits: more of either is the same again."""
    design: Any = Queue(2, PLACES)
    check = Checker(design)
    promised(check, "o", design.o)
    inside = ordered(check, "entries", design.i, design.o, held=PLACES)
    check.prove("offers_what_it_holds", design.o.valid == (inside != 0))
    check.prove("ready_only_with_room", ~design.i.ready | (inside != PLACES))
    was_full = check.past(inside == PLACES, "full")
    check.prove("ready_with_room", design.i.ready | (inside == PLACES) | was_full)
    return check


def counters(config: Config) -> Checker:
    """Of two counters, one event each is added two cycles later; the upper half is kept."""
    half = 3
    design: Any = Counters(("one", "two"), half)
    check = Checker(design)
    m = check.m
    for name in design.names:
        count, event = Signal(2 * half, name=f"count_{name}"), Signal(name=f"was_{name}")
        m.d.sync += [event.eq(design.events[name]), count.eq(count + event)]
        with m.If(design.clear):
            m.d.sync += count.eq(0)
        kept = Signal(half, name=f"kept_{name}")
        fresh = Signal(name=f"fresh_{name}")
        m.d.sync += [kept.eq(count[half:]), fresh.eq(design.keep[name])]
        check.prove(f"{name}_low", design.low[name] == count[:half])
        check.prove(f"{name}_high_is_that_of_its_low", ~fresh | (design.high == kept))
        check.reach(f"{name}_high", fresh & (design.high == 2**half - 1))
    check.assume("one_half_at_a_time", ~(design.keep["one"] & design.keep["two"]))
    return check


DESIGNS = {"skid": skid, "skid-flowing": skid_flowing, "queue": queue, "counters": counters}
