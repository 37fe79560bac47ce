# SPDX-License-Identifier: Apache-2.0
"""Whether the multipliers take two of a layer's weights at once, and why not."""

__all__ = ["Mode", "choose"]

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gen.compiler.check import operand_bound
from gen.compiler.steps import minimal_bits, pass_fields
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import MODES
from vitforge.spec.sizes import columns, paired

_FORMATS = {number: name for name, number in FORMATS.items()}


@dataclass(frozen=True)
class Mode:
    """How a layer's weights come to the array.

    Attributes
    ----------
    config
        The configuration.
    bits
        Width of its weights in the stream, one by one.
    pair
        Width of an element of two of them; 0 if the layer's passes are single.
    why
        What is too wide for pairs, where the array has them.
    """

    config: Config
    bits: int
    pair: int = 0
    why: str = ""

    @property
    def columns(self) -> int:
        """Channels of a pass at most."""
        return columns(self.config) if self.pair else self.config.cols

    def fields(self, channels: int) -> dict[str, int]:
        """Fields of a PASS that makes so many channels: no pairs where all fit without."""
        if self.pair and channels > self.config.cols:
            return {"mode": MODES["pair"], "weight_bits": self.pair}
        return {"mode": MODES["single"], "weight_bits": self.bits}

    def more(self, number: int, words: int) -> int:
        """Words of operands that a call's pass takes for want of pairs, of all its `words`.

        Every other pass would be the upper half of the one before.
        """
        return words * (number % 2) if self.why else 0


def choose(weights: Tensor, operand: Mapping[str, int], config: Config) -> Mode:
    """Choose pairs for a layer if its weights and its operands fit them.

    Parameters
    ----------
    weights
        Integers of the layer.
    operand
        Fields of its passes that say what operands are.
    """
    bits = minimal_bits(weights, config)
    if not paired(config):
        return Mode(config, bits)
    top = int(weights.abs().max())
    narrow = max(2, top.bit_length() + 1)
    if narrow > config.packed_weight_bits:
        return Mode(config, bits, why=f"weights up to {top}")
    fields = pass_fields(**operand)
    reach = operand_bound(fields)
    # The least operand of two-scale codes may be all of the range; no largest one is.
    if reach > 1 << config.mantissa_bits - 1:
        return Mode(config, bits, why=f"{_FORMATS[fields['operand_format']]} operands up to "
                                      f"{reach}")
    return Mode(config, bits, narrow + config.packed_weight_bits)
