# SPDX-License-Identifier: Apache-2.0
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from golden.units.softmax import (
    LogSoftmaxModel,
    PolynomialScale,
    ShiftScale,
    log2_codes,
    log_softmax,
    row_offset,
    softmax_scale,
    statistics,
)
from hw.softmax.unit import LogSoftmax
from hw.units import words
from sim.cases.softmax import cases, fine, image_case, make_case
from sim.run import regress
from tests.sample import leading
from vitforge.spec.config import Config, load
from vitforge.spec.softmax_widths import PolynomialWidths, ShiftWidths

DATA = Path(__file__).parent / "data"

SMALL = Config(name="softmax", rows=4, cols=4, lanes=4, max_keys=1024)
POLYNOMIAL = dataclasses.replace(SMALL, exponential="iexp")
LINEAR = dataclasses.replace(SMALL, attention="linear")

#: Powers of two, values on either side of a step of the multiplier, round and odd values.
SCALES = (0.01, 0.0117, 0.0133, 2 ** -6, 0.0171, 0.02, 0.0247, 0.03, 2 ** -5, 0.04, 0.0433, 0.05,
          2 ** -4, 0.07, 0.0867, 0.1, 2 ** -3, 0.15, 0.2, 2 ** -2, 0.33, 0.41, 2 ** -1, 0.6,
          math.log(2), 0.7, 0.8, 0.93, 1.0)


def everything(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool)


def exact(scores: Tensor, s: float) -> Tensor:
    """``-log2 softmax`` in double precision."""
    return -torch.log_softmax(scores.double() * s, -1) / math.log(2)


def rows_of(keys: int, count: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Score distributions as they occur."""
    def codes(values: Tensor) -> Tensor:
        return values.round().clamp(-128, 127).long()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    peaky = normal(count, keys) * 15 - 40
    peaky[torch.arange(count), torch.randint(0, keys, (count,), generator=rng)] += 100
    attention = normal(count, 16) @ normal(16, keys) * 6.25
    return {**{f"gaussian {width}": codes(normal(count, keys) * width)
               for width in (5, 15, 40, 90)},
            "uniform": torch.randint(-128, 128, (count, keys), generator=rng),
            "peaky": codes(peaky), "attention": codes(attention)}


@pytest.mark.parametrize("s", leading(
    9, (*SCALES[::4], *(s for at, s in enumerate(SCALES) if at % 4))))
def test_shift_codes_are_within_one_and_nearly_all_exact(s: float) -> None:
    rng = torch.Generator().manual_seed(7)
    scale = softmax_scale(s, SMALL)
    equal = count = 0
    for keys in (1, 2, 50, 197, 1024):
        for name, scores in rows_of(keys, max(8, 8_000 // keys), rng).items():
            codes = log_softmax(scores, everything(scores), scale, SMALL)
            wanted = (exact(scores, s) + 0.5).floor().clamp(0, 15).long()
            off = (codes - wanted).abs()
            assert int(off.max()) <= 1, (name, keys)
            equal += int((off == 0).sum())
            count += off.numel()
    assert count > 250_000
    assert equal / count >= 0.995


@pytest.mark.parametrize("s", (0.01, 0.05, 0.25, 1.0))
def test_linear_probabilities_are_near(s: float) -> None:
    rng = torch.Generator().manual_seed(8)
    for keys in (1, 2, 50, 197, 1024):
        for name, scores in rows_of(keys, 8, rng).items():
            got = log_softmax(scores, everything(scores), softmax_scale(s, LINEAR), LINEAR)
            want = torch.softmax(scores.double() * s, -1) * 2 ** 15
            # 0.4 % for the tables and the exponent's steps, and the last bit; 1,024 small terms
            # may lose 2**-5 of the sum.
            lost = 1.004 + keys * 2.0 ** -15
            assert ((got - want).abs() <= want * (lost - 1) + 0.51).all(), (name, keys)
            assert int(got.min()) >= 0 and int(got.max()) <= 1 << 15


@pytest.mark.parametrize("bits", (3, 5))
def test_other_widths_of_codes(bits: int) -> None:
    config = dataclasses.replace(SMALL, attention_bits=bits)
    rng = torch.Generator().manual_seed(9)
    for scores in rows_of(197, 20, rng).values():
        codes = log_softmax(scores, everything(scores), softmax_scale(0.1, config), config)
        wanted = (exact(scores, 0.1) + 0.5).floor().clamp(0, 2 ** bits - 1).long()
        assert int((codes - wanted).abs().max()) <= 1
        assert (codes == wanted).double().mean() >= 0.99


@pytest.mark.parametrize("table", range(7))
def test_distance_is_never_below_minus_one_half(table: int) -> None:
    # What lets the gateware leave out the lower clamp: no code is below 0 before it.
    config = dataclasses.replace(SMALL, exp_table_bits=table)
    for s in (0.01, 0.1, 0.5, 1.3):
        scale = softmax_scale(s, config)
        scores = torch.arange(-128, 128).unsqueeze(-1)
        assert not log_softmax(scores, everything(scores), scale, config).any()
        pairs = torch.stack([scores.expand(256, 256), scores.expand(256, 256).T], -1)
        _, total = statistics(pairs, everything(pairs), scale, config)
        assert int(total.min()) >= 1 << ShiftWidths(config).sum_fraction
        distance = exact(pairs, s)
        codes = log_softmax(pairs, everything(pairs), scale, config)
        assert int(codes.min()) == 0
        assert ((codes - distance.clamp_max(15)).abs() <= 0.65).all()


def test_tables_are_near_and_stay_below_one() -> None:
    for fraction in range(4, 15):
        for table in range(7):
            widths = ShiftWidths(dataclasses.replace(SMALL, exp_fraction_bits=fraction,
                                                     exp_table_bits=table))
            for segments, function in ((widths.power, lambda f: 2 ** f - 1),
                                       (widths.logarithm, np.log2)):
                values = np.arange(1 << fraction)
                index, rest = values >> segments.rest_bits, values & (1 << segments.rest_bits) - 1
                got = np.array(segments.intercept)[index] + \
                    (np.array(segments.slope)[index] * rest >> 8)
                argument = values / 2 ** fraction
                want = function(argument + (segments is widths.logarithm))
                step = 2.0 ** -fraction
                bound = 0.09 / 4 ** segments.index_bits + 3 * step + 2 ** -9 / 2 ** table
                assert np.abs(got * step - want).max() <= bound
                assert got.min() >= 0 and got.max() < 1 << fraction


def test_order_of_words_changes_a_code_by_one_at_most() -> None:
    rng = torch.Generator().manual_seed(3)
    for s in (0.02, 0.2, 1.0):
        for scores in rows_of(197, 30, rng).values():
            scale = softmax_scale(s, SMALL)
            rising = scores.sort(-1).values
            one, two = (log_softmax(rows, everything(rows), scale, SMALL)
                        for rows in (rising, rising.flip(-1)))
            assert int((one - two.flip(-1)).abs().max()) <= 1


@pytest.mark.parametrize("config", (SMALL, LINEAR, POLYNOMIAL))
def test_masked_keys_are_as_if_they_were_not_there(config: Config) -> None:
    rng = torch.Generator().manual_seed(4)
    scale = softmax_scale(0.1, config)
    zero = 0 if config.attention == "linear" else 15
    for _ in range(20):
        scores = torch.randint(-128, 128, (4, 37), generator=rng)
        keep = torch.rand(4, 37, generator=rng) < 0.5
        noise = torch.randint(-128, 128, (4, 37), generator=rng)
        codes = log_softmax(scores, keep, scale, config)
        assert torch.equal(codes, log_softmax(torch.where(keep, scores, noise), keep, scale,
                                              config))
        assert (codes[~keep] == zero).all()
    nothing = torch.zeros(3, 9, dtype=torch.bool)
    assert (log_softmax(scores[:3, :9], nothing, scale, config) == zero).all()


@pytest.mark.parametrize("n", (20, 30))
@pytest.mark.parametrize("name", ("0.05", "0.4"))
def test_polynomial_equals_the_official_code(name: str, n: int) -> None:
    # The official values 2**-15 and exactly zero share our code 15.
    config = dataclasses.replace(POLYNOMIAL, iexp_shift=n)
    oracle = np.load(DATA / f"fq_vit_lis_S{name}.npz")
    scores = torch.from_numpy(oracle["scores"]).long()
    official = torch.from_numpy(np.where(oracle["zero"], 16, oracle["code"])).long()
    codes = log_softmax(scores, everything(scores), softmax_scale(float(name), config), config)
    assert codes.numel() == 25_350
    assert torch.equal(codes, official.clamp_max(15))
    if name == "0.4":
        # The data reach both: the mapping is tested.
        assert (official == 15).any() and (official == 16).any()


def test_polynomial_constants_are_the_official_ones() -> None:
    assert softmax_scale(0.05, POLYNOMIAL) == PolynomialScale(14, 54, 1116, 4682)
    assert softmax_scale(0.4, POLYNOMIAL) == PolynomialScale(2, 6, 17, 32768)


def test_polynomial_reciprocal_divides_exactly() -> None:
    for bits in (4, 8, 12):
        distance = np.arange(1 << bits)
        for x0 in range(1, 1 << bits, 1 if bits < 12 else 7):
            reciprocal = -(-(1 << 2 * bits) // x0)
            assert np.array_equal(distance * reciprocal >> 2 * bits, distance // x0)


def test_polynomial_is_positive_for_every_scale() -> None:
    config = POLYNOMIAL
    for s in np.geomspace(0.0028, 1.67, 2_000):
        scale = softmax_scale(float(s), config)
        assert isinstance(scale, PolynomialScale)
        rest = np.arange(scale.x0)
        z = scale.c - rest * (scale.b - rest)
        assert z.min() > 0 and z.max() <= scale.c
        widths = PolynomialWidths(config)
        assert scale.b < 1 << widths.b and scale.c < 1 << widths.c
        assert scale.reciprocal < 1 << widths.reciprocal


@pytest.mark.parametrize("config", (SMALL, POLYNOMIAL))
@pytest.mark.parametrize("s", (0.0, -0.1, 2.0, float("nan"), float("inf")))
def test_scale_out_of_range(config: Config, s: float) -> None:
    with pytest.raises(ValueError, match=r"^s must lie in .*, not "):
        softmax_scale(s, config)


def test_scale_fits_its_field() -> None:
    assert softmax_scale(1.0, SMALL) == ShiftScale(round(math.log2(math.e) * 2 ** 16))
    assert isinstance(softmax_scale(1e-5, SMALL), ShiftScale)
    for bits in (4, 12):
        config = dataclasses.replace(SMALL, score_bits=bits)
        highest = softmax_scale(1.38 * 2 ** (8 - bits), config)
        assert isinstance(highest, ShiftScale) and 130_000 < highest.multiplier < 1 << 17


def test_bad_arguments() -> None:
    scale = softmax_scale(0.1, SMALL)
    scores = torch.zeros(2, 5, dtype=torch.int64)
    keep = everything(scores)
    with pytest.raises(TypeError, match=r"^scores must be integers, not torch.float32$"):
        log_softmax(scores.float(), keep, scale, SMALL)
    with pytest.raises(TypeError, match=r"^keep must be bool, not torch.int64$"):
        log_softmax(scores, keep.long(), scale, SMALL)
    with pytest.raises(TypeError, match=r"^scale must be a ShiftScale, not PolynomialScale$"):
        log_softmax(scores, keep, softmax_scale(0.1, POLYNOMIAL), SMALL)
    with pytest.raises(TypeError, match=r"^scale must be a PolynomialScale, not ShiftScale$"):
        log_softmax(scores, keep, scale, POLYNOMIAL)
    with pytest.raises(ValueError, match=r"^keep must have the shape of scores"):
        log_softmax(scores, keep[:1], scale, SMALL)
    with pytest.raises(ValueError, match=r"^scores must lie in -128..127$"):
        log_softmax(scores + 128, keep, scale, SMALL)
    with pytest.raises(ValueError, match=r"^a row must have 1..1024 keys"):
        log_softmax(torch.zeros(1, 1025, dtype=torch.int64),
                    torch.ones(1, 1025, dtype=torch.bool), scale, SMALL)
    with pytest.raises(ValueError, match=r"^attention must be log2 with exponential iexp"):
        LogSoftmax(dataclasses.replace(POLYNOMIAL, attention="linear"))


def test_words() -> None:
    word = words("softmax", load("edge8"))
    assert [(item.name, item.width) for item in word["i"].fields] == [
        ("scores", 32), ("keep", 4), ("multiplier", 17), ("last", 1)]
    assert [(item.name, item.width) for item in word["o"].fields] == [("codes", 16), ("last", 1)]
    assert words("softmax", LINEAR)["o"].bits == 65
    assert [item.bits for item in words("softmax", POLYNOMIAL)["i"].fields] == [
        8, 1, 8, 10, 19, 17, 1]


def ready_cycles(config: Config, lengths: list[int]) -> tuple[list[int], list[int]]:
    """Cycles in which words enter and leave when nothing pauses."""
    model = LogSoftmaxModel(config, lengths)
    entered: list[int] = []
    left: list[int] = []
    cycle = 0
    while len(left) < sum(lengths):
        flags = {"i": len(entered) < sum(lengths)}, {"o": True}
        ready, valid = model.settle(*flags)
        if flags[0]["i"] and ready["i"]:
            entered.append(cycle)
        if valid["o"]:
            left.append(cycle)
        model.clock(*flags)
        cycle += 1
    return entered, left


@pytest.mark.parametrize("lanes", (1, 2, 4, 8, 16, 64))
@pytest.mark.parametrize("length", (1, 2, 13, 16))
def test_equal_rows_take_a_cycle_a_word(lanes: int, length: int) -> None:
    config = dataclasses.replace(SMALL, lanes=lanes)
    count = 40
    entered, left = ready_cycles(config, [length] * count)
    assert entered == list(range(length * count))
    first = LogSoftmax(config).latency + length - 1
    assert left == list(range(first, first + length * count))


def test_longest_rows_take_a_cycle_a_word() -> None:
    entered, left = ready_cycles(SMALL, [256] * 4)
    assert entered == list(range(1024))
    assert left == list(range(255 + LogSoftmax(SMALL).latency, 1279 + LogSoftmax(SMALL).latency))


def test_polynomial_takes_two_cycles_a_word() -> None:
    _, left = ready_cycles(POLYNOMIAL, [20] * 10)
    assert left[0] == LogSoftmax(POLYNOMIAL).latency + 19 + 19
    assert np.diff(left[::20]).tolist() == [2 * 20 + 2] * 9


def test_image_case_takes_every_row() -> None:
    config = load("tiny")
    scores = torch.randint(-128, 128, (4, 50, 50))
    case = image_case({"scores": scores, "scale": softmax_scale(0.05, config)}, config)
    assert len(case.words["i"]) == len(case.expected["o"]) == 4 * 50 * 25
    codes = words("softmax", config)["o"].unpack(case.expected["o"])["codes"]
    wanted = log_softmax(scores, everything(scores), softmax_scale(0.05, config), config)
    assert np.array_equal(codes.reshape(4, 50, 50), wanted.numpy())


def test_padding_gets_the_code_of_zero() -> None:
    config = load("tiny")
    row = (torch.tensor([3, 4, 5]), torch.ones(3, dtype=torch.bool), softmax_scale(0.1, config))
    case = make_case("padding", [row], config)
    assert words("softmax", config)["o"].unpack(case.expected["o"])["codes"][1, 1] == 15


#: Configuration, and cases, two layers of a real image where it can run the network among them;
#: cycles and output words that are compared.
RTL = [
    (load("tiny"), 16, 81_437, 36_432),
    (Config(name="lanes4-bits3", rows=4, cols=4, lanes=4, max_keys=50, attention_bits=3),
     16, 50_432, 21_438),
    (Config(name="lanes16-bits5", rows=4, cols=4, lanes=16, max_keys=197, attention_bits=5,
            exp_fraction_bits=14, exp_table_bits=4), 16, 30_430, 11_322),
    (Config(name="linear", rows=4, cols=4, lanes=2, max_keys=37, attention="linear"),
     13, 23_103, 8_271),
    (Config(name="one-lane", rows=4, cols=4, lanes=1, max_keys=19, score_bits=5,
            exp_fraction_bits=4, exp_table_bits=6), 14, 41_868, 17_622),
    (Config(name="linear-wide", rows=4, cols=4, lanes=5, max_keys=64, attention="linear",
            score_bits=12, exp_fraction_bits=14, exp_table_bits=0), 13, 21_379, 7_371),
    (Config(name="iexp", rows=4, cols=4, lanes=2, max_keys=50, exponential="iexp"),
     14, 98_158, 31_194),
    (Config(name="iexp-wide", rows=4, cols=4, lanes=3, max_keys=29, exponential="iexp",
            iexp_shift=30, attention_bits=5), 12, 25_154, 6_165),
    (Config(name="iexp-one-lane", rows=4, cols=4, lanes=1, max_keys=9, exponential="iexp",
            score_bits=6, attention_bits=5, iexp_shift=16), 12, 21_241, 6_093),
    (Config(name="one-key", rows=4, cols=4, lanes=1, max_keys=1), 12, 7_945, 1_953),
    (Config(name="iexp-one-key", rows=4, cols=4, lanes=1, max_keys=1, exponential="iexp"),
     11, 8_473, 1_935),
]
SLOW = ("lanes4-bits3", "lanes16-bits5", "linear-wide", "iexp-wide", "iexp-one-lane", "one-key",
        "iexp-one-key")


@pytest.mark.parametrize("exponential", ["shift", "iexp"])
@pytest.mark.parametrize("keys", [1, 2, 3])
def test_bench_has_rows_for_the_shortest_softmax(keys: int, exponential: str) -> None:
    config = Config(rows=4, cols=4, lanes=1, max_keys=keys, exponential=exponential)
    made = list(cases(config, 1))
    assert len(made) == 11 + (keys > 2 if exponential == "iexp" else 1 + 2 * (keys > 1))
    assert all(case.expected["o"] for case in made)


@pytest.mark.parametrize("seed", [1, 5])
def test_bench_sees_the_last_bit_of_a_small_sum(seed: int) -> None:
    config = load("tiny")
    widths = ShiftWidths(config)
    last = 1 << widths.sum_fraction - widths.fraction
    seen = set()
    for scores, keep, scale in fine(config, lambda s: softmax_scale(s, config),
                                    torch.Generator().manual_seed(seed)):
        assert isinstance(scale, ShiftScale)
        reference, total = statistics(scores, keep, scale, config)
        if total < 2 << widths.sum_fraction:
            codes, other = (log2_codes(scores, keep, row_offset(reference, value, widths), scale,
                                       config) for value in (total, total ^ last))
            if not torch.equal(codes, other):
                seen.add(bool(total & last))
    assert seen == {False, True}


@pytest.mark.rtl
@pytest.mark.parametrize(("config", "cases", "cycles", "moved"), [
    pytest.param(*item, marks=pytest.mark.slow) if item[0].name in SLOW else item for item in RTL],
    ids=lambda value: getattr(value, "name", ""))
def test_verilog_equals_golden_on_every_cycle(config: Config, cases: int, cycles: int, moved: int,
                                              fast: bool) -> None:
    result = regress("softmax", config, fast=fast)
    assert (result.patterns, result.cases) == (9, cases)
    assert (result.cycles, result.words) == (cycles, moved)
