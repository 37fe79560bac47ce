# SPDX-License-Identifier: Apache-2.0
"""Engines that know two tokens of a word, or two codes of a byte, in Amaranth's own simulator."""

import dataclasses
import random
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from golden.machine.halves import stationary_weights, store
from golden.machine.pairs import join_pairs
from golden.units.packed import segments
from hw.array.accumulator import Accumulator
from hw.array.bank import Bank
from hw.array.feeder import Feeder
from hw.array.systolic import SystolicArray
from hw.array.weight_source import WeightSource
from hw.operand.keeper import Keeper
from tests.engine_bench import Cycle, Trace, simulate
from vitforge.spec.config import Config, load
from vitforge.spec.elements import Element
from vitforge.spec.formats import MIDDLE
from vitforge.spec.instruction import MODES
from vitforge.spec.pass_fields import operand_words

QUAD = dataclasses.replace(load("tiny"), name="quad", modes="single+pair+quad", max_tokens=13,
                           acc_bits=28)
CONFIGS = [QUAD, dataclasses.replace(QUAD, name="4x8-27x18", cols=8, lanes=4,
                                     multiplier="27x18")]
by_name = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)


def _bits(values: list[int], width: int) -> int:
    return sum((value & (1 << width) - 1) << width * n for n, value in enumerate(values))


def _begins(bits: int, wanted: list[int], width: int) -> bool:
    return bits & (1 << width * len(wanted)) - 1 == _bits(wanted, width)


def _sums(config: Config, mode: str, rng: np.random.Generator, tokens: int) -> torch.Tensor:
    """Draw sums ``[words, cols, fields]`` of one tile, to both ends of their range."""
    element = Element(config)
    top = config.rows * element.product(mode)
    words = -(-tokens // 2) if mode == "quad" else tokens
    found = rng.integers(-top, top + 1, (words, config.cols, element.fields(mode)))
    found[rng.random(found.shape) < 0.2] = -top
    found[rng.random(found.shape) < 0.2] = top
    return torch.from_numpy(found)


@by_name
def test_accumulators_add_the_sums_of_their_tokens(config: Config) -> None:
    dut, rng, element = Accumulator(config), np.random.default_rng(5), Element(config)
    word = SystolicArray.words(config)["o"]
    quiet = {"sums.valid": 0, "read_enable": 0}

    def cycles() -> Iterator[Cycle]:
        for number, mode in enumerate(2 * ["quad", "pair", "quad", "single", "quad", "quad",
                                           "pair", "single", "quad"]):
            tokens, tiles = int(rng.integers(4, config.max_tokens + 1)), int(rng.integers(1, 4))
            total: torch.Tensor | int = 0
            for tile in range(tiles):
                sums = _sums(config, mode, rng, tokens)
                total = total + sums
                parts = segments(sums, mode, element)
                for index, row in enumerate(parts):
                    while rng.random() < 0.2:
                        yield Cycle(quiet)
                    values = {f"segment_{place}": [row[:, place].tolist()]
                              for place in range(element.segments)}
                    payload = word.pack(values | {"mode": [MODES[mode]],
                                                  "last": [int(index == len(parts) - 1)]})[0]
                    yield Cycle({"sums.valid": 1, "sums.payload": payload, "passes.payload": tiles,
                                 "read_enable": 0}, {
                        "passes.ready": int(index == len(parts) - 1 and tile == tiles - 1)})
                # The same token's next sums come `rows` cycles later at the earliest.
                for _ in range(max(0, config.rows - len(parts))):
                    yield Cycle(quiet)
            for _ in range(5):
                yield Cycle(quiet)
            assert isinstance(total, torch.Tensor)
            # [words, columns, weight, token] to [tokens, weight, columns].
            weights = 1 if mode == "single" else 2
            found = total.unflatten(2, (weights, -1)).permute(0, 3, 2, 1).flatten(0, 1).flatten(1)
            waiting: list[list[int] | None] = []
            for token in [*rng.permutation(tokens).tolist(), None, None]:
                outputs = {}
                wanted = waiting.pop(0) if len(waiting) == 2 else None
                if wanted is not None:
                    # Single sums have no upper half.
                    outputs = {"data": partial(_begins, wanted=wanted, width=config.acc_bits)}
                waiting.append(found[token].tolist() if token is not None else None)
                yield Cycle(quiet | {"read_enable": int(token is not None),
                                     "read_bank": number % 2, "read_token": token or 0}, outputs)

    trace = Trace(dut, cycles())
    simulate(dut, [trace])
    assert trace.played > 500


class _Kept(wiring.Component):
    """A keeper in front of its bank."""

    def __init__(self, config: Config):
        self.bank, self.keeper = Bank(config, 64), Keeper(config)
        super().__init__({"data": Out(config.rows * 8), "overflow": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank, m.submodules.keeper = bank, keeper = self.bank, self.keeper
        m.d.comb += [
            bank.write.eq(keeper.write.en), bank.write_address.eq(keeper.write.address),
            bank.write_data.eq(keeper.write.data), bank.write_halves.eq(keeper.write.halves),
            bank.write_mask.eq(-1), bank.read_enable.eq(1), self.data.eq(bank.data),
            self.overflow.eq(bank.overflow)]
        return m


@by_name
def test_kept_codes_find_their_halves(config: Config) -> None:
    dut, rng = _Kept(config), random.Random(2)
    wanted = torch.zeros(64, config.rows, dtype=torch.int64)

    def cycles() -> Iterator[Cycle]:
        for tokens, tiles, base in ((5, 3, 7), (4, 2, 30), (1, 4, 40), (7, 1, 50), (2, 2, 9)):
            yield Cycle({"keeper.begin": {"en": 1, "address": base}, "keeper.kept": {"en": 0}})
            for tile in range(tiles):
                for token in range(tokens):
                    codes = [rng.randrange(16) for _ in range(config.rows)]
                    last = token == tokens - 1
                    halves = [0, 1] if last and not token % 2 else [token % 2]
                    place = base + tile * -(-tokens // 2) + token // 2
                    for half in halves:
                        store(wanted, torch.tensor([place]), np.array([half]),
                              torch.tensor([codes]))
                    while rng.random() < 0.2:
                        yield Cycle({"keeper.begin": {"en": 0}, "keeper.kept": {
                            "en": 0, "last": rng.randrange(2), "data": rng.getrandbits(16)}})
                    yield Cycle({"keeper.begin": {"en": 0}, "keeper.kept": {
                        "en": 1, "last": int(last), "data": _bits(codes, 4)}})
        for address in range(66):
            outputs = {"data": _bits(wanted[address - 2].tolist(), 8)} if address >= 2 else {}
            yield Cycle({"keeper.kept": {"en": 0}, "bank.read_address": address % 64}, outputs)

    simulate(dut, [Trace(dut, cycles())])


@by_name
def test_banks_write_halves_of_some_lanes(config: Config) -> None:
    dut, rng = Bank(config, 16), random.Random(4)
    wanted = [[0] * config.rows for _ in range(16)]

    def cycles() -> Iterator[Cycle]:
        for _ in range(200):
            address, halves = rng.randrange(16), rng.randrange(4)
            groups = config.rows // config.lanes
            mask = rng.randrange(1 << groups)
            codes = [rng.randrange(256) for _ in range(config.rows)]
            for row in range(config.rows):
                if mask >> row // config.lanes & 1:
                    keep = 0xFF ^ (halves & 1) * 0x0F ^ (halves >> 1) * 0xF0
                    wanted[address][row] = wanted[address][row] & keep | codes[row] & ~keep
            yield Cycle({"write": 1, "write_address": address, "write_mask": mask,
                         "write_halves": halves, "write_data": _bits(codes, 8), "read_enable": 1})
        for address in range(18):
            yield Cycle({"write": 0, "read_address": address % 16},
                        {"data": _bits(wanted[address - 2], 8)} if address >= 2 else {})

    simulate(dut, [Trace(dut, cycles())])


@by_name
@pytest.mark.parametrize("mode", MODES)
def test_stationary_words_become_elements(config: Config, mode: str) -> None:
    """Every byte, by column: the elements that come `late` cycles after their word."""
    dut, rows = WeightSource(config), config.rows
    codes = torch.arange(256).reshape(-1, rows)
    if mode == "single":
        elements = codes - MIDDLE
    else:
        weights = stationary_weights(codes[None], by_column=False)[0]
        narrow = dataclasses.replace(config, cols=rows)
        elements = torch.from_numpy(join_pairs(weights.numpy().astype(np.int8), narrow)
                                    .astype(np.int64))
    tiles = len(codes) // config.cols
    fields = {"tiles": tiles, "stationary": 1, "by_column": 1, "w_base": 0,
              "w_stride": config.cols, "mode": MODES[mode]}

    found: list[int] = []
    reads: list[int | None] = [None, None]

    def cycles() -> Iterator[Cycle]:
        yield Cycle({"passes.valid": 1, "passes.payload": fields, "w_takes": 1, "w.ready": 1})
        for _ in range(len(codes) + 12):
            inputs = {"passes.valid": 0, "w_takes": 1, "w.ready": 1}
            yield Cycle(inputs)

    class Memory(Trace):
        """The bank, two steps behind its address."""

        def check(self, ctx: object, cycle: int) -> None:
            super().check(ctx, cycle)
            get = ctx.get  # type: ignore[attr-defined]
            data = reads.pop(0)
            ctx.set(dut.data, 0 if data is None else _bits(codes[data].tolist(), 8))  # type: ignore[attr-defined]
            reads.append(int(get(dut.read_address)) if get(dut.read) else None)
            packed = int(get(dut.w.payload.packed))
            if get(dut.w.valid):
                assert packed == (mode != "single")
            found.append((int(get(dut.w.valid)), int(get(dut.w.payload.weights.as_value()))))

    simulate(dut, [Memory(dut, cycles())])
    valid = [index for index, (is_valid, _) in enumerate(found) if is_valid]
    assert len(valid) == len(codes)
    mask = (1 << 8 * rows) - 1
    made = [found[index + dut.late][1] & mask for index in valid]
    assert made == [_bits(row.tolist(), 8) for row in elements]


@by_name
def test_a_feeder_asks_for_a_word_of_two_tokens(config: Config) -> None:
    dut, rng = Feeder(config), random.Random(3)
    asked: list[tuple[int, ...]] = []
    wanted: list[tuple[int, ...]] = []
    keeps: list[int] = []
    passes = []
    for number in range(12):
        mode = number % 3
        fields = {"tokens": rng.randrange(1, config.max_tokens + 1), "tiles": rng.randrange(1, 4),
                  "late": 4095, "a_base": 50 * number, "a_stride": 13, "mode": mode,
                  "keep": int(mode < 2 and rng.random() < 0.5), "offset": 1000 + number,
                  "valid": 1 + number % 4}
        passes.append(fields)
        words = operand_words(fields, config)
        wanted += [(fields["a_base"] + 13 * tile + word, int(word == words - 1), mode,
                    fields["keep"]) for tile in range(fields["tiles"]) for word in range(words)]

    class Asked(Trace):
        def check(self, ctx: object, cycle: int) -> None:
            super().check(ctx, cycle)
            get, request = ctx.get, dut.request  # type: ignore[attr-defined]
            if get(request.valid) and get(dut.advance):
                asked.append(tuple(int(get(request[name]))
                                   for name in ("address", "last", "mode", "keep")))
            if get(dut.keeps.en):
                keeps.append(int(get(dut.keeps.address)))

    def cycles() -> Iterator[Cycle]:
        for fields in passes:
            ready = False

            def look(bits: int) -> bool:
                nonlocal ready
                ready = bool(bits)
                return True

            while not ready:
                yield Cycle({"passes.valid": 1, "passes.payload": fields,
                             "advance": int(rng.random() < 0.8), "released": 0, "landed": 0},
                            {"passes.ready": look})
            # All before have landed and are released, as far as the next one needs to know.
            for _ in range(3 * config.max_tokens):
                yield Cycle({"passes.valid": 0, "advance": 1})
            yield Cycle({"passes.valid": 0, "advance": 1, "released": 1, "landed": 1})

    simulate(dut, [Asked(dut, cycles())])
    assert asked == wanted
    assert keeps == [fields["offset"] for fields in passes if fields["keep"]]
