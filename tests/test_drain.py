# SPDX-License-Identifier: Apache-2.0
"""The drain on every cycle is its model, whose codes and statistics are the golden functions'."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from golden.machine.engines.drain import DrainModel
from hw.drain.drain import Drain
from tests.drain_script import Script, fill
from tests.engine_bench import Cycle, Trace, simulate
from tests.sample import later, thorough
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import PARAMETER
from vitforge.spec.sizes import columns

TINY = load("tiny")
SMALL = Config(name="small", rows=8, cols=8, lanes=4, max_tokens=16, max_channels=256,
               max_keys=128)
#: One group a token, groups longer than a part's, and a number of groups that is no power of two.
WHOLE = Config(name="whole", rows=4, cols=4, lanes=4, max_tokens=16, max_channels=64, max_keys=64)
SINGLE = Config(name="single", rows=16, cols=16, lanes=1, max_tokens=8, max_channels=64,
                max_keys=64)
#: A token has up to two or four words, of two groups and of one.
DOUBLE = Config(name="double", rows=8, cols=16, lanes=4, max_tokens=16, max_channels=256,
                max_keys=128)
FOURFOLD = Config(name="fourfold", rows=4, cols=16, lanes=2, max_tokens=16, max_channels=256,
                  max_keys=128)
SHORT_WORDS = Config(name="short", rows=4, cols=8, lanes=4, max_tokens=16, max_channels=256,
                     max_keys=128)
#: Codes that share bytes: of tokens, of keys in several blocks, of words in two.
PACKED = Config(name="packed", rows=4, cols=4, lanes=4, max_tokens=24, max_channels=256,
                max_keys=128, modes="single+pair+quad")
PACKED_WIDE = Config(name="packed-wide", rows=4, cols=8, lanes=2, max_tokens=20, max_channels=256,
                     max_keys=128, modes="single+pair+quad")
#: Products of LUTs take more cycles; without segments a table's are as wide as can be.
LUTS = replace(SMALL, name="luts", drain_products="luts")
WIDE_LUTS = replace(TINY, name="wide-luts", drain_products="luts", value_bits=18, exp_table_bits=0)
#: A residual has a place of its own, and a pass's tokens numbers of a stream.
STREAM = replace(SMALL, name="stream", table_tokens=20, stream_tokens=100)
WIDE_STREAM = replace(DOUBLE, name="wide-stream", table_tokens=20, stream_tokens=37)
THIRDS = Config(name="thirds", rows=12, cols=12, lanes=4, max_tokens=8, max_channels=96,
                max_keys=96)


class Parameters:
    """Writes the sets of parameters to their slots as these are free, in time for the passes."""

    def __init__(self, script: Script, rng: random.Random):
        passes = script.passes
        #: Of every pass, the number of its set; a set is in the slot that is its number modulo 4.
        self.sets = [sum(not other.shared for other in passes[1:n + 1])
                     for n in range(len(passes))]
        self._rng, self._rows = rng, script.config.rows
        self._users = Counter(self.sets)
        self._free = dict.fromkeys(range(4), 0)     # cycles from which a set's slot is free
        self._written: dict[int, int] = {}
        self._writing = [
            (number, part, value) for number in range(self.sets[-1] + 1) for part, value in
            enumerate(self._parts(passes[self.sets.index(number)].parameters))]

    def _parts(self, parameters: dict[str, Tensor]) -> list[int]:
        words = PARAMETER.pack({name: value.numpy() for name, value in parameters.items()})
        vector = sum(word << PARAMETER.bits * n for n, word in enumerate(words))
        bits, words = 8 * self._rows, len(words) // self._rows
        return [vector >> bits * n & (1 << bits) - 1 for n in range(8 * words)]

    def write(self, cycle: int) -> dict[str, int]:
        """Return what the port gets in a cycle."""
        writing = self._writing
        if not (writing and self._free.get(writing[0][0], cycle + 1) <= cycle
                and self._rng.random() < 0.95):
            return {"en": 0}
        number, part, value = writing.pop(0)
        self._written[number] = -1 if writing and writing[0][0] == number else cycle
        return {"en": 1, "slot": number % 4, "part": part, "data": value}

    def there(self, index: int, cycle: int) -> bool:
        """Whether those of a pass were written before a cycle."""
        return 0 <= self._written.get(self.sets[index], -1) < cycle

    def finish(self, index: int, cycle: int) -> None:
        """Note the cycle in which a pass issues its last group."""
        number = self.sets[index]
        self._users[number] -= 1
        if not self._users[number]:
            # A slot is read until 3 cycles later.
            self._free[number + 4] = cycle + 4


def _bits(values: list[int], width: int) -> int:
    return sum((value & (1 << width) - 1) << width * n for n, value in enumerate(values))


def _trace(script: Script, dut: Drain, model: DrainModel, take: float) -> Iterator[Cycle]:
    """Cycles of all passes, by the model."""
    config, passes, rng = script.config, script.passes, random.Random(model.early)
    noise = dut.start.payload.shape().size
    parameters = Parameters(script, rng)
    widths = {"accumulator_data": (config.acc_bits, columns(config)),
              "residual_data": (8, config.rows)}
    number = offer_at = 0
    while number < len(passes) or model.busy:
        cycle = model.cycle
        assert cycle < 200 * len(passes)
        # Memories; noise where nothing was read.
        data = model.data()
        inputs: dict[str, Any] = {name: rng.getrandbits(width * count)
                                  for name, (width, count) in widths.items()}
        inputs |= {name: _bits(values, widths[name][0]) for name, values in data.items()}
        inputs["parameter_write"] = parameters.write(cycle)
        offered = (passes[number] if number < len(passes) and cycle >= offer_at
                   and parameters.there(number, cycle) else None)
        inputs["start.valid"] = offered is not None
        inputs["start.payload"] = (rng.getrandbits(noise) if offered is None else
                                   offered.fields | {"slot": parameters.sets[number] % 4})
        accept = inputs["raw.ready"] = rng.random() < take
        outputs = model.settle(offered)
        if not cycle:
            inputs["thresholds"] = script.thresholds
        yield Cycle(inputs, outputs)
        if model.finishing:
            parameters.finish(number - 1, cycle)
        if offered is not None and outputs["start.ready"]:
            number += 1
            offer_at = cycle + (passes[number].gap if number < len(passes) else 0)
        model.clock(offered, accept)
    # The sums that are left.
    outputs = model.settle(None)
    while outputs["raw.valid"]:
        yield Cycle({"start.valid": 0, "raw.ready": 1}, outputs)
        model.clock(None, True)
        outputs = model.settle(None)


def play(config: Config, kind: str, *, early: int, take: float, rows: int) -> Counter[str]:
    """Play a script, after a beginning of it that a reset has cut off."""
    dut, script = Drain(config, early=early), fill(config, kind, rows)
    cut, whole = (DrainModel(config, early) for _ in range(2))
    simulate(dut, [Trace(dut, itertools.islice(_trace(script, dut, cut, take), 150))],
             [Trace(dut, _trace(script, dut, whole, take))], hang=200 * len(script.passes) + 100)
    return whole.counts


@pytest.mark.parametrize(("config", "kind", "early", "take", "rows"), [
    (TINY, "two-scale", 0, 1.0, 4),
    later(TINY, "table", 3, 0.3, 2),
    later(SMALL, "signed two-scale", 5, 0.5, 4),
    later(SMALL, "log2", 1000, 1.0, 2),
    thorough(WHOLE, "log2", 1, 0.1, 2),
    later(STREAM, "two-scale", 2, 0.5, 4),
    thorough(WIDE_STREAM, "log2", 3, 0.5, 4),
    thorough(SINGLE, "two-scale", 20, 0.9, 0),
    later(THIRDS, "table", 7, 0.5, 1),
    later(DOUBLE, "two-scale", 5, 0.5, 4),
    thorough(FOURFOLD, "log2", 9, 0.7, 4),
    later(SHORT_WORDS, "signed two-scale", 3, 0.3, 4),
    thorough(PACKED, "table", 7, 0.5, 4),
    later(PACKED_WIDE, "two-scale", 20, 0.9, 2),
    thorough(LUTS, "log2", 5, 0.5, 4),
    later(WIDE_LUTS, "two-scale", 5, 0.5, 4),
], ids=lambda value: getattr(value, "name", str(value)))
def test_every_cycle_of_random_passes(config: Config, kind: str, early: int, take: float,
                                      rows: int) -> None:
    counts = play(config, kind, early=early, take=take, rows=rows)
    for port in ("residual", "accumulator", "write", "factor_write", "probability_write",
                 "release", "complete", "without a gap", "wait for statistics"):
        assert counts[port] > 0, port
    assert (counts["early release"] > 0) == (early > 0)
    assert (counts["wait for raw"] > 0) == (take < 1)
    assert (counts["wait for space"] > 0) == (config not in (SINGLE, THIRDS))


@pytest.mark.parametrize(("name", "timing"), [
    ("tiny", (5, 36, 53, 49, 54)),
    ("edge8", (5, 36, 54, 51, 55)),
    ("edge16", (7, 36, 54, 51, 55)),
])
def test_timing_of_the_presets(name: str, timing: tuple[int, ...]) -> None:
    dut = Drain(load(name))
    assert (dut.revisit, dut.write_latency, dut.factor_latency, dut.probability_latency,
            dut.latency) == timing


@pytest.mark.parametrize(("change", "message"), [
    ({"cols": 12}, r"cols must be 1, 2 or 4 times rows \(4\) for a drain, not 12"),
    ({"lanes": 3}, r"lanes must be a divisor of rows \(4\) for a drain, not 3"),
    ({"exponential": "iexp"}, "exponential must be shift for a drain, not iexp"),
    ({"attention": "linear"},
     ("attention must be one of log2, uniform, two-scale, log-sqrt2, table for a drain, "
     "not linear")),
    ({"score_bits": 9}, "score_bits must be 8 for a drain, not 9"),
])
def test_configurations_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Drain(replace(TINY, **change))


def test_early_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"^early must be at least 0, not -1$"):
        Drain(TINY, early=-1)
