# SPDX-License-Identifier: Apache-2.0
"""From a float network and a few images to the integers of `golden.network.integers`.

FQ-ViT's calibration (arXiv 2111.13824) without its observers: min-max ranges of about 100 images,
power-of-two factors for the residual stream, symmetric weights per output channel. The published
methods, with their observers, take the way of `golden.deploy`. A configuration whose requantizer
only shifts (`multiplier_bits` of 1) gets steps to match (`golden.network.shift_only`).
"""

__all__ = ["calibrate", "observations", "outlier_stream", "power_of_two_stream", "two_scale",
           "uniform"]

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from golden.float.parameters import check_parameters
from golden.float.swin import Swin
from golden.float.vit import Vit, observe
from golden.formats.attention import attend, fit
from golden.formats.formats import Format, Shifted, TwoScale, Uniform
from golden.formats.ptf import outlier_two_scale, power_of_two_factor
from golden.network.inference import image_codes
from golden.network.integers import Network
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
    chosen,
    for_role,
    made,
    nothing,
    summed,
)
from golden.network.plan import Matrix, Plan, build, check_can_run, levels
from golden.network.shift_only import coarser, weight_unit
from golden.network.topology import operations
from golden.units.requant_parameters import value_step
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.limits import check_format

_WHO = "golden.network.calibrate"
_SEARCHED = 50_000   # values of a tensor that the search for a two-scale format looks at


def observations(model: Vit | Swin, images: Tensor) -> dict[str, Tensor]:
    """Return every observed tensor of one batch of real images ``[B, channels, H, W]`` by name.

    Raises
    ------
    ValueError
        If one holds a value that is not finite.
    """
    seen: dict[str, Tensor] = {}
    with observe(model, seen.__setitem__), torch.inference_mode():
        model(images)
    for name, value in seen.items():
        if not all(math.isfinite(end) for end in value.aminmax()):
            raise ValueError(f"calibration makes values at {name} that are not finite")
    return seen


def calibrate(model: Vit | Swin, codes: Tensor, config: Config,
              weight_bits: int | Mapping[str, int] | None = None, *, stream: str = "ptf",
              gelu: str | None = None, activation_bits: int = CODE_BITS) -> Network:
    """Quantize a network.

    Parameters
    ----------
    model
        The float network; its input is ``codes / 255``.
    codes
        Calibration images, uint8 ``[B, H, W]`` or ``[B, channels, H, W]``.
    config
        Configuration that will run it.
    weight_bits
        Width of the weights of all layers, or of those that are named ("blocks.0.mlp.fc1");
        the others have `weight_bits` of the configuration, which keys and values always have.
    stream
        Codes of the residual stream: "ptf" (FQ-ViT), or "o-2sf", one shift for outlying channels
        (TSPTQ-ViT, a reconstruction).
    gelu
        Codes of GeLU's result: "two-scale" or "uniform"; None is the first that the configuration
        has.

    activation_bits
        Width of all uniform codes but those of pixels, scores and the residual stream.

    Raises
    ------
    ValueError
        If the configuration can't run it (the message names the field), the images have another
        size, a width of weights is out of range or of no layer, or there are no such codes; if a
        parameter can't be quantized, or a value is not finite (the message names it).
    """
    if gelu is None:
        gelu = "two-scale" if "two-scale" in config.result_formats else "uniform"
    for name, given, known in (("stream", stream, STREAMS), ("gelu", gelu, GELUS)):
        if given not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")
    if not 2 <= activation_bits <= CODE_BITS:
        raise ValueError(f"activation_bits must be 2 to {CODE_BITS}, not {activation_bits}")
    check_can_run(model.spec, config)
    check_parameters(model)
    found = operations(model.spec)
    for operation in found:
        if isinstance(operation, Requantize) and operation.roles[0] == "gelu":
            check_format(config, gelu, operation.writes[0], "or take gelu='uniform'")
    widths = _widths(found, config, weight_bits)
    seen = observations(model, image_codes(codes, model.spec).to(torch.float32) / 255)
    plan = _Calibration(found, seen, config, stream, gelu, activation_bits)
    plan.activations()
    seen.clear()   # of a large network they take as much memory as its integers
    weights = model.state_dict()
    matrices = {name: plan.matrix(name, weights.pop(f"{name}.weight").double(), bits)
                for name, bits in widths.items()}
    return build(Plan(spec=model.spec, config=config, matrices=matrices, formats=plan.formats,
                      parameters={name: value.double() for name, value in weights.items()}))


def _widths(found: Sequence[Operation], config: Config, given: int | Mapping[str, int] | None,
            ) -> dict[str, int]:
    """Width of every layer's weights."""
    names = [operation.name for operation in found if isinstance(operation, Product)]
    if isinstance(given, int):
        given = dict.fromkeys(names, given)
    for name, bits in (given or {}).items():
        if name not in names:
            raise ValueError(f"weight_bits must be of the layers {', '.join(names)}, "
                             f"not of {name!r}")
        if not 2 <= bits <= config.weight_bits:
            raise ValueError(f"weight_bits of {name} must be 2 to {config.weight_bits}, "
                             f"not {bits}")
    return dict.fromkeys(names, config.weight_bits) | dict(given or {})


class _Calibration:
    """The formats that follow from what was observed."""

    def __init__(self, found: Sequence[Operation], seen: dict[str, Tensor], config: Config,
                 stream: str, gelu: str, bits: int) -> None:
        self.operations, self.made = found, made(found)
        self.seen = seen
        self.residual = STREAMS[stream]
        self.gelu = GELUS[gelu]
        self.bits = bits
        self.config = config
        self.shift_only = config.multiplier_bits == 1
        self.formats: dict[str, Format] = {}
        self.table: dict[type[Operation], Callable[..., None]] = {
            Image: self.image, Position: nothing, PairBias: nothing, Tokens: nothing,
            Merge: nothing, Beside: nothing, Pool: nothing, Product: nothing, Scores: nothing,
            RegionScores: nothing, Context: nothing, RegionContext: nothing,
            Requantize: self.requantize, Norm: self.norm, Softmax: self.softmax,
            RegionSoftmax: self.softmax, Logits: nothing}
        self.roles: dict[str, Callable[[Requantize], None]] = {
            "stream": self.stream, "gelu": self.active, "query": self.projections,
            "scores": self.scores, "context": self.context, "pool": self.pool}
        #: The layer whose logits must have one step, and who requantizes the sums of the others.
        self.heads = {summed(item, self.made).name for item in found if isinstance(item, Logits)}
        self.readers = {summed(item, self.made).name: item for item in found
                        if isinstance(item, Requantize)}

    def matrix(self, name: str, weight: Tensor, bits: int) -> Matrix:
        """Symmetric weights per output channel; the head's logits must have one step."""
        weight = weight.flatten(1)
        if name in self.heads:
            head = Uniform.symmetric(float(weight.abs().max()), bits)
            return Matrix(codes=head.quantize(weight).to(torch.int8),
                          scale=torch.as_tensor(head.scale, dtype=torch.float64))
        found = Uniform.symmetric(weight.abs().amax(1, keepdim=True), bits)
        if self.shift_only:
            (source,), reader = self.made[name].reads, self.readers[name]
            unit = weight_unit(source, reader, self.formats, self.config).reshape(-1, 1)
            found = Uniform(scale=coarser(found.scale, unit), bits=bits, signed=True)
        self.formats[f"{name}.weight"] = found
        assert isinstance(found.scale, Tensor)
        return Matrix(codes=found.quantize(weight).to(torch.int8), scale=found.scale[:, 0])

    def activations(self) -> None:
        """Find the formats of all activations."""
        for operation in self.operations:
            chosen(_WHO, self.table, operation)(operation)

    def image(self, operation: Image) -> None:
        self.formats[operation.writes[0]] = Uniform(scale=1 / 255)

    def requantize(self, operation: Requantize) -> None:
        for_role(_WHO, self.roles, operation)(operation)

    def norm(self, operation: Norm) -> None:
        if operation.roles == ("stream",):
            return self.stream(operation)
        name, read = operation.writes[0], self.made[operation.reads[0]]
        if isinstance(read, Tokens):   # the float model's norm sees all, its reader only these
            self.seen[name] = self.seen[name][:, list(read.source)]
        return self.uniform(name, self.bits)

    def uniform(self, name: str, bits: int = 8, unit: float | None = None) -> None:
        """Asymmetric min-max of an observed tensor; its step is a unit, shifted left, if given."""
        low, high = float(self.seen[name].min()), float(self.seen[name].max())
        found = Uniform.of_range(low, high, bits)
        if unit is not None:
            step = max(unit, float(coarser(found.scale, unit)))
            found = Uniform(scale=step, bits=bits, zero_point=math.floor(-min(low, 0) / step + 0.5))
        self.formats[name] = found

    def stream(self, operation: Operation) -> None:
        name = operation.writes[0]
        self.formats[name] = self.residual(self.seen[name], self.config)

    def pool(self, operation: Requantize) -> None:
        self.uniform(operation.writes[0])

    def active(self, operation: Requantize) -> None:
        name = operation.writes[0]
        if self.gelu is uniform:
            self.formats[name] = uniform(self.seen[name], self.config, self.bits)
        else:
            self.formats[name] = self.gelu(self.seen[name], self.config)

    def projections(self, operation: Requantize) -> None:
        bits = min(self.bits, self.config.weight_bits)   # K and V take the place of weights
        for part, role in zip(operation.writes, operation.roles, strict=True):
            seen = self.seen[part].abs()
            peak = seen.amax((0, 2)).flatten() if role == "value" else float(seen.max())
            if role == "value" and self.shift_only:
                peak = coarser(peak, float(seen.max()))
            self.formats[part] = Uniform.symmetric(peak, bits, zero_point=1 << bits - 1)

    def largest_step(self, name: str) -> float:
        return float(torch.as_tensor(self.formats[name].scale, dtype=torch.float64).max())

    def scores(self, operation: Requantize) -> None:
        product = summed(operation, self.made)
        assert isinstance(product, Scores)
        query, key = (self.largest_step(name) for name in product.reads)
        unit = query * key * product.inner**-0.5 if self.shift_only else None
        self.uniform(operation.writes[0], min(8, self.config.score_bits), unit)

    def softmax(self, operation: Softmax) -> None:
        name = operation.writes[0]
        self.formats[name] = fit(self.seen[name], self.config)

    def context(self, operation: Requantize) -> None:
        unit = None
        if self.shift_only:   # the codes' step is what `golden.network.plan` makes of it
            probability, value = summed(operation, self.made).reads
            scores = float(self.formats[self.made[probability].reads[0]].scale)
            found = attend(scores, self.formats[probability], self.config)[1]
            unit = self.largest_step(value) * float(found.scale)
        self.uniform(operation.writes[0], self.bits, unit)


def power_of_two_stream(seen: Tensor, config: Config, bits: int = CODE_BITS) -> Shifted:
    """PTF of the residual stream; its operands must fit norm_bits."""
    ptf = power_of_two_factor(seen, bits, levels=levels(config))
    return Shifted(scale=ptf.scale, bits=bits, zero_point=ptf.zero_point, shift=ptf.shift)


def outlier_stream(seen: Tensor, config: Config) -> Shifted:
    """O-2SF of the residual stream; its operands must fit norm_bits."""
    found = outlier_two_scale(seen, max_shift=config.norm_bits - config.mantissa_bits)
    return Shifted(scale=found.scale, zero_point=found.zero_point, shift=found.shift)


def uniform(seen: Tensor, config: Config, bits: int = CODE_BITS) -> Uniform:
    """Asymmetric min-max, not finer than the steps that GeLU has."""
    low, high = float(seen.min()), float(seen.max())
    return Uniform.of_range(low, max(high, low + ((1 << bits) - 1) * value_step(config)), bits)


def two_scale(seen: Tensor, config: Config) -> TwoScale:
    """Choose m, and how much to clip, by the least squared error (OPT-m's aim; [R])."""
    peak, best, least = float(seen.abs().max()), None, float("inf")
    seen = seen.flatten()[::max(1, seen.numel() // _SEARCHED)]
    room = config.operand_bits - 7
    for m in range(1, min(7, room + 1)):
        for percent in range(100, 60, -5):
            scale = peak * percent / 100 / (63 << m)
            if scale < value_step(config):
                continue
            found = TwoScale(scale=scale, m=m, signed=True)
            error = float((found.dequantize(found.quantize(seen)) - seen).square().mean())
            if error < least:
                best, least = found, error
    if best is None:
        raise ValueError(f"value_bits must be more than {config.value_bits} for GeLU "
                         f"values up to {peak:.3g}")
    return best


#: Codes of the residual stream, and of GeLU's result.
STREAMS: dict[str, Callable[[Tensor, Config], Shifted]] = {
    "ptf": power_of_two_stream, "o-2sf": outlier_stream}
GELUS: dict[str, Callable[[Tensor, Config], Format]] = {"two-scale": two_scale, "uniform": uniform}
