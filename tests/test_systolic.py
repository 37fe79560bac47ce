# SPDX-License-Identifier: Apache-2.0
"""The systolic array: exact sums, no idle cycle, and the Verilog equal to both on every cycle."""

import dataclasses
import itertools

import pytest
import torch
from amaranth.hdl import Module
from amaranth.lib import wiring
from array_bench import on_every_cycle

from golden.units.systolic import SystolicModel, matmul
from hw.array.systolic import SystolicArray
from hw.lib.stream import delay
from sim.cases.image import image_cases
from sim.cases.systolic import Tile, cases, image_case, tile_case
from sim.cases.trace import AFTERMATH, PATTERNS, trace
from sim.run import regress
from vitforge.spec.config import Config, load

SHAPES = [
    Config(name="wide-4x4", rows=4, cols=4, lanes=2),
    Config(name="shift-4x4", rows=4, cols=4, lanes=2, pe_style="shift"),
    Config(name="wide-3x5", rows=3, cols=5, lanes=2, operand_bits=12),
    Config(name="shift-6x2", rows=6, cols=2, lanes=2, weight_bits=4, pe_style="shift"),
    Config(name="wide-1x7", rows=1, cols=7, lanes=2, operand_bits=18),
    Config(name="shift-5x1", rows=5, cols=1, lanes=2, weight_bits=2, mantissa_bits=2,
           operand_bits=4, pe_style="shift"),
]
by_name = pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.name)


def _random(*shape, low=-256, high=256, seed=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def _plain(mantissa, shift, weights):
    """Sum in Python's own integers, which have no width."""
    return [[sum((int(mantissa[t, k]) << int(shift[t, k])) * int(weights[k, n])
                 for k in range(weights.shape[0])) for n in range(weights.shape[1])]
            for t in range(mantissa.shape[0])]


@pytest.mark.parametrize(("t", "k", "n"), [(1, 1, 1), (3, 5, 7), (50, 16, 3), (2, 0, 3), (0, 4, 2)])
@pytest.mark.parametrize("weight", [128, 200, 1 << 33])
def test_matmul_is_exact(t, k, n, weight):
    mantissa, weights = _random(t, k), _random(k, n, low=-weight, high=weight)
    shift = _random(t, k, low=0, high=16)
    result = matmul(mantissa, shift, weights)
    assert result.dtype == torch.int64
    assert result.tolist() == _plain(mantissa, shift, weights)


@pytest.mark.parametrize("left", [-(1 << 17), (1 << 17) - 1, -128, 127, -129, 128, 32639, 32640])
@pytest.mark.parametrize("right", [-128, 127])
def test_matmul_is_exact_at_the_ends(left, right):
    mantissa, weights = torch.full((9, 1000), left), torch.full((1000, 6), right)
    assert torch.equal(matmul(mantissa, 0, weights), torch.full((9, 6), 1000 * left * right))


def test_matmul_cuts_long_operands_into_blocks():
    mantissa, weights = _random(2, 5000, 8), _random(8, 3, low=-128, high=128)
    shift = _random(2, 5000, 8, low=0, high=9)
    assert torch.equal(matmul(mantissa, shift, weights), (mantissa << shift) @ weights)


def test_matmul_multiplies_batches():
    mantissa, weights = _random(4, 3, 50, 16), _random(4, 3, 16, 50, low=-128, high=128)
    assert torch.equal(matmul(mantissa, 5, weights), (mantissa << 5) @ weights)


def test_matmul_takes_every_integer_type():
    mantissa, weights = _random(4, 6, low=-128, high=128), _random(6, 5, low=-128, high=128)
    want = (mantissa << 11) @ weights
    for kind in (torch.int8, torch.int16, torch.int32, torch.int64):
        assert torch.equal(matmul(mantissa.to(kind), torch.tensor(11, dtype=torch.uint8),
                                  weights.to(kind)), want)


def test_matmul_takes_views_of_any_strides():
    large = _random(64, 192, low=-128, high=128)
    for weights in (large[5:6, 7:14], large.T[5:6, 7:14], large[::7, ::5], large.T[:1, :1]):
        mantissa = _random(64, 50).T[:, 3:3 + weights.shape[0]]
        want = (mantissa[:, :, None] * weights[None]).sum(1)
        assert torch.equal(matmul(mantissa, 0, weights), want)


@pytest.mark.parametrize("name", ["mantissa", "shift", "weights"])
def test_matmul_refuses_floats(name):
    arguments = {"mantissa": _random(2, 3), "shift": torch.tensor(0), "weights": _random(3, 2)}
    arguments[name] = arguments[name].double()
    with pytest.raises(TypeError, match=f"^{name} must be integers, not torch.float64$"):
        matmul(**arguments)


@pytest.mark.parametrize(("mantissa", "shift", "weights", "message"), [
    (torch.ones(2, 3).long(), 0, torch.ones(4, 2).long(), r"same K, not shapes \(2, 3\) and"),
    (torch.ones(3).long(), 0, torch.ones(3, 2).long(), "same K"),
    (torch.ones(2, 3).long(), -1, torch.ones(3, 2).long(), "shift must be >= 0, not -1"),
    (torch.ones(2, 3).long(), 63, torch.ones(3, 2).long(), "must fit 64 bits, not 1 << 63"),
    (torch.ones(2, 3).long(), 60, 3 * torch.ones(3, 2).long(), "may reach 10376293541461622784"),
])
def test_matmul_names_what_is_wrong(mantissa, shift, weights, message):
    with pytest.raises(ValueError, match=message):
        matmul(mantissa, shift, weights)


@by_name
def test_words(config):
    word = SystolicArray.words(config)
    longer = max(config.rows, config.cols)
    assert word["w"].bits == longer * config.weight_bits + 1
    assert word["a"].bits == config.rows * (config.mantissa_bits + config.shift_bits) + 1
    assert word["o"].bits == config.cols * config.sum_bits + 1


@by_name
def test_cases_reach_both_ends_of_the_sums(config):
    corners = next(case for case in cases(config, 1) if case.name == "corners")
    sums = SystolicArray.words(config)["o"].unpack(corners.expected["o"])["sums"]
    bound = config.rows << config.operand_bits + config.weight_bits - 2
    low = ((1 << config.mantissa_bits - 1) - 1 << config.operand_bits - config.mantissa_bits)
    assert sums.max() == bound
    assert sums.min() == -(config.rows * low << config.weight_bits - 1)
    assert bound < 1 << config.sum_bits - 1 <= 2 * bound, "no bit too few, none too many"


@by_name
def test_every_operand_fits(config):
    half = 1 << config.operand_bits - 1
    names = set()
    for case in cases(config, 1):
        values = SystolicArray.words(config)["a"].unpack(case.words["a"])
        operands = values["mantissa"] << values["shift"]
        assert -half <= operands.min() and operands.max() < half
        names.add(case.name)
    assert names >= {"uniform", "ptf", "two-scale", "two-scale-signed", "log2", "table"}


def test_formats_decode_as_published():
    config = load("tiny")
    found = {case.name: SystolicArray.words(config)["a"].unpack(case.words["a"])
             for case in cases(config, 1)}
    log = found["log2"]
    assert set((log["mantissa"] << log["shift"]).ravel()) <= {0, *(1 << n for n in range(1, 16))}
    assert (log["mantissa"] == 0).any() and (log["shift"] == 15).any()
    assert set(found["two-scale"]["shift"].ravel()) == {0, 5}
    assert found["two-scale"]["mantissa"].max() > 63 and found["two-scale"]["mantissa"].min() >= 0
    assert found["two-scale-signed"]["mantissa"].min() < 0
    assert found["uniform"]["mantissa"].min() < -50 and not found["uniform"]["shift"].any()
    assert len(set(found["table"]["mantissa"].ravel())) <= 16


@by_name
def test_both_styles_are_the_same_outside(config):
    other = dataclasses.replace(config, pe_style="shift" if config.pe_style == "wide" else "wide")
    for one, two in zip(cases(config, 1), cases(other, 1), strict=True):
        assert (one.words, one.expected) == (two.words, two.expected)
        assert [list(trace(one, SystolicArray.words(config), *pattern)) for pattern in PATTERNS] \
            == [list(trace(two, SystolicArray.words(other), *pattern)) for pattern in PATTERNS]


def _valid_cycles(config, lengths, by_column):
    """Cycles with a result in free flow, the first cycle of weights being 0."""
    tiles = [Tile(torch.zeros(config.rows, config.cols, dtype=torch.int64),
                  torch.zeros(length, config.rows, dtype=torch.int64),
                  torch.zeros(length, config.rows, dtype=torch.int64), by_column)
             for length in lengths]
    case = tile_case("timing", tiles, config)
    return [number for number, cycle in enumerate(
        trace(case, SystolicArray.words(config), "flow", "flow")) if cycle.valid["o"]]


@by_name
@pytest.mark.parametrize("by_column", [False, True])
def test_latency_and_one_row_per_cycle_across_tiles(config, by_column):
    words = config.cols if by_column else config.rows
    longer = max(config.rows, config.cols)
    start = words + config.rows + config.cols + 3
    for lengths in ([longer] * 6, [longer, longer + 1, 2 * longer], [words] * 6):
        cycles = _valid_cycles(config, lengths, by_column)
        assert cycles == list(range(start, start + sum(lengths)))


@by_name
@pytest.mark.parametrize("by_column", [False, True])
def test_short_tiles_follow_at_the_period_of_their_weight_words(config, by_column):
    words = config.cols if by_column else config.rows
    for length in {1, max(words // 2, 1)}:
        cycles = _valid_cycles(config, [length] * 7, by_column)
        firsts = cycles[::length]
        assert [b - a for a, b in itertools.pairwise(firsts)] == [words] * 6


def test_the_first_word_waits_for_all_its_weights():
    config = load("tiny")
    model = SystolicModel(config, [False] * 8, [True] * 2)
    seen = []
    while model.activation_words < 2:
        valid = {"w": model.weight_words < 8, "a": True}
        takes, _ = model.settle(valid, {"o": True})
        seen.append((takes["w"], takes["a"]))
        model.clock(valid, {"o": True})
    assert seen == [(True, False)] * 4 + [(True, True)] + [(True, False)] * 3 + [(True, True)]


@pytest.mark.parametrize(("config", "flowing"), [
    *((config, False) for config in SHAPES[2:]), (SHAPES[0], True), (SHAPES[3], True),
], ids=lambda value: getattr(value, "name", "flowing" if value else ""))
def test_component_on_every_cycle(config, flowing):
    unit = SystolicArray(config, flowing=flowing)
    assert unit.latency == config.rows + config.cols + 3
    on_every_cycle(unit, ("one word a tile, both", "random tiles", "corners"), flowing=flowing)


class _Behind(wiring.Component):
    """An array whose weights come after their words, with registers that make them late."""

    def __init__(self, config, late):
        self.config = config
        self.array = SystolicArray(config, flowing=True, late=late)
        self.words = self.array.words
        super().__init__({name: self.array.signature.members[name] for name in ("w", "a", "o")})

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = self.array
        for name in ("w", "a"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(array, name))
        wiring.connect(m, array.o, wiring.flipped(self.o))
        m.d.comb += array.w.payload.weights.eq(delay(
            m, self.w.payload.weights.as_value(), advance=1, cycles=array.late))
        return m


@pytest.mark.parametrize("late", [1, 2])
@pytest.mark.parametrize("config", [SHAPES[0], SHAPES[2]], ids=lambda config: config.name)
def test_weights_may_come_after_their_words(config, late):
    assert min(config.rows, config.cols) > 2
    on_every_cycle(_Behind(config, late), ("one word a tile, both", "random tiles", "corners"),
                   flowing=True)


def test_weights_come_before_they_are_used():
    config = SHAPES[0]
    late = min(config.rows, config.cols)
    on_every_cycle(_Behind(config, late - 1), ("one word a tile, both",), flowing=True)
    with pytest.raises(ValueError, match=f"late must be less than the words of a tile, not {late}"):
        _Behind(config, late).array.elaborate(None)


def test_image_case_covers_the_product():
    config = Config(name="t", rows=3, cols=5, lanes=2)
    tensors = {"mantissa": _random(7, 10), "shift": torch.tensor(3),
               "weights": _random(10, 8, low=-128, high=128)}
    case = image_case(tensors, config)
    unpacked = SystolicArray.words(config)["o"].unpack(case.expected["o"])
    assert unpacked["last"].reshape(-1, 7).sum() == 4 * 2
    tiles = torch.as_tensor(unpacked["sums"]).reshape(4, 2, 7, 5)
    total = tiles.sum(0).permute(1, 0, 2).reshape(7, 10)
    assert torch.equal(total[:, :8], matmul(**tensors))
    assert not total[:, 8:].any()
    assert len(list(trace(case, SystolicArray.words(config), "flow", "flow"))) \
        == 3 + 8 * 7 + (3 + 5 + 3) + AFTERMATH
    few = image_case(tensors, config, words=21)
    assert len(few.words["a"]) == 21


@pytest.mark.rtl
@pytest.mark.parametrize(("config", "words", "cycles", "images"), [
    (SHAPES[0], 4_095, 15_571, 5),
    pytest.param(SHAPES[1], 4_095, 15_571, 5, marks=pytest.mark.slow),
    pytest.param(SHAPES[2], 4_527, 16_659, 0, marks=pytest.mark.slow),
    pytest.param(SHAPES[3], 4_995, 17_686, 5, marks=pytest.mark.slow),
    (SHAPES[4], 5_391, 18_935, 5),
    pytest.param(SHAPES[5], 4_419, 15_578, 0, marks=pytest.mark.slow),
    pytest.param(load("edge8"), 6_903, 25_392, 5, marks=pytest.mark.slow),
    pytest.param(load("edge16"), 12_519, 44_889, 5, marks=pytest.mark.slow),
], ids=lambda value: getattr(value, "name", ""))
def test_verilog_on_every_cycle(config, words, cycles, images, fast):
    result = regress("systolic", config, fast=fast)
    image = list(image_cases("systolic", config))
    assert (result.cases, result.image_cases, result.patterns) == (17 + len(image), images, 9)
    assert len(image) == images
    assert result.words == words + 9 * sum(len(case.expected["o"]) for case in image)
    assert result.cycles == cycles + sum(
        sum(1 for _ in trace(case, SystolicArray.words(config), *pattern))
        for case in image for pattern in PATTERNS)
