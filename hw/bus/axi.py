# SPDX-License-Identifier: Apache-2.0
"""AXI4 as Amaranth interfaces, and the names that Verilog tools look for.

A unit has its bus as one member, ``axi``. The top component has a flat port for every signal
instead, because the names of nested members get two underscores in Verilog (``m_axi__araddr``),
and neither Vivado's inference nor bus models recognise these::

    super().__init__({**flat("m_axi", read_channels(bits)), **flat("m_axi", write_channels(bits))})
    ...
    m.d.comb += [*join(self, "m_axi", reader.axi), *join(self, "m_axi", writer.axi)]

Every burst is incrementing, of full-width beats, with the one identifier 0. What interconnects want
to know besides never changes: ``lock`` 0, no exclusive access; ``cache`` 0b0011, normal memory that
is not cached but may be buffered, so bursts may be cut and merged on the way, and nothing is
allocated; ``prot`` 0b000, data, secure, unprivileged; ``qos`` 0, takes no part; ``region`` 0, one.
"""

__all__ = ["ADDRESS_BITS", "BEAT_ADDRESSES", "CACHE", "INCREMENTING", "constants", "flat",
           "join", "read_channels", "write_channels"]

from typing import Any

from amaranth.lib.wiring import Flow, In, Member, Out, Signature

ADDRESS_BITS = 32
INCREMENTING = 1
#: Normal memory, not cached: bursts may be cut and merged on the way.
CACHE = 0b0011
#: log2 of the bytes of a beat, by the width of the bus.
BEAT_ADDRESSES = {64: 3, 128: 4, 256: 5, 512: 6}


def _address(letter: str) -> dict[str, Member]:
    prefix = f"a{letter}"
    return {
        f"{prefix}id": Out(1), f"{prefix}addr": Out(ADDRESS_BITS), f"{prefix}len": Out(8),
        f"{prefix}size": Out(3), f"{prefix}burst": Out(2), f"{prefix}lock": Out(1),
        f"{prefix}cache": Out(4), f"{prefix}prot": Out(3), f"{prefix}qos": Out(4),
        f"{prefix}region": Out(4), f"{prefix}valid": Out(1), f"{prefix}ready": In(1),
    }


def read_channels(data_bits: int) -> Signature:
    """Return AR and R, as the master sees them."""
    return Signature({
        **_address("r"),
        "rid": In(1), "rdata": In(data_bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1),
        "rready": Out(1),
    })


def write_channels(data_bits: int) -> Signature:
    """Return AW, W and B, as the master sees them."""
    return Signature({
        **_address("w"),
        "wdata": Out(data_bits), "wstrb": Out(data_bits // 8), "wlast": Out(1), "wvalid": Out(1),
        "wready": In(1),
        "bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
    })


def constants(axi: Any, letter: str, data_bits: int) -> list[Any]:
    """Drive what is the same for every burst of the channel ``AR`` or ``AW``."""
    values = {"id": 0, "size": BEAT_ADDRESSES[data_bits], "burst": INCREMENTING, "lock": 0,
              "cache": CACHE, "prot": 0, "qos": 0, "region": 0}
    return [getattr(axi, f"a{letter}{name}").eq(value) for name, value in values.items()]


def flat(prefix: str, signature: Any) -> dict[str, Member]:
    """Return the members of `signature`, each with its Verilog name ``prefix_member``."""
    return {f"{prefix}_{name}": member for name, member in signature.members.items()}


def join(top: Any, prefix: str, axi: Any) -> list[Any]:
    """Connect the flat ports of `top` to the interface of a master inside it."""
    pairs = [(getattr(top, f"{prefix}_{name}"), getattr(axi, name), member.flow)
             for name, member in axi.signature.members.items()]
    return [port.eq(inner) if flow == Flow.Out else inner.eq(port) for port, inner, flow in pairs]
