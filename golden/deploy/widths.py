# SPDX-License-Identifier: Apache-2.0
"""How many bits weights and activations of an integer network really take."""

__all__ = ["Widths", "layer_weights", "signed_bits", "stored_widths", "weight_bytes"]

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from golden.network.run import Network


def signed_bits(values: Tensor) -> int:
    """Width of the narrowest signed integers that hold all values, at least 2."""
    low, high = (int(end) for end in values.aminmax())
    return max(2, max(high, -low - 1).bit_length() + 1)


def layer_weights(network: Network) -> dict[str, Tensor]:
    """Return the integer weights of every layer by its name."""
    found = {"patch_embed.proj": network.embedding.weights}
    for index, block in enumerate(network.blocks):
        name = f"blocks.{index}"
        found |= {f"{name}.attn.qkv": block.qkv.weights, f"{name}.attn.proj": block.proj.weights,
                  f"{name}.mlp.fc1": block.fc1.weights, f"{name}.mlp.fc2": block.fc2.weights}
    return found | {"head": network.head}


def weight_bytes(network: Network) -> int:
    """Bytes of all weights, each layer's in the narrowest signed integers that hold them."""
    return sum(-(-weights.numel() * signed_bits(weights) // 8)
               for weights in layer_weights(network).values())


@dataclass(frozen=True)
class Widths:
    """Mean bits of a weight, of an operand of matrix products, and of the residual stream."""

    weight: float
    operand: float
    stream: float

    def __str__(self) -> str:
        return (f"{self.weight:.2f} bits a weight, {self.operand:.2f} an operand, "
                f"{self.stream:.2f} the residual stream")


def stored_widths(network: Network) -> Widths:
    """Return what a network's integers take as they are deployed.

    Weights as `weight_bytes` counts them. Operands are the activations that matrix products read,
    each tensor as often as it has elements in an image: the picture, LayerNorm's codes, Q, K and V,
    probabilities, the context, and GeLU's codes.
    """
    weights = layer_weights(network).values()
    total = sum(values.numel() for values in weights)
    bits = sum(values.numel() * signed_bits(values) for values in weights)
    stream = [item.bits for item in (network.norm.input, *(
        norm.input for block in network.blocks for norm in (block.norm1, block.norm2)))]
    return Widths(bits / total, _mean(_operands(network)), sum(stream) / len(stream))


def _mean(parts: Iterator[tuple[int, int]]) -> float:
    """Mean width of (elements, bits)."""
    found = list(parts)
    return sum(size * bits for size, bits in found) / sum(size for size, _ in found)


def _operands(network: Network) -> Iterator[tuple[int, int]]:
    """Elements and bits of every tensor of operands."""
    spec = network.spec
    rows, keys = spec.tokens * spec.dim, spec.heads * spec.tokens**2
    yield spec.patches * spec.patch_values, network.embedding.input.bits
    for block in network.blocks:
        yield from ((rows, norm.bits) for norm in (block.norm1, block.norm2))
        projections = block.qkv.requantization
        yield from ((rows, part.bits) for part in projections.parts or (projections.encoding,) * 3)
        yield keys, block.attention.probability.code_bits
        yield rows, block.proj.input.bits
        yield spec.tokens * spec.mlp_hidden, block.fc2.input.bits
    yield spec.dim, network.norm.bits
