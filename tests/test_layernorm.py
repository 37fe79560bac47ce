# SPDX-License-Identifier: Apache-2.0
"""LayerNorm: accuracy against float64 and the published code, cycles, generated Verilog."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from golden.formats.ptf import outlier_two_scale, power_of_two_factor
from golden.units.layernorm import (
    LayerNormModel,
    layernorm,
    layernorm_parameters,
    offset,
    reciprocal_root,
)
from hw.layernorm.unit import LayerNorm
from sim.cases.layernorm import Row, case_of, cases, image_case, magnitudes
from sim.run import regress
from vitforge.spec.config import Config, load
from vitforge.spec.layernorm_widths import GAMMA_BITS, NormFormat
from vitforge.spec.rsqrt_table import GUARD, rsqrt_table

DATA = Path(__file__).parent / "data" / "layernorm"
CONFIG = load("edge16")
O_2SF = Config(name="o2sf", norm_bits=15)


def float_layernorm(x, gamma, beta):
    """LayerNorm in float64 without an epsilon; beta where there is no variance."""
    x = x.double()
    variance = x.var(-1, unbiased=False, keepdim=True)
    normal = torch.where(variance > 0, (x - x.mean(-1, keepdim=True)) / variance.sqrt(), 0.0)
    return normal * gamma.double() + beta.double()


def rows(kind, channels, config, rng):
    """Mantissas and shifts of 40 rows, ``[40, C]``."""
    size = (40, channels)
    top = (1 << min(config.mantissa_bits, config.norm_bits) - 1) - 1
    high = max(0, config.norm_bits - config.mantissa_bits)
    shift = torch.full(size, high)
    mantissa = torch.zeros(size, dtype=torch.int64)
    if kind == "wide":
        mantissa = torch.randint(-top - 1, top + 1, size, generator=rng)
        shift = torch.randint(0, high + 1, size, generator=rng)
    elif kind == "tiny":
        mantissa = (torch.rand(size, generator=rng) < 0.05) + top - 1
        shift = shift * 0
    elif kind == "outliers":
        mantissa = torch.randint(-3, 4, size, generator=rng)
        mantissa[:, ::17] = torch.randint(top // 2, top, mantissa[:, ::17].shape, generator=rng)
        shift[:, 1::17] = 0
    elif kind == "one out":
        mantissa += torch.randint(-top + 20, top - 20, (40, 1), generator=rng)
        mantissa[:, -1] += torch.randint(-20, 20, (40,), generator=rng)
        shift = shift * 0
    elif kind == "two values":
        mantissa = torch.where(torch.rand(size, generator=rng) < 0.5, top, -top - 1)
    elif kind == "constant":
        mantissa += torch.randint(-top - 1, top, (40, 1), generator=rng)
    return mantissa, shift


KINDS = ("wide", "tiny", "outliers", "one out", "two values", "constant")
CONFIGS = (CONFIG, O_2SF, Config(name="short", rsqrt_bits=12),
           Config(name="widest", norm_bits=16, rsqrt_bits=18))


@pytest.mark.parametrize("channels", [1, 2, 3, 64, 192, 384, 768, 1024])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_element_is_within_one_step_of_float64(config, channels):
    rng = torch.Generator().manual_seed(channels)
    worst = 0.0
    for kind in KINDS:
        mantissa, shift = rows(kind, channels, config, rng)
        gamma = 1 + torch.randn(channels, generator=rng, dtype=torch.float64) / 2
        beta = torch.randn(channels, generator=rng, dtype=torch.float64)
        real = float_layernorm(mantissa << shift, gamma, beta)
        low, high = min(0.0, float(real.min())), max(0.0, float(real.max()))
        # One channel has nothing to spread: its range says nothing about gamma.
        scale = max((high - low) / 255, 0.01)
        zero_point = min(255, round(-low / scale))
        code = layernorm(mantissa, shift, *layernorm_parameters(gamma, beta, scale, config),
                         zero_point, config)
        exact = (real / scale + zero_point).clamp(0, 255)
        worst = max(worst, float((code - exact).abs().max()))
        assert code.min() >= 0
        assert code.max() <= 255
        assert bool(((code - exact.round()).abs() <= 1).all())
    # Half a step is the rounding's.
    assert worst <= 0.75


@pytest.mark.parametrize("channels", [1, 5, 64, 1024])
@pytest.mark.parametrize("value", [-256, -1, 0, 255])
def test_zero_variance_gives_beta(channels, value):
    beta = torch.linspace(-20, 20, channels, dtype=torch.float64)
    parameters = layernorm_parameters(torch.ones(channels) * 3, beta, 0.25, CONFIG)
    code = layernorm(torch.full((2, channels), value), torch.full((channels,), 3), *parameters, 128,
                     CONFIG)
    step = torch.floor(beta * 4 * 256 + 0.5) / 256
    assert torch.equal(code, (torch.floor(step + 0.5) + 128).long().clamp(0, 255).expand(2, -1))


def test_nearer_to_float_than_the_official_integer_layernorm():
    data = {key: torch.from_numpy(value) for key, value in
            np.load(DATA / "int_layernorm.npz").items()}
    scale, zero_point = float(data["off_out_scale"]), int(data["off_out_zp"])
    mantissa = data["off_in_code"].long() - int(data["off_in_zp"])
    shift = data["off_shift"].long()
    code = layernorm(mantissa, shift,
                     *layernorm_parameters(data["gamma"], data["beta"], scale, CONFIG),
                     zero_point, CONFIG)
    decoded = float_layernorm(mantissa << shift, data["gamma"], data["beta"]) / scale
    for name, real in (("decoded", decoded), ("unquantized", data["y_fp"].double() / scale)):
        exact = (real + zero_point).clamp(0, 255)
        ours = float((code - exact).abs().mean())
        official = float((data["off_y_code"].long() - exact).abs().mean())
        print(f"mean error against LayerNorm of the {name} input, in output steps: "
              f"{ours:.4f}, official {official:.4f}")
        assert ours < official
    nearest = (decoded + zero_point).round().clamp(0, 255)
    ours = int((code != nearest).sum())
    official = int((data["off_y_code"].long() != nearest).sum())
    print(f"codes that aren't the nearest: {ours} of {code.numel()}, official {official}")
    assert (ours, official) == (116, 633)


def test_power_of_two_factor_equals_the_official_code():
    data = np.load(DATA / "ptf.npz")
    x = torch.from_numpy(data["x"])
    result = power_of_two_factor(x)
    assert result.zero_point == int(data["off_zero_point"])
    assert np.array_equal(result.shift.numpy(), data["off_alpha"])
    assert np.array_equal(result.channel_scale.numpy(), data["off_scale"])
    assert np.array_equal(result.quantize(x).numpy(), data["off_code"])
    assert set(result.shift.tolist()) == {0, 1, 2, 3}


def test_values_that_count_more_than_once():
    x = torch.randn(60, 16, generator=torch.Generator().manual_seed(5)) * torch.arange(1, 17)
    again = x[:7] * 9
    given = power_of_two_factor(x, 6, again=again, copies=9)
    copied = power_of_two_factor(torch.cat((x, again.repeat(9, 1))), 6)
    assert (given.scale, given.zero_point) == (copied.scale, copied.zero_point)
    assert torch.equal(given.shift, copied.shift)
    assert not torch.equal(given.shift, power_of_two_factor(x, 6, again=again).shift)


def test_power_of_two_factor_takes_the_first_of_equal_errors():
    x = torch.zeros(4, 3)
    x[0, 0], x[1, 0] = 255.0, -255.0
    # A channel of zeros is exact with every shift.
    assert power_of_two_factor(x).shift.tolist()[1:] == [0, 0]


def test_outlier_two_scale_runs_through_the_same_datapath():
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(50, 192, generator=rng)
    x[:, [5, 77]] *= 40
    result = outlier_two_scale(x)
    m = int(result.shift.max())
    assert torch.nonzero(result.shift).flatten().tolist() == [5, 77]
    assert 4 <= m <= 6
    plain = outlier_two_scale(x, threshold=1e9)
    assert int(plain.shift.max()) == 0

    def error(item):
        return float((x - item.dequantize(item.quantize(x))).square()[:, 6:70].mean())

    assert error(result) * 100 < error(plain)
    mantissa = result.mantissa(result.quantize(x))
    gamma, beta = torch.ones(192), torch.zeros(192)
    code = layernorm(mantissa, result.shift, *layernorm_parameters(gamma, beta, 0.1, O_2SF), 128,
                     O_2SF)
    exact = (float_layernorm(mantissa << result.shift, gamma, beta) / 0.1 + 128).clamp(0, 255)
    assert float((code - exact).abs().max()) <= 0.6


@pytest.mark.parametrize("bits", [8, 11, 12, 15, 16, 18])
def test_every_table_entry_lies_below_and_near(bits):
    table = rsqrt_table(bits)
    assert table.base_bits + table.slope_bits <= 36
    argument = np.arange(1 << table.argument_bits - 2, 1 << table.argument_bits)
    segment, position = argument >> table.step_bits, argument & (1 << table.step_bits) - 1
    fall = np.array(table.slope)[segment] * position >> table.slope_shift
    fine = np.array(table.base)[segment] - fall
    root = fine >> GUARD
    # An argument stands for everything up to the next one.
    least = 2.0**(bits - 1) / np.sqrt((argument + 1) / 2**table.argument_bits)
    most = 2.0**(bits - 1) / np.sqrt(argument / 2**table.argument_bits)
    assert (fine <= least * 2**GUARD).all()
    assert (root > 0).all()
    assert (root < 1 << bits).all()
    assert ((most - root) / most).max() < 1.5 * 2.0**(1 - bits)


@pytest.mark.parametrize("config", [*CONFIGS, Config(name="least", norm_bits=8, lanes=1,
                                                     max_channels=1, rsqrt_bits=8)],
                         ids=lambda config: config.name)
def test_reciprocal_root_of_any_variance(config):
    bits = NormFormat(config).variance_bits
    edges = [(1 << n) + d for n in range(bits) for d in (-1, 0, 1)]
    variance = torch.tensor(sorted({v for v in edges if 0 < v < 1 << bits}))
    root, up = reciprocal_root(variance, config)
    value = root.double() * 2.0 ** (up - bits // 2 - config.rsqrt_bits + 1)
    ratio = value * variance.double().sqrt()
    assert float(ratio.max()) <= 1
    assert float(ratio.min()) > 1 - 1.5 * 2.0**(1 - config.rsqrt_bits)


def test_variance_is_the_independent_one():
    data = np.load(DATA / "int_layernorm.npz")
    x = (data["off_in_code"].astype(np.int64) - int(data["off_in_zp"])) << data["off_shift"]
    ours = 192 * (x * x).sum(-1) - x.sum(-1)**2
    assert np.array_equal(ours, data["ref_Cvar"])


def test_refusals():
    x = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(TypeError, match="gamma must be integers"):
        layernorm(x, x, x.float(), x, 0, CONFIG)
    with pytest.raises(ValueError, match=r"mantissa << shift must lie in -16384\.\.16383"):
        layernorm(x + 255, x + 7, x, x, 0, O_2SF)
    with pytest.raises(ValueError, match=r"zero_point must lie in 0\.\.255"):
        layernorm(x, x, x, x, 256, CONFIG)
    with pytest.raises(ValueError, match=r"max_channels \(64\) channels, not 65"):
        layernorm(torch.zeros(65).long(), x[:1], x[:1], x[:1], 0, load("tiny"))
    with pytest.raises(ValueError, match=r"gamma must lie within .* not reach 1000.0"):
        layernorm_parameters(torch.ones(4) * 10, torch.ones(4), 0.01, CONFIG)
    with pytest.raises(ValueError, match=r"beta must lie within .* not reach 3000.0"):
        layernorm_parameters(torch.ones(4), torch.ones(4) * 30, 0.01, CONFIG)
    with pytest.raises(ValueError, match="out_scale must be positive"):
        layernorm_parameters(torch.ones(4), torch.ones(4), 0.0, CONFIG)
    with pytest.raises(ValueError, match="vectors of the same length"):
        layernorm_parameters(torch.ones(4), torch.ones(3), 1.0, CONFIG)
    with pytest.raises(ValueError, match="max_channels"):
        layernorm_parameters(torch.ones(65), torch.ones(65), 1.0, load("tiny"))
    with pytest.raises(TypeError, match="real values"):
        power_of_two_factor(x)
    with pytest.raises(ValueError, match="finite"):
        outlier_two_scale(torch.tensor([[1.0, float("nan")]]))


def test_words():
    words = LayerNorm.words(load("edge8"))
    assert {name: word.bits for name, word in words.items()} == \
        {"i": 4 * (9 + 2 + 1) + 1, "p": 4 * (18 + 20), "o": 4 * 8 + 1}
    assert NormFormat(CONFIG).variance_bits == 42
    assert NormFormat(CONFIG).shift_bits == 2
    assert NormFormat(O_2SF).shift_bits == 3


SHAPES = [load("tiny"), load("edge8"), O_2SF,
          Config(name="one-lane", lanes=1, max_channels=37, rsqrt_bits=12),
          Config(name="eight", lanes=8, norm_bits=15, max_channels=100, rsqrt_bits=12),
          Config(name="full", lanes=64, norm_bits=16)]


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.name)
def test_latency_interval_and_sustained_flow(config):
    unit = LayerNorm(config)
    Fragment.get(unit, None)  # or Amaranth complains that it isn't used

    def times(lengths):
        """Cycles in which words enter and leave when nobody waits."""
        model, flow = LayerNormModel(config, lengths), {"i": True, "p": True}
        entered, left = [], []
        for cycle in itertools.count():
            offer = {**flow, "i": len(entered) < sum(lengths)}
            ready, valid = model.settle(offer, {"o": True})
            if offer["i"] and ready["i"]:
                entered.append(cycle)
            if valid["o"]:
                left.append(cycle)
            if len(left) == sum(lengths):
                return entered, left
            model.clock(offer, {"o": True})

    entered, left = times([1])
    assert left[0] - entered[0] == unit.latency
    entered, left = times([3, 2, 5])
    assert left[0] - entered[2] == unit.latency

    _, left = times([1] * 30)
    assert {b - a for a, b in itertools.pairwise(left[10:])} == {unit.interval}
    # Rows that are long enough follow each other without a gap, the longest ones too.
    longest = -(-config.max_channels // config.lanes)
    for length in {max(unit.interval, longest), max(unit.interval, longest // 2), unit.interval}:
        if length <= longest:
            entered, left = times([length] * 6)
            assert entered == list(range(6 * length))
            assert left == list(range(left[0], left[0] + 6 * length))


def test_late_parameters_stop_the_flow_and_lose_nothing():
    """Elements alone fill the buffer; once the parameters come, everything comes out."""
    config = load("tiny")
    rng = torch.Generator().manual_seed(5)
    channels = torch.ones(64, dtype=torch.int64)
    gamma, beta = layernorm_parameters(torch.ones(64), torch.zeros(64), 0.02, config)
    case = case_of("late", [Row(torch.randint(-256, 256, (64,), generator=rng), channels * 3,
                                gamma, beta) for _ in range(6)], config, rng)
    unit = LayerNorm(config)
    accepted, codes = [], []

    async def elements(ctx):
        ctx.set(unit.i.valid, 1)
        for word in case.words["i"]:
            ctx.set(unit.i.p.as_value(), word)
            await ctx.tick().until(unit.i.ready)
            accepted.append(word)
        ctx.set(unit.i.valid, 0)

    async def parameters(ctx):
        await ctx.tick().repeat(400)
        # Ring, its output register, decoder, and the registers in front of the parameters.
        assert len(accepted) == NormFormat(config).buffer_words + 1 + 1 + 7
        assert not codes
        ctx.set(unit.p.valid, 1)
        for word in case.words["p"]:
            ctx.set(unit.p.p.as_value(), word)
            await ctx.tick().until(unit.p.ready)
        ctx.set(unit.p.valid, 0)

    async def collect(ctx):
        ctx.set(unit.o.ready, 1)
        while len(codes) < len(case.expected["o"]):
            (word,) = await ctx.tick().sample(unit.o.p.as_value()).until(unit.o.valid)
            codes.append(word)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    for process in (elements, parameters, collect):
        simulator.add_testbench(process)
    simulator.run()
    assert codes == case.expected["o"]


def test_image_case_replays_recorded_tensors():
    config = load("tiny")
    gamma, beta = layernorm_parameters(torch.ones(64), torch.zeros(64), 0.02, config)
    tensors = {"mantissa": torch.randint(-256, 256, (50, 64)), "shift": torch.full((64,), 2),
               "gamma": gamma, "beta": beta, "zero_point": torch.tensor(100),
               "bits": torch.tensor(7)}
    case = image_case(tensors, config)
    codes = LayerNorm.words(config)["o"].unpack(case.expected["o"])["code"].reshape(-1, 64)
    assert np.array_equal(codes, layernorm(tensors["mantissa"][:6], tensors["shift"], gamma, beta,
                                           100, config, 7).numpy())
    assert codes.max() == 127
    assert offset(beta, 100).max() < 1 << GAMMA_BITS


@pytest.mark.parametrize("bits", range(2, 10))
@pytest.mark.parametrize("channels", [2, 16])
def test_bench_has_cases_for_every_mantissa(bits, channels):
    config = Config(rows=4, cols=4, lanes=2, mantissa_bits=bits, max_channels=channels)
    for case in cases(config, 1):
        mantissa = LayerNorm.words(config)["i"].unpack(case.words["i"])["mantissa"]
        assert -(1 << bits - 1) <= mantissa.min() and mantissa.max() < 1 << bits - 1


@pytest.mark.parametrize("config", [
    load("tiny"), Config(lanes=3, norm_bits=8, max_channels=3, rsqrt_bits=8)])
def test_bench_has_every_magnitude_and_sees_a_step_of_it(config):
    sizes = set()
    for row in magnitudes(config, torch.Generator().manual_seed(1)):
        x = row.mantissa << row.shift
        sizes.add(int(len(x) * (x * x).sum() - x.sum() ** 2).bit_length())
        codes, less, more = (layernorm(row.mantissa, row.shift, row.gamma, row.beta + step,
                                       row.zero_point, config) for step in (0, -1, 1))
        assert ((codes != less) ^ (codes != more)).all()
    assert sizes >= set(range(1, NormFormat(config).variance_bits - 2))


@pytest.mark.rtl
@pytest.mark.parametrize(("config", "cases", "cycles", "words"), [
    (load("tiny"), 18, 50_993, 17_001),
    pytest.param(Config(name="one-lane", lanes=1, max_channels=37, rsqrt_bits=12), 15, 44_062,
                 14_913, marks=pytest.mark.slow),
    pytest.param(Config(name="four", lanes=4, max_channels=192), 18, 57_096, 18_972,
                 marks=pytest.mark.slow),
    (Config(name="eight", lanes=8, norm_bits=15, max_channels=100, rsqrt_bits=12), 18, 32_303,
     7_416),
    (Config(name="odd", lanes=3, norm_bits=8, max_channels=3, rsqrt_bits=8), 15, 14_697, 918),
    pytest.param(Config(name="two-bits", rows=4, cols=4, lanes=2, mantissa_bits=2,
                        max_channels=16), 15, 17_697, 3_600, marks=pytest.mark.slow),
    pytest.param(Config(name="three-bits", rows=4, cols=4, lanes=2, mantissa_bits=3, norm_bits=8,
                        max_channels=16), 15, 19_485, 4_086, marks=pytest.mark.slow),
], ids=lambda value: getattr(value, "name", ""))
def test_verilog_on_every_cycle(config, cases, cycles, words, fast):
    """Made cases, and three LayerNorms of a real image where its 64 channels fit."""
    result = regress("layernorm", config, fast=fast)
    assert (result.patterns, result.cases) == (9, cases)
    assert result.image_cases == (3 if config.max_channels >= 64 else 0)
    assert (result.cycles, result.words) == (cycles, words)
