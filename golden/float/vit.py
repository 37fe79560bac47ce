# SPDX-License-Identifier: Apache-2.0
"""A pre-norm vision transformer in floating point, with timm's parameter names.

The architecture of ViT (Dosovitskiy et al., arXiv 2010.11929, equations 1 to 4) as DeiT and timm
build it: class token, learnt position embedding, pre-norm blocks, exact GELU. A timm state dict of
a ``vit_*`` or ``deit_*_patch*`` model loads as it is.

Every intermediate tensor that a quantizer must know the range of leaves a module of its own, so
that `observe` sees it: attention is written out, and points that compute nothing are `Tap` modules.
"""

__all__ = ["POOLS", "QuickGelu", "Tap", "Vit", "VitSpec", "observe"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from vitforge.spec.formats import GELUS

#: What is classified: see `VitSpec`.
POOLS = ("token", "both", "mean")


@dataclass(frozen=True, kw_only=True)
class VitSpec:
    """Shape of a vision transformer; the defaults are the project's own network for 28x28 digits.

    `registers` are tokens between the class token and the patches that no patch is in, a distilled
    DeiT's second one too; their values are their rows of the positions. With `norm_pre` a norm
    stands before the blocks, as in CLIP's tower, and the stream goes on behind it. `norm_eps` is
    what LayerNorm adds to a variance in floating point; integers have none. `pool` says what is
    classified: "token", the class token behind the last norm; "both", that and the token behind it,
    side by side, by one layer (a distilled DeiT, whose logits are the mean of two classifiers);
    "mean", the mean of all patches, behind which the last norm comes (timm's ``global_pool="avg"``
    with ``fc_norm``). `gelu` is "exact", or "quick": `QuickGelu`.

    Raises
    ------
    ValueError
        If a size is not a positive integer (`registers` may be 0), one does not divide another, or
        `norm_eps` is not small; or if there is no such pool or GELU, or no second token for "both".
    """

    image_size: int = 28
    patch_size: int = 4
    in_channels: int = 1
    classes: int = 10
    dim: int = 64
    depth: int = 4
    heads: int = 4
    mlp_hidden: int = 128
    registers: int = 0
    norm_pre: bool = False
    norm_eps: float = 1e-6
    pool: str = "token"
    gelu: str = "exact"

    def __post_init__(self) -> None:
        if not 0 <= self.norm_eps <= 1e-3:
            raise ValueError(f"norm_eps must be 0 to 1e-3, not {self.norm_eps}")
        if not isinstance(self.norm_pre, bool):
            raise ValueError(f"norm_pre must be true or false, not {self.norm_pre!r}")
        for name, known in (("pool", POOLS), ("gelu", GELUS)):
            if (given := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")
        for item in fields(self):
            if item.name in ("norm_eps", "norm_pre", "pool", "gelu"):
                continue
            value, least = getattr(self, item.name), int(item.name != "registers")
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{item.name} must be a {'positive' if least else 'natural'} "
                                 f"integer, not {value!r}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size ({self.patch_size}), "
                             f"not {self.image_size}")
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads ({self.heads}), not {self.dim}")
        if self.pool == "both" and not self.registers:
            raise ValueError("registers must be at least 1, a second token for pool 'both', not 0")

    @property
    def patches(self) -> int:
        """Patches in an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Rows of every activation matrix: class token, registers, patches."""
        return self.first + self.patches

    @property
    def first(self) -> int:
        """Row of the first patch."""
        return 1 + self.registers

    @property
    def classified(self) -> int:
        """Rows that the last norm's reader takes."""
        return 2 if self.pool == "both" else 1

    @property
    def keys(self) -> int:
        """Keys of a query: all tokens."""
        return self.tokens

    @property
    def widest(self) -> int:
        """Channels of a LayerNorm."""
        return self.dim

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.heads

    @property
    def patch_values(self) -> int:
        """Pixels times channels of one patch: the inner length of the patch embedding."""
        return self.patch_size**2 * self.in_channels


class Tap(nn.Identity):
    """A named point of the network for `observe`; computes nothing."""


class PatchEmbed(nn.Module):
    """Non-overlapping patches of ``[B, channels, H, W]`` to tokens ``[B, patches, dim]``."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.in_channels, spec.dim, spec.patch_size, spec.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed every patch, row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention, ``[B, T, dim]`` to the same, every intermediate a module."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.scale = spec.head_dim**-0.5
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim)
        self.q, self.k, self.v = Tap(), Tap(), Tap()
        self.scores = Tap()
        self.softmax = nn.Softmax(dim=-1)
        self.context = Tap()
        self.proj = nn.Linear(spec.dim, spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``softmax(Q K^T / sqrt(head_dim)) V``, then the output projection."""
        batch, tokens, dim = x.shape
        heads = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        q, k, v = self.q(q), self.k(k), self.v(v)
        scores = self.scores((q @ k.transpose(-2, -1)).mul_(self.scale))
        context = self.softmax(scores) @ v
        return self.proj(self.context(context.transpose(1, 2).reshape(batch, tokens, dim)))


class QuickGelu(nn.Module):
    """``x sigmoid(1.702 x)``, of OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """Take it of every element."""
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.fc1 = nn.Linear(spec.dim, spec.mlp_hidden)
        self.act = QuickGelu() if spec.gelu == "quick" else nn.GELU()
        self.fc2 = nn.Linear(spec.mlp_hidden, spec.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, dim]`` to the same."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """One pre-norm encoder block: attention and MLP, each added to the residual stream."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.attn = Attention(spec)
        self.residual1 = Tap()
        self.norm2 = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.mlp = Mlp(spec)
        self.residual2 = Tap()

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, dim]`` to the same."""
        x = self.residual1(x + self.attn(self.norm1(x)))
        return self.residual2(x + self.mlp(self.norm2(x)))


class Vit(nn.Module):
    """The whole network: images ``[B, channels, H, W]`` to logits ``[B, classes]``."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, spec.tokens, spec.dim))
        self.embedding = Tap()
        if spec.norm_pre:
            self.norm_pre = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        if spec.pool == "mean":
            self.pool = Tap()
        self.norm = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        self.head = nn.Linear(spec.classified * spec.dim, spec.classes)

    def initialize(self, seed: int) -> "Vit":
        """Draw fresh parameters from a seed, and return the network.

        Weights: normal of variance 1/inputs, cut at two deviations; class token and positions:
        normal of deviation 0.3, so that the first norm sees the position from the first step on;
        biases zero.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            elif name in ("cls_token", "pos_embed"):
                nn.init.normal_(parameter, std=0.3, generator=generator)
            else:
                std = parameter[0].numel() ** -0.5
                nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std,
                                      generator=generator)
        return self

    def tokens(self, images: Tensor) -> Tensor:
        """Embed images: class token, registers and patches, with their positions added."""
        x = self.patch_embed(images)
        blank = x.new_zeros(()).expand(len(x), self.spec.registers, self.spec.dim)
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), blank, x), dim=1)
        embedded: Tensor = self.embedding(x + self.pos_embed)
        return self.norm_pre(embedded) if self.spec.norm_pre else embedded

    def classify(self, x: Tensor) -> Tensor:
        """Logits of what the blocks have made, ``[B, tokens, dim]``."""
        if self.spec.pool == "mean":
            x = self.pool(x[:, self.spec.first:].mean(1, keepdim=True))
        return self.head(self.norm(x)[:, :self.spec.classified].flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        x = self.tokens(images)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)


@contextmanager
def observe(model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``see(name, output)`` for every module without children, in order of computation."""
    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, _inputs, output: see(name, output.detach())

    handles = [module.register_forward_hook(hook(name))
               for name, module in model.named_modules() if not list(module.children())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
