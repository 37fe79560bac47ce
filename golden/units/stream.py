# SPDX-License-Identifier: Apache-2.0
"""Cycle models: which streams are valid and ready on each cycle, whatever the data.

A unit takes its words in order and gives its words in order, so the payload of its n-th output is
the n-th result of its golden function. What is left for a cycle model is the handshake: given the
`valid` of every input and the `ready` of every output in a cycle, it says the `ready` of every
input and the `valid` of every output in that same cycle, then takes the clock edge.
"""

__all__ = ["CycleModel", "Flags", "PipelineModel", "SkidModel"]

from abc import ABC, abstractmethod

Flags = dict[str, bool]


class CycleModel(ABC):
    """Handshake of one unit, cycle by cycle, from reset.

    Attributes
    ----------
    sinks, sources
        Names of the input and of the output streams.
    """

    sinks: tuple[str, ...] = ("i",)
    sources: tuple[str, ...] = ("o",)

    @abstractmethod
    def settle(self, valid: Flags, ready: Flags) -> tuple[Flags, Flags]:
        """Return this cycle's ``ready`` of every sink and ``valid`` of every source.

        Must not change the state: it may be asked more than once in a cycle.
        """

    @abstractmethod
    def clock(self, valid: Flags, ready: Flags) -> None:
        """Take the clock edge that ends the cycle with these inputs."""


class SkidModel:
    """The two-word buffer that ends every unit (`hw.lib.stream.Skid`)."""

    def __init__(self) -> None:
        self.level = 0

    @property
    def ready(self) -> bool:
        """Whether the pipeline in front of it advances in this cycle."""
        return self.level != 2

    @property
    def valid(self) -> bool:
        """Whether it offers a word in this cycle."""
        return self.level != 0

    def clock(self, push: bool, pop: bool) -> None:
        """Take the clock edge: a word offered to it, and the ready of its consumer."""
        self.level += (push and self.ready) - (pop and self.valid)


class PipelineModel(CycleModel):
    """One stream in, one out: `stages` registers that move together, then a skid.

    An accepted word is offered ``stages + 1`` cycles later if nothing stalls; initiation
    interval 1.
    """

    def __init__(self, stages: int) -> None:
        self.stages = [False] * stages
        self.skid = SkidModel()

    def settle(self, valid: Flags, ready: Flags) -> tuple[Flags, Flags]:
        return {"i": self.skid.ready}, {"o": self.skid.valid}

    def clock(self, valid: Flags, ready: Flags) -> None:
        advance = self.skid.ready
        entering = valid["i"]
        if advance:
            self.stages.append(entering)
            entering = self.stages.pop(0)
        self.skid.clock(advance and entering, ready["o"])
