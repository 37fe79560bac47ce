# SPDX-License-Identifier: Apache-2.0
"""The integer network at the speed of floating point, with the same bits.

`golden.network.run.run` is the definition, and works on integers alone. `Fast` computes the same
logits with floating-point units, which are exact as long as no integer leaves their significand: 24
bits in single and 53 in double precision. That is proved, not hoped for:

- a product of operands and weights is taken in single precision if ``sum |operand| * |weight|``
  is below ``2**24``, with the greatest sum of a column's weights and the greatest operand of the
  format, or, where that is not enough, the greatest sum of a row's operands; else in double
  precision, with ``2**53``. Every partial sum is within the same bound, whatever the order;
- requantization, ``floor((acc + bias) * multiplier / 2**shift + 1/2)``, is exact in double
  precision if ``|acc + bias| * multiplier + 2**(shift-1)`` is below ``2**53``: all terms are
  multiples of ``2**-shift``;
- LayerNorm's integers have at most 50 bits (`vitforge.spec.layernorm_widths`), checked from the
  configuration.

GeLU and the code behind it are one table of all `value_bits` inputs. Softmax is
`golden.network.fast_softmax`.
"""

__all__ = ["Fast", "UnprovableError", "pixel_network"]

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from golden.float.models import Preprocessing
from golden.formats.formats import Format, Shifted
from golden.network.fast_softmax import FastSoftmax
from golden.network.run import Attention, Linear, Network, Norm, image_codes, patches, run
from golden.units.layernorm import code_mask, offset
from golden.units.requant import Requantization, encode, operate
from vitforge.spec.config import Config
from vitforge.spec.layernorm_widths import FRACTION, NormFormat
from vitforge.spec.rsqrt_table import GUARD, rsqrt_table

_SINGLE, _DOUBLE = 1 << 24, 1 << 53
#: Entries of a table for GeLU.
_TABLE_BITS = 20
#: Values of the residual stream at a time: few stay in the caches.
_CHUNK = 4 * 197 * 192


class UnprovableError(ValueError):
    """A network whose integers may leave the significand; `golden.network.run.run` computes it."""


def _largest(item: Format) -> int:
    """Greatest absolute operand of a format."""
    codes = torch.arange(1 << item.bits)
    if isinstance(item, Shifted):
        return int((codes - item.zero_point).abs().max()) << int(item.shift.max())
    return int(item.operand(codes).abs().max())


def _surely(operands: Tensor, weight: int) -> bool:
    """Whether no sum of operands ``[..., K]`` times weights leaves single precision."""
    # The sum itself is rounded, by far less than a 64th.
    total = float(operands.abs().sum(-1).max())
    return total * weight < _SINGLE * (1 - 2.0**-6)


class _Product:
    """Operands of at most `largest` by fixed weights ``[K, N]``."""

    def __init__(self, weights: Tensor, largest: int, device: torch.device) -> None:
        heavy = int(weights.abs().sum(0).max())
        self.widest = int(weights.abs().max())
        self.bound = heavy * largest
        if self.bound >= _DOUBLE:
            raise UnprovableError(f"sums may reach {self.bound}")
        self.single = weights.to(device, torch.float32)
        self.sure = self.bound < _SINGLE
        self.double = None if self.sure else weights.to(device, torch.float64)

    def __call__(self, operands: Tensor) -> Tensor:
        """Operands ``[..., K]``, single precision, to exact sums in double precision."""
        if self.double is None or _surely(operands, self.widest):
            return (operands @ self.single).double()
        return operands.double() @ self.double


class _Scale:
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
            if largest + (1 << s >> 1) < _DOUBLE:
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


class _Uniform:
    """A linear layer whose codes are uniform: to operands, in single precision."""

    def __init__(self, layer: Requantization, bound: int, zero: int, config: Config,
                 device: torch.device) -> None:
        self.scale = _Scale(layer, bound, config, device)
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


class _Gelu:
    """The first layer of an MLP: to the next layer's operands."""

    def __init__(self, layer: Linear, bound: int, reader: Format, config: Config,
                 device: torch.device) -> None:
        requantization = layer.requantization
        if config.value_bits > _TABLE_BITS:
            raise UnprovableError(f"value_bits of {config.value_bits} make too large a table")
        self.scale = _Scale(requantization, bound, config, device)
        values = torch.arange(-self.scale.top, self.scale.top + 1)
        codes = encode(operate(values, requantization, config), requantization.encoding,
                       requantization.encode_shift, config)
        self.table = reader.operand(codes).float().to(device)

    def __call__(self, acc: Tensor) -> Tensor:
        index = self.scale(acc).add_(self.scale.top).to(torch.int32)
        return self.table.index_select(0, index.flatten()).reshape(index.shape)


class _Add:
    """The end of a branch: to operands of the residual stream, in double precision."""

    def __init__(self, layer: Requantization, bound: int, after: Shifted, config: Config,
                 device: torch.device) -> None:
        self.scale = _Scale(layer, bound, config, device)
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


class _Norm:
    """LayerNorm of operands of the stream: to operands, in single precision."""

    def __init__(self, norm: Norm, channels: int, config: Config, device: torch.device) -> None:
        self.channels, width = channels, NormFormat(config)
        bits = max(2 * width.root_bits, width.difference_bits + width.drop,
                   width.element_bits + config.rsqrt_bits, width.element_bits + 20)
        if bits > 50:
            raise UnprovableError(f"LayerNorm's integers may have {bits} bits")
        self.root = _Root(config, device)
        down = 2.0 ** -(width.element_fraction + FRACTION)
        self.gamma = (norm.gamma.double() * down).to(device)
        self.offset = (offset(norm.beta, norm.zero_point).double() * 2.0**-FRACTION).to(device)
        self.zero_point, self.top = norm.zero_point, code_mask(norm.bits)

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


class _Attend:
    """Attention between its two linear layers: operands of Q, K, V to those of the context."""

    def __init__(self, layer: Attention, tokens: int, heads: int, dim: int, reader: Format,
                 config: Config, device: torch.device) -> None:
        self.heads, self.tokens = heads, tokens
        # A key beyond the last, so that words of keys are whole.
        self.keys = -(-tokens // config.lanes) * config.lanes
        largest = [_largest(item) for item in (layer.query, layer.key, layer.value)]
        scores = dim // heads * largest[0] * largest[1]
        if scores >= _SINGLE:
            raise UnprovableError(f"scores may reach {scores}")
        self.scores = _Scale(layer.scores, scores, config, device)
        encoding = layer.scores.encoding
        self.zero = encoding.zero_point
        self.scores.narrow(-self.zero, (1 << encoding.bits) - 1 - self.zero)
        self.softmax = FastSoftmax(layer, tokens, config, device)
        self.peak = largest[2]
        bound = tokens * self.softmax.largest * self.peak
        if bound >= _DOUBLE:
            raise UnprovableError(f"sums may reach {bound}")
        self.sure = bound < _SINGLE
        assert not isinstance(reader, Shifted)
        self.context = _Uniform(layer.context, bound, int(getattr(reader, "zero_point", 0)),
                                config, device)

    def __call__(self, qkv: Tensor) -> Tensor:
        batch, tokens, width = qkv.shape
        parts = qkv.reshape(batch, tokens, 3, self.heads, width // 3 // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        padding = (0, 0, 0, self.keys - tokens)
        key, value = (torch.nn.functional.pad(part, padding) for part in (key, value))
        # Keys come first, so that rows are the elements of vectors when their keys are added up.
        acc = (key @ query.transpose(-2, -1)).double()
        operands = self.softmax(self.scores(acc).add_(self.zero)).transpose(-2, -1)
        if self.sure or _surely(operands, self.peak):
            acc = (operands @ value).double()
        else:
            acc = operands.double() @ value.double()
        return self.context(acc.transpose(1, 2).flatten(2))


class _Block:
    def __init__(self, network: Network, index: int, device: torch.device) -> None:
        block, spec, config = network.blocks[index], network.spec, network.config
        middle = block.norm2.input
        after = (network.blocks[index + 1].norm1 if index + 1 < spec.depth
                 else network.norm).input
        self.norm1, self.norm2 = (_Norm(norm, spec.dim, config, device)
                                  for norm in (block.norm1, block.norm2))
        products = [_Product(layer.weights, _largest(layer.input), device)
                    for layer in (block.qkv, block.proj, block.fc1, block.fc2)]
        self.qkv, self.proj, self.fc1, self.fc2 = products
        self.projections = _Uniform(block.qkv.requantization, self.qkv.bound,
                                    block.attention.query.zero_point, config, device)
        self.attend = _Attend(block.attention, spec.tokens, spec.heads, spec.dim,
                              block.proj.input, config, device)
        self.first = _Add(block.proj.requantization, self.proj.bound, middle, config, device)
        self.gelu = _Gelu(block.fc1, self.fc1.bound, block.fc2.input, config, device)
        self.second = _Add(block.fc2.requantization, self.fc2.bound, after, config, device)

    def __call__(self, stream: Tensor) -> Tensor:
        context = self.attend(self.projections(self.qkv(self.norm1(stream))))
        stream = self.first(self.proj(context), stream)
        hidden = self.gelu(self.fc1(self.norm2(stream)))
        return self.second(self.fc2(hidden), stream)


class Fast:
    """An integer network, prepared to classify many images.

    Parameters
    ----------
    network
        The integers.
    device
        Where to compute.

    Raises
    ------
    UnprovableError
        If an integer may leave the significand of double precision.
    """

    def __init__(self, network: Network, device: torch.device | str = "cpu") -> None:
        device, config = torch.device(device), network.config
        self.network, self.device = network, device
        self.embedding = _Product(network.embedding.weights, _largest(network.embedding.input),
                                  device)
        first = network.blocks[0].norm1.input if network.blocks else network.norm.input
        self.add = _Add(network.embedding.requantization, self.embedding.bound, first, config,
                        device)
        self.position = network.position_format.operand(network.position).double().to(device)
        self.blocks: Sequence[_Block] = [_Block(network, index, device)
                                         for index in range(network.spec.depth)]
        self.norm = _Norm(network.norm, network.spec.dim, config, device)
        self.head = _Product(network.head, _largest(network.head_input), device)

    def __call__(self, images: Tensor) -> Tensor:
        """Return what `network.run.run` returns for images ``[B, ...]``, on their own device."""
        spec = self.network.spec
        with torch.inference_mode():
            codes = patches(image_codes(images, spec), spec).to(self.device)
            operands = self.network.embedding.input.operand(codes).float()
            acc = self.embedding(operands)
            acc = torch.cat((acc.new_zeros(len(acc), 1, spec.dim), acc), dim=1)
            stream = self.add(acc, self.position)
            for block in self.blocks:
                stream = block(stream)
            acc = self.head(self.norm(stream[:, :1]))
            return acc[:, 0].to(torch.int64).to(images.device) + self.network.head_bias


def pixel_network(network: Network, how: Preprocessing, device: torch.device | str = "cpu",
                  ) -> Callable[[Tensor], Tensor]:
    """Return a function from normalised images, as a float network takes them, to logits.

    Falls back to `golden.network.run.run` where exactness can't be proved.
    """
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    some = max(1, _CHUNK // (network.spec.tokens * network.spec.dim))
    whole: Callable[[Tensor], Tensor]
    try:
        whole = Fast(network, device)
    except UnprovableError:
        def whole(codes: Tensor) -> Tensor:
            return run(network, codes)

    def classify(images: Tensor) -> Tensor:
        codes = ((images.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return torch.cat([whole(part) for part in codes.chunk(-(-len(codes) // some))])

    return classify
