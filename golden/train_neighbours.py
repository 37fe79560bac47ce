# SPDX-License-Identifier: Apache-2.0
"""Let a vision transformer start as a convolution: each head looks at one neighbour of a patch.

Attention whose scores depend on the distance of two patches alone can be a convolution (Cordonnier
et al., arXiv 1911.03584), and a transformer that starts so needs far fewer images (Zheng et al.,
arXiv 2404.01139, who find the parameters by optimization). Here they are written down: positions
are sines and cosines, and the queries of a head are its keys turned by the neighbour's offset, so
that the scores are ``gain * sum(cos(w * (distance - offset)))`` over the frequencies ``w``. Nothing
is fixed: training may change all of it.
"""

__all__ = ["neighbourly", "position_features", "turned"]

import math

import torch
from torch import Tensor

from golden.vit import Vit

#: Patches after which the lowest frequency repeats: more than the distances on an 8x8 grid need.
PERIOD = 12.0
#: Highest score minus that of the nearest other patch is about three times this.
GAIN = 1.2
#: Deviation of what is added to Q and K for the pictures' content, times ``dim**-0.5``.
NOISE = 0.3


def _frequencies(count: int) -> Tensor:
    return 2 * math.pi * torch.arange(1, count + 1) / PERIOD


def position_features(side: int, count: int) -> Tensor:
    """Cosines and sines of rows, then of columns: ``[side * side, 4 * count]``."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * _frequencies(count) for axis in (rows, columns)]
    return torch.cat([function(angle) for angle in angles for function in (torch.cos, torch.sin)],
                     dim=1)


def turned(count: int, offset: tuple[int, int]) -> Tensor:
    """Matrix that turns the features of a position into those of the position `offset` away."""
    parts = []
    for distance in offset:
        cosine, sine = ((distance * _frequencies(count)).cos().diag(),
                        (distance * _frequencies(count)).sin().diag())
        parts.append(torch.cat((torch.cat((cosine, -sine), 1), torch.cat((sine, cosine), 1))))
    return torch.block_diag(*parts)


def neighbourly(model: Vit, seed: int) -> Vit:
    """Change the positions, queries and keys of a network, and return it.

    The features lie in a random subspace of the channels, so that no channel stands out. The class
    token has none: it looks at all patches alike.

    Raises
    ------
    ValueError
        If the head size is not a multiple of 4, or there are more than 9 heads.
    """
    spec = model.spec
    size, dim = spec.head_dim, spec.dim
    if size % 4 or spec.heads > 9:
        raise ValueError(f"heads must be up to 9 of a multiple of 4 channels, not {spec.heads} "
                         f"of {size}")
    offsets = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    if spec.heads < 9:
        offsets.remove((0, 0))   # a token sees itself by the residual connection
    generator = torch.Generator().manual_seed(seed)
    space = torch.linalg.qr(torch.randn(dim, size, generator=generator))[0].T
    side = spec.image_size // spec.patch_size
    # Half of the features' squares is 1 / 2 each: positions have a mean square of 1, as patches.
    length = math.sqrt(2 * dim / size)
    # The norm before Q and K sees both, and halves the square of each.
    scale = math.sqrt(2 * GAIN * math.sqrt(size)) / length
    with torch.no_grad():
        model.pos_embed.zero_()
        model.pos_embed[0, 1:] = length * position_features(side, size // 4) @ space
        for name, weight in model.blocks.named_parameters():
            if not name.endswith("qkv.weight"):
                continue
            noise = NOISE * dim**-0.5 * torch.randn(2, spec.heads, size, dim, generator=generator)
            for head in range(spec.heads):
                rows = slice(head * size, (head + 1) * size)
                query = scale * turned(size // 4, offsets[head]) @ space
                weight[rows] = query + noise[0, head]
                weight[dim:2 * dim][rows] = scale * space + noise[1, head]
    return model
