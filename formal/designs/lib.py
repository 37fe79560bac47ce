# SPDX-License-Identifier: Apache-2.0
"""Skid buffers, queues, rings, chunks and counters."""

__all__ = ["DESIGNS"]

from typing import Any

from amaranth.hdl import Cat, Mux, Signal

from formal.checker import Checker
from formal.streams import fifo, promised, stored
from hw.layernorm.buffer import Ring
from hw.lib.chunks import Join, Split
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
    return fifo(Skid(_word(config)), held=2)


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
    return fifo(Queue(2, PLACES), held=PLACES)


def split(config: Config) -> Checker:
    """Cut words of four chunks of two bits; the rest of a word may go with any of them."""
    design: Any = Split(8, 2)
    check = Checker(design)
    m = check.m
    promised(check, "o", design.o)
    taken, left = design.o.valid & design.o.ready, Signal(3, name="chunks_left")
    word, put = Signal(8, name="word"), design.i.valid & design.i.ready
    with m.If(taken):
        m.d.sync += [left.eq(Mux(design.drop, 0, left - 1)), word.eq(word >> 2)]
    with m.If(put):
        m.d.sync += [left.eq(4), word.eq(design.i.payload)]
    check.prove("offers_what_is_left", design.o.valid == (left != 0))
    check.prove("empty_when_nothing_is_left", design.empty == (left == 0))
    check.prove("chunks_in_order", ~design.o.valid | (design.o.payload == word[:2]))
    check.prove("takes_a_word_with_the_last_chunk", design.i.ready == (
        (left == 0) | taken & (design.drop | (left == 1))))
    check.reach("dropped", taken & design.drop & (left == 3))
    return check


def join(config: Config) -> Checker:
    """Put four chunks of two bits into a word, or fewer, if one is the last."""
    design: Any = Join(2, 8)
    check = Checker(design)
    m = check.m
    promised(check, "o", design.o)
    put, taken = design.i.valid & design.i.ready, design.o.valid & design.o.ready
    count, word, whole = Signal(3), Signal(8, name="word"), Signal()
    done = put & (design.last | (count == 3))
    with m.If(taken):
        m.d.sync += whole.eq(0)
    with m.If(put):
        m.d.sync += [word.word_select(count[:2], 2).eq(design.i.payload),
                     count.eq(Mux(done, 0, count + 1)), whole.eq(done)]
    length = Signal(3, name="length")
    with m.If(done):
        m.d.sync += length.eq(count + 1)
    check.prove("offers_whole_words", design.o.valid == whole)
    check.prove("takes_a_chunk_as_the_word_goes", design.i.ready == (~whole | design.o.ready))
    check.prove("empty_without_a_chunk", design.empty == (~whole & (count == 0)))
    for at in range(4):
        check.prove(f"chunk_{at}_in_its_place", ~design.o.valid | (length <= at)
                    | (design.o.payload.word_select(at, 2) == word.word_select(at, 2)))
    check.reach("short_word", design.o.valid & (length == 2))
    return check


def ring(config: Config) -> Checker:
    """Check a ring of four words: more are the same again."""
    return stored(Ring(Word((Field("x", 2, text="x"),)), PLACES), places=PLACES, held=PLACES + 1)


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


DESIGNS = {"skid": skid, "skid-flowing": skid_flowing, "queue": queue, "counters": counters,
           "split": split, "join": join, "ring": ring}
