# SPDX-License-Identifier: Apache-2.0
"""Which tensors of a network share bytes, two codes of 4 bits each, and what passes say of them."""

__all__ = ["Halves", "folded"]

import dataclasses

import torch
from torch import Tensor

from golden.formats.formats import Format, Uniform
from golden.network.halves import narrow, packed_stationary, part_encodings
from golden.network.integers import Network
from golden.network.ops import Operation, Product, Requantize, Scores, made
from golden.units.encoding import Encoding
from golden.units.requant import Requantization
from vitforge.spec.elements import Element
from vitforge.spec.instruction import PACKS
from vitforge.spec.sizes import doubled

_BITS = 4
#: Zero point of the codes that all multipliers take: in the middle.
_MIDDLE = 1 << _BITS - 1


def folded(layer: Requantization, weights: Tensor, operand: Format) -> Requantization:
    """Return the requantization of sums of codes less 8, for that of codes less their zero point.

    ``sum (c - z) w == sum (c - 8) w + (8 - z) sum w``, and the last term is known: a bias.
    """
    assert isinstance(operand, Uniform)
    more = (_MIDDLE - operand.zero_point) * weights.sum(0)
    return dataclasses.replace(layer, bias=torch.as_tensor(layer.bias) + more)


class Halves:
    """Tensors that share bytes.

    Attributes
    ----------
    stationary
        Keys and values (`golden.network.halves.packed_stationary`).
    """

    def __init__(self, network: Network) -> None:
        self.network, self.config = network, network.config
        self.made = made(network.operations)
        self.stationary = packed_stationary(network)
        self._top = (1 << self.config.packed_weight_bits - 1) - 1

    def why_not(self, product: Operation) -> str:
        """Return what keeps two tokens of a layer from sharing a multiplier; "" if nothing does."""
        if not doubled(self.config):
            return "modes without quad"
        read = product.reads[0]
        if isinstance(product, Scores):
            if product.reads[1] not in self.stationary:
                return "keys of more than 4 bits"
            encoding = self.encoding(read)
            if encoding.bits > _BITS:
                return f"queries of {encoding.bits} bits"
            return "" if self._reaches(encoding) else f"queries with zero at {encoding.zero_point}"
        found = self.network.formats[read]
        if not isinstance(found, Uniform):
            return f"operands of {found.words()}"
        if found.bits > _BITS:
            return f"operands of {found.bits} bits"
        if isinstance(product, Product):
            top = int(self.network.weights[product.name].abs().max())
            return f"weights up to {top}" if top > self._top else ""
        # Probabilities are what they are: their sum with the values is no constant.
        if product.reads[1] not in self.stationary:
            return "values of more than 4 bits"
        return "" if self._fits(0, (1 << found.bits) - 1) else \
            f"probabilities up to {(1 << found.bits) - 1} (multiplier is {self.config.multiplier})"

    def _fits(self, low: int, high: int) -> bool:
        half = 1 << Element(self.config).operand_bits["quad"] - 1
        return -half <= low and high < half

    def _reaches(self, encoding: Encoding) -> bool:
        return narrow(encoding) or self._fits(-encoding.zero_point,
                                              (1 << _BITS) - 1 - encoding.zero_point)

    def encoding(self, name: str) -> Encoding:
        """Return the encoding of a query, key or value."""
        projection = self.made[name]
        assert isinstance(projection, Requantize)
        return part_encodings(self.network, projection)[name]

    def operand(self, name: str) -> dict[str, int]:
        """Fields of a PASS that reads a packed tensor."""
        found = self.network.formats[name]
        assert isinstance(found, Uniform)
        return {"operand_zero_point": _MIDDLE, "operand_bits": found.bits}

    def query(self, name: str) -> dict[str, int]:
        """Fields of the PASS of scores that reads packed queries."""
        encoding = self.encoding(name)
        zero = _MIDDLE if narrow(encoding) else encoding.zero_point
        return {"operand_zero_point": zero, "operand_bits": _BITS}

    def projection(self, name: str, pack: str) -> dict[str, int]:
        """Fields of a PASS that makes packed queries, keys or values."""
        encoding = self.encoding(name)
        lowest = _MIDDLE - encoding.zero_point if narrow(encoding) else 0
        return {"pack": PACKS[pack], "lowest": lowest}
