# SPDX-License-Identifier: Apache-2.0
"""Keys and values that a machine stores as two codes of 4 bits in a byte.

Where two tokens may share a multiplier (`modes` with quad), such keys and values are weights of
-7..7: the least weight of 4 bits counts as the next one.
"""

__all__ = ["LEAST", "narrow", "packed_stationary", "part_encodings", "stationary"]

from collections.abc import Mapping

from torch import Tensor

from golden.formats.formats import Table, Uniform
from golden.network.integers import Network
from golden.network.ops import Context, Operation, Product, Requantize, Scores, made, summed
from golden.units.encoding import Encoding
from vitforge.spec.sizes import doubled

#: The least weight that a packed code has.
LEAST = -7


def stationary(operands: Tensor, packed: bool) -> Tensor:
    """Return keys or values, less their zero point, as the weights that they are."""
    return operands.clamp_min(LEAST) if packed else operands


def narrow(encoding: Encoding) -> bool:
    """Whether codes less their zero point lie in -8..7."""
    return (encoding.kind == "uniform" and encoding.zero_point <= 8
            and (1 << encoding.bits) - 1 - encoding.zero_point <= 7)


def part_encodings(network: Network, operation: Requantize) -> Mapping[str, Encoding]:
    """Return the encoding of every tensor that an operation writes."""
    layer = network.requantizations[operation.name]
    return dict(zip(operation.writes, layer.parts or (layer.encoding,) * len(operation.writes),
                    strict=True))


def packed_stationary(network: Network) -> frozenset[str]:
    """Return the keys and values that are packed.

    Keys of at most 4 bits; values too, if their layer's weights have at most 4 bits, so that a pass
    makes both words of a byte, and the probabilities are uniform codes or a table's.
    """
    if not doubled(network.config):
        return frozenset()
    known = made(network.operations)
    return frozenset(
        operation.reads[1] for operation in network.operations
        if (isinstance(operation, Scores) and _narrow(network, operation, known))
        or (isinstance(operation, Context) and _narrow(network, operation, known)
            and _pairs(network, operation, known)
            and isinstance(network.formats[operation.reads[0]], Uniform | Table)))


def _narrow(network: Network, operation: Operation, known: Mapping[str, Operation]) -> bool:
    projection = known[operation.reads[1]]
    assert isinstance(projection, Requantize)
    return narrow(part_encodings(network, projection)[operation.reads[1]])


def _pairs(network: Network, operation: Operation, known: Mapping[str, Operation]) -> bool:
    projection = known[operation.reads[1]]
    assert isinstance(projection, Requantize)
    product = summed(projection, known)
    assert isinstance(product, Product)
    return int(network.weights[product.name].abs().max()) <= -LEAST
