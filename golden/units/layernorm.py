# SPDX-License-Identifier: Apache-2.0
"""Integer LayerNorm of power-of-two-factor codes: the bits, and the cycles, of `hw.layernorm`."""

__all__ = ["LayerNormModel", "code_mask", "layernorm", "layernorm_parameters", "normal",
           "normalize", "offset", "reciprocal_root"]

import functools

import torch
from torch import Tensor

from golden.units.arithmetic import integers, saturate
from golden.units.layernorm_cycles import LayerNormModel
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.layernorm_widths import FRACTION, GAMMA_BITS, OFFSET_BITS, NormFormat
from vitforge.spec.rsqrt_table import GUARD, rsqrt_table


def layernorm_parameters(gamma: Tensor, beta: Tensor, out_scale: float,
                         config: Config) -> tuple[Tensor, Tensor]:
    """Make the integers of a layer at calibration time.

    Parameters
    ----------
    gamma, beta
        Floating point, ``[C]``.
    out_scale
        Step of the output codes.
    config
        The configuration that will run the layer.

    Returns
    -------
    gamma, beta : Tensor
        int64 ``[C]``, in steps of ``out_scale * 2**-FRACTION``; gamma has GAMMA_BITS bits.

    Raises
    ------
    ValueError
        If there are more channels than the configuration takes, or a value doesn't fit: gamma
        must stay below 512 output steps, beta below 1,700.
    """
    if gamma.dim() != 1 or gamma.shape != beta.shape:
        raise ValueError(f"gamma and beta must be vectors of the same length, not "
                         f"{list(gamma.shape)} and {list(beta.shape)}")
    if not 1 <= len(gamma) <= config.max_channels:
        raise ValueError(f"gamma must have 1 to max_channels ({config.max_channels}) channels, "
                         f"not {len(gamma)}")
    if not 0 < out_scale < float("inf"):
        raise ValueError(f"out_scale must be positive, not {out_scale}")
    results = []
    limits = {"gamma": (1 << GAMMA_BITS - 1) - 1,
              # Room for the zero point and for the half of the rounding.
              "beta": (1 << OFFSET_BITS - 1) - (1 << CODE_BITS + FRACTION) - (1 << FRACTION)}
    for (name, limit), real in zip(limits.items(), (gamma, beta), strict=True):
        steps = (real.double() / out_scale * (1 << FRACTION)).round()
        if not bool((steps.abs() <= limit).all()):
            raise ValueError(f"{name} must lie within +-{limit >> FRACTION} output steps, not "
                             f"reach {float(steps.abs().max()) / (1 << FRACTION):.1f}: out_scale "
                             f"{out_scale:g} is too small")
        results.append(steps.to(torch.int64))
    return results[0], results[1]


def offset(beta: Tensor, zero_point: int) -> Tensor:
    """Return what the parameter stream carries: beta, zero point and rounding half."""
    integers(beta=beta)
    return beta + (zero_point << FRACTION) + (1 << FRACTION - 1)


def reciprocal_root(variance: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Compute ``1/sqrt(variance)`` as `root` ``* 2**(up - root_bits - rsqrt_bits + 1)``.

    Parameters
    ----------
    variance
        int64, ``0 <= variance < 4**root_bits``.

    Returns
    -------
    root : Tensor
        rsqrt_bits bits, never above the true value, relative error below
        ``1.5 * 2**-(rsqrt_bits-1)``.
    up : Tensor
        Pairs of leading zeros of `variance`. For a variance of 0 both values mean nothing.
    """
    integers(variance=variance)
    width, table = NormFormat(config), rsqrt_table(config.rsqrt_bits)
    bits = width.variance_bits
    value, up = variance.clone(), torch.zeros_like(variance)
    for pairs in (*[2] * width.pairs, 1):
        empty = value >> bits - 2 * pairs == 0
        value = torch.where(empty, value << 2 * pairs, value)
        up = up + empty * pairs
    spare = bits - table.argument_bits
    argument = value >> spare if spare >= 0 else value << -spare
    # A variance of 0 ends below the first entry.
    segment = argument >> table.step_bits
    position = argument & (1 << table.step_bits) - 1
    base, slope = _rows(config.rsqrt_bits)
    fall = slope[segment] * position >> table.slope_shift
    return (base[segment] - fall) >> GUARD, up


@functools.cache
def _rows(bits: int) -> tuple[Tensor, Tensor]:
    table = rsqrt_table(bits)
    return torch.tensor(table.base), torch.tensor(table.slope)


def layernorm(mantissa: Tensor, shift: Tensor, gamma: Tensor, beta: Tensor, zero_point: int,
              config: Config, bits: int = CODE_BITS) -> Tensor:
    """Normalise rows of decoded codes to unsigned codes of `bits` bits.

    ``x = mantissa << shift``; ``code = clamp(round(n*gamma + beta) + zero_point, 0, top)`` with
    ``n = (C*x - S) / sqrt(C*Q - S*S)`` and ``top = 2**bits - 1``. Sums, variance and differences
    are exact. Then

    1. ``u = (C*x - S) << up >> drop``, the difference with `element_fraction` fraction bits;
    2. ``n = u * root >> rsqrt_bits - 1``;
    3. ``code = saturate(round_shift(n*gamma + beta, ...) + zero_point)``: the one rounding.

    Steps 1 and 2 truncate because a product of 18 by 18 bits takes no more; together they cost
    less than ``3 * 2**-element_fraction`` of a standard deviation (0.03 output steps for a gamma of
    40 steps and 1,024 channels), for which two roundings per lane would not pay. There is no
    epsilon: a row without variance gives ``round(beta) + zero_point``.

    This is FQ-ViT's integer LayerNorm (arXiv 2111.13824, appendix) without its per-token
    multipliers of 8 bits.

    Parameters
    ----------
    mantissa
        int64 ``[..., C]``, codes minus zero point, signed mantissa_bits.
    shift
        int64 ``[C]`` or ``[..., C]``, alpha of PTF or m*flag of O-2SF.
    gamma, beta
        int64 ``[C]`` of `layernorm_parameters`.
    zero_point
        Of the output, 0 to 255.
    bits
        Width of a code, 2 to 8.

    Returns
    -------
    Tensor
        int64 ``[..., C]``, 0 to ``2**bits - 1``.

    Raises
    ------
    TypeError
        If a tensor is of a floating-point type.
    ValueError
        If C or a value is out of its range; ``mantissa << shift`` must fit norm_bits.
    """
    integers(mantissa=mantissa, shift=shift, gamma=gamma, beta=beta)
    width = NormFormat(config)
    channels = mantissa.shape[-1]
    if not 1 <= channels <= config.max_channels:
        raise ValueError(f"mantissa must have 1 to max_channels ({config.max_channels}) channels, "
                         f"not {channels}")
    _fits("mantissa", mantissa, config.mantissa_bits)
    _fits("gamma", gamma, GAMMA_BITS)
    if not 2 <= bits <= CODE_BITS:
        raise ValueError(f"bits must be 2 to {CODE_BITS}, not {bits}")
    _fits("zero_point", torch.tensor(zero_point), CODE_BITS, signed=False)
    _fits("beta + zero_point", offset(beta, zero_point), OFFSET_BITS)
    _fits("shift", shift, width.shift_bits, signed=False)
    x = mantissa.to(torch.int64) << shift
    _fits("mantissa << shift", x, config.norm_bits)

    total = x.sum(-1, keepdim=True)
    square = (x * x).sum(-1, keepdim=True)
    return normalize(x, channels, total, square, gamma, offset(beta, zero_point), config,
                     bits)


def code_mask(bits: int) -> int:
    """Return the largest code of a width, as the hardware takes a field of 4 bits.

    ``2**bits - 1``; widths beyond 8, which no code has, are 8.
    """
    return (1 << min(bits, CODE_BITS)) - 1


def normalize(x: Tensor, channels: int, total: Tensor, square: Tensor, gamma: Tensor,
              offsets: Tensor, config: Config, bits: int = CODE_BITS) -> Tensor:
    """Normalise elements of rows whose sum and sum of squares are known: steps 1 to 3.

    Parameters
    ----------
    x, channels, total, square
        As `normal` takes them.
    gamma, offsets
        int64 ``[C]``; the latter of `offset`.
    bits
        Width of a code, as `code_mask` takes it.
    """
    n = normal(x, channels, total, square, config)
    fraction = NormFormat(config).element_fraction
    # The offset has the half of the rounding in it.
    code = n * gamma + (offsets << fraction) >> fraction + FRACTION
    return saturate(code, 0, code_mask(bits))


def normal(x: Tensor, channels: int, total: Tensor, square: Tensor, config: Config) -> Tensor:
    """Return ``n`` of elements, with `element_fraction` fraction bits: steps 1 and 2.

    Parameters
    ----------
    x
        int64 ``[..., C]``, shifted elements: all of a row or some.
    channels
        Of the whole row.
    total, square
        int64 ``[..., 1]``, S and Q of the whole row.
    """
    root, up = reciprocal_root(channels * square - total * total, config)
    u = ((channels * x - total) << up) >> NormFormat(config).drop
    return u * root >> config.rsqrt_bits - 1


def _fits(name: str, value: Tensor, bits: int, *, signed: bool = True) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if value.numel() and (int(value.min()) < low or int(value.max()) > high):
        raise ValueError(f"{name} must lie in {low}..{high}, not "
                         f"{int(value.min())}..{int(value.max())}")
