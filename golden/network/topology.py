# SPDX-License-Identifier: Apache-2.0
"""The order of a network's operations, written once, from its shape.

A new topology is a function that returns operations, under a name in `TOPOLOGIES`. Names of
tensors are those of the float model's modules (`golden.float.vit.observe`) where these have them.
"""

__all__ = ["SWIN", "TOPOLOGIES", "VIT", "Spec", "named", "operations", "vit"]

from collections.abc import Callable, Iterator
from typing import Any

from golden.float.swin import SwinSpec
from golden.float.vit import VitSpec
from golden.network.ops import (
    BLANK,
    PICTURES,
    Beside,
    Context,
    Image,
    Logits,
    Norm,
    Operation,
    Pool,
    Position,
    Product,
    Requantize,
    Scores,
    Softmax,
    Tokens,
)
from golden.network.topology_swin import swin


def vit(spec: VitSpec) -> tuple[Operation, ...]:
    """Return the operations of a pre-norm ViT with a class token (arXiv 2010.11929), and registers.

    Registers (arXiv 2309.16588) are blank rows as the class token's is.
    """
    return tuple(_vit(spec))


def _vit(spec: VitSpec) -> Iterator[Operation]:
    tokens, dim = spec.tokens, spec.dim
    yield Image(name="input", reads=(PICTURES,), writes=("input",), roles=("input",))
    yield _linear("patch_embed.proj", "input", spec.patches, spec.patch_values, dim)
    yield Tokens(name="tokens", reads=("patch_embed.proj",), writes=("tokens",),
                 source=(*(BLANK,) * spec.first, *range(spec.patches)))
    yield Position(name="position", reads=(), writes=("position",), layer="patch_embed.proj")
    stream = "embedding"
    yield _added("tokens", "position", stream)
    if spec.norm_pre:
        yield _norm(stream, "norm_pre", role="stream")
        stream = "norm_pre"
    for index in range(spec.depth):
        block = f"blocks.{index}"
        middle, after = f"{block}.residual1", f"{block}.residual2"
        yield _norm(stream, f"{block}.norm1")
        yield from _attention(spec, f"{block}.attn", f"{block}.norm1")
        yield _linear(f"{block}.attn.proj", f"{block}.attn.context", tokens, dim, dim)
        yield _added(f"{block}.attn.proj", stream, middle)
        yield _norm(middle, f"{block}.norm2")
        hidden, active = f"{block}.mlp.fc1", f"{block}.mlp.act"
        yield _linear(hidden, f"{block}.norm2", tokens, dim, spec.mlp_hidden)
        yield Requantize(name=hidden, reads=(hidden,), writes=(active,), roles=("gelu",))
        yield _linear(f"{block}.mlp.fc2", active, tokens, spec.mlp_hidden, dim)
        yield _added(f"{block}.mlp.fc2", middle, after)
        stream = after
    yield from _classified(spec, stream)
    yield Logits(name="head", reads=("head",), writes=("logits",))


def _classified(spec: VitSpec, stream: str) -> Iterator[Operation]:
    """Take what is classified, and make the sums of the logits."""
    found, rows = "norm", spec.classified
    if spec.pool == "mean":
        source = tuple(range(spec.first, spec.tokens))
        yield Tokens(name="patches", reads=(stream,), writes=("patches",), source=source)
        yield Pool(name="pool", reads=("patches",), writes=("pool.sums",), tokens=spec.patches)
        yield Requantize(name="pool", reads=("pool.sums",), writes=("pool",), roles=("stream",))
        yield _norm("pool", "norm")
    else:
        yield Tokens(name="class_token", reads=(stream,), writes=("class_token",),
                     source=tuple(range(rows)))
        yield _norm("class_token", "norm")
    if spec.pool == "both":
        found = "norm.both"
        yield Beside(name="both", reads=("norm",), writes=(found,))
    yield _linear("head", found, 1, rows * spec.dim, spec.classes)


def _attention(spec: VitSpec, name: str, source: str) -> Iterator[Operation]:
    heads, tokens, width = spec.heads, spec.tokens, spec.head_dim
    query, key, value = (f"{name}.{part}" for part in "qkv")
    scores, probability, context = (f"{name}.{part}" for part in ("scores", "softmax", "context"))
    yield _linear(f"{name}.qkv", source, tokens, spec.dim, 3 * spec.dim)
    yield Requantize(name=f"{name}.qkv", reads=(f"{name}.qkv",), writes=(query, key, value),
                     roles=("query", "key", "value"), heads=heads)
    yield Scores(name=scores, reads=(query, key), writes=(f"{scores}.sums",), count=heads,
                 rows=tokens, inner=width, columns=tokens)
    yield Requantize(name=scores, reads=(f"{scores}.sums",), writes=(scores,), roles=("scores",))
    yield Softmax(name=probability, reads=(scores,), writes=(probability,), roles=("attention",))
    yield Context(name=context, reads=(probability, value), writes=(f"{context}.sums",),
                  count=heads, rows=tokens, inner=tokens, columns=width)
    yield Requantize(name=context, reads=(f"{context}.sums",), writes=(context,),
                     roles=("context",))


def _linear(name: str, source: str, rows: int, inner: int, columns: int) -> Product:
    return Product(name=name, reads=(source,), writes=(name,), rows=rows, inner=inner,
                   columns=columns)


def _added(sums: str, residual: str, stream: str) -> Requantize:
    return Requantize(name=stream, reads=(sums, residual), writes=(stream,), roles=("stream",))


def _norm(stream: str, name: str, role: str = "norm") -> Norm:
    return Norm(name=name, reads=(stream,), writes=(name,), roles=(role,))


#: A network's shape.
Spec = VitSpec | SwinSpec
#: Names of `vit` and of `golden.network.topology_swin.swin`.
VIT, SWIN = "vit", "swin"
#: Functions from a shape to operations, by the name that a network's file has.
TOPOLOGIES: dict[str, Callable[[Any], tuple[Operation, ...]]] = {VIT: vit, SWIN: swin}


def named(spec: Spec) -> str:
    """Return the name of a shape's own topology."""
    return SWIN if isinstance(spec, SwinSpec) else VIT


def operations(spec: Spec, topology: str = "") -> tuple[Operation, ...]:
    """Return the operations of a network of this shape, by its own topology if none is named.

    Raises
    ------
    ValueError
        If there is no such topology, or it is another kind of shape's.
    """
    topology = topology or named(spec)
    if topology not in TOPOLOGIES:
        raise ValueError(f"topology must be one of {', '.join(TOPOLOGIES)}, not {topology!r}")
    if (topology == SWIN) != (named(spec) == SWIN):
        raise ValueError(f"topology must be {named(spec)!r} for this shape, not {topology!r}")
    return TOPOLOGIES[topology](spec)
