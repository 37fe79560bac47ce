# SPDX-License-Identifier: Apache-2.0
"""How many products the multipliers make of a layer's weights and tokens, and why not more."""

__all__ = ["Mode", "choose"]

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gen.compiler.check import operand_bound
from gen.compiler.steps import minimal_bits, pass_fields
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import MODES
from vitforge.spec.sizes import columns, doubled, paired

_FORMATS = {number: name for name, number in FORMATS.items()}


@dataclass(frozen=True)
class Mode:
    """How a layer's weights come to the array, and its tokens.

    Attributes
    ----------
    config
        The configuration.
    bits
        Width of its weights in the stream, one by one.
    pair
        Width of an element of two of them; 0 if the layer's passes are single.
    quad
        Whether two tokens share a multiplier.
    why
        What is too wide for pairs, where the array has them.
    alone
        What keeps two tokens from sharing, where others do.
    """

    config: Config
    bits: int
    pair: int = 0
    quad: bool = False
    why: str = ""
    alone: str = ""

    @property
    def columns(self) -> int:
        """Channels of a pass at most."""
        return columns(self.config) if self.pair else self.config.cols

    def fields(self, channels: int, *, alone: bool = False) -> dict[str, int]:
        """Fields of a PASS that makes so many channels: no pairs where all fit without.

        Parameters
        ----------
        alone
            Its tokens come one by one, whatever the others' do.
        """
        two = channels > self.config.cols
        name = "quad" if self.quad and not alone else "pair" if self.pair and two else "single"
        return {"mode": MODES[name], "weight_bits": self.pair if self.pair and two else self.bits}

    def more(self, number: int, tokens: int, tiles: int) -> tuple[str, int]:
        """Why a call's pass takes more words of operands than it need, and how many more.

        Without pairs, every other pass would be the upper half of the one before. (What tokens that
        don't share cost too is not said then.)
        """
        if self.why:
            return f"{self.why}, so no pairs of weights", tokens * tiles * (number % 2)
        if self.alone:
            return f"{self.alone}, so one token at a time", tokens // 2 * tiles
        return "", 0


def choose(weights: Tensor, operand: Mapping[str, int], config: Config, *, quad: str = ""
           ) -> Mode:
    """Choose pairs for a layer if its weights and its operands fit them.

    Parameters
    ----------
    weights
        Integers of the layer.
    operand
        Fields of its passes that say what operands are.
    quad
        What keeps its tokens from sharing multipliers too (`gen.compiler.halves`); "": nothing.
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
    pair = narrow + config.packed_weight_bits
    if not doubled(config):
        return Mode(config, bits, pair)
    return Mode(config, bits, pair, quad=not quad, alone=quad)
