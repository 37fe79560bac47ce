# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.fetch_buffer`: when the words of the buffer behind the bus come."""

__all__ = ["FetchBufferModel"]

from golden.units.stream import CycleModel, Flags


class FetchBufferModel(CycleModel):
    """A ring of `depth` words, and a word on its way out: valid and ready, whatever the words are.

    A word that is taken in cycle c is in the ring from c+1 on, is read as the one before it leaves,
    and is offered from c+2 on (latency 2, initiation interval 1). It is ready while the ring has
    room, and never looks at the consumer in order to be so.

    Parameters
    ----------
    depth
        Words of the ring.
    """

    def __init__(self, depth: int):
        self.depth = depth
        self.level = 0          # words in the ring
        self.held = False       # a word is offered
        self.spared = False     # another was read, as nobody had taken that one

    def settle(self, valid: Flags, ready: Flags) -> tuple[Flags, Flags]:
        return {"i": self.level < self.depth}, {"o": self.held}

    def clock(self, valid: Flags, ready: Flags) -> None:
        write = valid["i"] and self.level < self.depth
        read = self.level > 0 and not self.spared
        waits = self.held and not ready["o"]
        self.level += write - read
        self.held, self.spared = read or self.spared or waits, waits and (self.spared or read)
