# SPDX-License-Identifier: Apache-2.0
"""Elements with two or four products: exact for every weight and operand, in model and Verilog."""

import dataclasses
import itertools
import re

import pytest
import torch
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator
from array_bench import on_every_cycle

from gen.elaborate import generate
from golden.units.packed import (
    matmul_packed,
    pack_operands,
    pack_weights,
    segments,
    split_fields,
    split_segments,
)
from golden.units.systolic import matmul
from hw.array.systolic import SystolicArray
from hw.array.tables import table_product
from sim.cases.packed import PackedTile, packed_case
from sim.cases.systolic import cases
from sim.cases.trace import trace
from sim.run import regress
from tests.sample import later
from vitforge.spec.config import Config, ConfigError, load
from vitforge.spec.elements import DEEP, MODES, PORTS, Element, array_latency, holds, table_stages
from vitforge.spec.limits import Part, check

ALL = ("single+pair", "single+pair+quad", "single+quad", "pair", "pair+quad", "quad")
SHAPES = [
    Config(name="pair-5x4", rows=5, cols=4, lanes=2, modes="single+pair"),
    Config(name="mixed-3x5", rows=3, cols=5, lanes=2, modes="single+pair+quad"),
    Config(name="quad-6x2", rows=6, cols=2, lanes=2, modes="quad"),
    Config(name="pair-only-9x2", rows=9, cols=2, lanes=2, modes="pair"),
    Config(name="single-quad-2x3", rows=2, cols=3, lanes=2, modes="single+quad"),
    Config(name="pair-quad-5x1", rows=5, cols=1, lanes=2, modes="pair+quad"),
    Config(name="wide-pair-5x3", rows=5, cols=3, lanes=2, modes="single+pair", multiplier="25x18",
           packed_weight_bits=8),
    Config(name="deep-9x2", rows=9, cols=2, lanes=2, modes="single+pair+quad", multiplier="27x18"),
]
ROWS = [Config(name=f"row-{modes.replace('+', '-')}-{multiplier}-{bits}", rows=1, cols=16, lanes=2,
               modes=modes, multiplier=multiplier, packed_weight_bits=bits)
        for modes, multiplier, bits in (
            ("single+pair+quad", "18x18", 4), ("single+pair", "18x18", 4), ("quad", "18x18", 4),
            ("pair", "25x18", 4), ("pair+quad", "25x18", 4), ("single+pair", "25x18", 8))]
TABLES = [
    Config(name="tables-3x4", rows=3, cols=4, lanes=2, weight_bits=4, mantissa_bits=4,
           operand_bits=4, multiplier="none"),
    Config(name="tables-shift-2x3", rows=2, cols=3, lanes=2, weight_bits=3, mantissa_bits=5,
           operand_bits=7, multiplier="none", pe_style="shift"),
]
by_name = pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.name)


def _every(bits, least=True):
    return torch.arange(-(1 << bits - 1) + (not least), 1 << bits - 1)


@pytest.mark.parametrize(("multiplier", "bits", "mode", "count"), [
    ("18x18", 4, "pair", 115_200), ("18x18", 4, "quad", 57_600), ("25x18", 4, "quad", 230_400),
    ("27x18", 4, "quad", 230_400), ("25x18", 8, "pair", 33_292_800),
    ("27x18", 8, "pair", 33_292_800)])
def test_every_weight_by_every_operand_of_an_element(multiplier, bits, mode, count):
    element = Element(Config(rows=1, multiplier=multiplier, modes=mode, packed_weight_bits=bits))
    operands = _every(element.operand_bits[mode])
    tokens = torch.cartesian_prod(operands, operands) if mode == "quad" else operands[:, None]
    found = 0
    for high in _every(bits, least=False):
        low = _every(bits, least=False)
        weights = torch.stack([low, torch.full_like(low, int(high))], -1)
        total = pack_operands(tokens, mode, element)[:, None] * pack_weights(weights, element)
        want = weights[None, :, :, None] * tokens[:, None, None, :]
        assert torch.equal(split_fields(total, mode, element), want.flatten(2))
        found += total.numel()
    assert found == count


@pytest.mark.parametrize("multiplier", PORTS)
@pytest.mark.parametrize("modes", [modes for modes in ALL if modes != "single"])
def test_matmul_packed_is_matmul(multiplier, modes):
    generator = torch.Generator().manual_seed(1)
    element = Element(Config(rows=16, multiplier=multiplier, modes=modes))
    top = (1 << element.packed_bits - 1) - 1
    for mode in element.modes:
        if mode == "single":
            continue
        half = 1 << element.operand_bits[mode] - 1
        for extreme in (False, True):
            operands = torch.randint(-half, half, (9, 16, MODES[mode][1]), generator=generator)
            weights = torch.randint(-top, top + 1, (16, 5, 2), generator=generator)
            if extreme:     # every sign at its end, the same in all rows
                operands = torch.where(operands[:, :1] < 0, -half, half - 1).expand(-1, 16, -1)
                weights = torch.where(weights[:1] < 0, -top, top).expand(16, -1, -1)
            want = [matmul(operands[..., token], 0, weights[..., weight])
                    for weight in range(2) for token in range(MODES[mode][1])]
            assert torch.equal(matmul_packed(operands, weights, mode, element),
                               torch.stack(want, -1))


@pytest.mark.parametrize(("multiplier", "modes", "bits", "spacing", "group"), [
    ("18x18", "single+pair", 4, 14, 4), ("18x18", "quad", 4, 7, 1),
    ("18x18", "single+pair+quad", 4, 7, 1), ("25x18", "pair", 8, 17, 2),
    ("27x18", "pair", 8, 19, 8), ("25x18", "quad", 4, 10, 4), ("27x18", "quad", 4, 11, 8)])
def test_a_group_is_as_deep_as_a_field_allows(multiplier, modes, bits, spacing, group):
    element = Element(Config(rows=16, multiplier=multiplier, modes=modes, packed_weight_bits=bits))
    assert (element.spacing, element.group) == (spacing, group)
    mode = element.modes[-1]
    # A row more, all at their ends, and the lowest field runs over; if not, depth was the limit.
    low, high = -(1 << element.operand_bits[mode] - 1), (1 << bits - 1) - 1
    operands = torch.full((1, group + 1, MODES[mode][1]), low)
    weights = torch.full((group + 1, 1, 2), -high)
    want = torch.full((1, 1, element.fields(mode)), -low * high * (group + 1))
    assert torch.equal(matmul_packed(operands, weights, mode, element), want)
    element.group += 1
    wrong = not torch.equal(matmul_packed(operands, weights, mode, element), want)
    assert wrong or group == DEEP


def test_what_does_not_fit_is_refused():
    element = Element(Config(modes="pair+quad"))
    weights, operands = torch.zeros(3, 2, 2).long(), torch.zeros(4, 3, 2).long()
    for place, value in itertools.product((0, 1), (-8, 8)):
        bad = weights.clone()
        bad[1, 1, place] = value
        with pytest.raises(ValueError, match=rf"^packed weights must lie in -7\.\.7, not {value}|"
                           rf"not 0\.\.{value}$"):
            matmul_packed(operands, bad, "quad", element)
    with pytest.raises(ValueError, match=r"^operands of quad must lie in -8\.\.7, not 0\.\.8$"):
        matmul_packed(operands + torch.tensor([0, 8]), weights, "quad", element)
    with pytest.raises(ValueError, match=r"^operands of pair must lie in -256\.\.255, not -257"):
        matmul_packed(operands[..., :1] - 257, weights, "pair", element)
    with pytest.raises(ValueError, match=r"^operands of pair must be of 1 tokens, not 2$"):
        matmul_packed(operands, weights, "pair", element)
    with pytest.raises(ValueError, match=r"^the array packs pair and quad, not single$"):
        matmul_packed(operands, weights, "single", element)
    with pytest.raises(TypeError, match="weights must be integers"):
        matmul_packed(operands, weights.float(), "quad", element)
    with pytest.raises(ValueError, match=r"^sums of quad must have 4 fields, not 2$"):
        segments(weights, "quad", element)
    tile = PackedTile(torch.full((16, 16, 2), -8), torch.zeros(1, 16, 2).long(),
                      torch.zeros(1, 16).long(), ["pair"])
    with pytest.raises(ValueError, match=r"^packed weights must lie in -7\.\.7"):
        packed_case("refused", [tile], Config(modes="pair+quad"))


@by_name
def test_segments_are_the_sums_and_fit_their_widths(config):
    element = Element(config)
    for mode in element.modes:
        bound = config.rows * element.product(mode)
        ends = torch.tensor([-bound, bound, 0, -1])
        sums = torch.cartesian_prod(*[ends] * element.fields(mode)).reshape(
            -1, element.fields(mode))
        parts = segments(sums, mode, element)
        assert torch.equal(split_segments(parts, mode, element), sums)
        for place in range(element.segments):
            half = 1 << element.segment_bits(place, config.rows) - 1
            assert -half <= parts[:, place].min() and parts[:, place].max() < half


@by_name
def test_packed_cases_reach_both_ends_in_every_mode(config):
    element = Element(config)
    corners = next(case for case in cases(config, 1) if case.name == "corners")
    word = SystolicArray.words(config)["o"].unpack(corners.expected["o"])
    parts = torch.stack([torch.from_numpy(word[f"segment_{place}"])
                         for place in range(element.segments)], -1)
    chosen = torch.from_numpy(word["mode"]) if "mode" in word else torch.zeros(len(parts))
    for index, mode in enumerate(element.modes):
        sums = split_segments(parts[chosen == index], mode, element)
        bound = config.rows * element.product(mode)
        assert (sums.amax((0, 1)) == bound).all(), mode
        if mode != "single":
            assert (sums.amin((0, 1)) == -bound).all(), mode


@by_name
def test_modes_change_without_an_idle_cycle(config):
    found = next(case for case in cases(config, 1) if case.name == "no bubble, modes in turn")
    words = SystolicArray.words(config)
    modes = words["a"].unpack(found.words["a"]).get("mode")
    assert modes is None or len(set(modes)) == len(Element(config).modes)
    valid = [number for number, cycle in enumerate(trace(found, words, "flow", "flow"))
             if cycle.valid["o"]]
    start = config.rows + array_latency(config)
    assert valid == list(range(start, start + len(found.expected["o"])))


@pytest.mark.parametrize(("config", "flowing"), [
    *((config, False) for config in (*SHAPES[:3], *SHAPES[6:], *TABLES)), (SHAPES[1], True),
    *(later(config, False) for config in SHAPES[3:6]), later(SHAPES[0], True),
], ids=lambda value: getattr(value, "name", "flowing" if value else ""))
def test_component_on_every_cycle(config, flowing):
    unit = SystolicArray(config, flowing=flowing)
    assert unit.latency == array_latency(config)
    on_every_cycle(unit, ("one word a tile, both", "random tiles"), flowing=flowing)


@pytest.mark.parametrize(("left", "right"), [(4, 4), (2, 2), (3, 5), (5, 3), (8, 4), (4, 9)])
def test_products_of_tables_are_exact(left, right):
    m = Module()
    weight, operand = Signal(signed(left)), Signal(signed(right))
    product = table_product(m, "t", weight, operand, advance=1)
    config = Config(weight_bits=left, mantissa_bits=right, operand_bits=max(right, 4),
                    pe_style="shift", multiplier="none")
    stages = table_stages(config)

    async def bench(ctx):
        pairs = [*itertools.product(_every(left).tolist(), _every(right).tolist())]
        for number, (one, two) in enumerate(pairs + [(0, 0)] * stages):
            ctx.set(weight, one)
            ctx.set(operand, two)
            if number >= stages:
                one, two = pairs[number - stages]
                assert ctx.get(product) == one * two, (one, two)
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("fields", "message"), [
    ({"modes": "pair", "multiplier": "none"},
     "modes must be single (products are made of LUTs) for a systolic array, not pair"),
    ({"modes": "single+pair", "pe_style": "shift"},
     "pe_style must be wide (modes are single+pair) for a systolic array, not shift"),
    ({"modes": "pair", "packed_weight_bits": 8},
     ("packed_weight_bits must be at most 5 (modes are pair, multiplier is 18x18) for a systolic "
      "array, not 8")),
    ({"modes": "single+quad", "packed_weight_bits": 8, "multiplier": "27x18"},
     ("packed_weight_bits must be at most 6 (modes are single+quad, multiplier is 27x18) for a "
      "systolic array, not 8")),
])
def test_an_array_says_what_does_not_fit(fields, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        SystolicArray(Config(**fields))


@pytest.mark.parametrize("modes", ALL)
@pytest.mark.parametrize("multiplier", PORTS)
def test_what_a_multiplier_holds(modes, multiplier):
    for bits in range(2, 9):
        config = Config(modes=modes, multiplier=multiplier, packed_weight_bits=bits)
        element = Element(config)
        fits = bits <= holds(config)
        if fits:
            check(config, Part.ARRAY)
            assert element.group >= 1
            assert element.upper + bits <= PORTS[multiplier][0]
            assert element.port_bits <= PORTS[multiplier][1]
        else:
            assert element.group < 1 or element.port_bits > PORTS[multiplier][1]


def test_an_accelerator_takes_single_products_pairs_and_quads():
    check(Config(modes="single+pair"))
    check(Config(modes="single+pair+quad"))
    with pytest.raises(ConfigError, match=r"^modes must be single, single\+pair or "
                       r"single\+pair\+quad for an accelerator, not pair$"):
        check(Config(modes="pair"))
    with pytest.raises(ConfigError, match=r"^multiplier must be one of 18x18, 25x18, 27x18 for"):
        check(Config(multiplier="none"))


@pytest.mark.parametrize("unit", ["systolic", "accelerator"])
@pytest.mark.thorough
def test_modes_that_are_off_cost_nothing(unit):
    plain = load("tiny")
    other = dataclasses.replace(plain, multiplier="27x18", packed_weight_bits=8)
    texts = [generate(unit, config).replace(str(int(config.hash(), 16)), "HASH")
             for config in (plain, other)]
    assert texts[0] == texts[1]


def test_two_codes_in_a_byte_are_one_operand_less_one_zero_point():
    """What `quad` words and packed weights of codes take: a subtraction as for a code of 8 bits."""
    element, codes = Element(Config(modes="quad")), torch.arange(16)
    for zero in (8, 7):
        both = torch.cartesian_prod(codes, codes)
        tokens = both - zero
        fits = ((tokens >= -8) & (tokens < 8)).all(1)
        byte = both[:, 1] << 4 | both[:, 0]
        half = 1 << element.code_bits - 1
        number = (byte - 17 * zero)[fits]
        assert -half <= number.min() and number.max() < half
        low = (number & 15) - ((number & 8) << 1)
        assert torch.equal(torch.stack([low, number - low >> 4], -1), tokens[fits])


def test_noise_beyond_a_mode_is_ignored():
    config = dataclasses.replace(SHAPES[1], rows=2, cols=2)
    tile = PackedTile(torch.tensor([[[1, -2], [3, 4]], [[-5, 6], [7, -7]]]),
                      torch.tensor([[[5, 99], [-8, -99]]]), torch.zeros(1, 2).long(), ["pair"])
    word = SystolicArray.words(config)["o"]
    found = word.unpack(packed_case("one", [tile], config).expected["o"])
    parts = torch.stack([torch.from_numpy(found[f"segment_{place}"]) for place in range(4)], -1)
    assert split_segments(parts, "pair", Element(config)).tolist() \
        == [[[5 + 40, -10 - 48], [15 - 56, 20 + 56]]]


@pytest.mark.thorough
@pytest.mark.rtl
@pytest.mark.parametrize("config", [
    later(SHAPES[0]), SHAPES[1], *map(later, SHAPES[2:] + ROWS + TABLES),
], ids=lambda config: config.name)
def test_verilog_on_every_cycle(config, fast):
    result = regress("systolic", config, fast=fast)
    made = list(cases(config, 1))
    assert (result.patterns, result.cases - result.image_cases) == (9, len(made))
    assert ("every weight by every operand" in {case.name for case in made}) == (config.rows == 1)
    assert result.words >= 9 * sum(len(case.expected["o"]) for case in made)
