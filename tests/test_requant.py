# SPDX-License-Identifier: Apache-2.0
"""The requantizer: numbers against exact ones, and the Verilog on every cycle."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden.units.encoding import SEARCH, Encoding, encode, thresholds
from golden.units.requant import (
    STAGES,
    Requantization,
    RequantizerModel,
    gelu,
    operate,
    requantize,
    scale_values,
)
from golden.units.requant_parameters import dyadic, gelu_multiplier, residual_multiplier, value_step
from hw.requant.unit import Requantizer
from hw.units import words
from sim.cases.requant import Batch, cases, image_case, make_case
from sim.run import regress
from tests.sample import later
from vitforge.spec.config import Config, load
from vitforge.spec.formats import FORMATS
from vitforge.spec.gelu import bump_bits, bump_table
from vitforge.spec.requant_fields import THRESHOLDS

DATA = Path(__file__).parent / "data" / "requant"

CONFIG = Config(name="requant", rows=4, cols=4, lanes=2)


def every_value(config: Config) -> Tensor:
    top = (1 << config.value_bits - 1) - 1
    return torch.arange(-top, top + 1)


def exact_gelu(values: Tensor, config: Config) -> Tensor:
    x = values.double() * value_step(config)
    return x * torch.erfc(-x / math.sqrt(2)) / 2


def nearest(x: Tensor) -> Tensor:
    return (x + 0.5).floor().long()


# --- first step ---------------------------------------------------------------------------------

def test_scaling_is_the_exact_rounded_product() -> None:
    rng = np.random.default_rng(1)
    limit = 1 << CONFIG.acc_bits - 1
    for _ in range(3_000):
        acc, bias = (int(value) for value in rng.integers(-limit, limit, 2))
        if rng.random() < 0.5:
            acc, bias = acc >> int(rng.integers(0, 31)), bias >> int(rng.integers(0, 31))
        multiplier, shift = int(rng.integers(0, 1 << 16)), int(rng.integers(0, 64))
        want = math.floor((acc + bias) * multiplier / 2 ** shift + 0.5) if shift < 5 else \
            ((acc + bias) * multiplier + (1 << shift - 1)) >> shift
        got = scale_values(torch.tensor([acc]), bias, multiplier, shift, CONFIG)
        assert int(got) == max(-32767, min(32767, want))


def test_scaling_rounds_half_up_and_saturates() -> None:
    halves = torch.tensor([-5, -3, -1, 1, 3, 5])
    assert scale_values(halves, 0, 1, 1, CONFIG).tolist() == [-2, -1, 0, 1, 2, 3]
    ends = torch.tensor([-2 ** 31, 2 ** 31 - 1])
    assert scale_values(ends, ends, 65535, 0, CONFIG).tolist() == [-32767, 32767]
    assert scale_values(ends, ends, 65535, 63, CONFIG).tolist() == [0, 0]
    assert scale_values(ends, ends, 65535, 48, CONFIG).tolist() == [-1, 1]


@pytest.mark.parametrize("config", (
    dataclasses.replace(CONFIG, acc_bits=40, multiplier_bits=18, value_bits=24),))
def test_scaling_does_not_overflow(config: Config) -> None:
    ends = torch.tensor([-2 ** 39, 2 ** 39 - 1])
    full = (1 << 18) - 1
    want = [(2 * int(end) * full + (1 << 62)) >> 63 for end in ends]
    assert scale_values(ends, ends, full, 63, config).tolist() == want


def test_dyadic() -> None:
    for ratio in (*np.geomspace(2.0 ** -40, 60_000, 997).tolist(), 0.5, 1.0, 65535.0, 2 ** -20):
        multiplier, shift = dyadic(ratio, CONFIG)
        assert 1 << 15 <= multiplier < 1 << 16
        assert abs(multiplier / 2 ** shift / ratio - 1) <= 2.0 ** -16
    multiplier, shift = dyadic(1e-15, CONFIG)
    assert shift == 63 and multiplier == round(1e-15 * 2 ** 63)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^ratio must be positive and finite, not "):
            dyadic(bad, CONFIG)
    for bad in (65536.0, 65535.9999, 1e9):
        with pytest.raises(ValueError, match=r"^ratio must be below 2\*\*16, not "):
            dyadic(bad, CONFIG)


# --- GeLU ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("bits", (10, 12, 16, 18, 20))
def test_gelu_is_near_on_every_input(bits: int) -> None:
    config = dataclasses.replace(CONFIG, value_bits=bits)
    values = every_value(config)
    off = (gelu(values, config).double() * value_step(config) - exact_gelu(values, config)).abs()
    # Half a step for the entry; half the slope times the width of an entry; the tail.
    assert float(off.max()) <= value_step(config) / 2 + 0.5 / 1024 + 1.3e-4
    assert len(bump_table(config)) == min(2048, 1 << bits - 3)
    assert max(bump_table(config)) < 1 << bump_bits(config)
    if bits == 16:
        assert float(off.max()) < 0.0006
        assert (len(bump_table(config)), bump_bits(config)) == (2048, 9)


@pytest.mark.parametrize("bits", (10, 12, 16, 20))
def test_quick_gelu_is_near_on_every_input(bits: int) -> None:
    config = dataclasses.replace(CONFIG, value_bits=bits, gelu="quick")
    values = every_value(config)
    x = values.double() * value_step(config)
    off = (gelu(values, config).double() * value_step(config)
           - x * torch.sigmoid(1.702 * x)).abs()
    assert float(off.max()) <= value_step(config) / 2 + 0.5 / 512 + 2e-5
    assert len(bump_table(config)) == min(2048, 1 << bits - 2)
    if bits == 16:
        assert float(off.max()) < 0.0012
        assert (len(bump_table(config)), bump_bits(config)) == (2048, 9)


@pytest.mark.parametrize("bits", (16, 20))
@pytest.mark.parametrize("wide", (1, 2, 3, 4.5, 6, 9, 12))
def test_gelu_in_uniform_codes_is_within_one_on_every_input(wide: float, bits: int) -> None:
    config = dataclasses.replace(CONFIG, value_bits=bits)
    values = every_value(config)
    step = (wide + 0.17) / 255
    factor, shift = gelu_multiplier(step, config)
    encoding = Encoding(zero_point=round(0.17 / step))
    layer = Requantization(operation="gelu", encoding=encoding, encode_shift=shift,
                           multiplier2=factor)
    codes = encode(operate(values, layer, config), encoding, shift, config)
    want = (nearest(exact_gelu(values, config) / step) + encoding.zero_point).clamp(0, 255)
    off = (codes - want).abs()
    assert int(off.max()) <= 1
    assert (off == 0).double().mean() > 0.98
    assert int(codes.max()) == 255


@pytest.mark.parametrize("negative", (True, False))
@pytest.mark.parametrize("m", range(7))
@pytest.mark.parametrize("step", (0.17 / 127, 0.17 / 64, 0.01, 0.05))
def test_gelu_in_two_scale_codes_is_within_one_on_every_input(step: float, m: int,
                                                              negative: bool) -> None:
    values = every_value(CONFIG)
    factor, shift = gelu_multiplier(step, CONFIG)
    encoding = Encoding(kind="two-scale", m=m, signed=negative)
    layer = Requantization(operation="gelu", encoding=encoding, encode_shift=shift,
                           multiplier2=factor)
    codes = encode(operate(values, layer, CONFIG), encoding, shift, CONFIG)
    region, u = codes >> 7, codes & 127
    u = torch.where((u >= 64) & negative, u - 128, u)
    low, high = (-64, 63) if negative else (0, 127)

    real = exact_gelu(values, CONFIG) / step
    low_u = nearest(real)
    want_region = ((low_u < low) | (low_u > high)).long()
    want = torch.where(want_region == 1, nearest(real / 2 ** m).clamp(low, high), low_u)
    # Values next to the bound may be on its other side: then the two differ by a step of the
    # coarser region.
    size = 1 << m * torch.maximum(region, want_region)
    off = ((u << m * region) - (want << m * want_region)).abs()
    assert (off <= size).all()
    same = region == want_region
    assert int((u - want)[same].abs().max()) <= 1
    assert int((~same & (values > 0)).sum()) <= 8
    assert (codes == (want_region << 7 | want & 127))[values > 0].double().mean() > 0.97


def test_gelu_parameters() -> None:
    for step in np.geomspace(value_step(CONFIG) * 1.0001, 1, 200).tolist():
        factor, shift = gelu_multiplier(step, CONFIG)
        assert factor >= 1 << 15
        assert abs(factor / 2 ** 16 * step / 2 ** shift / value_step(CONFIG) - 1) <= 2 ** -15
    for bad in (value_step(CONFIG) * 0.9, 40.0):
        with pytest.raises(ValueError, match=r"^code_step must lie in "):
            gelu_multiplier(bad, CONFIG)


# --- residual -----------------------------------------------------------------------------------

def test_residual_is_the_exact_rounded_sum() -> None:
    rng = torch.Generator().manual_seed(2)
    for norm_bits, value_bits in ((12, 16), (16, 12), (8, 24), (16, 16)):
        config = dataclasses.replace(CONFIG, norm_bits=norm_bits, value_bits=value_bits)
        top = 1 << value_bits - 1
        value = torch.randint(-top + 1, top, (999,), generator=rng)
        residual = torch.randint(-(1 << norm_bits - 1), 1 << norm_bits - 1, (999,), generator=rng)
        residual[:2] = torch.tensor([-(1 << norm_bits - 1), (1 << norm_bits - 1) - 1])
        for factor in (0, 1, 12_345, 65535):
            ratio = factor / 2 ** (16 + norm_bits - value_bits)
            layer = Requantization(operation="residual", multiplier2=factor, encoding=Encoding())
            got = operate(value, layer, config, residual)
            assert torch.equal(got, value + nearest(residual.double() * ratio))
            assert int(got.abs().max()) < 1 << value_bits


def test_residual_parameters() -> None:
    assert residual_multiplier(1.0, CONFIG) == 1 << 12
    assert residual_multiplier(0.0, CONFIG) == 0
    for bad in (16.0, -0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"^residual ratio must lie in 0\.\.15\.9"):
            residual_multiplier(bad, CONFIG)


# --- encoders -----------------------------------------------------------------------------------

def test_uniform_codes_by_definition() -> None:
    y = torch.arange(-70_000, 70_000, 7)
    for shift in range(16):
        for bits, zero_point in ((8, 128), (8, 0), (4, 7), (2, 255)):
            want = (nearest(y / 2 ** shift) + zero_point).clamp(0, (1 << bits) - 1)
            got = encode(y, Encoding(bits=bits, zero_point=zero_point), shift, CONFIG)
            assert torch.equal(got, want)


def test_uniform_shift_is_per_channel() -> None:
    y = torch.tensor([[100, 100, 100], [-100, 7, 2]])
    codes = encode(y, Encoding(zero_point=50), torch.tensor([0, 1, 2]), CONFIG)
    assert codes.tolist() == [[150, 100, 75], [0, 54, 51]]


@pytest.mark.parametrize("bits, split", ((4, 5), (8, 3), (8, 6)))
def test_two_scale_codes_equal_the_reference(bits: int, split: int) -> None:
    data = np.load(DATA / "twin_softmax.npz")
    region, u = (torch.from_numpy(data[f"{name}_{bits}_{split}"]).long()
                 for name in ("region", "u"))
    top = (1 << bits - 1) - 1
    fine = torch.from_numpy(data["p"]).double() * top * 2 ** split
    shift = int(math.log2(32767 / (top * 2 ** split)))
    codes = encode((fine * 2 ** shift).long(), Encoding(kind="two-scale", bits=bits, m=split),
                   shift, CONFIG)
    # What rounds to the last low code stays low, where it is nearer; the reference moves it up.
    kept = (fine >= top) & (fine < top + 0.5)
    assert codes.numel() == 25_350 and int(region.sum()) > 500
    assert int(kept.sum()) == {(4, 5): 80, (8, 3): 6, (8, 6): 8}[bits, split]
    assert torch.equal(codes[~kept], (region << bits - 1 | u)[~kept])
    assert (codes[kept] == top).all() and (region[kept] == 1).all()
    assert ((fine - top).abs() <= (fine - (u << split)).abs())[kept].all()


@pytest.mark.parametrize("negative", (True, False))
def test_two_scale_region_is_low_iff_the_value_fits(negative: bool) -> None:
    y = torch.arange(-32767, 32768)
    for bits in range(2, 9):
        low, high = (-(1 << bits - 2), (1 << bits - 2) - 1) if negative else \
            (0, (1 << bits - 1) - 1)
        for shift, m in ((0, 0), (0, 6), (3, 4), (9, 6)):
            code = encode(y, Encoding(kind="two-scale", bits=bits, m=m, signed=negative), shift,
                          CONFIG)
            assert int(code.min()) >= 0 and int(code.max()) < 1 << bits
            region, u = code >> bits - 1, code & (1 << bits - 1) - 1
            u = torch.where((u >> bits - 2 == 1) & negative, u - (1 << bits - 1), u)
            fine, coarse = nearest(y / 2 ** shift), nearest(y / 2 ** (shift + m))
            assert torch.equal(region == 0, (fine >= low) & (fine <= high))
            assert torch.equal(u, torch.where(region == 0, fine, coarse.clamp(low, high)))


@pytest.mark.parametrize("bits", (2, 3, 4))
@pytest.mark.parametrize("value_bits", (10, 16))
def test_log2_codes_on_every_probability(bits: int, value_bits: int) -> None:
    config = dataclasses.replace(CONFIG, value_bits=value_bits)
    y = torch.arange(1, 1 << value_bits - 1)
    codes = encode(y, Encoding(kind="log2", bits=bits), 0, config)
    exact = value_bits - 1 - torch.log2(y.double())
    assert torch.equal(codes, nearest(exact).clamp_max((1 << bits) - 1))
    assert (encode(-y[:9] + 1, Encoding(kind="log2", bits=bits), 0, config)
            == (1 << bits) - 1).all()


def test_table_codes_by_definition() -> None:
    y = torch.arange(-32767, 32768)
    for bits in (2, 3, 4):
        levels = tuple(np.linspace(-40, 32767, (1 << bits) - 1).astype(int).tolist())
        want = sum(((y >= level).long() for level in levels), torch.zeros_like(y))
        got = encode(y, Encoding(kind="table", bits=bits, thresholds=levels), 0, CONFIG)
        assert torch.equal(got, want)
        assert int(got.max()) == (1 << bits) - 1


def test_thresholds_fit_the_input_and_ascend() -> None:
    formats = [Encoding(kind="two-scale", bits=bits, signed=negative)
               for bits in range(2, 9) for negative in (True, False)]
    formats += [Encoding(kind="log2", bits=bits) for bits in (2, 3, 4)]
    formats += [Encoding(kind="table", bits=2, thresholds=(-32768, 0, 32767)), Encoding()]
    for encoding in formats:
        for shift in range(16):
            values = thresholds(encoding, shift, CONFIG)
            assert len(values) == SEARCH == THRESHOLDS
            used = values[3::4] if encoding.kind == "two-scale" else values
            assert list(used) == sorted(used)
            for index, value in enumerate(values):
                bits = 17 if index in (3, 7, 11) else 16
                assert -(1 << bits - 1) <= value < 1 << bits - 1


# --- bad arguments ------------------------------------------------------------------------------

def test_floats_are_refused() -> None:
    acc = torch.zeros(2, 3, dtype=torch.int64)
    layer = Requantization(encoding=Encoding())
    with pytest.raises(TypeError, match=r"^acc must be integers, not torch.float32$"):
        requantize(acc.float(), layer, CONFIG)
    for name in ("bias", "multiplier", "shift", "encode_shift"):
        changed: dict[str, Any] = {name: torch.zeros(3)}
        with pytest.raises(TypeError, match=rf"^{name} must be integers, not torch.float32$"):
            requantize(acc, dataclasses.replace(layer, **changed), CONFIG)
    add = dataclasses.replace(layer, operation="residual")
    with pytest.raises(TypeError, match=r"^residual must be integers, not torch.float32$"):
        requantize(acc, add, CONFIG, acc.float())


@pytest.mark.parametrize("name, value, text", (
    ("bias", 1 << 31, r"^bias must lie in -2147483648..2147483647, not 2147483648..2147483648$"),
    ("multiplier", 1 << 16, r"^multiplier must lie in 0..65535, not 65536..65536$"),
    ("multiplier", -1, r"^multiplier must lie in 0..65535, not -1..-1$"),
    ("shift", 64, r"^shift must lie in 0..63, not 64..64$"),
    ("encode_shift", 16, r"^encode_shift must lie in 0..15, not 16..16$"),
    ("operation", "softmax", r"^operation must be one of linear, gelu, residual, not 'softmax'$"),
))
def test_parameters_out_of_range(name: str, value: Any, text: str) -> None:
    acc = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=text):
        requantize(acc, Requantization(**{"encoding": Encoding(), name: value}), CONFIG)


def test_residual_goes_with_its_operation() -> None:
    acc = torch.zeros(2, 3, dtype=torch.int64)
    for layer, residual in ((Requantization(encoding=Encoding()), acc),
                            (Requantization(encoding=Encoding(), operation="residual"), None)):
        with pytest.raises(ValueError, match=r"^a residual must be given for the operation"):
            requantize(acc, layer, CONFIG, residual)
    layer = Requantization(encoding=Encoding(), operation="residual")
    with pytest.raises(ValueError, match=r"^residual must lie in -2048..2047, not 2048..2048$"):
        requantize(acc, layer, CONFIG, acc + 2048)


@pytest.mark.parametrize("fields, text", (
    ({"kind": "log3"}, r"^kind must be one of uniform, two-scale, log2, table, not 'log3'$"),
    ({"bits": 9}, r"^bits of uniform codes must be 2 to 8, not 9$"),
    ({"kind": "log2", "bits": 5}, r"^bits of log2 codes must be 2 to 4, not 5$"),
    ({"zero_point": 256}, r"^zero_point must be 0 to 255, not 256$"),
    ({"kind": "two-scale", "m": 16}, r"^m must be 0 to 15, not 16$"),
    ({"kind": "table", "bits": 2}, r"^table codes of 2 bits must have 3 thresholds, not 0$"),
    ({"thresholds": (1,)}, r"^uniform codes of 8 bits must have 0 thresholds, not 1$"),
    ({"kind": "table", "bits": 2, "thresholds": (1, 3, 2)}, r"^thresholds must be ascending$"),
))
def test_encodings_out_of_range(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Encoding(**fields)


def test_shifts_of_two_scale() -> None:
    y = torch.zeros(3, dtype=torch.int64)
    encoding = Encoding(kind="two-scale", m=6)
    with pytest.raises(ValueError, match=r"^encode_shift must lie in 0..9, not 10..10$"):
        encode(y, encoding, 10, CONFIG)
    with pytest.raises(ValueError, match=r"^encode_shift of the two-scale format must be one"):
        encode(y, encoding, torch.tensor([1, 2, 3]), CONFIG)
    high = Encoding(kind="table", bits=2, thresholds=(0, 1, 1 << 15))
    with pytest.raises(ValueError, match=r"^thresholds must lie in -32768..32767, not 0..32768$"):
        encode(y, high, 0, CONFIG)


# --- words, cycles, cases -----------------------------------------------------------------------

def test_words() -> None:
    word = words("requant", load("edge8"))
    assert [(item.name, item.width) for item in word["i"].fields] == [
        ("acc", 128), ("bias", 128), ("multiplier", 64), ("shift", 24), ("residual", 48),
        ("encode_shift", 16), ("operation", 2), ("multiplier2", 16), ("format", 2),
        ("zero_point", 8), ("bits", 4), ("m", 4), ("signed", 1), ("lowest", 8),
        ("last", 1)]
    assert [(item.name, item.width) for item in word["o"].fields] == [("codes", 32), ("last", 1)]


def test_latency_and_initiation_interval() -> None:
    assert Requantizer(load("tiny")).latency == STAGES + 1 == 31
    model, left = RequantizerModel(), []
    for cycle in range(45):
        offer, accept = {"i": cycle < 10}, {"o": True}
        ready, valid = model.settle(offer, accept)
        assert ready["i"]
        if valid["o"]:
            left.append(cycle)
        model.clock(offer, accept)
    assert left == list(range(31, 41))


def test_cases_cover_the_codes() -> None:
    config = load("tiny")
    word = words("requant", config)
    seen: dict[str, list[np.ndarray]] = {}
    for case in cases(config, 1):
        codes = word["o"].unpack(case.expected["o"])["codes"]
        fields = word["i"].unpack(case.words["i"])
        for kind in range(4):
            for operation in range(3):
                chosen = (fields["format"] == kind) & (fields["operation"] == operation)
                seen.setdefault(f"{kind} {operation}", []).append(codes[chosen].ravel())
    counts = {key: len(np.unique(np.concatenate(value))) for key, value in seen.items()}
    assert counts["0 0"] > 90 and counts["0 1"] > 30 and counts["0 2"] > 30
    assert counts["1 0"] > 90 and counts["1 1"] > 10
    assert counts["2 0"] == counts["3 0"] == 16


def test_cases_of_one_input_have_the_same_thresholds() -> None:
    acc = torch.zeros(2, dtype=torch.int64)
    batches = [Batch(acc, Requantization(encoding=Encoding(kind="log2", bits=bits)))
               for bits in (3, 4)]
    with pytest.raises(ValueError, match=r"^batches of one case must have the same thresholds$"):
        make_case("two", batches, CONFIG)


@pytest.mark.parametrize("lanes", (2, 3))
def test_image_case_takes_the_first_rows(lanes: int) -> None:
    config = dataclasses.replace(CONFIG, lanes=lanes)
    rng = torch.Generator().manual_seed(5)
    acc = torch.randint(-20_000, 20_000, (7, 10), generator=rng)
    residual = torch.randint(-900, 900, (7, 10), generator=rng)
    layer = Requantization(
        bias=torch.randint(-999, 999, (10,), generator=rng), operation="residual",
        multiplier=torch.randint(30_000, 60_000, (10,), generator=rng), shift=16,
        multiplier2=30_000, encoding=Encoding(zero_point=120),
        encode_shift=torch.randint(6, 9, (10,), generator=rng))
    case = image_case({"acc": acc, "layer": layer, "residual": residual}, config)
    codes = words("requant", config)["o"].unpack(case.expected["o"])["codes"]
    count = -(-10 // lanes)
    assert codes.shape == (4 * count, lanes)
    want = requantize(acc, layer, config, residual)[:4].numpy()
    assert np.array_equal(codes.reshape(4, -1)[:, :10], want)
    assert len(np.unique(want)) > 20


def test_bench_has_every_bit_alone_and_every_width() -> None:
    config = load("tiny")
    sent = [Requantizer.words(config)["i"].unpack(case.words["i"]) for case in cases(config, 1)]
    alone = set()
    for word in sent:
        product = (word["acc"] + word["bias"]) * word["multiplier"]
        one = (product > 0) & (product & product - 1 == 0) & (word["operation"] == 0)[:, None]
        alone |= {(int(value).bit_length() - 1, int(shift)) for value, shift in
                  zip(product[one], word["shift"][one], strict=True)}
    assert {(place, shift) for place in range(config.value_bits - 1, 47)
            for shift in range(place - config.value_bits + 2)} <= alone
    widths = {int(bits) for word in sent for bits in
              word["bits"][(word["format"] == FORMATS["two-scale"]) & (word["signed"] == 1)]}
    assert widths == set(range(2, 9))


TINY = load("tiny")
RTL = [
    TINY,
    Config(name="narrow", rows=4, cols=4, lanes=1, operand_bits=9, acc_bits=24, value_bits=12,
           multiplier_bits=8, factor_bits=8, norm_bits=12),
    Config(name="wide", rows=4, cols=4, lanes=4, acc_bits=40, value_bits=20, multiplier_bits=18,
           factor_bits=18, norm_bits=16),
    Config(name="edge-lanes16", rows=16, cols=16, lanes=16, norm_bits=8),
    Config(name="smallest", rows=1, cols=1, lanes=3, operand_bits=9, acc_bits=17, value_bits=10,
           multiplier_bits=4, factor_bits=4, norm_bits=16),
    Config(name="shifts-alone", rows=4, cols=4, lanes=1, multiplier_bits=1),
    Config(name="luts", rows=4, cols=4, lanes=1, drain_products="luts"),
    Config(name="widest", rows=2, cols=2, lanes=2, acc_bits=33, value_bits=24, multiplier_bits=12,
           factor_bits=12, norm_bits=8),
]


#: Cycles and output words that are compared, five uses of a real image among them where the
#: configuration can run the network.
COMPARED = {"tiny": (61_925, 22_815),
            "narrow": (46_911, 16_731),
            "wide": (47_147, 15_660),
            "edge-lanes16": (29_712, 8_415),
            "smallest": (32_894, 9_954),
            "shifts-alone": (85_301, 34_110),
            "luts": (93_869, 38_196),
            "widest": (40_145, 13_455)}


@pytest.mark.rtl
@pytest.mark.parametrize("config", [
    config if config.name in ("tiny", "narrow", "smallest") else later(config)
    for config in RTL], ids=lambda config: config.name)
def test_verilog_equals_golden_on_every_cycle(config: Config, fast: bool) -> None:
    result = regress("requant", config, fast=fast)
    assert result.cases == 26 + result.image_cases
    pictures = config.name in ("tiny", "wide", "shifts-alone", "luts")
    assert result.image_cases == (5 if pictures else 0)
    assert (result.patterns, result.cycles, result.words) == (9, *COMPARED[config.name])


@pytest.mark.thorough
@pytest.mark.rtl
@pytest.mark.parametrize(("formats", "count"), [
    later("uniform", 6), ("uniform+two-scale", 15), later("uniform+log2", 9),
    later("uniform+table", 10)])
def test_verilog_without_some_formats_equals_golden(formats: str, count: int, fast: bool) -> None:
    config = dataclasses.replace(TINY, name=formats.replace("+", "-"), formats=formats)
    result = regress("requant", config, fast=fast)
    assert (result.image_cases, result.cases) == (5, count + 5)
