# SPDX-License-Identifier: Apache-2.0
"""What every stream promises, and what it may take for granted of the other side."""

__all__ = ["fifo", "ordered", "promised", "soon", "stored", "trusted"]

from typing import Any

from amaranth.hdl import Signal, Value

from formal.checker import Checker


def _kept(check: Checker, name: str, valid: Value, payload: Value, ready: Value) -> Value:
    """Whether a word that was offered and not taken is still offered."""
    waited = check.past(valid & ~ready, f"{name}_waited")
    same = payload == check.past(payload, f"{name}_payload")
    return ~waited | (valid & same)


def promised(check: Checker, name: str, port: Any) -> None:
    """Prove that a stream out of the design keeps valid and payload until the word is taken."""
    check.prove(f"{name}_stays", _kept(check, name, port.valid, Value.cast(port.payload),
                                       port.ready))


def trusted(check: Checker, name: str, port: Any) -> None:
    """Take for granted that a stream into the design keeps valid and payload."""
    check.assume(f"{name}_stays", _kept(check, name, port.valid, Value.cast(port.payload),
                                        port.ready))


def ordered(check: Checker, name: str, into: Any, out: Any, *, held: int) -> Signal:
    """Prove that words come out as they went in: none lost, doubled, changed or reordered.

    The word of any one moment is watched from where it goes in to where it comes out; what holds
    for any is true of all. At most `held` words are inside.

    Returns
    -------
    Signal
        How many are inside.
    """
    bits = held.bit_length() + 1
    m = check.m
    put, taken = into.valid & into.ready, out.valid & out.ready
    inside = Signal(bits, name=f"{name}_inside")
    m.d.sync += inside.eq(inside + put - taken)
    check.prove(f"{name}_no_more_than_fit", inside <= held)
    check.prove(f"{name}_nothing_from_nothing", ~out.valid | (inside != 0))
    check.reach(f"{name}_full", inside == held)
    watching = Signal(name=f"{name}_watching")
    before = Signal(bits, name=f"{name}_before")
    word = Signal(len(Value.cast(into.payload)), name=f"{name}_word")
    with m.If(check.free(1, f"{name}_moment") & put & ~watching):
        m.d.sync += [watching.eq(1), word.eq(Value.cast(into.payload)), before.eq(inside - taken)]
    with m.Elif(watching & taken):
        m.d.sync += [before.eq(before - 1), watching.eq(before != 0)]
    check.prove(f"{name}_in_order", ~watching | ~out.valid | (before != 0)
                | (Value.cast(out.payload) == word))
    check.prove(f"{name}_none_lost", ~watching | (before < inside))
    return inside


def soon(check: Checker, name: str, waiting: Value, *, cycles: int,
         left: Value | None = None) -> None:
    """Prove that `waiting` is never true in more than `cycles` cycles in a row.

    `left` is what is still to be waited for: at most `cycles`, at least 1 while `waiting`, and
    less in the next cycle. Then that is proved, of which the above follows: an induction finds it
    where it does not find the sum of both by itself.
    """
    count = Signal(range(cycles + 2), name=f"{name}_count")
    with check.m.If(~waiting):
        check.m.d.sync += count.eq(0)
    with check.m.Elif(count <= cycles):
        check.m.d.sync += count.eq(count + 1)
    if left is None:
        check.prove(name, (count < cycles) | ~waiting)
    else:
        check.prove(name, (count + left <= cycles) & (~waiting | (left != 0)))


def fifo(design: Any, *, held: int) -> Checker:
    """Check a buffer that is ready unless `held` words are inside, and offers what is."""
    check = Checker(design)
    promised(check, "o", design.o)
    inside = ordered(check, "words", design.i, design.o, held=held)
    check.prove("ready_unless_full", design.i.ready == (inside != held))
    check.prove("offers_what_it_holds", design.o.valid == (inside != 0))
    return check


def stored(design: Any, *, places: int, held: int) -> Checker:
    """Check a buffer of latency 2 whose memory has `places` of the `held` words."""
    check = Checker(design)
    promised(check, "o", design.o)
    inside = ordered(check, "words", design.i, design.o, held=held)
    check.prove("ready_with_room", design.i.ready | (inside >= places))
    soon(check, "offered_within_a_cycle", (inside != 0) & ~design.o.valid, cycles=1)
    return check
