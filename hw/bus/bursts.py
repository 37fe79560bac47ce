# SPDX-License-Identifier: Apache-2.0
"""A range of memory as bursts."""

__all__ = ["Bursts", "burst_layout"]

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


def burst_layout(address_bits: int, limit: int) -> data.StructLayout:
    """Address of the first beat, and one less than the number of beats as AXI has it."""
    return data.StructLayout({"address": address_bits, "more": range(limit)})


class Bursts(wiring.Component):
    """Cut ranges at the multiples of the longest burst.

    The limit divides a page, so no burst crosses one, and only the first and the last burst of a
    range are shorter. A range is offered `latency` cycles after it was taken, then one burst a
    cycle; the next range is taken after the last burst. Addresses are those of beats.

    Parameters
    ----------
    address_bits
        Width of a beat's address, and of the number of beats.
    limit
        Beats of the longest burst, a power of two.

    Members
    -------
    range : In(stream.Signature(StructLayout({address, beats})))
        First beat and number of beats; a range without beats is dropped.
    o : Out(stream.Signature(burst_layout(address_bits, limit)))
    last : Out(1)
        The burst that is offered is the last of its range.
    """

    latency = 3

    def __init__(self, address_bits: int, limit: int):
        if limit < 1 or limit & limit - 1:
            raise ValueError(f"limit must be a power of two, not {limit}")
        self.address_bits = address_bits
        self.limit = limit
        super().__init__({
            "range": In(stream.Signature(data.StructLayout({"address": address_bits,
                                                            "beats": address_bits}))),
            "o": Out(stream.Signature(burst_layout(address_bits, limit))),
            "last": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        place_bits = self.limit.bit_length() - 1
        place = Signal(place_bits, reset_less=True)
        block = Signal(self.address_bits - place_bits, reset_less=True)
        beats = Signal(self.address_bits, reset_less=True)
        # From the start of the first block to the last beat.
        end = Signal(signed(self.address_bits + 2), reset_less=True)
        # Bursts after this one, less one: its sign is all that has to be looked at.
        further = Signal(signed(self.address_bits - place_bits + 2), reset_less=True)
        final = Signal(place_bits)
        m.d.comb += [
            self.last.eq(further[-1]),
            final.eq(Mux(self.last, end[:place_bits], self.limit - 1)),
            self.o.payload.address.eq(Cat(place, block)),
            self.o.payload.more.eq(final - place),
        ]
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.comb += self.range.ready.eq(1)
                m.d.sync += [Cat(place, block).eq(self.range.payload.address),
                             beats.eq(self.range.payload.beats)]
                with m.If(self.range.valid):
                    m.next = "END"
            with m.State("END"):
                m.d.sync += end.eq(beats + (place - 1))
                m.next = "COUNT"
                with m.If(beats == 0):
                    m.next = "IDLE"
            with m.State("COUNT"):
                m.d.sync += further.eq((end >> place_bits) - 1)
                m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [further.eq(further - 1), block.eq(block + 1), place.eq(0)]
                    with m.If(self.last):
                        m.next = "IDLE"
        return m
