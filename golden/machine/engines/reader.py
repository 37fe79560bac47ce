# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.reader`: the bursts and the beats of a range of memory.

When they come is in `golden.machine.memory_fetch`.
"""

__all__ = ["beats", "bursts"]

from itertools import pairwise

from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit


def bursts(address: int, size: int, config: Config) -> list[tuple[int, int]]:
    """Return the bursts of a range of `size` bytes, the first byte and the bytes of each.

    They begin at multiples of the longest burst, except the first of the range; so they are as few
    as may be, and cross no page. The first is chosen 3 cycles after the command at the earliest,
    and then one a cycle.
    """
    span = burst_limit(config) * config.axi_bits // 8
    ends = sorted({*range(-(-address // span) * span, address + size, span), address,
                   address + size})
    return [(low, high - low) for low, high in pairwise(ends)]


def beats(memory: bytes | bytearray, address: int, size: int, config: Config) -> list[int]:
    """Return the beats of a range, `axi_bits` bits each, in order.

    A beat of the program that comes in cycle r is offered in r+2, a beat of a LOAD in r.
    """
    width = config.axi_bits // 8
    return [int.from_bytes(memory[at:at + width], "little")
            for at in range(address, address + size, width)]
