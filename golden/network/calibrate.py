# SPDX-License-Identifier: Apache-2.0
"""From a float network and a few images to the integers of `golden.network`.

FQ-ViT's calibration (arXiv 2111.13824) without its observers: min-max ranges of about 100 images,
power-of-two factors for the residual stream, symmetric weights per output channel. The published
methods, with their observers, take the way of `golden.deploy`. A configuration whose requantizer
only shifts (`multiplier_bits` of 1) gets steps to match (`golden.network.shift_only`).
"""

__all__ = ["calibrate", "observations", "outlier_stream", "power_of_two_stream", "two_scale",
           "uniform"]

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from golden.float.parameters import check_parameters
from golden.float.vit import Vit, VitSpec, observe
from golden.formats.attention import attend, fit
from golden.formats.formats import Format, Shifted, TwoScale, Uniform
from golden.formats.ptf import outlier_two_scale, power_of_two_factor
from golden.network.build import Matrix, Plan, build, check_can_run, levels
from golden.network.run import Network, image_codes
from golden.network.shift_only import coarser, weight_unit
from golden.units.requant_parameters import value_step
from vitforge.spec.config import Config

_SEARCHED = 50_000   # values of a tensor that the search for a two-scale format looks at


def observations(model: Vit, images: Tensor) -> dict[str, Tensor]:
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


def calibrate(model: Vit, codes: Tensor, config: Config,
              weight_bits: int | Mapping[str, int] | None = None, *, stream: str = "ptf",
              gelu: str = "two-scale") -> Network:
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
        Codes of GeLU's result: "two-scale" or "uniform".

    Raises
    ------
    ValueError
        If the configuration can't run it (the message names the field), the images have another
        size, a width of weights is out of range or of no layer, or there are no such codes; if a
        parameter can't be quantized, or a value is not finite (the message names it).
    """
    for name, given, known in (("stream", stream, STREAMS), ("gelu", gelu, GELUS)):
        if given not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")
    check_can_run(model.spec, config)
    check_parameters(model)
    widths = _widths(model, config, weight_bits)
    seen = observations(model, image_codes(codes, model.spec).to(torch.float32) / 255)
    plan = _Calibration(seen, config, stream, gelu)
    plan.activations(model.spec)
    seen.clear()   # of a large network they take as much memory as its integers
    weights = model.state_dict()
    matrices = {name: plan.matrix(name, weights.pop(f"{name}.weight").double(), bits)
                for name, bits in widths.items()}
    return build(Plan(spec=model.spec, config=config, matrices=matrices, formats=plan.formats,
                      parameters={name: value.double() for name, value in weights.items()}))


def _widths(model: Vit, config: Config, given: int | Mapping[str, int] | None) -> dict[str, int]:
    """Width of every layer's weights."""
    names = [name.removesuffix(".weight") for name, value in model.named_parameters()
             if name.endswith(".weight") and value.ndim > 1]
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

    def __init__(self, seen: dict[str, Tensor], config: Config, stream: str, gelu: str) -> None:
        self.seen = seen
        self.residual = STREAMS[stream]
        self.gelu = GELUS[gelu]
        self.config = config
        self.shift_only = config.multiplier_bits == 1
        self.formats: dict[str, Format] = {"input": Uniform(scale=1 / 255)}

    def matrix(self, name: str, weight: Tensor, bits: int) -> Matrix:
        """Symmetric weights per output channel; the head's logits must have one step."""
        weight = weight.flatten(1)
        if name == "head":
            head = Uniform.symmetric(float(weight.abs().max()), bits)
            return Matrix(codes=head.quantize(weight).to(torch.int8),
                          scale=torch.as_tensor(head.scale, dtype=torch.float64))
        found = Uniform.symmetric(weight.abs().amax(1, keepdim=True), bits)
        if self.shift_only:
            unit = weight_unit(name, self.formats, self.config).reshape(-1, 1)
            found = Uniform(scale=coarser(found.scale, unit), bits=bits, signed=True)
        self.formats[f"{name}.weight"] = found
        assert isinstance(found.scale, Tensor)
        return Matrix(codes=found.quantize(weight).to(torch.int8), scale=found.scale[:, 0])

    def activations(self, spec: VitSpec) -> None:
        """Find the formats of all activations."""
        self.stream("embedding")
        for index in range(spec.depth):
            name = f"blocks.{index}"
            self.uniform(f"{name}.norm1")
            self.attention(f"{name}.attn", spec.head_dim)
            self.stream(f"{name}.residual1")
            self.uniform(f"{name}.norm2")
            self.formats[f"{name}.mlp.act"] = self.gelu(self.seen[f"{name}.mlp.act"], self.config)
            self.stream(f"{name}.residual2")
        # The classifier reads the class token alone.
        self.seen["norm"] = self.seen["norm"][:, 0]
        self.uniform("norm")

    def uniform(self, name: str, bits: int = 8, unit: float | None = None) -> None:
        """Asymmetric min-max of an observed tensor; its step is a unit, shifted left, if given."""
        low, high = float(self.seen[name].min()), float(self.seen[name].max())
        found = Uniform.of_range(low, high, bits)
        if unit is not None:
            step = max(unit, float(coarser(found.scale, unit)))
            found = Uniform(scale=step, bits=bits, zero_point=math.floor(-min(low, 0) / step + 0.5))
        self.formats[name] = found

    def stream(self, name: str) -> None:
        self.formats[name] = self.residual(self.seen[name], self.config)

    def attention(self, name: str, head_dim: int) -> None:
        bits = self.config.weight_bits   # K and V take the place of weights
        peaks = {part: self.seen[f"{name}.{part}"].abs() for part in "qkv"}
        for part in "qkv":
            peak = peaks[part].amax((0, 2)).flatten() if part == "v" else float(peaks[part].max())
            if part == "v" and self.shift_only:
                peak = coarser(peak, float(peaks[part].max()))
            self.formats[f"{name}.{part}"] = Uniform.symmetric(peak, bits, zero_point=1 << bits - 1)
        query, key, value = (float(torch.as_tensor(self.formats[f"{name}.{part}"].scale,
                                                   dtype=torch.float64).max()) for part in "qkv")
        unit = query * key * head_dim**-0.5 if self.shift_only else None
        self.uniform(f"{name}.scores", min(8, self.config.score_bits), unit)
        codes = fit(self.seen[f"{name}.softmax"], self.config)
        self.formats[f"{name}.softmax"] = codes
        if self.shift_only:   # the codes' step is what `golden.network.build` makes of it
            scores = float(self.formats[f"{name}.scores"].scale)
            unit = value * float(attend(scores, codes, self.config)[1].scale)
        self.uniform(f"{name}.context", unit=unit)


def power_of_two_stream(seen: Tensor, config: Config) -> Shifted:
    """PTF of the residual stream; its operands must fit norm_bits."""
    ptf = power_of_two_factor(seen, levels=levels(config))
    return Shifted(scale=ptf.scale, zero_point=ptf.zero_point, shift=ptf.shift)


def outlier_stream(seen: Tensor, config: Config) -> Shifted:
    """O-2SF of the residual stream; its operands must fit norm_bits."""
    found = outlier_two_scale(seen, max_shift=config.norm_bits - config.mantissa_bits)
    return Shifted(scale=found.scale, zero_point=found.zero_point, shift=found.shift)


def uniform(seen: Tensor, config: Config) -> Uniform:
    """Asymmetric min-max, not finer than the steps that GeLU has."""
    low, high = float(seen.min()), float(seen.max())
    return Uniform.of_range(low, max(high, low + 255 * value_step(config)))


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
