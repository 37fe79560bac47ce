# SPDX-License-Identifier: Apache-2.0
"""From the distance of a probability to its uniform, two-scale or other code, for every lane."""

__all__ = ["LevelLookup"]

from amaranth.hdl import Cat, Const, Module, Mux, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay, register
from vitforge.spec.config import Config
from vitforge.spec.instruction import PASS
from vitforge.spec.probability_levels import FRACTION, Levels

#: Signed width of a distance's integer part.
INTEGER_BITS = 11


class LevelLookup(wiring.Component):
    """The table of `probability_levels` behind an index; one memory with two ports for two lanes.

    ``o = entry[max(~distances, 0)]``, 0 beyond the table; m octaves further in the high region.

    Rounding: none here; entries are rounded for the middle of their step.

    Bit-exact with `golden.units.softmax_levels.level_words`. `latency` steps of `advance`, a word a
    step.

    Members
    -------
    advance : In(1)
    live : In(1)
        The word is one of scores; the results of others are 0.
    m : In(4)
        Shift between the regions, if there are any. Table: its number.
    distances : In(ArrayLayout(signed(18), rows))
        ``floor(-distance)`` in steps of 1/128: the inverted index.
    o : Out(ArrayLayout(8, rows))
        Mantissas, with the region, if there are any, above them.
    """

    latency = 3

    def __init__(self, config: Config):
        self.config = config
        self.levels = Levels(config)
        m_bits = next(item.bits for item in PASS.fields if item.name == "operand_m")
        super().__init__({
            "advance": In(1), "live": In(1), "m": In(m_bits),
            "distances": In(data.ArrayLayout(signed(INTEGER_BITS + FRACTION), config.rows)),
            "o": Out(data.ArrayLayout(8, config.rows)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        levels, entries = self.levels, self.levels.entries
        number: Value = Const(0, 0)
        if levels.tables > 1:
            number = delay(m, self.m[:(levels.tables - 1).bit_length()], advance=self.advance,
                           name="number")
        for first in range(0, self.config.rows, 2):
            memory: Memory = Memory(shape=levels.bits, depth=len(entries), init=entries)
            m.submodules[f"table_{first}"] = memory
            for n in range(first, min(first + 2, self.config.rows)):
                read = memory.read_port()
                index, zero, region = self._index(m, n)
                word = register(m, Mux(zero, 0, Cat(read.data, region)), advance=self.advance,
                                name=f"word_{n}", shape=unsigned(8))
                m.d.comb += [
                    read.en.eq(self.advance),
                    read.addr.eq(Cat(index, number)),
                    self.o[n].eq(word),
                ]
        return m

    def _index(self, m: Module, n: int) -> tuple[Value, Value, Value]:
        """Return the index, a step later; and one more later if the word is 0, and its region."""
        levels = self.levels
        late = self.distances[n]
        whole: Value = (~late[FRACTION:]).as_signed()
        region: Value = Const(0, 0)
        if levels.regions:
            # Above the low region: look m octaves further down.
            low = ~late[-1]
            whole = (whole + (self.m & low.replicate(len(self.m))))[:INTEGER_BITS].as_signed()
            region = delay(m, low, advance=self.advance, cycles=2, name=f"region_{n}")
        beyond = ~whole[-1] & whole[levels.octaves_bits:-1].any()
        zero = delay(m, beyond | ~self.live, advance=self.advance, cycles=2, name=f"zero_{n}")
        index = delay(m, Mux(whole[-1], 0, Cat(~late[:FRACTION], whole[:levels.octaves_bits])),
                      advance=self.advance, name=f"index_{n}")
        return index, zero, region
