# SPDX-License-Identifier: Apache-2.0
"""From the decided formats of activations to those that the datapath has.

Every function returns a format and the reason why it isn't the decided one, empty if it is.
"""

__all__ = ["Found", "deploy_gelu", "deploy_projection", "deploy_scores",
           "deploy_stream", "deploy_uniform"]

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.formats.formats import Format, Shifted, TwoScale, Uniform
from golden.formats.ptf import PowerOfTwoFactor
from golden.network.calibrate import power_of_two_stream, two_scale
from golden.network.plan import levels
from golden.ptq.formats import TensorFormat
from golden.ptq.scores import score_search
from golden.ptq.statistics import Observed
from golden.units.requant_parameters import value_step
from golden.units.softmax import softmax_scale
from vitforge.spec.config import Config

_FLOAT = "the method leaves it in floating point; on the datapath it is codes"


@dataclass(frozen=True)
class Found:
    """A format of the datapath, and why it isn't the decided one, if so."""

    format: Format
    why: str = ""


Seen = Callable[[], Observed]
"""Gives what calibration saw, where it is needed."""


def _one(item: TensorFormat | None) -> bool:
    """Whether a format is uniform with one scale and one zero point."""
    return (item is not None and item.kind == "uniform" and not isinstance(item.scale, tuple)
            and not isinstance(item.zero_point, tuple))


def _unsigned(item: TensorFormat) -> Uniform:
    assert isinstance(item.scale, float) and isinstance(item.zero_point, int)
    zero = item.zero_point + ((1 << item.bits - 1) if item.signed else 0)
    return Uniform(scale=item.scale, bits=item.bits, zero_point=zero)


def _range(seen: Observed, bits: int) -> Uniform:
    return Uniform.of_range(float(seen.low.min()), float(seen.high.max()), bits)


def deploy_uniform(item: TensorFormat | None, seen: Seen) -> Found:
    """Uniform unsigned codes with one scale and zero point; else min-max of 8 bits."""
    if item is not None and _one(item):
        return Found(_unsigned(item))
    if item is None:
        return Found(_range(seen(), 8), _FLOAT)
    return Found(_range(seen(), item.bits), "codes are uniform here, min-max of calibration")


def deploy_scores(item: TensorFormat | None, seen: Seen, config: Config) -> Found:
    """Codes of the scores, of a scale that softmax takes, and of no more bits than decided.

    Where the decided scale is none of those, the nearest one is taken with the same zero point: a
    smaller one covers less at both ends.
    """
    found = deploy_uniform(item, seen) if item is not None else Found(
        _unsigned(score_search(seen(), 8)), _FLOAT)
    plain, widest = found.format, min(8, config.score_bits)
    assert isinstance(plain, Uniform)
    if plain.bits > widest:
        low, high = (float(plain.scale) * code for code in
                     (-plain.zero_point, (1 << plain.bits) - 1 - plain.zero_point))
        plain = Uniform.of_range(low, high, widest)
    for step in range(2000):
        for factor in (0.99**step, 0.99**-step):
            if _taken(scale := float(plain.scale) * factor, config):
                if scale == float(found.format.scale):
                    return found
                return Found(dataclasses.replace(plain, scale=scale),
                             "the scale must be one that the integer softmax takes")
    raise ValueError(f"no score scale near {float(plain.scale):g} is one that softmax takes")


def _taken(scale: float, config: Config) -> bool:
    """Whether the configuration's softmax takes scores of a scale."""
    try:
        softmax_scale(scale, config)
    except ValueError:
        return False
    return True


def deploy_projection(item: TensorFormat | None, seen: Seen, config: Config) -> Found:
    """Codes of Q, K or V: K and V take the place of weights, of `weight_bits`, Q is made with them.

    The codes stand around the middle of `weight_bits`, where a weight is the code less the middle.
    Those of fewer bits fit there as they are, whatever their zero point. Of those that don't fit a
    symmetric step covers the range.
    """
    container = config.weight_bits
    if item is None or not _one(item):
        source, why = _range(seen(), 8 if item is None else item.bits), _FLOAT \
            if item is None else "one scale for all"
    else:
        source, why = _unsigned(item), ""
    half, codes = 1 << container - 1, 1 << source.bits
    if 0 <= half - source.zero_point <= 2 * half - codes:
        return Found(source, why)
    width = min(source.bits, container)
    below, above = source.zero_point, codes - 1 - source.zero_point
    scale = max(below, above) * float(source.scale) / ((1 << width - 1) - 1)
    return Found(Uniform(scale=scale, bits=width, zero_point=1 << width - 1),
                 why or "K and V are stationary operands, which have no zero point, and Q is made "
                 "with them: symmetric")


def deploy_stream(item: TensorFormat | None, rows: Callable[[], Tensor], channels: int,
                  config: Config) -> Found:
    """Codes of the residual stream: one scale, and a shift for each channel."""
    if item is None:
        return Found(power_of_two_stream(rows(), config), _FLOAT)
    allowed = levels(config) - 1
    if item.kind == "shifted":
        found = item.exact()
        assert isinstance(found, Shifted)
        if max(item.shift) <= allowed:
            return Found(found)
        return Found(_fewer_shifts(found, rows(), allowed),
                     f"shifts are at most {allowed} for LayerNorm inputs of {config.norm_bits} "
                     "bits")
    if _one(item):
        plain = _unsigned(item)
        return Found(Shifted(scale=plain.scale, bits=plain.bits, zero_point=plain.zero_point,
                             shift=torch.zeros(channels, dtype=torch.int64)))
    return Found(power_of_two_stream(rows(), config, item.bits),
                 "one scale, and powers of two for the channels")


def _fewer_shifts(found: Shifted, rows: Tensor, allowed: int) -> Shifted:
    """Choose the scale by powers of two, and every channel's shift, by least squared error."""
    rows = rows.float()
    best, least = found, float("inf")
    for coarser in range(int(found.shift.max()) - allowed + 1):
        scale = float(found.scale) * 2.0**coarser
        errors = []
        for shift in range(allowed + 1):
            item = PowerOfTwoFactor(scale, found.zero_point,
                                    torch.full((rows.shape[1],), shift), found.bits)
            errors.append((item.dequantize(item.quantize(rows)) - rows).square().sum(0))
        table = torch.stack(errors)
        if (error := float(table.amin(0).sum())) < least:
            best, least = Shifted(scale=scale, bits=found.bits, zero_point=found.zero_point,
                                  shift=table.argmin(0)), error
    return best


def deploy_gelu(item: TensorFormat | None, seen: Seen, config: Config) -> Found:
    """Codes of GeLU's result, uniform or two-scale, if the configuration has those."""
    if "two-scale" not in config.result_formats:
        return deploy_uniform(item, seen)
    if item is None:
        return Found(two_scale(seen().all_rows, config), _FLOAT)
    if item.kind == "two-scale":
        return _two_scale(item, config)
    found = deploy_uniform(item, seen)
    return Found(found.format, found.why)


def _two_scale(item: TensorFormat, config: Config) -> Found:
    assert isinstance(item.scale, float)
    scale, m, why = item.scale, item.m, ""
    # The larger scale stays what it is; the smaller can't be finer than GeLU's own result, and
    # operands must fit the array.
    while m > 0 and (scale < value_step(config) or item.bits - 1 + m > config.operand_bits):
        scale, m = scale * 2, m - 1
        why = f"the fine scale is at least GeLU's step, {value_step(config):g}"
    return Found(TwoScale(scale=scale, bits=item.bits, m=m, signed=item.signed), why)
