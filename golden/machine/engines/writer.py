# SPDX-License-Identifier: Apache-2.0
"""Model of `hw.bus.writer`: what memory becomes, and when.

This is the engine alone, cycle by cycle, under any stalls; `golden.machine.memory_write` has the
cycles of a raw pass, by a rule that costs less. Bursts are cut as in
`golden.machine.engines.reader`.
"""

__all__ = ["WriterModel", "packed", "placed"]

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from golden.machine.engines.reader import BurstsModel
from vitforge.spec.config import Config

#: Bytes of a sum.
SUM = 4


def packed(words: Iterable[Sequence[int]]) -> bytes:
    """Return the bytes of words of `lanes` sums, 32 bits each, in the order in which they come."""
    return b"".join(value.to_bytes(SUM, "little", signed=True) for word in words for value in word)


def placed(before: bytes | bytearray, ranges: Iterable[tuple[int, bytes]]) -> bytearray:
    """Return what memory becomes with all ranges (address, bytes) in their places.

    Nothing beside them is written: what a last beat has beyond its range has no strobes. A beat is
    offered from the cycle after its last sums were taken.
    """
    data = bytearray(before)
    for address, part in ranges:
        data[address:address + len(part)] = part
    return data


def _same(found: int, data: bytes, strobes: int) -> bool:
    """Whether a beat has these bytes where it has strobes."""
    return all(found >> 8 * index & 255 == byte for index, byte in enumerate(data)
               if strobes >> index & 1)


class WriterModel:
    """The writer on every cycle: `settle` says what it shows, `clock` ends the cycle.

    Inputs and outputs are named by the paths of their ports; an output that has no meaning in a
    cycle is left out. A burst's address is offered 4 cycles after its command, or 2 after the
    answer to the burst before; a beat from the cycle after its last sums were taken.
    """

    #: Ports that `settle` and `clock` look at.
    inputs = ("command.valid", "command.payload.address", "command.payload.bytes", "data.valid",
              "data.payload", "stop", "axi.awready", "axi.wready", "axi.bvalid", "axi.bresp")

    def __init__(self, config: Config):
        self._width, self._word = config.axi_bits // 8, config.lanes * SUM
        self._bursts = BurstsModel(config)
        self._state = "IDLE"
        self._left = 0                      # words to come
        self._held = b""                    # of the beat, or of the word that is cut into beats
        self._burst = 0, 0                  # the one under way: its address, its beats
        self._more, self._final = 0, False  # beats to come, and whether no burst follows
        self._asks = False                  # the address is offered
        self._error: tuple[int, int] | None = None

    @property
    def _full(self) -> bool:
        """Whether a beat is there."""
        return len(self._held) >= self._width or (bool(self._held) and not self._left)

    def settle(self, inputs: Mapping[str, int]) -> dict[str, Any]:
        """Return the outputs of a cycle; a beat's data as a function that compares them."""
        stop, sends = bool(inputs["stop"]), self._state == "BEATS"
        # A word is taken with the beat that is the last of what is held.
        room = not self._full or (len(self._held) <= self._width and sends
                                  and bool(inputs["axi.wready"]))
        outputs: dict[str, Any] = {
            "command.ready": self._state == "IDLE" and not stop,
            "data.ready": self._left > 0 and not stop and room,
            "idle": self._state == "IDLE" or (self._state == "BURST" and stop),
            "axi.awvalid": self._asks, "axi.wvalid": sends and (self._full or stop),
            "axi.bready": self._state == "RESPONSE", "error.valid": self._error is not None}
        if self._asks:
            outputs |= {"axi.awaddr": self._burst[0], "axi.awlen": self._burst[1] - 1}
        if outputs["axi.wvalid"]:
            # What is missing after a stop goes without strobes.
            data = self._held[:self._width] if self._full else b""
            strobes = (1 << len(data)) - 1
            outputs |= {"axi.wlast": self._more == 1, "axi.wstrb": strobes,
                        "axi.wdata": partial(_same, data=data, strobes=strobes)}
        if self._error is not None:
            outputs |= dict(zip(("error.decode", "error.address"), self._error, strict=True))
        return outputs

    def clock(self, inputs: Mapping[str, int]) -> None:
        """End a cycle with these inputs."""
        outputs = self.settle(inputs)
        taken = bool(outputs["axi.wvalid"] and inputs["axi.wready"])
        if taken and self._full:
            self._held = self._held[self._width:]
        if outputs["data.ready"] and inputs["data.valid"]:
            self._held += inputs["data.payload"].to_bytes(self._word, "little")
            self._left -= 1
        self._asks = self._asks and not inputs["axi.awready"]
        self._error = None
        self._step(inputs, taken)

    def _step(self, inputs: Mapping[str, int], taken: bool) -> None:
        """Go to the next state."""
        stop, burst, last = bool(inputs["stop"]), self._bursts.burst, self._bursts.last
        command, cut = None, False
        if self._state == "IDLE":
            if inputs["command.valid"] and not stop:
                size = inputs["command.payload.bytes"]
                command = inputs["command.payload.address"], -(-size // self._width) * self._width
                self._left, self._state = size // self._word, "BURST"
        elif self._state == "BURST":
            if burst is not None and not stop:
                self._burst = burst[0], burst[1] // self._width
                self._more, self._final = self._burst[1], last
                self._asks, self._state, cut = True, "BEATS", True
        elif self._state == "BEATS":
            self._more -= taken
            if not self._more:
                self._state = "RESPONSE"
        elif inputs["axi.bvalid"]:
            if inputs["axi.bresp"] & 2:
                self._error = inputs["axi.bresp"] & 1, self._burst[0]
            self._state = "IDLE" if self._final else "BURST"
        self._bursts.clock(command, cut)
