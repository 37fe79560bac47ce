# SPDX-License-Identifier: Apache-2.0
"""The tensors of a network that have a format: one `Site` for each, found by module name.

A site is the output of a module (`golden.float.vit.Tap` and friends), or the image (name
``input``): the tensors of codes of the network's list of operations (`golden.network.topology`).
Results of matrix products that are only added to the residual stream are not sites: they stay in
the accumulator.
"""

__all__ = ["CLASSIFIERS", "INPUT", "ROLES", "Site", "layers", "sites", "source"]

from dataclasses import dataclass

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.network.ops import Product
from golden.network.topology import operations

INPUT = "input"
#: The layers whose sums are the logits, of a ViT and of a Swin.
CLASSIFIERS = ("head", "head.fc")
ROLES = ("input", "stream", "norm", "query", "key", "value", "scores", "attention", "context",
         "gelu", "pool")


@dataclass(frozen=True)
class Site:
    """A tensor with a format: the module it leaves, and what it is (one of `ROLES`)."""

    name: str
    role: str


def sites(model: Vit | Swin) -> tuple[Site, ...]:
    """Return every site, in order of computation.

    The role "stream" is the residual stream, which LayerNorm reads; "norm" is LayerNorm's output;
    "scores" are scaled scores with their position bias.
    """
    return tuple(Site(name, role) for operation in operations(model.spec)
                 for name, role in zip(operation.writes, operation.roles, strict=False))


def layers(model: Vit | Swin) -> tuple[str, ...]:
    """Return the names of all modules with a weight matrix, in order of computation."""
    return tuple(operation.name for operation in operations(model.spec)
                 if isinstance(operation, Product))


def source(layer: str) -> str:
    """Return the site that a layer of `layers` reads.

    The final norm is given for both families' heads if they read it directly; Swin's reads the
    mean, ``head.pool``.
    """
    parent, _, leaf = layer.rpartition(".")
    block = parent.rpartition(".")[0]
    return {"qkv": f"{block}.norm1", "fc1": f"{block}.norm2", "fc2": f"{parent}.act",
            "reduction": f"{parent}.norm", "head": "norm", "fc": "head.pool"}.get(
                leaf, INPUT if parent == "patch_embed" else f"{parent}.context")
