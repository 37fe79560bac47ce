# SPDX-License-Identifier: Apache-2.0
"""The integer softmax of `network.fast`: score codes to operands, with the bits of `units.softmax`.

A score code has 8 bits, so its exponent and its power are entries of tables. The rest is the sum
of powers in the order of the hardware, and a table again: from the distance to the row's offset to
the operand that the code stands for.

In single precision, a power times a power of two is exact while it is a normal number, or far
below 1, which is nothing; and an exponent of up to 24 bits is exact. Where either may not be so,
double precision is taken.
"""

__all__ = ["FastSoftmax"]

import torch
from torch import Tensor

from golden.formats.formats import Format
from golden.units.softmax import (
    LevelScale,
    PolynomialScale,
    ShiftScale,
    log_softmax,
    row_offset,
    statistics,
)
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.probability_levels import FRACTION, Levels
from vitforge.spec.softmax_widths import ShiftWidths

#: Powers of two beyond which a number is not normal in single precision.
_NORMAL = 126


class FastSoftmax:
    """Softmax of one attention layer.

    Parameters
    ----------
    scale, codes
        Of the scores, and the format of the probabilities.
    tokens
        Keys of a row; codes behind them are padding.

    Attributes
    ----------
    largest
        Greatest operand that comes out.
    """

    def __init__(self, scale: ShiftScale | PolynomialScale, codes: Format, tokens: int,
                 config: Config, device: torch.device) -> None:
        self.scale, self.codes, self.tokens, self.config = scale, codes, tokens, config
        self.half = 1 << min(CODE_BITS, config.score_bits) - 1
        if isinstance(scale, PolynomialScale):
            self.largest = 1 << -int(torch.tensor(float(codes.scale)).log2())
            return
        self.widths = ShiftWidths(config)
        scores = torch.arange(2 * self.half) - self.half
        # A row of one key: its reference is the exponent's integer part, its sum the power.
        references, powers = statistics(scores[:, None], torch.ones(len(scores), 1).bool(),
                                        scale, config)
        # A power has `sum_fraction` bits, and one more, before its exponent.
        top = int(references.abs().max()) + self.widths.sum_fraction + 1
        exact = torch.float32 if top <= _NORMAL else torch.float64
        self.references = references.double().to(device)
        self.powers = (powers.double() * 2.0 ** references.double()).to(device, exact)
        self.inverses = (2.0 ** -references.double()).to(device, exact)
        # What is left of a sum when the reference grows; nothing beyond its fraction bits.
        grown = torch.arange(self.widths.sum_fraction + 2)
        self.falls = torch.where(grown > self.widths.sum_fraction, 0,
                                 torch.exp2(-grown.double())).to(device)
        # log2 of numbers from 1 to 2, by their fraction bits.
        one = 1 << self.widths.fraction
        self.logarithms = row_offset(torch.tensor(0), (one + torch.arange(one)) << max(
            0, self.widths.sum_fraction - self.widths.fraction), self.widths).double().to(device)
        # A word's keys are at most 2.0 each.
        single = exact == torch.float32 and config.lanes << self.widths.sum_fraction + 1 < 1 << 24
        self.summed = torch.float32 if single else torch.float64
        if config.attention == "log2":
            self._logarithmic(scale, scores, device)
        else:
            assert isinstance(scale, LevelScale)
            self._levels(scale, scores, device)
        self.largest = int(self.table.max())

    def _logarithmic(self, scale: ShiftScale, scores: Tensor, device: torch.device) -> None:
        """Prepare ``(offset - exponent + 1/2) >> fraction``, and what its results stand for."""
        widths = self.widths
        surplus = widths.multiplier_fraction - widths.fraction
        product = scores * scale.multiplier
        exponents = product >> surplus if surplus >= 0 else product << -surplus
        exact = torch.float32 if widths.offset < 24 else torch.float64
        step = 2.0**-widths.fraction
        self.exponents = (exponents.double() * step).to(device, exact)
        self.row_scale, self.row_shift = step, 0.5
        self.low = 0
        self.table = self.codes.operand(
            torch.arange(1 << self.config.attention_bits)).float().to(device)

    def _levels(self, scale: LevelScale, scores: Tensor, device: torch.device) -> None:
        """Prepare the index of `golden.units.softmax_levels`, and its entries as operands."""
        widths, levels = self.widths, Levels(self.config)
        places = max(widths.multiplier_fraction, widths.fraction)
        unit = 2.0 ** -(places - FRACTION)
        product = scores * scale.multiplier << places - widths.multiplier_fraction
        self.exponents = (product.double() * unit).to(device)
        self.row_scale = 2.0 ** (FRACTION - widths.fraction)
        self.row_shift = scale.shift - unit   # less an infinitesimal: one step of the product
        size = 1 << levels.index_bits
        self.low = -(scale.m << FRACTION) if levels.regions else 0
        entries = torch.tensor((*levels.entries, 0)).reshape(-1)
        entries = torch.cat((entries[:-1].reshape(levels.tables, size)[
            scale.m % levels.tables], entries[-1:]))
        index = torch.arange(self.low, size + 1)
        region = (index < 0).to(torch.int64) if levels.regions else torch.zeros_like(index)
        moved = index + region * (scale.m << FRACTION)
        # The last entry is what lies beyond; a large m moves all of the low region there.
        self.table = (entries[moved.clamp(max=size)] << scale.m * region).float().to(device)

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes ``[..., keys, T]``, double precision, to operands in single precision."""
        if isinstance(self.scale, PolynomialScale):
            return self._polynomial(codes)
        index = codes.to(torch.int32)
        index[..., self.tokens:, :] = 0   # the lowest score, which no reference is below
        flat = index.flatten()
        row = self._offsets(index, flat).mul_(self.row_scale).add_(self.row_shift)
        exponents = self.exponents.index_select(0, flat).reshape(index.shape)
        place = torch.sub(row.to(exponents.dtype)[..., None, :], exponents, out=exponents).floor_()
        place.clamp_(self.low, len(self.table) - 1 + self.low).sub_(self.low)
        operands = self.table.index_select(0, place.to(torch.int32).flatten())
        operands = operands.reshape(index.shape)
        operands[..., self.tokens:, :] = 0
        return operands

    def _offsets(self, index: Tensor, flat: Tensor) -> Tensor:
        """Offset of every row, from the sum in the order of the hardware."""
        powers = self.powers.index_select(0, flat).reshape(index.shape)
        powers[..., self.tokens:, :] = 0
        split = (*index.shape[:-2], -1, self.config.lanes, index.shape[-1])
        largest = index.reshape(split).amax(-2)
        for word in range(1, largest.shape[-2]):
            torch.maximum(largest[..., word - 1, :], largest[..., word, :],
                          out=largest[..., word, :])
        inverse = self.inverses.index_select(0, largest.flatten()).reshape(largest.shape)
        words = powers.reshape(split).mul_(inverse[..., None, :]).floor_().sum(
            -2, dtype=self.summed).double()
        reference = self.references.index_select(0, largest.flatten()).reshape(largest.shape)
        growth = reference.diff(dim=-2).clamp_max_(len(self.falls) - 1).to(torch.int32)
        factors = self.falls.index_select(0, growth.flatten()).reshape(growth.shape)
        total = words[..., 0, :]
        for word in range(1, words.shape[-2]):
            total = (total * factors[..., word - 1, :]).floor_().add_(words[..., word, :])
        return self._logarithm(reference[..., -1, :], total)

    def _logarithm(self, reference: Tensor, total: Tensor) -> Tensor:
        """`golden.units.softmax.row_offset` of a sum of at least 1.0, in double precision."""
        one = 1 << self.widths.fraction
        mantissa, exponent = torch.frexp(total)
        fraction = mantissa.mul_(2 * one).floor_().to(torch.int32) - one
        logarithm = self.logarithms.index_select(0, fraction.flatten()).reshape(total.shape)
        position = reference + exponent - (1 + self.widths.sum_fraction)
        return position.mul_(one).add_(logarithm)

    def _polynomial(self, codes: Tensor) -> Tensor:
        """Return the codes of FQ-ViT's exponential, by their definition."""
        scores = codes[..., :self.tokens, :].transpose(-2, -1).cpu().to(torch.int64) - self.half
        found = log_softmax(scores, torch.ones_like(scores, dtype=torch.bool), self.scale,
                            self.config)
        operands = self.codes.operand(found).float().to(codes.device)
        padding = (0, codes.shape[-2] - self.tokens)
        return torch.nn.functional.pad(operands, padding).transpose(-2, -1)
