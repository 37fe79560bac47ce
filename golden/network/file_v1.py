# SPDX-License-Identifier: Apache-2.0
"""Version 1 of a network's file: blocks of a ViT, each with its layers. Read, never written.

The dataclasses are those that version 1 names in its JSON; `upgraded` makes a
`golden.network.integers.Network` of them, with the same integers.
"""

__all__ = ["TYPES", "Old", "upgraded"]

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from golden.float.vit import VitSpec
from golden.formats.formats import Format, Shifted, Uniform
from golden.network.integers import Affine, Network
from golden.network.ops import Tokens
from golden.network.topology import vit
from golden.units.requant import Requantization
from golden.units.softmax import PolynomialScale, ShiftScale
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """A product of codes in the format `input`, requantized."""

    input: Format
    weights: Tensor
    requantization: Requantization


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """A LayerNorm."""

    input: Shifted
    gamma: Tensor
    beta: Tensor
    zero_point: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """Attention of one block, between its two linear layers."""

    query: Uniform
    key: Uniform
    value: Uniform
    scores: Requantization
    scale: ShiftScale | PolynomialScale
    probability: Format
    context: Requantization


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One encoder block."""

    norm1: Norm
    qkv: Linear
    attention: Attention
    proj: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear

    def layers(self, name: str) -> Iterator[tuple[str, str, Linear]]:
        """Yield name, name of the requantization, and integers of every layer."""
        yield f"{name}.attn.qkv", f"{name}.attn.qkv", self.qkv
        yield f"{name}.attn.proj", f"{name}.residual1", self.proj
        yield f"{name}.mlp.fc1", f"{name}.mlp.fc1", self.fc1
        yield f"{name}.mlp.fc2", f"{name}.residual2", self.fc2

    def norms(self, name: str) -> dict[str, Norm]:
        """Return its norms by name."""
        return {f"{name}.norm1": self.norm1, f"{name}.norm2": self.norm2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Old:
    """All of a file of version 1; its JSON calls it "Network"."""

    config: Config
    spec: VitSpec
    embedding: Linear
    position: Tensor
    position_format: Shifted
    blocks: tuple[Block, ...]
    norm: Norm
    head_input: Uniform
    head: Tensor
    head_bias: Tensor
    logit_scale: float
    formats: Mapping[str, Format]


#: By their names in the JSON.
TYPES: dict[str, type] = {"Linear": Linear, "Norm": Norm, "Attention": Attention, "Block": Block,
                          "Network": Old}


def upgraded(old: Old) -> Network:
    """Return the same network, as a list of operations has it.

    Raises
    ------
    ValueError
        If the number of blocks is not the shape's.
    """
    blocks = {f"blocks.{index}": block for index, block in enumerate(old.blocks)}
    if len(blocks) != old.spec.depth:
        raise ValueError(f"{len(blocks)} blocks, not {old.spec.depth}")
    layers = [("patch_embed.proj", "embedding", old.embedding)]
    norms = {"norm": old.norm}
    requantizations: dict[str, Requantization] = {}
    scales = {}
    for name, block in blocks.items():
        layers += block.layers(name)
        norms |= block.norms(name)
        attention = block.attention
        requantizations |= {f"{name}.attn.scores": attention.scores,
                            f"{name}.attn.context": attention.context}
        scales[f"{name}.attn.softmax"] = attention.scale
    formats = {**old.formats, "input": old.embedding.input, "position": old.position_format}
    for name in norms:   # whatever was decided, LayerNorm's codes saturated at 8 bits
        formats[name] = dataclasses.replace(formats[name], bits=CODE_BITS)
    formats |= {item.writes[0]: formats[item.reads[0]] for item in vit(old.spec)
                if isinstance(item, Tokens) and item.reads[0] in formats}
    return Network(
        config=old.config, spec=old.spec, formats=formats,
        weights={name: layer.weights for name, _, layer in layers} | {"head": old.head},
        requantizations=requantizations | {
            name: layer.requantization for _, name, layer in layers},
        norms={name: Affine(gamma=norm.gamma, beta=norm.beta) for name, norm in norms.items()},
        scales=scales, constants={"position": old.position}, biases={"head": old.head_bias},
        logit_scale=old.logit_scale)
