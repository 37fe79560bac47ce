# SPDX-License-Identifier: Apache-2.0
"""Which group of which word of a token comes next, where a token may have several words."""

__all__ = ["Walk", "place_member"]

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Out

from hw.lib.layouts import span_bits
from hw.lib.products import few_times
from vitforge.spec.config import Config
from vitforge.spec.instruction import PACKS
from vitforge.spec.sizes import ADDRESS_BITS, groups, weight_words, word_groups


def place_member(config: Config) -> dict[str, Any]:
    """Return the member of the signature for a group's number in its word.

    It is the group's number in its token if a token has one word; then there is none.
    """
    return {"place": Out(_places(config))} if span_bits(config) else {}


def _places(config: Config) -> range:
    """Return what holds the place of a group in its word; no signal is without a bit."""
    return range(max(2, word_groups(config)))


class Walk:
    """Registers for the place of a group in its token's words, and the addresses of these.

    Word w of a token is ``w * d_pitch`` words behind its first, which is one behind that of the
    token before. Where a token has one word there are no registers. Two packed codes share a byte:
    those of tokens, of keys or of words (`vitforge.spec.instruction`).

    Parameters
    ----------
    group
        Its number in its token.
    token, pack
        Of the group; only where its codes may be packed.

    Attributes
    ----------
    place
        The group's number in its word.
    ends
        It is the token's last group.
    """

    def __init__(self, config: Config, group: Signal, token: Value | None = None,
                 pack: Value | None = None):
        self._token, self._pack, self._columns = token, pack, config.cols
        self._row_words = weight_words(config)
        self._several = bool(span_bits(config))
        self._of_word = word_groups(config)
        self.place: Value = group
        self.ends: Value = group == groups(config) - 1
        if not self._several:
            return
        self._place = Signal(_places(config), name="place", reset_less=True)
        self._word = Signal(span_bits(config), name="word", reset_less=True)
        self._words = Signal(span_bits(config), name="words", reset_less=True)
        self._first = Signal(ADDRESS_BITS, name="first", reset_less=True)
        self._pitch = Signal(ADDRESS_BITS, name="pitch", reset_less=True)
        self.place = self._place
        self._word_ends = self._place == self._of_word - 1
        self.ends = self._word_ends & (self._word == self._words)

    def count(self, fields: Any) -> Value:
        """Return the groups of a pass with these fields."""
        words = few_times(fields.tokens, fields.words + 1) if self._several else fields.tokens
        return words * self._of_word

    def begin(self, m: Module, fields: Any, base: Value) -> None:
        """Let the next group be the first of a pass, whose words begin at `base`."""
        if self._several:
            m.d.sync += [self._place.eq(0), self._word.eq(0), self._words.eq(fields.words),
                         self._first.eq(base), self._pitch.eq(fields.d_pitch)]

    def following(self, m: Module, address: Value) -> Value:
        """Return the address of the next token's first word."""
        if self._pack is None or self._token is None:
            return (self._first if self._several else address) + 1
        bits = (self._columns - 1).bit_length()
        step = Signal(signed(bits + 2), name="step")
        turns = (self._token[:bits] == self._columns - 1) & ~self._upper()
        m.d.comb += step.eq(1)
        with m.If(self._pack == PACKS["tokens"]):
            m.d.comb += step.eq(self._token[0])
        with m.If((self._pack == PACKS["keys"]) & turns):
            m.d.comb += step.eq(1 - self._columns)
        return self._first + step

    def half(self) -> Value:
        """Return the half of a byte that a packed group takes."""
        assert self._token is not None
        return Mux(self._pack == PACKS["tokens"], self._token[0],
                   Mux(self._pack == PACKS["keys"], self._upper(), self._word >= self._row_words))

    def _upper(self) -> Value:
        """Return whether the token is a key of the upper columns."""
        assert self._token is not None
        bits = (self._columns - 1).bit_length()
        return self._token[bits] if bits < len(self._token) else Const(0)

    def step(self, m: Module, address: Signal, following: Value) -> None:
        """Go on by a group; of `address` only what doesn't begin a token (`following`)."""
        if not self._several:
            return
        m.d.sync += self._place.eq(self._place + 1)
        with m.If(self._word_ends):
            m.d.sync += [self._place.eq(0), self._word.eq(self._word + 1)]
            with m.If(self.ends):
                m.d.sync += [self._word.eq(0), self._first.eq(following)]
            with m.Else():
                m.d.sync += address.eq(address + self._pitch)
                if self._pack is not None:
                    with m.If((self._pack == PACKS["values"])
                              & (self._word == self._row_words - 1)):
                        m.d.sync += address.eq(self._first)
