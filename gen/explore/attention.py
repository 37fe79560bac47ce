# SPDX-License-Identifier: Apache-2.0
"""Attention probabilities in the other formats, in the integer network.

The softmax unit then gives probabilities in steps of ``2**-15`` (``attention = "linear"``), and the
requantizer makes the codes. Formats are fitted to the calibration images by the least squared
error, block by block: m of the two scales (after OPT-m of MPTQ-ViT, arXiv 2401.14895), the slope of
the tangent table (after TanQ of DopQ-ViT, arXiv 2408.03291). Both are reconstructions.
"""

__all__ = ["with_attention"]

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from golden.calibrate import observations
from golden.encoding import Encoding, encode
from golden.formats import TwoScale
from golden.network import Attention, Network, image_codes
from golden.requant_parameters import dyadic
from golden.tangent import tangent_levels, tangent_thresholds
from golden.vit import Vit
from hw.config import Config

#: Fraction bits of a probability.
STEPS = 15
#: Values of a tensor that a fit looks at.
SEARCHED = 50_000
#: Operand that stands for a probability of 1 in the table format.
TOP = 255


class _Coded:
    """A format behind the probabilities: `decode` takes these, and gives operands of its codes."""

    def __init__(self, encoding: Encoding, shift: int, scale: float, config: Config,
                 levels: Tensor | None = None) -> None:
        self.encoding, self.shift, self.scale = encoding, shift, scale
        self.config, self.levels = config, levels

    def decode(self, probability: Tensor) -> tuple[Tensor, Tensor]:
        code = encode(probability, self.encoding, self.shift, self.config)
        if self.encoding.kind == "two-scale":
            return TwoScale(scale=self.scale, bits=self.encoding.bits,
                            m=self.encoding.m).decode(code)
        mantissa = code if self.levels is None else self.levels[code]
        return mantissa, torch.zeros_like(mantissa)

    def error(self, probability: Tensor) -> float:
        """Mean squared error, of probabilities of 0 to ``2**15``."""
        mantissa, shift = self.decode(probability)
        real = (mantissa << shift).double() * self.scale
        return float((real - probability.double() / (1 << STEPS)).square().mean())


def _candidates(name: str, config: Config) -> Iterator[_Coded]:
    kind, _, digits = name.rpartition("-")
    bits = int(digits)
    if kind == "uniform":
        yield _Coded(Encoding(bits=bits), STEPS - bits, 2.0**-bits, config)
    elif kind == "two-scale":
        # Region 1 ends at 1, whatever m is.
        for m in range(1, STEPS - bits + 2):
            places = bits - 1 + m
            if places <= config.operand_bits - 1 and bits <= config.mantissa_bits:
                yield _Coded(Encoding(kind=kind, bits=bits, m=m), STEPS - places, 2.0**-places,
                             config)
    else:
        for percent in range(20, 156, 5):
            slope = percent / 100
            levels = torch.tensor([math.floor(level * TOP + 0.5)
                                   for level in tangent_levels(bits, slope)])
            least = tuple(math.ceil(level * (1 << STEPS))
                          for level in tangent_thresholds(bits, slope))
            yield _Coded(Encoding(kind="table", bits=bits, thresholds=least), 0, 1 / TOP, config,
                         levels)


def with_attention(network: Network, model: Vit, images: Tensor, name: str) -> Network:
    """Give a calibrated network another format of attention.

    Parameters
    ----------
    network
        Calibrated with log2 attention.
    model, images
        What it was calibrated from.
    name
        "uniform-b", "two-scale-b" or "table-b" of b bits.

    Raises
    ------
    ValueError
        If a probability of 1 doesn't fit `value_bits`.
    """
    config = dataclasses.replace(network.config, attention="linear")
    if config.value_bits < STEPS + 1:
        raise ValueError(f"value_bits must be at least {STEPS + 1} for {name} attention, "
                         f"not {config.value_bits}")
    seen = observations(model, image_codes(images, network.spec).to(torch.float32) / 255)
    blocks = []
    for index, block in enumerate(network.blocks):
        real = seen[f"blocks.{index}.attn.softmax"].flatten()
        real = real[::max(1, real.numel() // SEARCHED)]
        steps = (real.double() * (1 << STEPS)).round().to(torch.int64)
        found = min(_candidates(name, config), key=lambda item: item.error(steps))
        blocks.append(dataclasses.replace(block, attention=_attention(block.attention, found)))
    return dataclasses.replace(network, config=config, blocks=tuple(blocks))


def _attention(layer: Attention, found: _Coded) -> Attention:
    """Requantize the context from the new format's scale."""
    old, config = layer.context, found.config
    multiplier, shift = torch.as_tensor(old.multiplier), torch.as_tensor(old.shift)
    ratio = multiplier.double() / 2.0 ** shift.double() * found.scale / layer.probability.scale
    pairs = [dyadic(value, config) for value in ratio.tolist()]
    context = dataclasses.replace(old, multiplier=torch.tensor([m for m, _ in pairs]),
                                  shift=torch.tensor([s for _, s in pairs]))
    # The network only decodes.
    format_: Any = found
    return dataclasses.replace(layer, probability=format_, context=context)
