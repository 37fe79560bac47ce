# SPDX-License-Identifier: Apache-2.0
"""LayerNorm's parameters, a tile a word: written in parts, read twice on the way of a word."""

__all__ = ["PARTS", "NormParameters"]

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay
from hw.operand.format import OperandFormat
from vitforge.spec.config import Config
from vitforge.spec.instruction import NORM_PARAMETER

#: Writes that fill a tile.
PARTS = 8


class NormParameters(wiring.Component):
    """Two memories, because a channel's shift is needed long before its gamma and offset.

    The parameters of a tile are ``rows * 64`` bits, channel 0 in the low ones; part p is bits
    ``p * rows * 8`` and up. Reserved bits are not kept.

    Members
    -------
    write : In(StructLayout({en, slot, tile, part, data}))
        One part; it is there for addresses of the next cycle.
    advance : In(1)
        The read ports take a step.
    early, late : In(StructLayout({slot, tile}))
        Addresses of the shifts, and of gamma and offset.
    shift : Out(ArrayLayout(..., rows))
        One step after its address, straight from the memory.
    gamma, offset : Out(ArrayLayout(..., rows))
        Two steps after their address, from a register behind the memory.
    """

    def __init__(self, config: Config):
        self.config = config
        self.format = OperandFormat(config)
        address = data.StructLayout({"slot": 1, "tile": range(max(2, self.format.tiles))})
        self.fields = {item.name: item for item in NORM_PARAMETER.fields}
        super().__init__({
            "write": In(data.StructLayout({"en": 1, **address.members, "part": range(PARTS),
                                           "data": config.rows * 8})),
            "advance": In(1), "early": In(address), "late": In(address),
            "shift": Out(data.ArrayLayout(unsigned(self.format.norm.shift_bits), config.rows)),
            "gamma": Out(data.ArrayLayout(signed(self.fields["gamma"].bits), config.rows)),
            "offset": Out(data.ArrayLayout(signed(self.fields["offset"].bits), config.rows)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = self._memory(m, "early", [("shift", self.format.norm.shift_bits)])
        late = self._memory(m, "late", [(name, self.fields[name].bits)
                                        for name in ("gamma", "offset")])
        late = {name: delay(m, bits, advance=self.advance, name=name)
                for name, bits in late.items()}
        m.d.comb += [getattr(self, name).as_value().eq(bits)
                     for name, bits in (shift | late).items()]
        return m

    def _memory(self, m: Module, name: str, fields: Iterable[tuple[str, int]]) -> dict[str, Value]:
        """Build the memory of some fields; return what is read of each, channel by channel."""
        # Where each bit is in a tile, by part; every part gets the room that the fullest needs.
        part_bits = self.config.rows * 8
        places: dict[str, list[int]] = {}
        kept: list[list[int]] = [[] for _ in range(PARTS)]
        for channel in range(self.config.rows):
            for field, bits in fields:
                start = channel * NORM_PARAMETER.bits + self._start(field)
                for place in range(start, start + bits):
                    places.setdefault(field, []).append(place)
                    kept[place // part_bits].append(place)
        room = max(map(len, kept))

        memory: Memory = Memory(shape=unsigned(PARTS * room), depth=2 * self.format.tiles, init=[],
                                attrs={"no_rw_check": "1"})
        m.submodules[name] = memory
        write, read = memory.write_port(granularity=room), memory.read_port()
        address = getattr(self, name)
        m.d.comb += [
            write.addr.eq(Cat(self.write.slot, self.write.tile)),
            write.data.eq(Cat(
                Cat(*(self.write.data[place % part_bits] for place in part),
                    Const(0, room - len(part))) for part in kept)),
            read.addr.eq(Cat(address.slot, address.tile)),
            read.en.eq(self.advance),
        ]
        for part in range(PARTS):
            m.d.comb += write.en[part].eq(self.write.en & (self.write.part == part))
        found: dict[str, Value] = {}
        for field, wanted in places.items():
            value = Signal(len(wanted), name=f"read_{field}")
            m.d.comb += value.eq(Cat(
                read.data[place // part_bits * room + kept[place // part_bits].index(place)]
                for place in wanted))
            found[field] = value
        return found

    def _start(self, name: str) -> int:
        names = list(self.fields)
        return sum(self.fields[item].bits for item in names[:names.index(name)])
