# SPDX-License-Identifier: Apache-2.0
"""Let a vision transformer start with the attention of trained ones (mimetic initialization).

Trockman and Kolter (arXiv 2305.09828) found in trained networks that ``Wq Wk^T`` is near a positive
and ``Wv Wproj`` near a negative multiple of the identity; a network that starts so, with sines and
cosines for positions, needs far fewer images. The queries and keys of a head hold the largest
singular vectors of a drawn ``0.7 * (Z + I)``, the values and the projection all of
``0.4 * (Z - I)`` where ``Z`` is normal of variance ``1 / dim``. The paper gives ``Z`` and ``I``
strengths of their own; here they have the same.
"""

__all__ = ["attend", "mimetic", "positions"]

import torch
from torch import Tensor

from golden.float.vit import Vit

SCORES, VALUES = 0.7, 0.4
#: Ratio of the highest frequency, one radian a patch, to the lowest.
SPAN = 100.0


def positions(side: int, dim: int) -> Tensor:
    """Cosines and sines of rows, then of columns: ``[side * side, dim]``."""
    quarter = dim // 4
    frequencies = SPAN ** (-torch.arange(quarter) / quarter)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (rows, columns)]
    return torch.cat([function(angle) for angle in angles for function in (torch.cos, torch.sin)],
                     dim=1)


def _factors(dim: int, strength: float, sign: int, rank: int,
             generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split ``strength * (Z + sign * I)`` into two ``[dim, rank]``: ``first @ second.T``."""
    drawn = torch.randn(dim, dim, generator=generator) * dim**-0.5
    left, values, right = torch.linalg.svd(strength * (drawn + sign * torch.eye(dim)))
    root = values[:rank].sqrt()
    return left[:, :rank] * root, right[:rank].T * root


def attend(qkv: Tensor, projection: Tensor, heads: int, generator: torch.Generator) -> None:
    """Change the weights of one attention, ``[3 * dim, dim]`` and ``[dim, dim]``, in place."""
    dim = len(projection)
    q, k, v = qkv.split(dim)
    for rows in torch.arange(dim).chunk(heads):
        query, key = _factors(dim, SCORES, 1, len(rows), generator)
        q[rows], k[rows] = query.T, key.T
    # Tokens are rows: values are x @ v.T, and v.T @ proj.T is what is near the identity.
    value, output = _factors(dim, VALUES, -1, dim, generator)
    v[:] = value.T
    projection[:] = output


def mimetic(model: Vit, seed: int) -> Vit:
    """Change the positions and the attention of a network, and return it.

    Raises
    ------
    ValueError
        If its channels are no multiple of 4.
    """
    spec = model.spec
    dim = spec.dim
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4, not {dim}")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, 1:] = positions(spec.image_size // spec.patch_size, dim)
        parameters = dict(model.blocks.named_parameters())
        for block in range(spec.depth):
            attend(parameters[f"{block}.attn.qkv.weight"],
                   parameters[f"{block}.attn.proj.weight"], spec.heads, generator)
    return model
