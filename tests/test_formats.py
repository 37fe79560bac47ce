# SPDX-License-Identifier: Apache-2.0
"""The number formats: their identities, their nearest codes, and agreement with the requantizer."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from golden.formats.formats import Format, Log2, Shifted, Table, TwoScale, Uniform
from golden.formats.ptf import power_of_two_factor
from golden.units.requant import Encoding, encode
from tests.tangent import tangent_table
from vitforge.spec.config import Config

SHIFT = torch.tensor([0, 3, 1, 2])
FORMATS: dict[str, Format] = {
    "uniform": Uniform(scale=0.013, zero_point=77),
    "uniform3": Uniform(scale=0.3, zero_point=2, bits=3),
    "weights": Uniform.symmetric(torch.tensor([0.1, 2.0, 0.7, 1.3]), 4),
    "ptf": Shifted(scale=0.011, zero_point=140, shift=SHIFT),
    "two-scale": TwoScale(scale=0.007, m=4),
    "two-scale4": TwoScale(scale=0.05, m=1, bits=4),
    "signed two-scale": TwoScale(scale=0.009, m=3, signed=True),
    "log2": Log2.of_bits(4),
    "log2 of 3": Log2.of_bits(3),
    "tangent": tangent_table(4),
    "table": Table(scale=0.1, bits=2, values=(-7, 0, 1, 50)),
}


def codes_of(form: Format) -> Tensor:
    signed = isinstance(form, Uniform) and form.signed
    high = 1 << form.bits - signed
    # Weights, which are signed, are symmetric.
    return torch.arange(1 - high if signed else 0, high)[:, None].expand(-1, 4)


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_is_its_operand_times_the_scale_and_comes_back(name: str) -> None:
    form = FORMATS[name]
    codes = codes_of(form)
    mantissa, shift = form.decode(codes)
    assert mantissa.dtype == shift.dtype == torch.int64 and mantissa.shape == shift.shape
    assert int(mantissa.min()) >= -256 and int(mantissa.max()) <= 255 and int(shift.min()) >= 0
    assert torch.equal(form.operand(codes), mantissa * 2**shift)
    real = form.dequantize(codes)
    assert torch.equal(real, form.operand(codes) * torch.as_tensor(form.scale, dtype=torch.float64))
    # Two codes may have one value (two-scale): the value must come back, if not the code.
    assert torch.equal(form.dequantize(form.quantize(real)), real)


@pytest.mark.parametrize("name", [name for name in FORMATS if "scale" not in name
                                  and "log2" not in name])
def test_a_real_value_gets_the_nearest_code(name: str) -> None:
    form = FORMATS[name]
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(1)).double()
    levels = form.dequantize(codes_of(form))
    nearest = (x[:, None] - levels).abs().amin(1)
    assert torch.allclose((form.dequantize(form.quantize(x)) - x).abs(), nearest, atol=1e-12)


def test_log2_rounds_the_exponent_and_ends_in_zero() -> None:
    form = Log2.of_bits(4)
    x = torch.tensor([1.0, 0.75, 0.7, 0.5, 2.0**-14, 2.0**-14.4, 2.0**-14.6, 0.0, 1.3])
    assert form.quantize(x).tolist() == [0, 0, 1, 1, 14, 14, 15, 15, 0]
    assert form.dequantize(torch.tensor([0, 14, 15])).tolist() == [1.0, 2.0**-14, 0.0]


@pytest.mark.parametrize("signed", [False, True])
def test_two_scale_uses_the_low_region_exactly_if_the_value_fits(signed: bool) -> None:
    form = TwoScale(scale=0.5, m=3, signed=signed)
    top, bottom = (63, -64) if signed else (127, 0)
    steps = torch.arange(-80, 200) / 2   # halves of a step: the ties too
    code = form.quantize(steps * 0.5)
    rounded = (steps + 0.5).floor()
    assert torch.equal(code >> 7 == 0, (rounded >= bottom) & (rounded <= top))
    low = code[code >> 7 == 0]
    assert torch.equal(form.dequantize(low), rounded[code >> 7 == 0].double() * 0.5)


@pytest.mark.parametrize(("kind", "signed"), [("uniform", False), ("two-scale", False),
                                              ("two-scale", True)])
def test_the_requantizer_gives_the_code_of_the_real_value(kind: str, signed: bool) -> None:
    y = torch.arange(-32768, 32768, 3)[:, None]
    layer = Encoding(kind=kind, zero_point=0 if kind == "two-scale" else 90,
                     m=5 if kind == "two-scale" else 0, signed=signed)
    form = TwoScale(scale=16.0, m=5, signed=signed) if kind == "two-scale" \
        else Uniform(scale=16.0, zero_point=90)
    assert torch.equal(encode(y, layer, 4, Config()), form.quantize(y.double()))


def test_shifted_is_ptf() -> None:
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [1.0, 2.0, 4.0, 8.0, 0.5, 7.0])
    ptf = power_of_two_factor(x)
    form = Shifted(scale=ptf.scale, zero_point=ptf.zero_point, shift=ptf.shift)
    codes = form.quantize(x)
    assert torch.equal(codes, ptf.quantize(x))   # no ties in these values
    assert torch.allclose(form.dequantize(codes).float(), ptf.dequantize(codes))
    assert len(ptf.shift.unique()) > 2


def test_ranges_are_covered() -> None:
    form = Uniform.of_range(-1.0, 3.0)
    assert form.dequantize(torch.tensor([0, 255])) == pytest.approx([-1, 3], abs=0.01)
    assert form.dequantize(form.quantize(torch.tensor([0.0]))).tolist() == [0.0]
    assert Uniform.of_range(1.0, 3.0).zero_point == 0
    assert Uniform.of_range(-2.0, -1.0).zero_point == 255
    weights = Uniform.symmetric(torch.tensor([2.0, 4.0]), 8)
    assert weights.quantize(torch.tensor([-2.0, 4.0])).tolist() == [-127, 127]


def test_tangent_table_is_fine_at_both_ends() -> None:
    values = tangent_table(4).values
    steps = [b - a for a, b in pairwise(values)]
    assert values[0] == 0 and values[-1] == 255 and len(values) == 16
    assert max(steps) > 5 * steps[0] and steps == steps[::-1]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Uniform(scale=0.0), "scale must be positive and finite, not 0.0"),
    (lambda: Uniform(scale=1.0, bits=9), "bits must be 2 to 8, not 9"),
    (lambda: Table(scale=1.0, bits=2, values=(1, 2, 2, 3)), "values must be 4 ascending integers"),
    (lambda: tangent_table(4, slope=1.6), "slope must lie between 0 and pi/2, not 1.6"),
    (lambda: Uniform(scale=1.0).quantize(torch.tensor([float("nan")])), "x must be finite"),
])
def test_what_is_no_format_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_types_are_checked(name: str) -> None:
    with pytest.raises(TypeError, match=r"x must be real values, not torch\.int64"):
        FORMATS[name].quantize(torch.tensor([1]))
    with pytest.raises(TypeError, match=r"code must be integers, not torch\.float32"):
        FORMATS[name].decode(torch.tensor([1.0]))
