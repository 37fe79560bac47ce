# SPDX-License-Identifier: Apache-2.0
"""The drain's memory of requantization parameters: written in parts, read in groups of lanes."""

__all__ = ["ParameterMemory", "parameter_write_layout", "parts"]

from amaranth.hdl import Array, Cat, Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import layout
from vitforge.spec.config import Config
from vitforge.spec.instruction import PARAMETER
from vitforge.spec.pass_fields import PASS_SLOTS
from vitforge.spec.sizes import groups, most_words


def parts(config: Config) -> int:
    """Return the words of the stream that the parameters of a pass are at most.

    They are 8 bytes a channel, in words of `rows` bytes.
    """
    return PARAMETER.bits // 8 * most_words(config)


def parameter_write_layout(config: Config) -> data.StructLayout:
    """Return the signals that write a part."""
    return data.StructLayout({"en": 1, "slot": (PASS_SLOTS - 1).bit_length(),
                              "part": (parts(config) - 1).bit_length(), "data": config.rows * 8})


class ParameterMemory(wiring.Component):
    """`PASS_SLOTS` slots with the parameters of a pass's channels each.

    A slot is one vector of 64 bits a channel, channel 0 in the low bits, written in `parts` of
    ``rows * 8`` bits from the low end on and read in groups of `lanes` channels. Neither is a
    multiple of the other, so the vector is cut into pieces that fit both, and the pieces are dealt
    out to as many memories as a part or a group has of them.

    Members
    -------
    write : In(parameter_write_layout(config))
        May be read from the next cycle on.
    slot, group : In
    data : Out(ArrayLayout(layout(PARAMETER), lanes))
        In the same cycle.
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__({
            "write": In(parameter_write_layout(config)),
            "slot": In(range(PASS_SLOTS)), "group": In(range(groups(config))),
            "data": Out(data.ArrayLayout(layout(PARAMETER), config.lanes)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = groups(self.config)
        # Pieces of as many bytes as half a channel or more: gcd(part, group).
        part, group = self.config.rows, self.config.lanes * PARAMETER.bits // 8
        piece = max(size for size in range(1, part + 1) if part % size == group % size == 0)
        of_part, of_group = part // piece, group // piece
        # Groups side by side in the memories: more than one if a part is longer than a group.
        side = -(-of_part // of_group)
        memories = side * of_group
        depth = -(-count // side)

        place = self._table(self.group, [index // side for index in range(count)])
        turn = self._table(self.group, [index % side for index in range(count)])
        words = self.write.data
        read_data = []
        for index in range(memories):
            memory: Memory = Memory(shape=8 * piece, depth=PASS_SLOTS << len(place), init=[],
                                    attrs={"ram_style": "distributed"})
            m.submodules[f"memory_{index}"] = memory
            write = memory.write_port()
            read = memory.read_port(domain="comb")
            m.d.comb += read.addr.eq(Cat(place, self.slot))
            read_data.append(read.data)
            with m.Switch(self.write.part):
                for number in range(parts(self.config)):
                    for at in range(of_part):
                        row, column = divmod(number * of_part + at, memories)
                        if column != index:
                            continue
                        assert row < depth
                        with m.Case(number):
                            m.d.comb += [
                                write.en.eq(self.write.en),
                                write.addr.eq(Cat(Const(row, len(place)), self.write.slot)),
                                write.data.eq(words.word_select(at, 8 * piece)),
                            ]
        sides = Array(Cat(read_data[first:first + of_group])
                      for first in range(0, memories, of_group))
        m.d.comb += self.data.eq(sides[turn] if side > 1 else sides[0])
        return m

    @staticmethod
    def _table(index: Signal, entries: list[int]) -> Value:
        bits = max(entries).bit_length()
        if not bits:
            return Const(0, 0)
        return Value.cast(Array(Const(entry, bits) for entry in entries)[index])
