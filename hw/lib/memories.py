# SPDX-License-Identifier: Apache-2.0
"""Two small uses of a memory: as a long delay, and as the state of every token."""

__all__ = ["MemoryDelay", "TokenState"]

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class MemoryDelay(wiring.Component):
    """`o` is what `i` was `cycles` >= 2 cycles before.

    A place is read, into the port's register, in the cycle in which it is written again.

    Members
    -------
    i : In(bits)
    o : Out(bits)
    """

    def __init__(self, bits: int, cycles: int):
        self.bits = bits
        self.cycles = cycles
        super().__init__({"i": In(bits), "o": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.cycles - 1
        m.submodules.memory = memory = Memory(shape=self.bits, depth=depth, init=[],
                                              attrs={"ram_style": "distributed"})
        write = memory.write_port()
        read = memory.read_port()
        place = Signal(range(max(2, depth)))
        m.d.sync += place.eq(Mux(place == depth - 1, 0, place + 1))
        m.d.comb += [write.en.eq(1), write.addr.eq(place), write.data.eq(self.i),
                     read.en.eq(1), read.addr.eq(place), self.o.eq(read.data)]
        return m


class TokenState(wiring.Component):
    """One word of state for every token.

    Members
    -------
    read_token : In
        `state` follows two cycles later: a block memory is slow enough to deserve a register.
    state : Out(bits)
    write, write_token, write_state : In
        May be read from the next cycle on.
    """

    latency = 2

    def __init__(self, bits: int, token_bits: int, tokens: int):
        self.bits = bits
        self.tokens = tokens
        super().__init__({
            "read_token": In(token_bits), "state": Out(bits),
            "write": In(1), "write_token": In(token_bits), "write_state": In(bits),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Nobody needs what is read in the cycle in which it is written.
        m.submodules.memory = memory = Memory(shape=self.bits, depth=self.tokens, init=[],
                                              attrs={"no_rw_check": "1"})
        read = memory.read_port()
        write = memory.write_port()
        state = Signal(self.bits, reset_less=True)
        m.d.sync += state.eq(read.data)
        m.d.comb += [
            read.en.eq(1), read.addr.eq(self.read_token), self.state.eq(state),
            write.en.eq(self.write), write.addr.eq(self.write_token),
            write.data.eq(self.write_state),
        ]
        return m
