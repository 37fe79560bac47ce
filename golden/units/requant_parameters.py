# SPDX-License-Identifier: Apache-2.0
"""From real scales to the integers of the requantizer: calibration only, never in the datapath."""

__all__ = ["dyadic", "gelu_multiplier", "residual_multiplier", "value_step"]

import math

from vitforge.spec.config import Config
from vitforge.spec.gelu import FRACTION_OFFSET


def dyadic(ratio: float, config: Config) -> tuple[int, int]:
    """Return (multiplier, shift) with ``multiplier / 2**shift`` next to `ratio`.

    The multiplier has all its `multiplier_bits` unless the shift would pass 63: a relative error of
    at most ``2**-multiplier_bits``.

    Raises
    ------
    ValueError
        If the ratio isn't positive and finite, or is ``2**multiplier_bits`` or more.
    """
    if not (0 < ratio < math.inf):
        raise ValueError(f"ratio must be positive and finite, not {ratio}")
    shift = min(63, config.multiplier_bits - math.frexp(ratio)[1])
    multiplier = round(math.ldexp(ratio, shift))
    if multiplier >> config.multiplier_bits:
        multiplier, shift = multiplier + 1 >> 1, shift - 1
    if shift < 0:
        raise ValueError(f"ratio must be below 2**{config.multiplier_bits}, not {ratio}")
    return multiplier, shift


def value_step(config: Config) -> float:
    """Step of GeLU's input, ``2**-(value_bits-5)``: it spans +-16."""
    return 2.0 ** (FRACTION_OFFSET - config.value_bits)


def _factor(name: str, ratio: float, fraction: int, config: Config) -> int:
    multiplier = round(math.ldexp(ratio, fraction)) if 0 <= ratio < math.inf else -1
    if not 0 <= multiplier < 1 << config.factor_bits:
        limit = math.ldexp((1 << config.factor_bits) - 1, -fraction)
        raise ValueError(f"{name} must lie in 0..{limit}, not {ratio}")
    return multiplier


def gelu_multiplier(code_step: float, config: Config) -> tuple[int, int]:
    """Return (multiplier2, encode_shift) that make GeLU's codes have a step.

    The step of y is ``code_step / 2**encode_shift``, in [1, 2) steps of GeLU's input, so that it
    costs no accuracy.

    Raises
    ------
    ValueError
        If `code_step` isn't larger than a step of GeLU's input, or too large to shift to.
    """
    shift = math.floor(math.log2(code_step / value_step(config)))
    ratio = value_step(config) * 2**shift / code_step
    top = 1 - 2.0 ** -config.factor_bits
    if not 0 <= shift <= 15:
        raise ValueError(f"code_step must lie in {value_step(config)}.."
                         f"{value_step(config) * 2**16}, not {code_step}")
    return _factor("gelu ratio", min(ratio, top), config.factor_bits, config), shift


def residual_multiplier(ratio: float, config: Config) -> int:
    """Return multiplier2 for a residual whose step is `ratio` steps of v.

    Raises
    ------
    ValueError
        If the ratio is ``2**(value_bits - norm_bits)`` or more: the largest residual would leave
        the range of v.
    """
    return _factor("residual ratio", ratio,
                   config.factor_bits + config.norm_bits - config.value_bits, config)
