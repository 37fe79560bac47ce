# SPDX-License-Identifier: Apache-2.0
"""The operations of a Swin transformer, from its shape (arXiv 2103.14030).

The residual stream has its tokens row by row throughout. Behind the first norm of a block they are
put into the order of the regions (`golden.network.regions`), and the sums of the projection back
into rows; patch merging takes the codes of four tokens as they are.
"""

__all__ = ["swin"]

from collections.abc import Iterator

from golden.float.swin import Stage, SwinSpec
from golden.network.ops import (
    PICTURES,
    Image,
    Logits,
    Merge,
    Norm,
    Operation,
    PairBias,
    Pool,
    Product,
    Region,
    RegionContext,
    RegionScores,
    RegionSoftmax,
    Requantize,
    Tokens,
)
from golden.network.regions import windowed


def swin(spec: SwinSpec) -> tuple[Operation, ...]:
    """Return the operations of a Swin."""
    return tuple(_swin(spec))


def _swin(spec: SwinSpec) -> Iterator[Operation]:
    yield Image(name="input", reads=(PICTURES,), writes=("input",), roles=("input",))
    yield _linear("patch_embed.proj", "input", spec.patches, spec.patch_values, spec.dim)
    yield _stream("patch_embed.tokens", "patch_embed.proj")
    stream = "patch_embed.norm"
    yield _norm("patch_embed.tokens", stream, role="stream")
    for number, stage in enumerate(spec.stages):
        layer = f"layers.{number}"
        if number:
            yield from _merging(stage, f"{layer}.downsample", stream)
            stream = f"{layer}.downsample.reduction"
        for block in range(stage.depth):
            name = f"{layer}.blocks.{block}"
            yield from _block(stage, block, name, stream)
            stream = f"{name}.residual2"
    yield _norm(stream, "norm")
    last = spec.stages[-1]
    yield Pool(name="head.pool", reads=("norm",), writes=("head.pool.sums",), tokens=last.size**2)
    yield Requantize(name="head.pool", reads=("head.pool.sums",), writes=("head.pool",),
                     roles=("pool",))
    yield _linear("head.fc", "head.pool", 1, last.dim, spec.classes)
    yield Logits(name="head.fc", reads=("head.fc",), writes=("logits",))


def _merging(stage: Stage, name: str, stream: str) -> Iterator[Operation]:
    """Patch merging at the start of a stage."""
    yield Merge(name=f"{name}.merged", reads=(stream,), writes=(f"{name}.merged",),
                roles=("stream",), size=2 * stage.size)
    yield _norm(f"{name}.merged", f"{name}.norm")
    sums = f"{name}.reduction.sums"
    yield Product(name=f"{name}.reduction", reads=(f"{name}.norm",), writes=(sums,),
                  rows=stage.size**2, inner=2 * stage.dim, columns=stage.dim)
    yield _stream(f"{name}.reduction", sums)


def _block(stage: Stage, number: int, name: str, stream: str) -> Iterator[Operation]:
    tokens, dim = stage.size**2, stage.dim
    middle = f"{name}.residual1"
    order, regions = windowed(stage.size, stage.window, stage.shift(number))
    back = tuple(sorted(range(tokens), key=order.__getitem__))
    yield _norm(stream, f"{name}.norm1")
    yield Tokens(name=f"{name}.windows", reads=(f"{name}.norm1",), writes=(f"{name}.windows",),
                 source=order)
    yield from _attention(stage, f"{name}.attn", f"{name}.windows", regions)
    yield _linear(f"{name}.attn.proj", f"{name}.attn.context", tokens, dim, dim)
    yield Tokens(name=f"{name}.united", reads=(f"{name}.attn.proj",), writes=(f"{name}.united",),
                 source=back)
    yield _stream(middle, f"{name}.united", stream)
    yield _norm(middle, f"{name}.norm2")
    hidden, active = f"{name}.mlp.fc1", f"{name}.mlp.act"
    yield _linear(hidden, f"{name}.norm2", tokens, dim, stage.mlp_hidden)
    yield Requantize(name=hidden, reads=(hidden,), writes=(active,), roles=("gelu",))
    yield _linear(f"{name}.mlp.fc2", active, tokens, stage.mlp_hidden, dim)
    yield _stream(f"{name}.residual2", f"{name}.mlp.fc2", middle)


def _attention(stage: Stage, name: str, source: str,
               regions: tuple[Region, ...]) -> Iterator[Operation]:
    heads, tokens, width = stage.heads, stage.size**2, stage.dim // stage.heads
    largest = max(rows * columns for rows, columns in regions)
    query, key, value = (f"{name}.{part}" for part in "qkv")
    scores, position = f"{name}.biased", f"{name}.position"
    probability, context = f"{name}.softmax", f"{name}.context"
    yield _linear(f"{name}.qkv", source, tokens, stage.dim, 3 * stage.dim)
    yield Requantize(name=f"{name}.qkv", reads=(f"{name}.qkv",), writes=(query, key, value),
                     roles=("query", "key", "value"), heads=heads)
    yield RegionScores(name=f"{name}.scores", reads=(query, key), writes=(f"{name}.scores.sums",),
                       count=heads, rows=tokens, inner=width, columns=largest, regions=regions)
    yield PairBias(name=position, reads=(), writes=(position,), regions=regions,
                   table=f"{name}.relative_position_bias_table", window=stage.window)
    yield Requantize(name=scores, reads=(f"{name}.scores.sums", position), writes=(scores,),
                     roles=("scores",))
    yield RegionSoftmax(name=probability, reads=(scores,), writes=(probability,),
                        roles=("attention",), regions=regions)
    yield RegionContext(name=context, reads=(probability, value), writes=(f"{context}.sums",),
                        count=heads, rows=tokens, inner=largest, columns=width, regions=regions)
    yield Requantize(name=context, reads=(f"{context}.sums",), writes=(context,),
                     roles=("context",))


def _linear(name: str, source: str, rows: int, inner: int, columns: int) -> Product:
    return Product(name=name, reads=(source,), writes=(name,), rows=rows, inner=inner,
                   columns=columns)


def _stream(name: str, *reads: str) -> Requantize:
    return Requantize(name=name, reads=reads, writes=(name,), roles=("stream",))


def _norm(stream: str, name: str, role: str = "norm") -> Norm:
    return Norm(name=name, reads=(stream,), writes=(name,), roles=(role,))
