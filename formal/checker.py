# SPDX-License-Identifier: Apache-2.0
"""A design beside what is said of it: properties, assumptions and situations as outputs of a bit.

A checker is gateware that instantiates the design, drives it with inputs that may do anything, and
watches it. What must hold in every cycle is an output ``p_NAME``; what is taken for granted of the
surroundings is an output ``a_NAME``; and what can come true, so that nothing is proved of a design
that stands still, is an output ``c_NAME``, low in that cycle. So the design is converted to Verilog
as everywhere else, and `formal.prove` needs nothing but the names of ports.
"""

__all__ = ["Checker"]

from collections.abc import Collection
from typing import Any

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, ValueLike
from amaranth.lib.wiring import In

from formal.options import ASSUMPTION, PROPERTY, SITUATION


class Checker(Elaboratable):
    """A module with a design in it, whose free inputs and statements are ports.

    Parameters
    ----------
    design
        The component that is proved. Its inputs may have any value in every cycle, but for those of
        `given`.
    given
        Names of inputs that the checker's author drives in `m`.

    Attributes
    ----------
    m
        The module, for what is watched and remembered.
    properties
        Names of what has been said with `prove`.
    situations
        Names of what has been said with `reach`.
    """

    def __init__(self, design: Any, given: Collection[str] = ()):
        self.m = Module()
        self.design = design
        self.m.submodules.design = design
        self._ports: list[Signal] = []
        self._names: set[str] = set()
        self.properties: list[str] = []
        self.situations: list[str] = []
        for path, member, value in design.signature.flatten(design):
            name = "__".join(map(str, path))
            if member.flow is In and name not in given:
                port = Value.cast(value)
                self.m.d.comb += port.eq(self.free(len(port), f"in_{name}"))

    def free(self, shape: Any, name: str) -> Signal:
        """Return a signal that may have any value in every cycle."""
        signal = Signal(shape, name=name)
        self._ports.append(signal)
        return signal

    def constant(self, shape: Any, name: str) -> Signal:
        """Return a value that is anything, and the same in all cycles, whatever is reset."""
        given = self.free(shape, f"{name}_given")
        kept = Signal(shape, name=f"{name}_kept", reset_less=True)
        begun = Signal(name=f"{name}_begun", reset_less=True)
        self.m.d.sync += [begun.eq(1), kept.eq(Mux(begun, kept, given))]
        result = Signal(shape, name=name)
        self.m.d.comb += result.eq(Mux(begun, kept, given))
        return result

    def past(self, value: ValueLike, name: str) -> Signal:
        """Return the value of the cycle before; 0 in the first after a reset."""
        signal = Signal(Value.cast(value).shape(), name=f"{name}_past")
        self.m.d.sync += signal.eq(value)
        return signal

    def prove(self, name: str, condition: ValueLike) -> None:
        """Say that `condition` holds in every cycle without reset."""
        self._say(PROPERTY + name, condition)
        self.properties.append(name)

    def reach(self, name: str, condition: ValueLike) -> None:
        """Say that `condition` can come true: so what is assumed leaves something to be proved."""
        self._say(SITUATION + name, ~Value.cast(condition).any())
        self.situations.append(name)

    def assume(self, name: str, condition: ValueLike) -> None:
        """Take `condition` for granted in every cycle without reset."""
        self._say(ASSUMPTION + name, condition)

    def _say(self, name: str, condition: ValueLike) -> None:
        if name in self._names:
            raise ValueError(f"{name} is said twice")
        self._names.add(name)
        port = Signal(name=name)
        self.m.d.comb += port.eq(Value.cast(condition).any())
        self._ports.append(port)

    @property
    def ports(self) -> tuple[Signal, ...]:
        """All inputs and outputs, without clock and reset."""
        return tuple(self._ports)

    def elaborate(self, platform: object) -> Module:
        return self.m
