# SPDX-License-Identifier: Apache-2.0
"""Steps for a requantizer that only shifts: every ratio that it applies is a power of two.

A step is made coarser, by less than a factor of two, until it is a power of two times its unit: the
step of the result over the other factors of the product. So codes lose less than one bit, and the
requantization none; but the step of scores or context is never below its unit. It is what
accelerators without a multiplier behind the array ask for. Weights so narrow that their step would
have to be shifted left are refused where the network is built.
"""

__all__ = ["coarser", "weight_unit"]

from collections.abc import Mapping

import torch
from torch import Tensor

from golden.formats.formats import Format
from golden.network.ops import Requantize
from golden.units.requant_parameters import value_step
from vitforge.spec.config import Config


def coarser(step: Tensor | float, unit: Tensor | float) -> Tensor:
    """Return the least ``unit * 2**n`` that is not below a step, float64."""
    fraction, exponent = torch.frexp(torch.as_tensor(step, dtype=torch.float64) / unit)
    power = torch.ldexp(torch.ones_like(fraction), exponent)
    return unit * torch.where(fraction == 0.5, power / 2, power)


def weight_unit(source: str, reader: Requantize, formats: Mapping[str, Format], config: Config,
                ) -> Tensor:
    """Return the unit of the weights of a layer whose result is requantized, ``[C]`` or one.

    Parameters
    ----------
    source
        The tensor that the layer reads.
    reader
        What requantizes its sums.
    formats
        Of all activations of a `golden.network.plan.Plan`.
    """
    def step(tensor: str) -> Tensor:
        return torch.as_tensor(formats[tensor].scale, dtype=torch.float64)

    if reader.roles[0] == "gelu":
        return value_step(config) / step(source)
    steps = [step(name) for name in reader.writes]
    wide = [item.expand(max(item.numel() for item in steps)) for item in steps]
    return (torch.cat(wide) if len(wide) > 1 else steps[0]) / step(source)
