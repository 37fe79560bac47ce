# SPDX-License-Identifier: Apache-2.0
"""From a float network and a few images to the integers of `golden.network`.

FQ-ViT's calibration (arXiv 2111.13824) without its observers: min-max ranges of about 100 images,
power-of-two factors for the residual stream, symmetric weights per output channel. Real arithmetic
is used here and nowhere after.
"""

__all__ = ["calibrate", "observations"]

from collections.abc import Mapping

import torch
from torch import Tensor

from golden.encoding import Encoding
from golden.formats import Format, Log2, Shifted, TwoScale, Uniform
from golden.layernorm import layernorm_parameters
from golden.network import Attention, Block, Linear, Network, Norm, image_codes
from golden.ptf import power_of_two_factor
from golden.requant import Requantization
from golden.requant_parameters import dyadic, gelu_multiplier, residual_multiplier, value_step
from golden.softmax import softmax_scale
from golden.vit import Vit, VitSpec, observe
from hw.config import Config

_SEARCHED = 50_000   # values of a tensor that the search for a two-scale format looks at


def observations(model: Vit, images: Tensor) -> dict[str, Tensor]:
    """Return every observed tensor of one batch of real images ``[B, channels, H, W]`` by name."""
    seen: dict[str, Tensor] = {}
    with observe(model, seen.__setitem__), torch.inference_mode():
        model(images)
    return seen


def calibrate(model: Vit, codes: Tensor, config: Config,
              weight_bits: int | Mapping[str, int] | None = None) -> Network:
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

    Raises
    ------
    ValueError
        If the configuration can't run it (the message names the field), the images have another
        size, or a width of weights is out of range or of no layer.
    """
    spec = model.spec
    for name, least, why in (("mantissa_bits", 9, "8-bit codes less a zero point"),
                             ("operand_bits", (1 << config.attention_bits) + 1,
                              f"attention codes of {config.attention_bits} bits"),
                             ("norm_bits", config.mantissa_bits, "LayerNorm inputs"),
                             ("max_keys", spec.tokens, "this network's tokens"),
                             ("max_channels", spec.dim, "this network's channels")):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least} for {why}, "
                             f"not {getattr(config, name)}")
    if config.attention != "log2":
        raise ValueError(f"attention must be log2 for this network, not {config.attention}")
    seen = observations(model, image_codes(codes, spec).to(torch.float32) / 255)
    return _Calibration(model, seen, config, _widths(model, config, weight_bits)).network()


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
    """One calibration: the weights, what was observed, and the formats found so far."""

    def __init__(self, model: Vit, seen: dict[str, Tensor], config: Config,
                 widths: dict[str, int]) -> None:
        self.spec: VitSpec = model.spec
        self.weights = {name: value.double() for name, value in model.state_dict().items()}
        self.seen = seen
        self.config = config
        self.widths = widths
        self.formats: dict[str, Format] = {}

    def network(self) -> Network:
        pixel = Uniform(scale=1 / 255)
        stream = self.stream("embedding")
        embedding, position, position_format = self.embedding(pixel, stream)
        blocks = []
        for index in range(self.spec.depth):
            block, stream = self.block(f"blocks.{index}", stream)
            blocks.append(block)
        norm, normed = self.norm("norm", stream, self.seen["norm"][:, 0])
        weight = self.weights["head.weight"]
        head = Uniform.symmetric(float(weight.abs().max()), self.widths["head"])
        step = float(normed.scale) * float(head.scale)
        return Network(config=self.config, spec=self.spec, embedding=embedding, position=position,
                       position_format=position_format, blocks=tuple(blocks), norm=norm,
                       head_input=normed, head=head.quantize(weight).T.contiguous(),
                       head_bias=_steps(self.weights["head.bias"] / step), logit_scale=step,
                       formats=self.formats)

    def block(self, name: str, stream: Shifted) -> tuple[Block, Shifted]:
        norm1, normed = self.norm(f"{name}.norm1", stream)
        qkv, attention, context = self.attention(f"{name}.attn", normed)
        middle = self.stream(f"{name}.residual1")
        proj = self.branch(f"{name}.attn.proj", context, stream, middle)
        norm2, normed = self.norm(f"{name}.norm2", middle)
        fc1, hidden = self.gelu(f"{name}.mlp", normed)
        after = self.stream(f"{name}.residual2")
        fc2 = self.branch(f"{name}.mlp.fc2", hidden, middle, after)
        return Block(norm1=norm1, qkv=qkv, attention=attention, proj=proj, norm2=norm2, fc1=fc1,
                     fc2=fc2), after

    def uniform(self, name: str, seen: Tensor | None = None) -> Uniform:
        """Asymmetric min-max of an observed tensor."""
        tensor = self.seen[name] if seen is None else seen
        found = Uniform.of_range(float(tensor.min()), float(tensor.max()))
        self.formats[name] = found
        return found

    def stream(self, name: str) -> Shifted:
        """PTF of the residual stream; its operands must fit norm_bits."""
        levels = min(4, self.config.norm_bits - self.config.mantissa_bits + 1)
        ptf = power_of_two_factor(self.seen[name], levels=levels)
        found = Shifted(scale=ptf.scale, zero_point=ptf.zero_point, shift=ptf.shift)
        self.formats[name] = found
        return found

    def norm(self, name: str, stream: Shifted, seen: Tensor | None = None) -> tuple[Norm, Uniform]:
        out = self.uniform(name, seen)
        gamma, beta = layernorm_parameters(self.weights[f"{name}.weight"],
                                           self.weights[f"{name}.bias"], float(out.scale),
                                           self.config)
        return Norm(input=stream, gamma=gamma, beta=beta, zero_point=out.zero_point), out

    def matrix(self, name: str) -> tuple[Tensor, Tensor]:
        """Integer weights ``[K, N]`` and their scales ``[N]``."""
        weight = self.weights[f"{name}.weight"].flatten(1)
        found = Uniform.symmetric(weight.abs().amax(1, keepdim=True), self.widths[name])
        self.formats[f"{name}.weight"] = found
        assert isinstance(found.scale, Tensor)
        return found.quantize(weight).T.contiguous(), found.scale[:, 0]

    def dyadic(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Multipliers and shifts of positive ratios ``[C]``."""
        pairs = [dyadic(value, self.config) for value in ratio.tolist()]
        return torch.tensor([m for m, _ in pairs]), torch.tensor([s for _, s in pairs])

    def embedding(self, pixel: Uniform, stream: Shifted) -> tuple[Linear, Tensor, Shifted]:
        """Patch embedding; its residual is the position, with the class token in row 0.

        The middle of each channel's constants goes into the bias, which the class token gets too
        (its products are zero), so that the codes only have to span what differs among tokens.
        """
        weights, scale = self.matrix("patch_embed.proj")
        scale = scale * pixel.scale
        constant = self.weights["pos_embed"][0].clone()
        constant[0] += self.weights["cls_token"][0, 0]
        constant[1:] += self.weights["patch_embed.proj.bias"]
        middle = (constant.amax(0) + constant.amin(0)) / 2
        constant = constant - middle
        position = self.position(constant)
        layer = self.residual(scale, middle, float(position.scale), stream)
        return (Linear(input=pixel, weights=weights, requantization=layer),
                position.quantize(constant), position)

    def position(self, constant: Tensor) -> Shifted:
        """Codes of a constant ``[tokens, dim]`` around zero, a shift for each channel.

        The scale and, channel by channel, the shift of the least squared error.
        """
        levels = min(4, self.config.norm_bits - self.config.mantissa_bits + 1)
        widest = max(float(constant.abs().max()), 1e-9) / (127 << levels - 1)
        best, least = None, float("inf")
        for percent in range(100, 45, -5):
            scale = widest * percent / 100
            errors = torch.stack([
                (found.dequantize(found.quantize(constant)) - constant).square().sum(0)
                for found in (Shifted(scale=scale, zero_point=128, shift=torch.tensor(shift))
                              for shift in range(levels))])
            if (error := float(errors.amin(0).sum())) < least:
                best, least = Shifted(scale=scale, zero_point=128, shift=errors.argmin(0)), error
        assert best is not None
        return best

    def branch(self, name: str, source: Format, before: Shifted, after: Shifted) -> Linear:
        """Linear layer whose result is added to the residual stream."""
        weights, scale = self.matrix(name)
        layer = self.residual(scale * source.scale, self.weights[f"{name}.bias"],
                              float(before.scale), after)
        return Linear(input=source, weights=weights, requantization=layer)

    def residual(self, scale: Tensor, bias: Tensor, before: float,
                 after: Shifted) -> Requantization:
        """Requantization that adds a residual of step `before`.

        v has the step ``after.scale / 2**extra``: with `extra` as large as the residual and the
        whole range of the stream allow, so that the sum is rounded once, when it is encoded.
        """
        config = self.config
        extra = min(config.value_bits - config.norm_bits, 15 - int(after.shift.max()))
        while extra and before / float(after.scale) * 2**extra >= 0.999 * 2 ** (
                config.value_bits - config.norm_bits):
            extra -= 1
        step = float(after.scale) / 2**extra
        multiplier, shift = self.dyadic(scale / step)
        return Requantization(
            bias=_steps(bias / scale), multiplier=multiplier, shift=shift, operation="residual",
            multiplier2=residual_multiplier(before / step, config),
            encoding=Encoding(zero_point=after.zero_point), encode_shift=after.shift + extra)

    def attention(self, name: str, source: Uniform) -> tuple[Linear, Attention, Uniform]:
        bits = self.config.weight_bits   # K and V take the place of weights
        half, dim = 1 << bits - 1, self.spec.dim
        peaks = {part: self.seen[f"{name}.{part}"].abs() for part in "qkv"}
        query = Uniform.symmetric(float(peaks["q"].max()), bits, zero_point=half)
        key = Uniform.symmetric(float(peaks["k"].max()), bits, zero_point=half)
        value = Uniform.symmetric(peaks["v"].amax((0, 2)).flatten(), bits, zero_point=half)
        weights, scale = self.matrix(f"{name}.qkv")
        scale = scale * source.scale
        step = torch.cat((torch.full((dim,), float(query.scale)),
                          torch.full((dim,), float(key.scale)), torch.as_tensor(value.scale)))
        multiplier, shift = self.dyadic(scale / step)
        qkv = Linear(input=source, weights=weights, requantization=Requantization(
            bias=_steps(self.weights[f"{name}.qkv.bias"] / scale), multiplier=multiplier,
            shift=shift, encoding=Encoding(bits=bits, zero_point=half)))

        seen = self.seen[f"{name}.scores"]
        code_bits = min(8, self.config.score_bits)
        score = Uniform.of_range(float(seen.min()), float(seen.max()), code_bits)
        per_score = float(query.scale) * float(key.scale) * self.spec.head_dim**-0.5
        factor, down = dyadic(per_score / float(score.scale), self.config)
        probability = Log2.of_bits(self.config.attention_bits)
        context = self.uniform(f"{name}.context")
        multiplier, shift = self.dyadic(torch.as_tensor(value.scale) * (
            float(probability.scale) / float(context.scale)))
        self.formats |= {f"{name}.q": query, f"{name}.k": key, f"{name}.v": value,
                         f"{name}.scores": score, f"{name}.softmax": probability}
        return qkv, Attention(
            query=query, key=key, value=value, probability=probability,
            scores=Requantization(multiplier=factor, shift=down, encoding=Encoding(
                bits=code_bits, zero_point=score.zero_point)),
            scale=softmax_scale(float(score.scale), self.config),
            context=Requantization(multiplier=multiplier, shift=shift, encoding=Encoding(
                zero_point=context.zero_point))), context

    def gelu(self, name: str, source: Uniform) -> tuple[Linear, TwoScale]:
        """First linear layer of the MLP, to signed two-scale codes of GeLU."""
        weights, scale = self.matrix(f"{name}.fc1")
        scale = scale * source.scale
        found = self.two_scale(self.seen[f"{name}.act"])
        self.formats[f"{name}.act"] = found
        multiplier, shift = self.dyadic(scale / value_step(self.config))
        factor, encode_shift = gelu_multiplier(float(found.scale), self.config)
        layer = Requantization(
            bias=_steps(self.weights[f"{name}.fc1.bias"] / scale), multiplier=multiplier,
            shift=shift, operation="gelu", multiplier2=factor, encode_shift=encode_shift,
            encoding=Encoding(kind="two-scale", m=found.m, signed=True))
        return Linear(input=source, weights=weights, requantization=layer), found

    def two_scale(self, seen: Tensor) -> TwoScale:
        """Choose m, and how much to clip, by the least squared error (OPT-m's aim; [R])."""
        peak, best, least = float(seen.abs().max()), None, float("inf")
        seen = seen.flatten()[::max(1, seen.numel() // _SEARCHED)]
        room = self.config.operand_bits - 7
        for m in range(1, min(7, room + 1)):
            for percent in range(100, 60, -5):
                scale = peak * percent / 100 / (63 << m)
                if scale < value_step(self.config):
                    continue
                found = TwoScale(scale=scale, m=m, signed=True)
                error = float((found.dequantize(found.quantize(seen)) - seen).square().mean())
                if error < least:
                    best, least = found, error
        if best is None:
            raise ValueError(f"value_bits must be more than {self.config.value_bits} for GeLU "
                             f"values up to {peak:.3g}")
        return best


def _steps(real: Tensor) -> Tensor:
    """Round to integers, half up."""
    return (real + 0.5).floor().to(torch.int64)
