# SPDX-License-Identifier: Apache-2.0
"""One bench for every engine: agents that drive its ports and look at them, cycle by cycle.

In a cycle every agent sets its inputs, then every agent looks at what the engine shows. A `Trace`
has both from a model, for every port that it names, and what is `Beside` compares only; a `Source`
and a `Sink` are the ends of a stream, with stalls; a `Script` does by hand what is left.
"""

__all__ = ["Agent", "Beside", "Cycle", "Script", "Sink", "Source", "Trace", "simulate",
           "until_taken", "wait"]

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import Fragment, ResetInserter, Signal, Value
from amaranth.lib import data
from amaranth.sim import Simulator

#: Cycles after which a simulation is given up.
HANG = 20000


class Agent:
    """What is at some ports of an engine; `done` says whether it lets the simulation end."""

    done = True

    def drive(self, ctx: Any) -> None:
        """Set the inputs of a cycle."""

    def check(self, ctx: Any, cycle: int) -> None:
        """Look at the outputs of a cycle, when all inputs are set."""


@dataclass
class Cycle:
    """Inputs, and outputs that they must give, by the path of a port or of a part of it.

    An input of a structure may be a dictionary, or an integer: all of its bits. An output may be a
    function that says whether its bits are right.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, int | Callable[[int], bool]] = field(default_factory=dict)


class _Ports(Agent):
    """Finds ports by their paths, and compares them.

    Attributes
    ----------
    played
        Cycles so far.
    """

    def __init__(self, dut: Any):
        self.dut = dut
        self.played = 0
        self._paths: dict[str, Any] = {}

    def port(self, path: str) -> Any:
        """Return the signal, or the part of a port, that a path names."""
        if path not in self._paths:
            found = self.dut
            for part in path.split("."):
                if isinstance(found, data.View):
                    found = found[int(part) if part.isdigit() else part]
                else:
                    found = getattr(found, part)
            self._paths[path] = found
        return self._paths[path]

    def compare(self, ctx: Any, outputs: Mapping[str, int | Callable[[int], bool]]) -> None:
        """Compare every output that is named; end the cycle."""
        for path, value in outputs.items():
            found = ctx.get(Value.cast(self.port(path)))
            same = value(found) if callable(value) else found == value
            assert same, (self.played, path, found, value)
        self.played += 1


class Trace(_Ports):
    """Plays cycles that were known before, and compares every output that they name."""

    def __init__(self, dut: Any, cycles: Iterable[Cycle]):
        super().__init__(dut)
        self._cycles = iter(cycles)
        self._now = next(self._cycles, None)

    @property
    def done(self) -> bool:     # type: ignore[override]
        return self._now is None

    def drive(self, ctx: Any) -> None:
        if self._now is not None:
            for path, value in self._now.inputs.items():
                port = self.port(path)
                ctx.set(Value.cast(port) if isinstance(value, int) else port, value)

    def check(self, ctx: Any, cycle: int) -> None:
        if self._now is not None:
            self.compare(ctx, self._now.outputs)
            self._now = next(self._cycles, None)


class Beside(_Ports):
    """Compares an engine with its model on every cycle, whatever others give to its inputs.

    The model has the paths of its `inputs`, `settle` for the outputs and `clock` for the edge.
    """

    def __init__(self, dut: Any, model: Any):
        super().__init__(dut)
        self.model = model

    def check(self, ctx: Any, cycle: int) -> None:
        inputs = {path: ctx.get(Value.cast(self.port(path))) for path in self.model.inputs}
        self.compare(ctx, self.model.settle(inputs))
        self.model.clock(inputs)


class Source(Agent):
    """Offers words in order, each until it is taken; noise while there is none.

    Parameters
    ----------
    port, words
    give
        Probability that a word is offered in a cycle in which it could be.
    whole
        The simulation goes on until the last is taken.

    Attributes
    ----------
    words, cycles
        Those that are still to come, and the cycles in which the others were taken.
    """

    def __init__(self, port: Any, words: Iterable[Any] = (), *, give: float = 1,
                 whole: bool = True, seed: Any = 0):
        self.port, self.words, self.give, self.whole = port, deque(words), give, whole
        self.cycles: list[int] = []
        self.valid = False
        self._rng = random.Random(f"source {seed}")

    @property
    def done(self) -> bool:     # type: ignore[override]
        return not (self.words and self.whole)

    def drive(self, ctx: Any) -> None:
        if not self.valid:
            self.valid = bool(self.words) and self._rng.random() < self.give
            payload = Value.cast(self.port.payload)
            ctx.set(self.port.valid, self.valid)
            if self.valid:
                ctx.set(self.port.payload, self.words[0])
            else:
                # Nothing may depend on what is there while nothing is valid.
                ctx.set(payload, self._rng.getrandbits(len(payload)))

    def check(self, ctx: Any, cycle: int) -> None:
        if self.valid and ctx.get(self.port.ready):
            self.cycles.append(cycle)
            self.words.popleft()
            self.valid = False


class Sink(Agent):
    """Takes words, and compares them with those that must come, if these are given.

    Attributes
    ----------
    received, cycles
        What came, and when it was taken.
    """

    def __init__(self, port: Any, words: Iterable[int] | None = None, *, take: float = 1,
                 seed: Any = 0):
        self.port, self.take = port, take
        self.words = None if words is None else [*words]
        self.received: list[int] = []
        self.cycles: list[int] = []
        self.ready = False
        self._rng = random.Random(f"sink {seed}")

    @property
    def done(self) -> bool:     # type: ignore[override]
        return self.words is None or len(self.received) == len(self.words)

    def drive(self, ctx: Any) -> None:
        self.ready = self._rng.random() < self.take
        ctx.set(self.port.ready, self.ready)

    def check(self, ctx: Any, cycle: int) -> None:
        if self.ready and ctx.get(self.port.valid):
            word = ctx.get(Value.cast(self.port.payload))
            if self.words is not None:
                at = len(self.received)
                assert at < len(self.words), f"a surplus word in cycle {cycle}"
                assert word == self.words[at], (cycle, at, word, self.words[at])
            self.received.append(word)
            self.cycles.append(cycle)


class Script(Agent):
    """Runs a generator, which gets the simulation's context and yields at the end of each cycle.

    Named first, it sees what the registers hold, and gives words that a source offers at once.
    """

    def __init__(self, steps: Callable[[Any], Generator[None]]):
        self._steps = steps
        self._running: Generator[None] | None = None
        self.done = False

    def drive(self, ctx: Any) -> None:
        if self._running is None:
            self._running = self._steps(ctx)
        if not self.done:
            try:
                next(self._running)
            except StopIteration:
                self.done = True


def wait(cycles: int) -> Generator[None]:
    """Let some cycles pass in a script."""
    for _ in range(cycles):
        yield


def until_taken(source: Source, most: int = HANG) -> Generator[None]:
    """Let a source offer its words, in a script, until the last is taken."""
    for _ in range(most):
        if not source.words:
            return
        yield
    raise AssertionError("nothing is taken any more")


def simulate(dut: Any, *rounds: Iterable[Agent], processes: Iterable[Any] = (),
             hang: int = HANG) -> None:
    """Let the agents of a round play until all are done, round after round, a reset between two.

    Parameters
    ----------
    dut
        A component, or a module around some.
    processes
        What else is at its ports: processes of the simulator.
    hang
        Cycles after which a round is given up.
    """
    reset = Signal()

    async def bench(ctx: Any) -> None:
        for number, agents in enumerate(rounds):
            if number:
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)
            agents = [*agents]
            for cycle in range(hang):
                for agent in agents:
                    agent.drive(ctx)
                for agent in agents:
                    agent.check(ctx, cycle)
                await ctx.tick()
                if all(agent.done for agent in agents):
                    break
            else:
                raise AssertionError(f"nothing comes any more after {hang} cycles")

    simulator = Simulator(ResetInserter(reset)(Fragment.get(dut, None)))
    simulator.add_clock(1e-6)
    for process in processes:
        simulator.add_process(process)
    simulator.add_testbench(bench)
    simulator.run()
