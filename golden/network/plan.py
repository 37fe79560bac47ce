# SPDX-License-Identifier: Apache-2.0
"""From the formats of a network's tensors to the integers of `golden.network.integers`.

A `Plan` says what every tensor of codes means; who decided it, `golden.network.calibrate` or a
published method (`golden.deploy`), makes no difference here. Real arithmetic is used and never
needed again.
"""

__all__ = ["Matrix", "Plan", "build", "check_can_run", "levels"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from golden.float.vit import VitSpec
from golden.formats.attention import attend
from golden.formats.formats import Format, Shifted, TwoScale, Uniform
from golden.network.constants import around_zero, symmetric
from golden.network.integers import Affine, Network
from golden.network.ops import (
    Beside,
    Context,
    Image,
    Logits,
    Merge,
    Norm,
    Operation,
    PairBias,
    Pool,
    Position,
    Product,
    RegionContext,
    RegionScores,
    RegionSoftmax,
    Requantize,
    Scores,
    Softmax,
    Tokens,
    UnknownOperationError,
    chosen,
    for_role,
    made,
    nothing,
    summed,
)
from golden.network.steps import around_middle, each, in_steps
from golden.network.topology import Spec, named, operations
from golden.units.encoding import Encoding
from golden.units.layernorm import layernorm_parameters
from golden.units.requant import Requantization
from golden.units.requant_parameters import dyadic, gelu_multiplier, residual_multiplier, value_step
from golden.units.softmax import PolynomialScale, ShiftScale
from vitforge.spec import limits
from vitforge.spec.config import Config, ConfigError

_WHO = "golden.network.plan"


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
        pixels'. The residual stream is `Shifted`; Q, K and V are uniform, and are stored around the
        middle of `weight_bits`, where they must fit. Probabilities get the nearest format that the
        configuration has (`golden.formats.attention.attend`).
    topology
        Name of the network's list of operations (`golden.network.topology`); empty: its shape's.
    rectified
        MLPs have ReLU: their first layer's ordinary result, in unsigned codes of zero point 0,
        which saturate there.
    """

    spec: Spec
    config: Config
    parameters: Mapping[str, Tensor]
    matrices: Mapping[str, Matrix]
    formats: Mapping[str, Format]
    topology: str = ""
    rectified: bool = False


def check_can_run(spec: Spec, config: Config) -> None:
    """Refuse a configuration that can't run a network.

    Raises
    ------
    ValueError
        The message names the field.
    """
    limits.check(config, limits.Part.NETWORK)
    limits.same_gelu(config, spec.gelu)
    limits.fits(config, max_keys=spec.keys, max_channels=spec.widest)


def levels(config: Config) -> int:
    """Return how many shifts a channel of the residual stream may have: 0 to that, less one."""
    return min(4, config.norm_bits - config.mantissa_bits + 1)


def build(plan: Plan) -> Network:
    """Make the integers of a network.

    Raises
    ------
    ValueError
        If the configuration can't run it, an integer would leave its width, or an operation is
        unknown; the message names the field, the parameter or the operation.
    """
    check_can_run(plan.spec, plan.config)
    return _Builder(plan).network()


class _Builder:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.spec, self.config = plan, plan.spec, plan.config
        self.operations = operations(plan.spec, plan.topology)
        self.made = made(self.operations)
        self.formats = dict(plan.formats)
        self.weights: dict[str, Tensor] = {}
        self.requantizations: dict[str, Requantization] = {}
        self.norms: dict[str, Affine] = {}
        self.scales: dict[str, ShiftScale | PolynomialScale] = {}
        self.constants: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        self.moved: dict[str, Tensor] = {}   # biases that took something over, by their product
        self.logit_scale = 1.0
        self.table: dict[type[Operation], Callable[..., None]] = {
            Image: nothing, Position: self.position, PairBias: self.pair_bias,
            Tokens: self.tokens, Merge: self.merge, Beside: self.tokens, Pool: nothing,
            Product: self.product,
            Scores: nothing, RegionScores: nothing, Context: nothing, RegionContext: nothing,
            Requantize: self.requantize, Norm: self.norm, Softmax: self.softmax,
            RegionSoftmax: self.softmax, Logits: self.logits}
        self.roles: dict[str, Callable[[Requantize], Requantization]] = {
            "stream": self.branch, "gelu": self.gelu, "query": self.projections,
            "scores": self.scores, "context": self.context, "pool": self.pool}

    def network(self) -> Network:
        for operation in self.operations:
            make = chosen(_WHO, self.table, operation)
            try:
                make(operation)
            except (ConfigError, UnknownOperationError):   # they say it all
                raise
            except ValueError as error:
                raise ValueError(f"{error}, at {operation.name}") from None
        return Network(
            config=self.config, spec=self.spec,
            topology=self.plan.topology or named(self.spec), formats=self.formats,
            weights=self.weights, requantizations=self.requantizations, norms=self.norms,
            scales=self.scales, constants=self.constants, biases=self.biases,
            logit_scale=self.logit_scale)

    def stream(self, name: str) -> Shifted:
        found = self.formats[name]
        assert isinstance(found, Shifted)
        return found

    def uniform(self, name: str) -> Uniform:
        found = self.formats[name]
        assert isinstance(found, Uniform)
        return found

    def step(self, product: Operation) -> Tensor:
        """Real value of a step of a layer's sums, ``[N]`` or one."""
        return self.plan.matrices[product.name].scale * self.formats[product.reads[0]].scale

    def bias(self, product: Operation) -> Tensor:
        """Real bias of a layer; 0 if it has none."""
        assert isinstance(product, Product)
        if product.name in self.moved:
            return self.moved[product.name]
        bias = self.plan.parameters.get(f"{product.name}.bias")
        return torch.zeros(product.columns, dtype=torch.float64) if bias is None else bias

    def dyadic(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Multipliers and shifts of positive ratios ``[C]``."""
        pairs = [dyadic(value, self.config) for value in ratio.tolist()]
        return torch.tensor([m for m, _ in pairs]), torch.tensor([s for _, s in pairs])

    def tokens(self, operation: Tokens | Beside) -> None:
        """Rows in another order, or side by side, have the format that they had."""
        if (found := self.formats.get(operation.reads[0])) is not None:
            self.formats[operation.writes[0]] = found

    def merge(self, operation: Merge) -> None:
        """Codes of four tokens side by side have the formats that they had."""
        found = self.stream(operation.reads[0])
        self.formats[operation.writes[0]] = replace(found, shift=found.shift.repeat(4))

    def pair_bias(self, operation: PairBias) -> None:
        """Codes of a position bias table ``[distances, heads]``, symmetric, of one step."""
        table = self.plan.parameters[operation.table]
        found = symmetric(table)
        self.formats[operation.writes[0]] = found
        self.constants[operation.name] = found.quantize(table)

    def product(self, operation: Product) -> None:
        self.weights[operation.name] = self.plan.matrices[operation.name].weights

    def requantize(self, operation: Requantize) -> None:
        make = for_role(_WHO, self.roles, operation)
        self.requantizations[operation.name] = make(operation)

    def norm(self, operation: Norm) -> None:
        name, parameters = operation.name, self.plan.parameters
        made = self.formats[operation.writes[0]]
        # Where the stream goes on behind a norm, a channel's step has its shift in it.
        steps = 2.0**made.shift if isinstance(made, Shifted) else 1.0
        gamma, beta = layernorm_parameters(
            parameters[f"{name}.weight"] / steps, parameters[f"{name}.bias"] / steps,
            float(made.scale), self.config)
        self.norms[name] = Affine(gamma=gamma, beta=beta)

    def position(self, operation: Position) -> None:
        """Class token and position embedding, with the class token in row 0, then registers.

        The middle of each channel's constants goes into the bias, which the class token gets too
        (its products are zero), so that the codes only have to span what differs among tokens.
        """
        parameters = self.plan.parameters
        constant = parameters["pos_embed"][0].clone()
        constant[0] += parameters["cls_token"][0, 0]
        assert isinstance(self.spec, VitSpec)
        constant[self.spec.first:] += parameters[f"{operation.layer}.bias"]
        middle = (constant.amax(0) + constant.amin(0)) / 2
        constant = constant - middle
        found = around_zero(constant, self.config)
        self.moved[operation.layer] = middle
        self.formats[operation.writes[0]] = found
        self.constants[operation.name] = found.quantize(constant)

    def branch(self, operation: Requantize) -> Requantization:
        """End a branch: the result is added to the residual stream, or begins it."""
        product = summed(operation, self.made)
        if isinstance(product, Pool):
            read = float(self.stream(product.reads[0]).scale) / product.tokens
            step = torch.tensor([read], dtype=torch.float64)
            return self.residual(operation.name, step, torch.zeros_like(step), 0.0,
                                 self.stream(operation.writes[0]))
        before = 0.0 if operation.residual is None \
            else float(self.stream(operation.residual).scale)
        return self.residual(f"{product.name}.bias", self.step(product), self.bias(product),
                             before, self.stream(operation.writes[0]))

    def residual(self, name: str, scale: Tensor, bias: Tensor, before: float,
                 after: Shifted) -> Requantization:
        """Requantization that adds a residual of step `before`, none for 0.

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
            bias=in_steps(name, bias / scale), multiplier=multiplier, shift=shift,
            operation="residual" if before else "linear",
            multiplier2=residual_multiplier(before / step, config) if before else 0,
            encoding=Encoding(bits=after.bits, zero_point=after.zero_point),
            encode_shift=after.shift + extra)

    def projections(self, operation: Requantize) -> Requantization:
        """Q, K and V in one product, to codes around the middle."""
        product, bits = summed(operation, self.made), self.config.weight_bits
        scale, parts = self.step(product), operation.writes
        width = len(scale) // len(parts)
        step = torch.cat([each(self.uniform(part).scale, width) for part in parts])
        encodings = tuple(around_middle(self.uniform(part), bits) for part in parts)
        for part in parts:   # as they are stored
            self.formats[part] = Uniform(scale=self.uniform(part).scale, bits=bits,
                                         zero_point=1 << bits - 1)
        multiplier, shift = self.dyadic(scale / step)
        return Requantization(
            bias=in_steps(f"{product.name}.bias", self.bias(product) / scale),
            multiplier=multiplier, shift=shift, encoding=encodings[0],
            parts=encodings if len(set(encodings)) > 1 else ())

    def scores(self, operation: Requantize) -> Requantization:
        product = summed(operation, self.made)
        assert isinstance(product, Scores)
        query, key = (float(self.uniform(part).scale) for part in product.reads)
        score = self.uniform(operation.writes[0])
        if operation.residual is not None:
            step = torch.tensor([query * key * product.inner**-0.5], dtype=torch.float64)
            return self.residual(
                operation.name, step, torch.zeros(1, dtype=torch.float64),
                float(self.stream(operation.residual).scale),
                Shifted(scale=score.scale, bits=score.bits, zero_point=score.zero_point,
                        shift=torch.tensor(0)))
        factor, down = dyadic(query * key * product.inner**-0.5 / float(score.scale), self.config)
        return Requantization(multiplier=factor, shift=down, encoding=Encoding(
            bits=score.bits, zero_point=score.zero_point))

    def softmax(self, operation: Softmax) -> None:
        read, written = operation.reads[0], operation.writes[0]
        self.scales[operation.name], self.formats[written] = attend(
            float(self.uniform(read).scale), self.formats[written], self.config)

    def context(self, operation: Requantize) -> Requantization:
        product = summed(operation, self.made)
        assert isinstance(product, Context)
        probability, value = (self.formats[part] for part in product.reads)
        context = self.uniform(operation.writes[0])
        multiplier, shift = self.dyadic(each(value.scale, product.count * product.columns)
                                        * (float(probability.scale) / float(context.scale)))
        return Requantization(multiplier=multiplier, shift=shift, encoding=Encoding(
            bits=context.bits, zero_point=context.zero_point))

    def pool(self, operation: Requantize) -> Requantization:
        """Make codes of the mean of sums of all tokens."""
        pool = self.made[operation.reads[0]]
        assert isinstance(pool, Pool)
        found = self.uniform(operation.writes[0])
        multiplier, shift = dyadic(float(self.uniform(pool.reads[0]).scale) / pool.tokens
                                   / float(found.scale), self.config)
        return Requantization(multiplier=multiplier, shift=shift, encoding=Encoding(
            bits=found.bits, zero_point=found.zero_point))

    def gelu(self, operation: Requantize) -> Requantization:
        """First linear layer of the MLP, to codes of GeLU, or of ReLU."""
        product, found = summed(operation, self.made), self.formats[operation.writes[0]]
        scale = self.step(product)
        if self.plan.rectified:
            if not isinstance(found, Uniform) or found.zero_point or found.signed:
                raise ValueError("codes of ReLU must be unsigned and uniform, not "
                                 f"{found.words()}")
            multiplier, shift = self.dyadic(scale / found.scale)
            return Requantization(
                bias=in_steps(f"{product.name}.bias", self.bias(product) / scale),
                multiplier=multiplier, shift=shift, encoding=Encoding(bits=found.bits))
        multiplier, shift = self.dyadic(scale / value_step(self.config))
        factor, encode_shift = gelu_multiplier(float(found.scale), self.config)
        if isinstance(found, TwoScale):
            encoding = Encoding(kind="two-scale", bits=found.bits, m=found.m, signed=found.signed)
        else:
            assert isinstance(found, Uniform)
            encoding = Encoding(bits=found.bits, zero_point=found.zero_point)
        return Requantization(
            bias=in_steps(f"{product.name}.bias", self.bias(product) / scale),
            multiplier=multiplier, shift=shift, operation="gelu", multiplier2=factor,
            encode_shift=encode_shift, encoding=encoding)

    def logits(self, operation: Logits) -> None:
        product = summed(operation, self.made)
        step = (float(self.formats[product.reads[0]].scale)
                * float(self.plan.matrices[product.name].scale))
        self.logit_scale = step
        self.biases[operation.name] = in_steps(f"{product.name}.bias", self.bias(product) / step)
