# SPDX-License-Identifier: Apache-2.0
"""All integers of a network, by the names of its operations (`golden.network.topology`).

The scheme is FQ-ViT's (arXiv 2111.13824) with 8-bit weights and activations and 4-bit log2
attention, or other codes of the configuration, made integer from end to end:

- the residual stream is in PTF codes, and is added in the requantizer that ends each branch;
- LayerNorm reads PTF codes and gives uniform ones;
- K and V are the stationary operands of the two attention products, so the zero of their codes is
  the middle of a byte, whatever their width;
- GeLU's result is in signed two-scale codes (after TSPTQ-ViT, arXiv 2305.12901; a reconstruction);
- the class token and the position embedding, with the bias of the patch embedding, are codes like
  the residual stream's: the constant residual of the first layer;
- so are those of a relative position bias, the constant residual of the scores.
"""

__all__ = ["Affine", "Network"]

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from golden.formats.formats import Format, Shifted, Uniform
from golden.network.ops import Operation, products
from golden.network.topology import VIT, Spec, operations
from golden.units.requant import Requantization
from golden.units.softmax import PolynomialScale, ShiftScale
from vitforge.spec.config import Config


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """What a LayerNorm multiplies by and adds: `golden.units.layernorm.layernorm_parameters`."""

    gamma: Tensor
    beta: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """All integers of a network, and what they mean.

    Attributes
    ----------
    config
        Configuration whose widths the integers fit.
    spec, topology
        Shape, and the name of the function that makes its `operations`.
    formats
        Format of every tensor of codes, by its name, and of the weights, by their parameter's.
    weights
        int64 ``[K, N]`` of every `golden.network.ops.Product`.
    requantizations
        Of every `Requantize`. That of scores gives codes of which half of 8 bits is subtracted:
        softmax doesn't see a common offset.
    norms
        Of every `Norm`.
    scales
        Of the scores of every `Softmax`.
    constants
        Codes of every `Position`, ``[tokens, dim]``, and of the table of every `PairBias`,
        ``[distances, heads]``.
    biases
        int64 ``[classes]`` of every `Logits`: the logits are the accumulators.
    logit_scale
        Real value of a logit's step; for reports, never used in between.
    """

    config: Config
    spec: Spec
    topology: str = VIT
    formats: Mapping[str, Format]
    weights: Mapping[str, Tensor]
    requantizations: Mapping[str, Requantization]
    norms: Mapping[str, Affine]
    scales: Mapping[str, ShiftScale | PolynomialScale]
    constants: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]
    logit_scale: float

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Its operations, in order."""
        return operations(self.spec, self.topology)

    @property
    def products(self) -> int:
        """Multiplications of the matrix products of an image."""
        return products(self.operations)

    def stream(self, name: str) -> Shifted:
        """Return the format of a tensor of the residual stream."""
        found = self.formats[name]
        assert isinstance(found, Shifted)
        return found

    def uniform(self, name: str) -> Uniform:
        """Return the format of a tensor of uniform codes."""
        found = self.formats[name]
        assert isinstance(found, Uniform)
        return found
