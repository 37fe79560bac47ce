# SPDX-License-Identifier: Apache-2.0
"""The drain on every cycle: a model of its timing says when, the golden functions say what."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from amaranth.hdl import Fragment, ResetInserter, Signal
from amaranth.sim import Simulator
from torch import Tensor

from golden.units.encoding import Encoding, thresholds
from golden.units.layernorm import reciprocal_root
from golden.units.requant import Requantization, requantize
from golden.units.softmax import ShiftScale, row_offset, statistics
from hw.drain.drain import Drain
from vitforge.spec.config import Config, load
from vitforge.spec.instruction import DESTINATIONS, OPERATIONS, PARAMETER, STATISTICS
from vitforge.spec.layernorm_widths import NormFormat
from vitforge.spec.requant_fields import FORMATS
from vitforge.spec.sizes import SHORT
from vitforge.spec.softmax_widths import ShiftWidths

TINY = load("tiny")
SMALL = Config(name="small", rows=8, cols=8, lanes=4, max_tokens=16, max_channels=256,
               max_keys=128)
#: One group a token, groups longer than a part's, and a number of groups that is no power of two.
WHOLE = Config(name="whole", rows=4, cols=4, lanes=4, max_tokens=16, max_channels=64, max_keys=64)
SINGLE = Config(name="single", rows=16, cols=16, lanes=1, max_tokens=8, max_channels=64,
                max_keys=64)
THIRDS = Config(name="thirds", rows=12, cols=12, lanes=4, max_tokens=8, max_channels=96,
                max_keys=96)

#: The encoding whose thresholds a run holds, beside uniform ones.
KINDS = {
    "two-scale": (Encoding(kind="two-scale", bits=6, m=3), 6),
    "signed two-scale": (Encoding(kind="two-scale", bits=8, m=4, signed=True), 5),
    "log2": (Encoding(kind="log2", bits=4), 0),
    "table": (Encoding(kind="table", bits=3, thresholds=(-9000, -3000, -70, 0, 50, 2000, 8000)),
              0),
}


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass with its data and what must come of it."""

    fields: dict[str, int]
    parameters: dict[str, Tensor]
    acc: Tensor
    codes: Tensor | None
    sums: Tensor | None
    #: What the last pass of a row writes for each token.
    results: list[Any]
    #: Cycles between its predecessor's start and its offer, beside the wait for parameters.
    gap: int = 0
    #: Parameters are those of the pass before.
    shared: bool = False


class Script:
    """Random passes."""

    def __init__(self, config: Config, kind: str):
        self.config = config
        self.rng = random.Random(f"{config.name} {kind}")
        self.torch = torch.Generator().manual_seed(self.rng.getrandbits(32))
        self.encoding, self.encode_shift = KINDS[kind]
        self.thresholds = thresholds(self.encoding, self.encode_shift, config)
        self.words = 64
        self.residual = self.integers(0, 256, self.words, config.rows)
        self.passes: list[Pass] = []
        self.wide = ShiftWidths(config)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.torch)

    def parameters(self, operation: str, encoding: Encoding) -> dict[str, Tensor]:
        """Parameters that spread values over the codes; now and then extreme ones."""
        cols = self.config.cols
        found = {
            "bias": self.integers(-100_000, 100_000, cols),
            "multiplier": self.integers(1 << 14, 1 << 16, cols),
            "shift": self.integers(17, 24, cols),
            "encode_shift": self.integers(4, 9, cols),
            "residual_shift": self.integers(0, 4, cols),
            "statistics_shift": self.integers(0, 4, cols),
        }
        if operation != "raw" and self.rng.random() < 0.3:
            at = self.rng.randrange(cols)
            for name, value in (("bias", self.rng.choice((-1 << 31, (1 << 31) - 1))),
                                ("multiplier", self.rng.choice((0, 1, 65535))),
                                ("shift", self.rng.choice((0, 1, 47, 63))),
                                ("encode_shift", self.rng.choice((0, 15)))):
                if self.rng.random() < 0.5:
                    found[name][at] = value
        if encoding.kind == "two-scale":
            found["encode_shift"][:] = self.encode_shift
        return found

    def codes(self, operation: str, encoding: Encoding, parameters: dict[str, Tensor],
              acc: Tensor, fields: dict[str, int]) -> Tensor:
        """Return what the requantizer makes of them."""
        residual = None
        if operation == "residual":
            words = self.residual[fields["d_base"]:fields["d_base"] + len(acc)]
            residual = words - fields["residual_zero_point"] << parameters["residual_shift"]
        shift: Tensor | int = parameters["encode_shift"]
        if encoding.kind == "two-scale":
            shift = self.encode_shift
        layer = Requantization(
            bias=parameters["bias"], multiplier=parameters["multiplier"],
            shift=parameters["shift"], operation=operation, encoding=encoding,
            encode_shift=shift,
            multiplier2=fields["multiplier2"] if operation in ("gelu", "residual") else 0)
        return requantize(acc, layer, self.config, residual)

    def add(self, operation: str, tokens: int, *, encoding: Encoding | None = None,
            statistics: str = "none", results: list[Any] | None = None,
            flat: bool = False, tight: bool = False, **fields: int) -> Pass:
        """Add a pass; every field that is not given is drawn.

        A `flat` one gives codes of 0 only; a `tight` one need not wait for its parameters.
        """
        rng, config = self.rng, self.config
        if encoding is None:
            encoding = rng.choice((self.encoding,
                                   Encoding(zero_point=rng.choice((0, 255, rng.randrange(256))),
                                            bits=rng.choice((8, 8, 5, 2)))))
        # Spread over all magnitudes, so that no step only saturates.
        acc = self.integers(-1 << 31, 1 << 31, tokens, config.cols) >> self.integers(
            8, 20, tokens, config.cols)
        if rng.random() < 0.2:
            acc[rng.randrange(tokens), rng.randrange(config.cols)] = \
                rng.choice((-1 << 31, (1 << 31) - 1))
        shared = (bool(self.passes) and bool(self.passes[-1].parameters["multiplier"].any())
                  and (tight or rng.random() < 0.5))
        parameters = self.passes[-1].parameters if shared else self.parameters(operation, encoding)
        if operation == "raw" or (encoding.kind == "two-scale"
                                  and bool((parameters["encode_shift"]
                                            != self.encode_shift).any())):
            shared, parameters = False, self.parameters(operation, encoding)
        if flat:
            shared = False
            parameters = self.parameters("raw", encoding)
            parameters["multiplier"][:] = 0
        if operation == "raw":
            # The program's bounds: no sum leaves 32 bits. Both ends are reached.
            acc = acc.clamp(-1 << 30, 1 << 30)
            acc[0, 0] = (1 << 31) - 1 - max(int(parameters["bias"][0]), 0)
            parameters["bias"][-1] = -12345
            acc[-1, -1] = (-1 << 31) + 12345
        found = {
            "tokens": tokens, "valid": rng.randrange(256), "channels": rng.randrange(4096),
            "probability_slot": rng.getrandbits(1), "statistics": STATISTICS[statistics],
            "statistics_first": rng.getrandbits(1), "statistics_last": rng.getrandbits(1),
            "destination": rng.randrange(3), "operation": OPERATIONS[operation],
            "d_base": rng.randrange((1 << 24) - 64),
            "softmax_multiplier": rng.getrandbits(17),
            "format": FORMATS[encoding.kind], "zero_point": encoding.zero_point,
            "bits": encoding.bits, "m": encoding.m, "signed": int(encoding.signed),
            "residual_zero_point": rng.randrange(256),
            "multiplier2": rng.getrandbits(16), "offset": rng.getrandbits(32),
            "bank": len(self.passes) % 2,
        } | fields
        if operation == "residual":
            found["d_base"] = rng.randrange(self.words - tokens + 1)
            found["destination"] = DESTINATIONS["residual"]
        raw = operation == "raw"
        if raw:
            # Sums have no codes to gather statistics of.
            found["statistics"] = rng.randrange(3)
        new = Pass(
            fields=found, parameters=parameters, acc=acc, results=results or [], shared=shared,
            codes=None if raw else self.codes(operation, encoding, parameters, acc, found),
            sums=acc + parameters["bias"] if raw else None,
            gap=0 if tight else rng.choice((0, 0, 0, 0, rng.randrange(40))))
        self.passes.append(new)
        return new

    def norm(self, tokens: int, count: int, *, flat: bool = False, tight: bool = False) -> None:
        """Add rows of the residual stream, in `count` passes."""
        width = NormFormat(self.config)
        channels = count * self.config.cols
        zero_point = self.rng.choice((0, 255, 128, self.rng.randrange(256)))
        encoding = Encoding(zero_point=zero_point)
        made, results = [], []
        for index in range(count):
            new = self.add(self.rng.choice(("linear", "residual", "residual", "gelu"))
                           if not flat else "linear", tokens,
                           encoding=encoding, statistics="norm", flat=flat, tight=tight,
                           statistics_first=index == 0, statistics_last=index == count - 1,
                           channels=channels)
            assert new.codes is not None
            made.append(new.codes - zero_point << new.parameters["statistics_shift"])
            if not tight:
                self.others()
        x = torch.cat(made, -1)
        total, squares = x.sum(-1), (x * x).sum(-1)
        variance = channels * squares - total * total
        assert flat <= bool((variance == 0).all())
        root, up = reciprocal_root(variance, self.config)
        fine, coarse = up % width.coarse_step, up // width.coarse_step
        results = [{"count": channels << int(fine[t]), "total": int(total[t]) << int(fine[t]),
                    "coarse": int(coarse[t]), "root": int(root[t])} for t in range(tokens)]
        self._results("norm", results)

    def softmax(self, tokens: int, count: int, *, tight: bool = False) -> None:
        """Add rows of scores, in `count` passes, the last of which may have fewer keys."""
        config, rng = self.config, self.rng
        valid = rng.randrange(1, config.cols + 1)
        slot = rng.getrandbits(1)
        multiplier = rng.choice((1, 700, 3000, 9000, 40000, (1 << 17) - 1))
        encoding = Encoding(zero_point=128)
        codes = []
        for index in range(count):
            last = index == count - 1
            new = self.add("linear", tokens, encoding=encoding, statistics="softmax", tight=tight,
                           statistics_first=index == 0, statistics_last=last,
                           valid=valid if last else config.cols, probability_slot=slot,
                           softmax_multiplier=multiplier)
            assert new.codes is not None
            codes.append(new.codes)
            if not tight:
                self.others()
        scores = torch.cat(codes, -1)[:, :(count - 1) * config.cols + valid] - 128
        reference, total = statistics(scores, torch.ones_like(scores, dtype=torch.bool),
                                      ShiftScale(multiplier), config)
        half = 1 << self.wide.fraction - 1
        offset = row_offset(reference, total, self.wide) + half & (1 << self.wide.offset) - 1
        self._results("softmax", [{"slot": slot, "offset": value} for value in offset.tolist()])

    def _results(self, kind: str, results: list[Any]) -> None:
        """Give the last pass of a row its results."""
        at = max(n for n, item in enumerate(self.passes)
                 if item.fields["statistics"] == STATISTICS[kind] and item.codes is not None)
        assert self.passes[at].fields["statistics_last"]
        self.passes[at] = replace(self.passes[at], results=results)

    def others(self) -> None:
        """Now and then a pass of another kind between those of a row."""
        if self.rng.random() < 0.3:
            self.add(self.rng.choice(("linear", "gelu", "residual", "raw")),
                     self.rng.randrange(1, 5))


def fill(config: Config, kind: str, rows: int) -> Script:
    script = Script(config, kind)
    for operation in ("linear", "gelu", "residual", "raw"):
        script.add(operation, 3, encoding=script.encoding)
    script.norm(2, 2, flat=True)
    for row in range(rows):
        # Also rows that are revisited before their state is there.
        tokens = script.rng.choice((1, 1, 2, 3, min(6, config.max_tokens)))
        count = script.rng.randrange(1, 5)
        (script.norm if row % 2 else script.softmax)(tokens, count)
        script.add(script.rng.choice(tuple(OPERATIONS)), config.max_tokens // 2)
    # Passes that are shorter than a token's state takes, and more sums than there is room for.
    script.add("linear", 1, encoding=Encoding())
    for _ in range(2):
        script.norm(1, 3, tight=True)
        script.softmax(1, 3, tight=True)
    script.add("linear", config.max_tokens)
    script.add("raw", min(config.max_tokens, 20))
    script.add("raw", 7)
    # More passes than there is room for.
    for _ in range(20):
        script.add("linear", 1, encoding=Encoding(), tight=True)
    return script


class Bench:
    """Plays a script, and says for every cycle what every port must show."""

    def __init__(self, script: Script, dut: Drain, early: int, take: float):
        self.script, self.dut, self.early, self.take = script, dut, early, take
        self.config = script.config
        self.groups = self.config.cols // self.config.lanes
        self.rng = random.Random(early)
        self.counts: Counter[str] = Counter()
        self.events: dict[int, dict[str, Any]] = defaultdict(dict)

    def expect(self, cycle: int, port: str, **value: int) -> None:
        self.events[cycle][port] = value
        self.counts[port] += 1

    def issue(self, item: Pass, index: int, cycle: int) -> None:
        """Note what follows from a group's issue."""
        config, fields, dut = self.config, item.fields, self.dut
        token, group = divmod(index, self.groups)
        left = fields["tokens"] * self.groups - 1 - index
        raw = fields["operation"] == OPERATIONS["raw"]
        channels = slice(group * config.lanes, (group + 1) * config.lanes)
        if fields["operation"] == OPERATIONS["residual"] and group == 0:
            self.expect(cycle, "residual", address=fields["d_base"] + token)
        self.expect(cycle + 1, "accumulator", bank=fields["bank"], token=token)
        if item.codes is not None:
            codes = item.codes[token, channels].tolist() * self.groups
            self.expect(cycle + dut.write_latency, "write", destination=fields["destination"],
                        address=fields["d_base"] + token, mask=1 << group,
                        data=sum(code << 8 * n for n, code in enumerate(codes)))
        if item.sums is not None:
            self.sums.append(item.sums[token, channels].tolist())
        if item.results and group == self.groups - 1:
            if fields["statistics"] == STATISTICS["norm"]:
                self.expect(cycle + dut.factor_latency, "factor_write", token=token,
                            **item.results[token])
            else:
                self.expect(cycle + dut.probability_latency, "probability_write", token=token,
                            **item.results[token])
        if raw or fields["tokens"] < SHORT:
            release = left == 0
        else:
            release = left == self.early or (index == 0 and left < self.early)
        if release:
            self.expect(cycle, "release")
            self.counts["early release"] += left > 0
        if left == 0:
            self.expect(cycle + dut.latency, "complete")

    def check(self, ctx: Any, cycle: int) -> None:
        """Compare every pulse and enable of a cycle, and what comes with them."""
        dut = self.dut
        wanted = self.events.pop(cycle, {})
        for port in ("accumulator", "residual", "write", "factor_write", "probability_write"):
            signals = getattr(dut, port)
            assert ctx.get(signals.en) == (port in wanted), (cycle, port)
            for name, value in wanted.get(port, {}).items():
                source = signals.payload if port == "factor_write" and name != "token" else signals
                assert ctx.get(source[name]) == value, (cycle, port, name)
        for port in ("release", "complete"):
            assert ctx.get(getattr(dut, port)) == (port in wanted), (cycle, port)

    def parts(self, parameters: dict[str, Tensor]) -> list[int]:
        cols = self.config.cols
        words = PARAMETER.pack({name: value.numpy() for name, value in parameters.items()})
        vector = sum(word << PARAMETER.bits * n for n, word in enumerate(words))
        return [vector >> 8 * cols * n & (1 << 8 * cols) - 1 for n in range(8)]

    async def run(self, ctx: Any, cycles: int = 1 << 60) -> None:
        """Play it all, or the first `cycles` cycles."""
        dut, config, rng = self.dut, self.config, self.rng
        passes = self.script.passes
        acc_mask = (1 << config.acc_bits) - 1
        noise = dut.start.payload.shape().size
        for n, value in enumerate(self.script.thresholds):
            ctx.set(dut.thresholds[n], value)
        # Sets of parameters in order, their slots, and the cycle from which a set's slot is free.
        sets = [sum(not other.shared for other in passes[1:n + 1]) for n in range(len(passes))]
        users = Counter(sets)
        free = dict.fromkeys(range(4), 0)
        written: dict[int, int] = {}
        writing = [(number, part, value) for number in range(sets[-1] + 1) for part, value in
                   enumerate(self.parts(passes[sets.index(number)].parameters))]

        self.sums: list[list[int]] = []
        given: list[list[int]] = []
        shown: list[int] = []        # cycles from which sums are offered
        taken = 0                    # sums issued and not yet taken
        current: Pass | None = None
        index = number = 0
        ends: list[int] = []         # cycles from which a pass's place is free again
        offer_at = 0
        statistics_at = -100
        reads: dict[int, int] = {}
        words: dict[int, int] = {}
        cycle = 0
        while number < len(passes) or current is not None or self.events:
            assert cycle < 200 * len(passes)
            if cycle == cycles:
                return
            # Memories; noise where nothing was read.
            ctx.set(dut.accumulator_data.as_value(),
                    reads.pop(cycle, rng.getrandbits(config.cols * config.acc_bits)))
            ctx.set(dut.residual_data, words.pop(cycle, rng.getrandbits(config.rows * 8)))
            ctx.set(dut.parameter_write.en, 0)
            if writing and free.get(writing[0][0], cycle + 1) <= cycle and rng.random() < 0.95:
                which, part, value = writing.pop(0)
                written[which] = cycle if part == 7 else -1
                ctx.set(dut.parameter_write, {"en": 1, "slot": which % 4, "part": part,
                                              "data": value})
            # The next start, and the drain's readiness for it.
            offer = (number < len(passes) and cycle >= offer_at
                     and 0 <= written.get(sets[number], -1) < cycle)
            ctx.set(dut.start.valid, offer)
            if offer:
                ctx.set(dut.start.payload, passes[number].fields | {"slot": sets[number] % 4})
            else:
                ctx.set(dut.start.payload.as_value(), rng.getrandbits(noise))
            accept = rng.random() < self.take
            ctx.set(dut.raw.ready, accept)

            # The model.
            raw = current is not None and current.sums is not None
            issuing = current is not None and (not raw or taken < 16)
            finishing = False
            if issuing:
                self.issue(current, index, cycle)
                index += 1
                finishing = index == current.fields["tokens"] * self.groups
                if raw:
                    shown.append(cycle + 6)
            self.counts["wait for raw"] += current is not None and not issuing
            self.check(ctx, cycle)
            assert ctx.get(dut.raw.valid) == (bool(shown) and shown[0] <= cycle), cycle
            popped = False
            if accept and shown and shown[0] <= cycle:
                shown.pop(0)
                popped = True
                given.append([ctx.get(dut.raw.payload[n]) for n in range(config.lanes)])
            taken += (issuing and raw) - popped

            if ctx.get(dut.accumulator.en):
                bank, token = ctx.get(dut.accumulator.bank), ctx.get(dut.accumulator.token)
                source = next(item for item in (self.reading, current) if item is not None
                              and item.fields["bank"] == bank)
                reads[cycle + 2] = sum((value & acc_mask) << config.acc_bits * n for n, value in
                                       enumerate(source.acc[token].tolist()))
            if ctx.get(dut.residual.en):
                codes = self.script.residual[ctx.get(dut.residual.address)].tolist()
                words[cycle + 2] = sum(code << 8 * n for n, code in enumerate(codes))
            self.reading = current
            if finishing:
                ends.append(cycle + dut.write_latency)
                users[sets[number - 1]] -= 1
                if not users[sets[number - 1]]:
                    free[sets[number - 1] + 4] = cycle + 4

            has_statistics = offer and passes[number].fields["statistics"] != 0
            places = sum(end > cycle for end in ends) + (current is not None and not finishing)
            ready = ((current is None or finishing) and places < 16
                     and not (has_statistics and cycle < statistics_at + dut.revisit))
            if offer:
                assert ctx.get(dut.start.ready) == ready, cycle
                self.counts["wait for statistics"] += \
                    has_statistics and cycle < statistics_at + dut.revisit \
                    and (current is None or finishing)
                self.counts["wait for space"] += places == 16
            if finishing:
                current = None
            if offer and ready:
                self.counts["without a gap"] += finishing
                current, index = passes[number], 0
                if has_statistics:
                    statistics_at = cycle
                number += 1
                if number < len(passes):
                    offer_at = cycle + passes[number].gap
            await ctx.tick()
            cycle += 1
        while shown:
            ctx.set(dut.raw.ready, 1)
            if ctx.get(dut.raw.valid):
                shown.pop(0)
                given.append([ctx.get(dut.raw.payload[n]) for n in range(config.lanes)])
            await ctx.tick()
        assert given == self.sums
        self.counts["cycles"] = cycle

    reading: Pass | None = None


def play(config: Config, kind: str, *, early: int, take: float, rows: int) -> Counter[str]:
    """Play a script, after a beginning of it that a reset has cut off."""
    dut = Drain(config, early=early)
    script = fill(config, kind, rows)
    cut, whole = (Bench(script, dut, early, take) for _ in range(2))
    reset = Signal()

    async def bench(ctx: Any) -> None:
        await cut.run(ctx, 150)
        ctx.set(dut.start.valid, 0)
        ctx.set(dut.parameter_write.en, 0)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        await whole.run(ctx)

    simulator = Simulator(ResetInserter(reset)(Fragment.get(dut, None)))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return whole.counts


@pytest.mark.parametrize(("config", "kind", "early", "take", "rows"), [
    (TINY, "two-scale", 0, 1.0, 4),
    (TINY, "table", 3, 0.3, 2),
    (SMALL, "signed two-scale", 5, 0.5, 4),
    (SMALL, "log2", 1000, 1.0, 2),
    (WHOLE, "log2", 1, 0.1, 2),
    (SINGLE, "two-scale", 20, 0.9, 0),
    (THIRDS, "table", 7, 0.5, 1),
], ids=lambda value: getattr(value, "name", str(value)))
def test_every_cycle_of_random_passes(config: Config, kind: str, early: int, take: float,
                                      rows: int) -> None:
    counts = play(config, kind, early=early, take=take, rows=rows)
    for port in ("residual", "accumulator", "write", "factor_write", "probability_write",
                 "release", "complete", "without a gap", "wait for statistics"):
        assert counts[port] > 0, port
    assert (counts["early release"] > 0) == (early > 0)
    assert (counts["wait for raw"] > 0) == (take < 1)
    assert (counts["wait for space"] > 0) == (config in (TINY, SMALL, WHOLE))


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
    ({"cols": 8}, r"cols must be rows \(4\) for a drain, not 8"),
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
