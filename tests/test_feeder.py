# SPDX-License-Identifier: Apache-2.0
"""The feeder asks for the words of every pass in order, and waits for what its rules say alone."""

import dataclasses
import random

import pytest

from hw.array.feeder import Feeder
from tests.engine_bench import Cycle, Trace, simulate
from vitforge.spec.config import load

CONFIG = load("tiny")
FIELDS = {"a_base": 16, "a_stride": 10, "operand": 2, "from_residual": 1}


@dataclasses.dataclass
class _Model:
    """The rules: which word is next, and whether it may go."""

    passes: list[dict[str, int]]
    number: int = 0                 # of the pass that is active, or comes next
    tile: int = 0
    token: int = 0
    active: bool = False
    unreleased: int = 0
    unlanded: int = 0

    @property
    def issues(self) -> bool:
        if not self.active:
            return False
        if self.token:
            return True
        item = self.passes[self.number]
        late = self.tile >= item["late"]
        if self.tile:
            return not late or self.unlanded <= item["pending"] + 1
        return self.unreleased <= 1 and self.unlanded <= (item["pending"] if late else 2)

    def ends(self, advance: bool) -> bool:
        """Whether the next pass is taken, if one is offered."""
        if not self.active:
            return True
        item = self.passes[self.number]
        return self.issues and advance and self.token == item["tokens"] - 1 \
            and self.tile == item["tiles"] - 1

    def clock(self, advance: bool, offered: bool, released: bool, landed: bool) -> None:
        ends, moves = self.ends(advance), self.issues and advance
        begins = moves and not self.token and not self.tile
        self.unreleased += begins - released
        self.unlanded += begins - landed
        if ends:
            self.number += self.active
            self.active, self.tile, self.token = offered, 0, 0
        elif moves:
            self.token += 1
            if self.token == self.passes[self.number]["tokens"]:
                self.token, self.tile = 0, self.tile + 1


def _played(passes, rng, seldom):
    """Cycles until all passes have gone and landed; requests are compared a step later."""
    model, request, waits = _Model(passes), {"request.valid": 0}, 0
    for _ in range(15000):
        taken = model.number + model.active
        offered = taken < len(passes) and rng.random() < 0.8
        advance = rng.random() < 0.85
        # A drain begins when all words of its pass have gone.
        begun = model.active and model.tile + model.token > 0
        released = model.unreleased > begun and rng.random() < seldom
        landed = model.unlanded > model.unreleased - released and rng.random() < seldom
        issues, ends = model.issues, model.ends(advance)
        inputs = {"advance": advance, "released": released, "landed": landed,
                  "passes.valid": offered, "passes.payload": passes[taken] if offered else 0}
        waits += model.active and not issues
        outputs = {"passes.ready": ends, "waiting": model.active and not issues, **request}
        yield Cycle(inputs, outputs)
        if advance:
            request = {"request.valid": issues}
            if issues:
                item = passes[model.number]
                request |= {
                    "request.address": item["a_base"] + model.tile * item["a_stride"] + model.token,
                    "request.token": model.token, "request.tile": model.tile,
                    "request.operand": item["operand"],
                    "request.last": model.token == item["tokens"] - 1,
                    "request.blank": item["blank_first"] and not model.token,
                    "request.valid_rows": item["valid"] if model.tile == item["tiles"] - 1
                    else CONFIG.rows}
        model.clock(advance, offered, released, landed)
        if model.number == len(passes) and not model.unlanded:
            assert waits > 10
            return
    raise AssertionError("a pass waits for ever")


@pytest.mark.parametrize("seldom", [0.5, 0.1, 0.03])
def test_words_go_when_the_rules_say(seldom):
    rng = random.Random(seldom)
    passes = [{"tokens": rng.choice((1, 1, 2, 3, 9)), "tiles": rng.choice((1, 1, 2, 4)),
               "late": rng.randint(0, 5), "pending": rng.randint(0, 2),
               "blank_first": rng.randint(0, 1), "valid": rng.randint(1, CONFIG.rows),
               **{name: rng.getrandbits(bits) for name, bits in FIELDS.items()}}
              for _ in range(100)]
    dut = Feeder(CONFIG)
    simulate(dut, [Trace(dut, _played(passes, rng, seldom))])
