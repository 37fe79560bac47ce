# SPDX-License-Identifier: Apache-2.0
"""How many bits weights and activations of an integer network really take."""

__all__ = ["Widths", "signed_bits", "stored_widths", "weight_bytes"]

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from golden.network.integers import Network
from golden.network.ops import Beside, Multiply, Norm, Operation, Pool, Tokens, channels, made


def signed_bits(values: Tensor) -> int:
    """Width of the narrowest signed integers that hold all values, at least 2."""
    low, high = (int(end) for end in values.aminmax())
    return max(2, max(high, -low - 1).bit_length() + 1)


def weight_bytes(network: Network) -> int:
    """Bytes of all weights, each layer's in the narrowest signed integers that hold them."""
    return sum(-(-weights.numel() * signed_bits(weights) // 8)
               for weights in network.weights.values())


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

    Weights as `weight_bytes` counts them. Operands are the activations that matrix products (and a
    mean of tokens) read, each tensor as often as it has elements in an image: the picture,
    LayerNorm's codes, Q, K and V, probabilities, the context, and GeLU's codes.
    """
    weights = network.weights.values()
    total = sum(values.numel() for values in weights)
    bits = sum(values.numel() * signed_bits(values) for values in weights)
    stream = [network.stream(operation.reads[0]).bits for operation in network.operations
              if isinstance(operation, Norm)]
    return Widths(bits / total, _mean(_operands(network)), sum(stream) / len(stream))


def _mean(parts: Iterator[tuple[int, int]]) -> float:
    """Mean width of (elements, bits)."""
    found = list(parts)
    return sum(size * bits for size, bits in found) / sum(size for size, _ in found)


def _operands(network: Network) -> Iterator[tuple[int, int]]:
    """Elements and bits of every tensor of operands."""
    writers = made(network.operations)
    for operation in network.operations:
        if isinstance(operation, Pool):
            sizes: tuple[int, ...] = (
                operation.tokens * channels(operation.reads[0], writers),)
        elif isinstance(operation, Multiply):
            sizes = operation.elements
        else:
            continue
        for name, size in zip(operation.reads, sizes, strict=False):
            writer = writers[name]
            while isinstance(writer, Tokens | Beside):
                name, writer = writer.reads[0], writers[writer.reads[0]]
            yield size, _bits(network, writer, name)


def _bits(network: Network, operation: Operation, name: str) -> int:
    """Width of a tensor's codes, of which those of Q, K and V stand in a byte."""
    layer = network.requantizations.get(operation.name)
    if layer is None or not layer.parts:
        return layer.encoding.bits if layer is not None and len(operation.writes) > 1 \
            else network.formats[name].code_bits
    return layer.parts[operation.writes.index(name)].bits
