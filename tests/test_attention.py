# SPDX-License-Identifier: Apache-2.0
"""Probabilities as codes: entries of the tables, error against exact softmax, formats of a core."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from golden.formats.attention import attend, fit, level_format, log2_format
from golden.formats.formats import (
    LEVELS,
    Format,
    Log2,
    LogSqrt2,
    Table,
    TwoScale,
    Uniform,
)
from golden.formats.tangent import tangent_levels
from golden.units.softmax import LevelScale, ShiftScale, log_softmax, softmax_scale
from golden.units.softmax_levels import level_codes, level_words
from tests.tangent import tangent_table
from vitforge.spec.config import Config, ConfigError
from vitforge.spec.formats import ATTENTION
from vitforge.spec.instruction import PASS
from vitforge.spec.probability_levels import KINDS as LEVEL_KINDS
from vitforge.spec.probability_levels import SLOPES, TOP, Levels, tangent_integers

KINDS = [*((kind, bits) for kind, widest in ATTENTION.items() if kind != "log2"
           for bits in (widest, 3)), ("two-scale", 6)]
by_kind = pytest.mark.parametrize(("kind", "bits"), KINDS)


def core(kind: str, bits: int, fraction: int = 10) -> Config:
    return Config(attention=kind, attention_bits=bits, exp_fraction_bits=fraction)


def keep_all(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool)


@by_kind
@pytest.mark.parametrize(("shift", "m"), [(0, 0), (-500, 3), (130, 1), (-2048, 7), (2047, 2)])
def test_the_middle_of_every_entry_gets_the_code_of_the_format(kind: str, bits: int, shift: int,
                                                               m: int) -> None:
    # With 14 fraction bits, an entry spans 128 distances; scores are 0, so the offset is all.
    config = core(kind, bits, fraction=14)
    m = 1 << bits - 2 if kind == "log-sqrt2" else m
    index = torch.arange(-1100, 2400)
    distance = index * 128 + 64 - shift * 128
    codes = level_codes(torch.zeros(len(index), 1, dtype=torch.int64),
                        torch.ones(len(index), 1, dtype=torch.bool), distance, 1, shift, m, config)
    form = level_format(shift, m, config)
    wanted = form.quantize(2.0 ** (-distance.double() / (1 << 14)))
    # Nothing may have a code in either region.
    codes, wanted = (torch.where(form.operand(x) == 0, 0, x) for x in (codes[:, 0], wanted))
    assert torch.equal(codes, wanted)
    assert len(wanted.unique()) >= 1 << bits - 1


def test_an_entry_begins_just_behind_a_multiple_of_its_width() -> None:
    config = core("uniform", 8, fraction=14)
    zero = torch.zeros(3, 1, dtype=torch.int64)
    for entry in (1, 5, 100):
        offset = torch.tensor([entry * 128 - 1, entry * 128, entry * 128 + 1])
        words = level_words(zero, offset, 1, 0, 0, config)[:, 0].tolist()
        entries = Levels(config).entries
        assert words == [entries[entry - 1], entries[entry - 1], entries[entry]]
        # A step of the product more is enough.
        words = level_words(zero - 1, offset, 1, 0, 0, config)[:, 0].tolist()
        assert words == [entries[entry - 1], entries[entry], entries[entry]]


def test_corner_values() -> None:
    # A single key has the probability 1, a masked one 0.
    for kind, bits, highest in (("uniform", 8, 255), ("uniform", 4, 15), ("table", 4, 15),
                                ("two-scale", 8, 128 + 127), ("two-scale", 6, 32 + 31),
                                ("log-sqrt2", 4, 128 + 127)):
        config = core(kind, bits)
        for m in (1, 3) if kind != "log-sqrt2" else (4,):
            wanted = level_format(0, m, config)
            top = max(wanted.dequantize(torch.arange(1 << wanted.bits)).tolist())
            scaled = dataclasses.replace(wanted, scale=float(wanted.scale) / top)
            scale, form = attend(0.05, scaled, config)
            assert isinstance(scale, LevelScale)
            scores = torch.tensor([[-128, 127], [5, -9]])
            keep = torch.tensor([[True, True], [False, False]])
            codes = log_softmax(scores, keep, scale, config)
            assert codes[0, 0] == 0 and codes[1].tolist() == [0, 0]
            # The scale's grid may take the last code.
            assert codes[0, 1] in (highest, highest - 1)
            assert form.dequantize(codes)[0, 1] == pytest.approx(1, rel=0.008)


def rows() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    parts = [torch.randn(40, 197, generator=generator) * width for width in (5, 20, 60)]
    parts.append(torch.rand(40, 197, generator=generator) * 255 - 128)
    return torch.cat(parts).round().clamp(-128, 127).to(torch.int64)


@by_kind
@pytest.mark.parametrize("s", [0.02, 0.05, 0.1, 0.2, 0.6])
def test_error_against_exact_softmax(kind: str, bits: int, s: float) -> None:
    config, scores = core(kind, bits), rows()
    exact = torch.softmax(scores.double() * s, -1)
    scale, form = attend(s, fit(exact, config), config)
    codes = log_softmax(scores, keep_all(scores), scale, config)
    wanted = form.quantize(exact)
    got, best = form.dequantize(codes), form.dequantize(wanted)
    # Half of an index is 0.27 % of a probability, and the tables of the sum are off by as much: a
    # value beside a threshold may take the code on its other side, and no more.
    order = _levels(form).unique(return_inverse=True)[1]
    assert int((order[codes] - order[wanted]).abs().max()) <= 1
    if kind != "log-sqrt2":   # whose thresholds aren't in the middle of two values
        assert bool(((got - exact).abs() <= (best - exact).abs() + 0.009 * exact).all())
    assert float((codes == wanted).double().mean()) > 0.93
    noise, least = ((x - exact).square().mean() for x in (got, best))
    assert float(noise) <= 1.14 * float(least)


def _levels(form: Format) -> Tensor:
    """Value of every code, but for codes that don't occur that of one that does."""
    values = form.dequantize(torch.arange(1 << form.bits))
    return form.dequantize(form.quantize(values))


@pytest.mark.parametrize("bits", [3, 4])
def test_tables_are_tangents(bits: int) -> None:
    for slopes in SLOPES:
        values = tangent_integers(bits, slopes)
        assert values == tuple(math.floor(level * TOP + 0.5)
                               for level in tangent_levels(bits, *slopes))
        # Below 255 * 2**-8 everything is 0, so the first threshold may not be less.
        assert (values[0] + values[1]) / 2 > TOP / 256


def test_log2_of_5_bits_goes_one_code_further_than_4() -> None:
    codes = torch.arange(32)
    assert log2_format(5).operand(codes).tolist() == [1 << 15 - c if c < 16 else 0
                                                      for c in range(32)]
    assert log2_format(4).operand(codes[:16]).tolist() == [1 << 15 - c if c < 15 else 0
                                                           for c in range(16)]
    assert log2_format(3).scale == 2.0**-7
    assert log2_format(5).dequantize(codes[:16]).tolist() == [2.0**-c for c in range(16)]
    for scale in (2.0**-16, 0.3, 1.0):
        with pytest.raises(ValueError, match=r"^scale of log2 codes of 4 bits must be 2\*\*-1 to "):
            Log2(scale=scale, bits=4)


@pytest.mark.parametrize("bits", [3, 4])
def test_log_sqrt2_codes_are_powers_of_a_root(bits: int) -> None:
    form = LogSqrt2.of_peak(0.7, bits)
    assert form.code_bits == bits
    for code in range(1 << bits):
        for inside in (code - 0.49, code, code + 0.49):
            value = torch.tensor(0.7 * 2 ** (-inside / 2))
            # Mantissas of 7 bits: within half a step.
            found = float(form.dequantize(form.quantize(value)))
            u = 127 * 2 ** (-(code % (1 << bits - 1)) / 2)
            assert found == pytest.approx(0.7 * 2 ** (-code / 2), rel=0.501 / u)
    assert int(form.quantize(torch.tensor(0.7 * 2 ** (-((1 << bits) - 0.49) / 2)))) == 0
    assert int(form.quantize(torch.tensor(9.0))) == 255
    with pytest.raises(ValueError, match=r"^log-sqrt2 codes must have 8 unsigned bits and m 2 or "):
        LogSqrt2(scale=1.0, m=3)


@by_kind
def test_attend_takes_the_nearest_scale(kind: str, bits: int) -> None:
    config = core(kind, bits)
    for scale in (1e-4, 0.0011, 1 / 255):
        m = {"two-scale": 2, "log-sqrt2": 1 << bits - 2}.get(kind, 0)
        wanted = dataclasses.replace(level_format(0, m, config), scale=scale)
        found, form = attend(0.1, wanted, config)
        assert isinstance(found, LevelScale)
        assert found.multiplier == softmax_scale(0.1,
                                                 config).multiplier   # type: ignore[union-attr]
        assert abs(math.log2(float(form.scale) / scale)) <= 1 / 256 + 1e-9
        assert float(form.scale) == 2 ** (found.shift / 128) / Levels(config).full
        assert found.m == m
        assert attend(0.1, form, config)[1].scale == form.scale


def test_attend_takes_log2_as_it_is() -> None:
    for bits in (3, 4, 5):
        scale, form = attend(0.1, Log2.of_bits(bits), core("log2", bits))
        assert type(scale) is ShiftScale
        assert isinstance(form, Log2) and form.depth == min((1 << bits) - 1, 15)


@pytest.mark.parametrize(("kind", "bits", "wanted", "message"), [
    ("uniform", 8, Log2.of_bits(4),
     "attention must be uniform codes of 8 bits in this configuration, not log2 codes of 4"),
    ("uniform", 8, Uniform(scale=0.1, bits=7), "attention must be .* not uniform codes of 7"),
    ("log2", 4, Uniform(scale=0.1, bits=4), "attention must be log2 codes of 4 bits"),
    ("uniform", 8, Uniform(scale=0.1, zero_point=3),
     "attention's uniform codes must be unsigned with zero_point 0, not 3"),
    ("uniform", 8, Uniform(scale=1e-9), "scale of attention codes must lie within"),
    ("two-scale", 8, TwoScale(scale=0.1, m=3, signed=True), "m of the attention's two-scale codes"),
    ("two-scale", 8, TwoScale(scale=0.1, m=10),
     "m of the attention's two-scale codes must be 0 to 9, and they unsigned"),
    ("table", 4, tangent_table(4, 1.35),
     "values of the attention's table must be those of a tangent of slopes 1.28 and 0.1 or 1.38"),
])
def test_what_a_core_does_not_have_is_refused(kind: str, bits: int, wanted: Format,
                                              message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        attend(0.1, wanted, core(kind, bits))


@pytest.mark.parametrize(("kind", "bits", "widest"), [("log2", 6, 5), ("table", 5, 4),
                                                     ("table", 8, 4), ("log-sqrt2", 5, 4)])
def test_widths_that_a_kind_does_not_have_are_refused(kind: str, bits: int, widest: int) -> None:
    with pytest.raises(ConfigError, match=f"^attention_bits of {kind} codes must be 3 to {widest}, "
                                          f"not {bits}"):
        core(kind, bits)


@pytest.mark.parametrize(("kind", "bits"), [("two-scale", 6), ("table", 4)])
def test_fit_finds_the_least_error(kind: str, bits: int) -> None:
    config = core(kind, bits)
    seen = torch.softmax(rows().double() * 0.1, -1)
    best = fit(seen, config)
    least = float((best.dequantize(best.quantize(seen)) - seen).square().mean())
    assert (isinstance(best, TwoScale) and best.m > 1) or isinstance(best, Table)
    for factor in (0.7, 1.4):
        other = dataclasses.replace(best, scale=float(best.scale) * factor)
        assert float((other.dequantize(other.quantize(seen)) - seen).square().mean()) > least


def test_fit_spans_uniform_codes_up_to_the_maximum() -> None:
    seen = torch.tensor([[0.5, 0.25, 0.25]])
    found = fit(seen, core("uniform", 8))
    assert isinstance(found, Uniform) and found.scale == 0.5 / 255 and found.zero_point == 0
    assert float(fit(torch.zeros(1, 1), core("two-scale", 8)).scale) > 0


def test_scales_of_other_codes_are_refused() -> None:
    scores = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"^scale must be a LevelScale, not ShiftScale"):
        log_softmax(scores, keep_all(scores), ShiftScale(5), core("uniform", 8))
    config = dataclasses.replace(core("table", 4), exponential="iexp")
    with pytest.raises(ValueError, match=r"^attention must be log2 with exponential iexp"):
        log_softmax(scores, keep_all(scores), softmax_scale(0.1, config), config)


def test_no_place_of_an_attention_format_was_forgotten() -> None:
    # docs/units/attention.md, "Adding an attention format".
    assert set(ATTENTION) == {"log2", *LEVEL_KINDS} == {"log2", *LEVELS}
    page = (Path(__file__).parents[1] / "docs/units/attention.md").read_text(encoding="utf-8")
    known = {item.name for item in PASS.fields}
    for kind, widest in ATTENTION.items():
        text = "3, 4" if widest == 4 else f"3 to {widest}"
        assert f"| `{kind}` | {text} |" in page
        for bits in range(3, widest + 1):
            config = core(kind, bits)
            m = 1 << bits - 2 if kind == "log-sqrt2" else 1
            form = log2_format(bits) if kind == "log2" else level_format(0, m, config)
            assert (form.kind, form.code_bits) == (kind, bits)
            assert form.words().startswith(f"{kind} {bits} bits")
            assert set(form.probability_fields()) <= known
            scale, found = attend(0.05, form, config)
            assert found.scale == form.scale and isinstance(scale, LevelScale) == (kind != "log2")
            codes = torch.arange(1 << form.bits)
            mantissas, shifts = found.decode(codes[form.quantize(form.dequantize(codes)) == codes])
            assert 0 <= int(mantissas.min()) and int(mantissas.max()) <= 255
            assert int((mantissas << shifts).max()) < 1 << config.operand_bits - 1
