# SPDX-License-Identifier: Apache-2.0
"""When the sums of a raw pass are issued, and when they are in memory."""

__all__ = ["Writer"]

from golden.machine.memory_fetch import CHOICE
from vitforge.spec.config import Config
from vitforge.spec.packing import burst_limit

#: Places of the queue of `hw.drain.raw`, each of which is free again when its group has left.
_QUEUE = 16
#: From the issue of a group to its offer to the writer.
_OFFERED = 6
#: Bytes of a sum.
_SUM = 4


class Writer:
    """`hw.drain.raw` and `hw.bus.writer`, and a memory that takes a beat a cycle.

    A burst's address and its first beat are offered in the same cycle, or the beat later, as its
    sums come. The memory takes every beat at once, and the address not after the last beat; so the
    orders of `sim/memory.v` that are exact here are that in which neither waits, and that in which
    each waits until the other is valid. Where the beats wait for their address, all bursts of a
    pass but the first may come a cycle later; where the address waits for the beats, or in stalls,
    the run takes longer than this says. It acknowledges a burst `latency` cycles after its last
    beat, but not before the second cycle.

    Parameters
    ----------
    config
    latency
    output_address
        Of the output buffer.

    Attributes
    ----------
    beats
        Written so far.
    """

    def __init__(self, config: Config, latency: int, *, output_address: int = 0):
        self.config = config
        self.latency = max(2, latency)
        self.output_address = output_address
        self.beats = 0

    def write(self, start: int, offset: int, groups: int) -> tuple[int, int]:
        """Return when the last group is issued, and the first cycle in which the writer is idle.

        Drain and writer take the pass in cycle `start`, in which the writer is idle. It has
        `groups` groups of `lanes` sums.
        """
        width, group = self.config.axi_bits // 8, self.config.lanes * _SUM
        of_beat, of_group = max(1, width // group), max(1, group // width)
        place, left = (self.output_address + offset) // width, -(-groups * group // width)
        limit = burst_limit(self.config)
        issued = taken = sent = start
        freed = [start] * _QUEUE            # when the places of the queue were left
        count = beat = 0
        idle = start + CHOICE               # the writer waits for a burst
        while left:
            size = min(left, limit - place % limit)
            # The address and beats; a beat goes one cycle after its last sums came.
            ready = idle + 1
            for _ in range(size):
                if beat % of_group == 0:
                    for index in range(min(of_beat, groups - count)):
                        issued = 1 + max(issued, freed[count % _QUEUE])
                        taken = max(issued + _OFFERED, taken + 1)
                        if index == 0:
                            # The place of the beat before, as that goes.
                            taken = max(taken, sent)
                        freed[count % _QUEUE] = taken
                        count += 1
                sent = max(ready, taken + 1)
                ready = sent + 1
                beat += 1
            idle = sent + self.latency + 1
            left -= size
            place += size
        self.beats += beat
        return issued, idle
