# SPDX-License-Identifier: Apache-2.0
"""From a case to what every port carries on every cycle.

The cycle model says every `ready` and `valid`, so the whole run is known before any simulator
starts: the cocotb bench and the vectors that need no Python play the same trace.
"""

from __future__ import annotations

__all__ = ["GAPS", "PATTERNS", "STALLS", "Cycle", "trace"]

import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.cases.case import Case
    from vitforge.spec.words import Word

#: Cycles in which a source offers nothing: cycled, or a coin that is thrown anew each cycle.
GAPS: dict[str, tuple[int, ...] | None] = {
    "flow": (0,), "every_third": (1, 0, 0), "random": None}
#: Cycles in which a consumer isn't ready.
STALLS: dict[str, tuple[int, ...] | None] = {
    "flow": (0,), "bursts": (1, 1, 1, 0, 0), "random": None}
#: Every pair of both.
PATTERNS = tuple(itertools.product(GAPS, STALLS))

#: Cycles without any transfer after which a model is declared to hang.
WATCHDOG = 5_000
#: Cycles that are watched after the last expected word, for words that must not come.
AFTERMATH = 20


@dataclass(frozen=True)
class Cycle:
    """Values of the ports in one clock cycle, after they have settled.

    Attributes
    ----------
    offer, payload
        For every sink `valid` and payload; where nothing is offered the payload is noise, which
        the unit must ignore.
    accept
        For every source `ready`.
    ready
        For every sink the `ready` that is expected.
    valid, result
        For every source the `valid` that is expected, and the payload where it is.
    """

    offer: dict[str, bool]
    payload: dict[str, int]
    accept: dict[str, bool]
    ready: dict[str, bool]
    valid: dict[str, bool]
    result: dict[str, int]


def _pauses(pattern: tuple[int, ...] | None, seed: str) -> Iterator[int]:
    if pattern is not None:
        return itertools.cycle(pattern)
    return map(random.Random(seed).getrandbits, itertools.repeat(1))


def trace(case: Case, words: Mapping[str, Word], gaps: str, stalls: str) -> Iterator[Cycle]:
    """Run the model of a case from reset under a pair of patterns of `GAPS` and `STALLS`.

    Ends `AFTERMATH` cycles after the last word has moved.

    Raises
    ------
    RuntimeError
        If the model stops moving words, or offers more of them than the case expects.
    """
    model = copy.deepcopy(case.model)
    noise = random.Random(f"{case.name} noise")
    gap = {name: _pauses(GAPS[gaps], f"{case.name} gap {name}") for name in model.sinks}
    stall = {name: _pauses(STALLS[stalls], f"{case.name} stall {name}") for name in model.sources}
    sent = dict.fromkeys(model.sinks, 0)
    received = dict.fromkeys(model.sources, 0)
    offer = dict.fromkeys(model.sinks, False)
    missing = sum(map(len, case.expected.values())) + sum(map(len, case.words.values()))
    idle = 0
    while missing or idle < AFTERMATH:
        payload, result = {}, {}
        for name in model.sinks:
            pause = next(gap[name])
            # A word that has been offered stays until it is taken.
            if not offer[name]:
                offer[name] = not pause and sent[name] < len(case.words[name])
            payload[name] = case.words[name][sent[name]] if offer[name] else \
                noise.getrandbits(words[name].bits)
        accept = {name: not next(stall[name]) for name in model.sources}
        ready, valid = model.settle(dict(offer), dict(accept))
        for name in model.sources:
            if valid[name]:
                if received[name] == len(case.expected[name]):
                    raise RuntimeError(f"{case.name}: the model offers a word too many on {name}")
                result[name] = case.expected[name][received[name]]
        yield Cycle(dict(offer), payload, accept, ready, valid, result)

        model.clock(dict(offer), dict(accept))
        before = missing
        for name in model.sinks:
            if offer[name] and ready[name]:
                sent[name] += 1
                offer[name] = False
                missing -= 1
        for name in model.sources:
            if valid[name] and accept[name]:
                received[name] += 1
                missing -= 1
        idle = 0 if missing < before else idle + 1
        if idle > WATCHDOG:
            raise RuntimeError(f"{case.name}: the model moves nothing for {WATCHDOG} cycles; "
                               f"sent {sent}, received {received}")
