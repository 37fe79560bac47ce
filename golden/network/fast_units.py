# SPDX-License-Identifier: Apache-2.0
"""Units of `golden.network.fast`: exact integers in floating point, from operands to operands."""

__all__ = ["DOUBLE", "SINGLE", "Add", "Gelu", "Norm", "Product", "Scale", "Uniform",
           "UnprovableError", "largest", "stepped", "surely"]

from collections.abc import Callable

import torch
from torch import Tensor

from golden.formats import formats
from golden.formats.formats import Format, Shifted
from golden.network.integers import Affine
from golden.units.layernorm import code_mask, offset
from golden.units.requant import Requantization, encode, operate
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import FRACTION, NormFormat
from vitforge.spec.rsqrt_table import GUARD, rsqrt_table

SINGLE, DOUBLE = 1 << 24, 1 << 53
#: Entries of a table for GeLU.
_TABLE_BITS = 20


class UnprovableError(ValueError):
    """A network whose integers may leave the significand; `inference.run` computes it."""


def largest(item: Format) -> int:
    """Greatest absolute operand of a format."""
    codes = torch.arange(1 << item.bits)
    if isinstance(item, Shifted):
        return int((codes - item.zero_point).abs().max()) << int(item.shift.max())
    return int(item.operand(codes).abs().max())


def stepped(codes: Callable[[Tensor], Tensor], form: Shifted,
            device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what makes operands of the residual stream, in double precision, of its codes."""
    step = (2.0 ** torch.as_tensor(form.shift).double()).to(device)
    return lambda tensor: codes(tensor).double().mul_(step)


def surely(operands: Tensor, weight: int) -> bool:
    """Whether no sum of operands ``[..., K]`` times weights leaves single precision."""
    # The sum itself is rounded, by far less than a 64th.
    total = float(operands.abs().sum(-1).max())
    return total * weight < SINGLE * (1 - 2.0**-6)


class Product:
    """Operands of at most `largest` by fixed weights ``[K, N]``."""

    def __init__(self, weights: Tensor, largest: int, device: torch.device) -> None:
        heavy = int(weights.abs().sum(0).max())
        self.widest = int(weights.abs().max())
        self.bound = heavy * largest
        if self.bound >= DOUBLE:
            raise UnprovableError(f"sums may reach {self.bound}")
        self.single = weights.to(device, torch.float32)
        self.sure = self.bound < SINGLE
        self.double = None if self.sure else weights.to(device, torch.float64)

    def __call__(self, operands: Tensor) -> Tensor:
        """Operands ``[..., K]``, single precision, to exact sums in double precision."""
        if self.double is None or surely(operands, self.widest):
            return (operands @ self.single).double()
        return operands.double() @ self.double


class Scale:
    """First step of a requantization: ``v``, in double precision.

    Attributes
    ----------
    low, high
        Range of results.
    """

    def __init__(self, layer: Requantization, bound: int, config: Config,
                 device: torch.device) -> None:
        bias, multiplier, shift = (torch.as_tensor(value).to(torch.int64).reshape(-1)
                                   for value in (layer.bias, layer.multiplier, layer.shift))
        self.top = (1 << config.value_bits - 1) - 1
        self.low, self.high = -self.top, self.top
        count = max(len(bias), len(multiplier), len(shift))
        factors, offsets = [], []
        for b, m, s in zip(*(value.expand(count).tolist() for value in (bias, multiplier, shift)),
                           strict=True):
            largest = (bound + abs(b)) * m
            if largest + (1 << s >> 1) < DOUBLE:
                factors.append(m * 2.0**-s)
                offsets.append(b * m * 2.0**-s + (0.5 if s else 0.0))
            elif largest < 1 << s - 1:
                factors.append(0.0)   # less than half a step, whatever comes
                offsets.append(0.0)
            else:
                raise UnprovableError(f"a product may reach {largest}")
        self.factor, self.offset = (torch.tensor(values, dtype=torch.float64, device=device)
                                    for values in (factors, offsets))
        self.one = (factors[0], offsets[0]) if count == 1 else None

    def narrow(self, low: int, high: int) -> None:
        """Saturate to a smaller range, with 0 in it, at once."""
        self.low, self.high = max(self.low, low), min(self.high, high)

    def __call__(self, acc: Tensor) -> Tensor:
        """Scale sums ``[..., N]`` in double precision, in their place."""
        if self.one:
            acc.mul_(self.one[0]).add_(self.one[1])
        else:
            torch.addcmul(self.offset, acc, self.factor, out=acc)
        return acc.floor_().clamp_(self.low, self.high)


def _round_shift(value: Tensor, factor: Tensor, half: Tensor) -> Tensor:
    """``floor(value * 2**-shift + 1/2)``, and for a shift of 0 the value, in its place."""
    return torch.addcmul(half, value, factor, out=value).floor_()


def _shifting(shift: Tensor | int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and half of `_round_shift`."""
    amount = torch.as_tensor(shift).to(torch.float64)
    return (2.0**-amount).to(device), torch.where(amount > 0, 0.5, 0.0).double().to(device)


class Uniform:
    """A linear layer whose codes are uniform: to operands, in single precision."""

    def __init__(self, layer: Requantization, bound: int, zero: int, config: Config,
                 device: torch.device) -> None:
        self.scale = Scale(layer, bound, config, device)
        self.shift = None
        if bool((torch.as_tensor(layer.encode_shift) != 0).any()):
            self.shift = _shifting(layer.encode_shift, device)
        encoding = layer.encoding
        self.low = -encoding.zero_point
        self.high = (1 << encoding.bits) - 1 - encoding.zero_point
        # Where the reader's zero point is another one; that of all parts is the same.
        self.moved = encoding.lowest + encoding.zero_point - zero
        self.ends: tuple[Tensor, ...] | None = None
        if layer.parts:
            assert len({part.lowest + part.zero_point for part in layer.parts}) == 1
            channels = torch.as_tensor(layer.multiplier).numel() // len(layer.parts)
            self.ends = tuple(
                torch.tensor(ends, dtype=torch.float64).repeat_interleave(channels).to(device)
                for ends in zip(*((-part.zero_point, (1 << part.bits) - 1 - part.zero_point)
                                  for part in layer.parts), strict=True))
        elif not self.shift:
            self.scale.narrow(self.low, self.high)

    def __call__(self, acc: Tensor) -> Tensor:
        value = self.scale(acc)
        if self.shift:
            value = _round_shift(value, *self.shift)
        if self.ends:
            value = value.clamp_(*self.ends)
        elif self.shift:
            value = value.clamp_(self.low, self.high)
        value = value.float()
        return value.add_(self.moved) if self.moved else value


class Gelu:
    """The first layer of an MLP: to the next layer's operands."""

    def __init__(self, requantization: Requantization, bound: int, reader: Format, config: Config,
                 device: torch.device) -> None:
        if config.value_bits > _TABLE_BITS:
            raise UnprovableError(f"value_bits of {config.value_bits} make too large a table")
        self.scale = Scale(requantization, bound, config, device)
        values = torch.arange(-self.scale.top, self.scale.top + 1)
        codes = encode(operate(values, requantization, config), requantization.encoding,
                       requantization.encode_shift, config)
        self.table = reader.operand(codes).float().to(device)

    def __call__(self, acc: Tensor) -> Tensor:
        index = self.scale(acc).add_(self.scale.top).to(torch.int32)
        return self.table.index_select(0, index.flatten()).reshape(index.shape)


class Add:
    """The end of a branch: to operands of the residual stream, in double precision."""

    def __init__(self, layer: Requantization, bound: int, after: Shifted, config: Config,
                 device: torch.device) -> None:
        self.scale = Scale(layer, bound, config, device)
        self.factor = layer.multiplier2 * 2.0 ** -(
            config.factor_bits + config.norm_bits - config.value_bits)
        self.half = 0.5 if config.factor_bits + config.norm_bits > config.value_bits else 0.0
        self.shift = _shifting(layer.encode_shift, device)
        self.low = -layer.encoding.zero_point
        self.high = (1 << layer.encoding.bits) - 1 - layer.encoding.zero_point
        self.moved = layer.encoding.zero_point - after.zero_point
        self.step = (2.0 ** torch.as_tensor(after.shift).double()).to(device)

    def __call__(self, acc: Tensor, residual: Tensor) -> Tensor:
        value = self.scale(acc).add_((residual * self.factor).add_(self.half).floor_())
        code = _round_shift(value, *self.shift).clamp_(self.low, self.high)
        return code.add_(self.moved).mul_(self.step)


class _Root:
    """`units.layernorm.reciprocal_root`: what the two factors of a row are multiplied with."""

    def __init__(self, config: Config, device: torch.device) -> None:
        width, table = NormFormat(config), rsqrt_table(config.rsqrt_bits)
        self.table, self.bits = table, width.variance_bits
        up = torch.arange(self.bits // 2 + 1, dtype=torch.float64)
        # Exact for integers.
        self.scale = torch.exp2(up - width.drop).to(device)
        self.lift = torch.exp2(2 * up - (self.bits - table.argument_bits)).to(device)
        self.base, self.slope = (torch.tensor(values, device=device)
                                 for values in (table.base, table.slope))
        self.down = 2.0 ** -(config.rsqrt_bits - 1)

    def __call__(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Variances ``[..., 1]``, integers, to ``root * 2**-(rsqrt_bits-1)`` and ``2**(up-drop)``.

        A variance of 0 gives two numbers that mean nothing.
        """
        flat = variance.flatten()
        up = (self.bits - torch.frexp(flat).exponent) >> 1   # pairs of leading zeros
        argument = (flat * self.lift.index_select(0, up)).to(torch.int64)
        segment = argument >> self.table.step_bits
        position = argument & (1 << self.table.step_bits) - 1
        fall = self.slope.index_select(0, segment) * position >> self.table.slope_shift
        root = self.base.index_select(0, segment) - fall >> GUARD
        return ((root.double() * self.down).reshape(variance.shape),
                self.scale.index_select(0, up).reshape(variance.shape))


class Norm:
    """LayerNorm of operands of the stream: to operands, in single precision."""

    def __init__(self, affine: Affine, form: formats.Uniform | Shifted, config: Config,
                 device: torch.device) -> None:
        self.channels, width = len(affine.gamma), NormFormat(config)
        bits = max(2 * width.root_bits, width.difference_bits + width.drop,
                   width.element_bits + config.rsqrt_bits, width.element_bits + 20)
        if bits > 50:
            raise UnprovableError(f"LayerNorm's integers may have {bits} bits")
        self.root = _Root(config, device)
        down = 2.0 ** -(width.element_fraction + FRACTION)
        self.gamma = (affine.gamma.double() * down).to(device)
        self.offset = (offset(affine.beta, form.zero_point).double() * 2.0**-FRACTION).to(device)
        self.zero_point, self.top = form.zero_point, code_mask(form.bits)

    def __call__(self, x: Tensor) -> Tensor:
        total = x.sum(-1, keepdim=True)
        square = torch.mul(x, x)
        variance = square.sum(-1, keepdim=True).mul_(self.channels).sub_(total * total)
        root, scale = self.root(variance)
        # All of these are exact: powers of two, and integers of less than 50 bits.
        u = torch.addcmul(-total * scale, x, scale * self.channels, out=square).floor_()
        n = u.mul_(root).floor_()
        code = torch.addcmul(self.offset, n, self.gamma, out=n).floor_()
        return code.clamp_(0, self.top).sub_(self.zero_point).float()
