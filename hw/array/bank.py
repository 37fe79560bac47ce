# SPDX-License-Identifier: Apache-2.0
"""One bank of the scratchpad: a memory with one write and one read port."""

__all__ = ["Bank"]

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.lib.stream import delay
from vitforge.spec.config import Config
from vitforge.spec.sizes import ADDRESS_BITS, doubled


class Bank(wiring.Component):
    """`depth` words of `rows` codes of 8 bits, or, where tokens share multipliers, of twice 4 bits.

    Latency 2: a word is in `data` two steps of `read_enable` after its address (the memory, and a
    register for its way across the chip). A word is written in the cycle after it was given, and
    may be read in the one after that.

    Members
    -------
    read_enable : In(1)
        Both registers of the read port take a step.
    read, read_address : In(1), In(24)
        A word is wanted; only checks the address.
    data : Out(rows * 8)
    write, write_address, write_data, write_mask : In
        One mask bit for each `lanes` codes.
    write_halves : In(2)
        Only where two codes of 4 bits may share a byte: the halves that are written, of all codes.
    overflow : Out(1)
        Pulses one cycle after an address of a read or of a write beyond the bank. Such a write
        does nothing.
    """

    latency = 2

    def __init__(self, config: Config, depth: int):
        self.config = config
        self.depth = depth
        super().__init__({
            "read_enable": In(1), "read": In(1), "read_address": In(ADDRESS_BITS),
            "data": Out(config.rows * 8),
            "write": In(1), "write_address": In(ADDRESS_BITS),
            "write_data": In(config.rows * 8), "write_mask": In(config.rows // config.lanes),
            **({"write_halves": In(2)} if doubled(config) else {}),
            "overflow": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Nobody reads a word in the cycle in which it is written, so synthesis need not build what
        # a block memory would do otherwise.
        m.submodules.memory = memory = Memory(shape=self.config.rows * 8, depth=self.depth, init=[],
                                              attrs={"no_rw_check": "1"})
        read = memory.read_port()
        halves = doubled(self.config)
        write = memory.write_port(granularity=self.config.lanes * 8 >> halves)
        beyond = Signal()
        m.d.comb += [
            read.addr.eq(self.read_address),
            read.en.eq(self.read_enable),
            beyond.eq(self._beyond(self.write_address)),
        ]
        if halves:
            # What is written at once lies together: a half of some codes.
            places = self._places()
            mask: Value = Cat(self.write_halves & bit.replicate(2) for bit in self.write_mask)
            given: Value = Cat(self.write_data[place] for place in places)
            found: Value = Cat(read.data[places.index(bit)] for bit in range(len(places)))
        else:
            mask, given, found = self.write_mask, self.write_data, read.data
        # Who writes is chosen late in its cycle, and the memory lies all over the chip.
        m.d.comb += [port.eq(late) for port, late in (
            (write.addr, delay(m, self.write_address[:len(write.addr)], advance=1, name="place")),
            (write.data, delay(m, given, advance=1, name="given")),
            (write.en, delay(m, mask & (self.write & ~beyond).replicate(len(mask)), advance=1,
                             name="mask", init=0)))]
        with m.If(self.read_enable):
            m.d.sync += self.data.eq(found)
        m.d.sync += self.overflow.eq(self.write & beyond
                                     | self.read & self._beyond(self.read_address))
        return m

    def _places(self) -> list[int]:
        """Return for every bit of the memory's word which bit of the codes it is."""
        lanes = self.config.lanes
        return [8 * (first + lane) + 4 * half + bit for first in range(0, self.config.rows, lanes)
                for half in range(2) for lane in range(lanes) for bit in range(4)]

    def _beyond(self, address: Value) -> Value:
        if self.depth & self.depth - 1:
            return address >= self.depth
        return address[(self.depth - 1).bit_length():].any()
