# SPDX-License-Identifier: Apache-2.0
"""A network that was found in a graph: its shape, and its parameters under timm's names."""

__all__ = ["Found", "block"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from golden.graph.attention import Attention, Mlp
from golden.graph.values import Node, Reals


@dataclass(frozen=True)
class Found:
    """A network of a family.

    Attributes
    ----------
    family
        "vit" or "swin".
    fields
        Of `golden.float.vit.VitSpec` or `golden.float.swin.SwinSpec`.
    state
        Parameters by timm's names.
    """

    family: str
    fields: Mapping[str, Any]
    state: Mapping[str, Reals]


def block(name: str, norms: tuple[Node, Node], attention: Attention, mlp: Mlp) -> dict[str, Reals]:
    """Return the parameters of a block."""
    layers = {"attn.qkv": attention.qkv, "attn.proj": attention.proj, "mlp.fc1": mlp.first,
              "mlp.fc2": mlp.second,
              **{f"norm{n}": (norm.data["weight"], norm.data["bias"])
                 for n, norm in enumerate(norms, 1)}}
    return {f"{name}.{layer}.{part}": value for layer, both in layers.items()
            for part, value in zip(("weight", "bias"), both, strict=True)}
