# SPDX-License-Identifier: Apache-2.0
"""From the formats of a network's tensors to the integers of `golden.network`.

A `Plan` says what every tensor of codes means; who decided it, `golden.network.calibrate` or a
published method (`golden.deploy`), makes no difference here. Real arithmetic is used and never
needed again.
"""

__all__ = ["Matrix", "Plan", "build", "check_can_run", "levels"]

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from golden.float.vit import VitSpec
from golden.formats.attention import attend
from golden.formats.formats import Format, Shifted, TwoScale, Uniform
from golden.network.run import Attention, Block, Linear, Network, Norm
from golden.units.encoding import Encoding
from golden.units.layernorm import layernorm_parameters
from golden.units.requant import Requantization
from golden.units.requant_parameters import dyadic, gelu_multiplier, residual_multiplier, value_step
from vitforge.spec import limits
from vitforge.spec.config import Config, ConfigError
from vitforge.spec.formats import MIDDLE

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """Weights of a layer: integer `codes` ``[N, K]``, and the real step of each row, ``[N]``."""

    codes: Tensor
    scale: Tensor

    @property
    def weights(self) -> Tensor:
        """The codes as a product takes them: int64 ``[K, N]``."""
        return self.codes.T.contiguous().to(torch.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that a network's integers follow from.

    Attributes
    ----------
    config
        Configuration that will run it.
    parameters
        Real parameters by name, float64. Weights of layers need not be among them.
    matrices
        Weights by the layer's name ("blocks.0.mlp.fc1"); the head has one scale for all rows.
    formats
        Format of every tensor of codes by its name in `golden.float.vit.observe`, and "input", the
        pixels'. The residual stream is `Shifted`, K and V are around the middle of `weight_bits`,
        with Q in the same encoding. Probabilities get the nearest format that the configuration has
        (`golden.formats.attention.attend`).
    clip
        Width of Q, K or V, where it is less than that of their container.
    rectified
        MLPs have ReLU: their first layer's ordinary result, in unsigned codes of zero point 0,
        which saturate there.
    """

    spec: VitSpec
    config: Config
    parameters: Mapping[str, Tensor]
    matrices: Mapping[str, Matrix]
    formats: Mapping[str, Format]
    clip: Mapping[str, int] = field(default_factory=dict)
    rectified: bool = False


def check_can_run(spec: VitSpec, config: Config) -> None:
    """Refuse a configuration that can't run a network.

    Raises
    ------
    ValueError
        The message names the field.
    """
    limits.check(config, limits.Part.NETWORK)
    limits.fits(config, max_keys=spec.tokens, max_channels=spec.dim)


def levels(config: Config) -> int:
    """Return how many shifts a channel of the residual stream may have: 0 to that, less one."""
    return min(4, config.norm_bits - config.mantissa_bits + 1)


def build(plan: Plan) -> Network:
    """Make the integers of a network.

    Raises
    ------
    ValueError
        If the configuration can't run it, or an integer would leave its width; the message names
        the field or the parameter.
    """
    check_can_run(plan.spec, plan.config)
    return _Builder(plan).network()


def _named(make: Callable[Concatenate["_Builder", str, _P], _T],
           ) -> Callable[Concatenate["_Builder", str, _P], _T]:
    """Let a refusal say at which layer; what the configuration can't do is said as it is."""
    @functools.wraps(make)
    def call(builder: "_Builder", name: str, /, *args: _P.args, **others: _P.kwargs) -> _T:
        try:
            return make(builder, name, *args, **others)
        except ConfigError:
            raise
        except ValueError as error:
            raise ValueError(f"{error}, at {name}") from None
    return call


class _Builder:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.spec, self.config = plan, plan.spec, plan.config
        self.formats = {name: item for name, item in plan.formats.items() if name != "input"}

    def network(self) -> Network:
        plan = self.plan
        embedding, position, position_format = self.embedding()
        before, blocks = "embedding", []
        for index in range(self.spec.depth):
            blocks.append(self.block(f"blocks.{index}", before))
            before = f"blocks.{index}.residual2"
        normed, head = self.uniform("norm"), plan.matrices["head"]
        step = float(normed.scale) * float(head.scale)
        return Network(config=self.config, spec=self.spec, embedding=embedding, position=position,
                       position_format=position_format, blocks=tuple(blocks),
                       norm=self.norm("norm", before), head_input=normed,
                       head=head.weights,
                       head_bias=_steps("head.bias", plan.parameters["head.bias"] / step),
                       logit_scale=step,
                       formats=self.formats)

    def block(self, name: str, before: str) -> Block:
        middle, after = f"{name}.residual1", f"{name}.residual2"
        return Block(
            norm1=self.norm(f"{name}.norm1", before), qkv=self.projections(name),
            attention=self.attention(f"{name}.attn"),
            proj=self.branch(f"{name}.attn.proj", f"{name}.attn.context", before, middle),
            norm2=self.norm(f"{name}.norm2", middle), fc1=self.gelu(f"{name}.mlp", f"{name}.norm2"),
            fc2=self.branch(f"{name}.mlp.fc2", f"{name}.mlp.act", middle, after))

    def stream(self, name: str) -> Shifted:
        found = self.plan.formats[name]
        assert isinstance(found, Shifted)
        return found

    def uniform(self, name: str) -> Uniform:
        found = self.plan.formats[name]
        assert isinstance(found, Uniform)
        return found

    @_named
    def norm(self, name: str, stream: str) -> Norm:
        out, parameters = self.uniform(name), self.plan.parameters
        gamma, beta = layernorm_parameters(parameters[f"{name}.weight"], parameters[f"{name}.bias"],
                                           float(out.scale), self.config)
        return Norm(input=self.stream(stream), gamma=gamma, beta=beta, zero_point=out.zero_point)

    def dyadic(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Multipliers and shifts of positive ratios ``[C]``."""
        pairs = [dyadic(value, self.config) for value in ratio.tolist()]
        return torch.tensor([m for m, _ in pairs]), torch.tensor([s for _, s in pairs])

    def embedding(self) -> tuple[Linear, Tensor, Shifted]:
        """Patch embedding; its residual is the position, with the class token in row 0.

        The middle of each channel's constants goes into the bias, which the class token gets too
        (its products are zero), so that the codes only have to span what differs among tokens.
        """
        matrix, parameters = self.plan.matrices["patch_embed.proj"], self.plan.parameters
        pixel = self.uniform("input")
        scale = matrix.scale * pixel.scale
        constant = parameters["pos_embed"][0].clone()
        constant[0] += parameters["cls_token"][0, 0]
        constant[1:] += parameters["patch_embed.proj.bias"]
        middle = (constant.amax(0) + constant.amin(0)) / 2
        constant = constant - middle
        position = self.position(constant)
        layer = self.residual("patch_embed.proj.bias", scale, middle, float(position.scale),
                              self.stream("embedding"))
        return (Linear(input=pixel, weights=matrix.weights, requantization=layer),
                position.quantize(constant), position)

    def position(self, constant: Tensor) -> Shifted:
        """Codes of a constant ``[tokens, dim]`` around zero, a shift for each channel.

        The scale and, channel by channel, the shift of the least squared error.
        """
        shifts = self.config.norm_bits - self.config.mantissa_bits + 1
        widest = max(float(constant.abs().max()), 1e-9) / (MIDDLE - 1 << shifts - 1)
        best, least = None, float("inf")
        for percent in range(100, 45, -5):
            scale = widest * percent / 100
            errors = torch.stack([
                (found.dequantize(found.quantize(constant)) - constant).square().sum(0)
                for found in (Shifted(scale=scale, zero_point=MIDDLE, shift=torch.tensor(shift))
                              for shift in range(shifts))])
            if (error := float(errors.amin(0).sum())) < least:
                best, least = Shifted(scale=scale, zero_point=MIDDLE, shift=errors.argmin(0)), error
        assert best is not None
        return best

    @_named
    def branch(self, name: str, source: str, before: str, after: str) -> Linear:
        """Linear layer whose result is added to the residual stream."""
        matrix, read = self.plan.matrices[name], self.plan.formats[source]
        bias = f"{name}.bias"
        layer = self.residual(bias, matrix.scale * read.scale, self.plan.parameters[bias],
                              float(self.stream(before).scale), self.stream(after))
        return Linear(input=read, weights=matrix.weights, requantization=layer)

    def residual(self, name: str, scale: Tensor, bias: Tensor, before: float,
                 after: Shifted) -> Requantization:
        """Requantization that adds a residual of step `before`.

        v has the step ``after.scale / 2**extra``: with `extra` as large as the residual, the
        multiplier and the whole range of the stream allow, so that the sum is rounded once, when
        it is encoded.
        """
        config = self.config
        extra = min(config.value_bits - config.norm_bits, 15 - int(after.shift.max()))
        coarsest, most = float(scale.max()), (1 << config.multiplier_bits) - 1
        largest = min(0.999, 1 - 2.0 ** -config.factor_bits)
        while extra and (before / float(after.scale) * 2**extra >= largest * 2 ** (
                config.value_bits - config.norm_bits)
                or coarsest / float(after.scale) * 2**extra > most):
            extra -= 1
        step = float(after.scale) / 2**extra
        multiplier, shift = self.dyadic(scale / step)
        return Requantization(
            bias=_steps(name, bias / scale), multiplier=multiplier, shift=shift,
            operation="residual",
            multiplier2=residual_multiplier(before / step, config),
            encoding=Encoding(bits=after.bits, zero_point=after.zero_point),
            encode_shift=after.shift + extra)

    @_named
    def projections(self, block: str) -> Linear:
        """Q, K and V in one product, to codes around the middle."""
        name, source = f"{block}.attn.qkv", self.plan.formats[f"{block}.norm1"]
        matrix, bits, dim = self.plan.matrices[name], self.config.weight_bits, self.spec.dim
        scale = matrix.scale * source.scale
        parts = [f"{block}.attn.{part}" for part in "qkv"]
        step = torch.cat([_each(self.uniform(part).scale, dim) for part in parts])
        down = torch.cat([torch.full((dim,), self.narrowing(part)) for part in parts])
        multiplier, shift = self.dyadic(scale / step * 2.0**down)
        return Linear(input=source, weights=matrix.weights,
                      requantization=Requantization(
            bias=_steps(f"{name}.bias", self.plan.parameters[f"{name}.bias"] / scale),
            multiplier=multiplier, shift=shift,
            encoding=Encoding(bits=bits, zero_point=1 << bits - 1),
            encode_shift=down if bool(down.any()) else 0))

    def narrowing(self, part: str) -> int:
        """Right shift before the code that makes values saturate at fewer bits.

        The code itself saturates at the width of its container. But v does at ``2**(value_bits-1)``
        before, so a step of ``2**(value_bits-bits)`` lets mantissas reach ``+-2**(bits-1)``.
        """
        bits = self.plan.clip.get(part)
        return 0 if bits is None else min(15, self.config.value_bits - bits)

    @_named
    def attention(self, name: str) -> Attention:
        formats = self.plan.formats
        query, key, value, score, context = (
            self.uniform(f"{name}.{part}") for part in ("q", "k", "v", "scores", "context"))
        scale, probability = attend(float(score.scale), formats[f"{name}.softmax"], self.config)
        self.formats[f"{name}.softmax"] = probability
        per_score = float(query.scale) * float(key.scale) * self.spec.head_dim**-0.5
        factor, down = dyadic(per_score / float(score.scale), self.config)
        multiplier, shift = self.dyadic(
            _each(value.scale, self.spec.dim) * (float(probability.scale) / float(context.scale)))
        return Attention(
            query=query, key=key, value=value, probability=probability,
            scores=Requantization(multiplier=factor, shift=down, encoding=Encoding(
                bits=score.bits, zero_point=score.zero_point)),
            scale=scale,
            context=Requantization(multiplier=multiplier, shift=shift, encoding=Encoding(
                bits=context.bits, zero_point=context.zero_point)))

    @_named
    def gelu(self, name: str, source: str) -> Linear:
        """First linear layer of the MLP, to codes of GeLU."""
        matrix, read = self.plan.matrices[f"{name}.fc1"], self.plan.formats[source]
        found = self.plan.formats[f"{name}.act"]
        scale = matrix.scale * read.scale
        if self.plan.rectified:
            return self.relu(name, read, found, matrix)
        multiplier, shift = self.dyadic(scale / value_step(self.config))
        factor, encode_shift = gelu_multiplier(float(found.scale), self.config)
        if isinstance(found, TwoScale):
            encoding = Encoding(kind="two-scale", bits=found.bits, m=found.m, signed=found.signed)
        else:
            assert isinstance(found, Uniform)
            encoding = Encoding(bits=found.bits, zero_point=found.zero_point)
        layer = Requantization(
            bias=_steps(f"{name}.fc1.bias", self.plan.parameters[f"{name}.fc1.bias"] / scale),
            multiplier=multiplier,
            shift=shift, operation="gelu", multiplier2=factor, encode_shift=encode_shift,
            encoding=encoding)
        return Linear(input=read, weights=matrix.weights, requantization=layer)

    def relu(self, name: str, read: Format, found: Format, matrix: Matrix) -> Linear:
        """First linear layer of the MLP, to codes of ReLU."""
        if not isinstance(found, Uniform) or found.zero_point or found.signed:
            raise ValueError(f"codes of ReLU must be unsigned and uniform, not {found.words()}")
        scale = matrix.scale * read.scale
        multiplier, shift = self.dyadic(scale / found.scale)
        return Linear(input=read, weights=matrix.weights, requantization=Requantization(
            bias=_steps(f"{name}.fc1.bias", self.plan.parameters[f"{name}.fc1.bias"] / scale),
            multiplier=multiplier, shift=shift, encoding=Encoding(bits=found.bits, zero_point=0)))


def _each(scale: Tensor | float, channels: int) -> Tensor:
    return scale if isinstance(scale, Tensor) \
        else torch.full((channels,), scale, dtype=torch.float64)


def _steps(name: str, real: Tensor) -> Tensor:
    """Round a bias in steps of its sums to integers, half up.

    Raises
    ------
    ValueError
        If the requantizer's 32 bits don't hold it; the message names it.
    """
    steps = (real + 0.5).floor()
    if not bool((steps.abs() < 1 << 31).all()):
        raise ValueError(f"{name} reaches {float(real.abs().max()):.3g} steps of the sums that it "
                         "is added to, which 32 bits don't hold: the layer's weights are too small "
                         "beside it")
    return steps.to(torch.int64)
