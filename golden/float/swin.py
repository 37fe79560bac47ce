# SPDX-License-Identifier: Apache-2.0
"""A Swin transformer in floating point, with timm's parameter names.

The architecture of Liu et al., arXiv 2103.14030, as timm builds ``swin_*_patch4_window7_224``:
attention in windows (section 3.2, equations 1 to 4), every second block with windows shifted by
half a window and masked, a relative position bias per pair of tokens, and 2x2 patch merging at the
start of every stage but the first. Pre-norm blocks, exact GELU, LayerNorm with eps 1e-5.

Activations are ``[B, height, width, dim]``. As in `golden.float.vit`, every intermediate tensor
that a quantizer must know the range of leaves a module of its own. The position indices and the
masks are computed, not stored: they aren't in `state_dict`.
"""

__all__ = ["Stage", "Swin", "SwinSpec", "attention_mask", "position_index"]

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from golden.float.vit import Mlp, Tap, VitSpec

MASKED = -100.0
"""Added to the score of a masked pair of tokens, as the paper's code and timm do."""


@dataclass(frozen=True)
class Stage:
    """Shape of one stage: rows and columns of tokens, their window, and the blocks' sizes."""

    size: int
    window: int
    dim: int
    heads: int
    mlp_hidden: int
    depth: int

    def shift(self, block: int) -> int:
        """Rows and columns by which the windows of a block are shifted."""
        return self.window // 2 if block % 2 and self.size > self.window else 0


@dataclass(frozen=True, kw_only=True)
class SwinSpec:
    """Shape of a Swin transformer; the defaults are Swin-T.

    Raises
    ------
    ValueError
        If a size is not a positive integer, one does not divide another, or the stages of `depths`
        and `heads` differ in number.
    """

    image_size: int = 224
    patch_size: int = 4
    in_channels: int = 3
    classes: int = 1000
    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "in_channels", "classes", "dim", "window",
                     "mlp_ratio"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        for name in ("depths", "heads"):
            values = getattr(self, name)
            if (not isinstance(values, tuple) or not values
                    or any(not isinstance(v, int) or isinstance(v, bool) or v < 1 for v in values)):
                raise ValueError(f"{name} must be a tuple of positive integers, not {values!r}")
        if len(self.depths) != len(self.heads):
            raise ValueError(f"heads must have {len(self.depths)} stages as depths has, "
                             f"not {len(self.heads)}")
        if self.image_size % (self.patch_size << len(self.depths) - 1):
            raise ValueError("image_size must be a multiple of patch_size times "
                             f"{1 << len(self.depths) - 1} ({self.patch_size} x "
                             f"{1 << len(self.depths) - 1}), not {self.image_size}")
        for number, stage in enumerate(self.stages):
            if stage.size % stage.window:
                raise ValueError(f"window must divide the {stage.size} rows of stage {number}, "
                                 f"not {stage.window}")
            if stage.dim % stage.heads:
                raise ValueError(f"heads of stage {number} must divide its {stage.dim} channels, "
                                 f"not {stage.heads}")

    @property
    def patches(self) -> int:
        """Patches in an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_values(self) -> int:
        """Pixels times channels of one patch: the inner length of the patch embedding."""
        return self.patch_size**2 * self.in_channels

    @property
    def gelu(self) -> str:
        """What its GELU is, as a ViT's."""
        return "exact"

    @property
    def tokens(self) -> int:
        """Rows of the widest activation matrices: the patches."""
        return self.patches

    @property
    def keys(self) -> int:
        """Keys of a query at most: the tokens of a window."""
        return max(stage.window**2 for stage in self.stages)

    @property
    def widest(self) -> int:
        """Channels of a LayerNorm at most: those of the last merged tokens, if there are any."""
        return self.stages[-1].dim * (2 if len(self.stages) > 1 else 1)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages: each halves rows and columns and doubles the channels of the one before."""
        side = self.image_size // self.patch_size
        return tuple(
            Stage(side >> n, min(self.window, side >> n), self.dim << n, heads,
                  (self.dim << n) * self.mlp_ratio, depth)
            for n, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)))


def windows(x: Tensor, window: int) -> Tensor:
    """Cut ``[B, H, W, C]`` into ``[B * windows, window**2, C]``, windows row by row."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, dim)
    return x.transpose(2, 3).reshape(-1, window**2, dim)


def unite(x: Tensor, window: int, size: int) -> Tensor:
    """Put ``[B * windows, window**2, C]`` together again: ``[B, size, size, C]``."""
    count, dim = size // window, x.shape[-1]
    x = x.reshape(-1, count, count, window, window, dim)
    return x.transpose(2, 3).reshape(-1, size, size, dim)


def position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, int64 ``[window**2, window**2]``.

    A pair that lies ``(dy, dx)`` apart has ``(dy + window - 1) * (2 * window - 1) + dx + window
    - 1`` (section 3.2, "relative position bias").
    """
    with torch.device("cpu"):
        y, x = torch.arange(window**2) // window, torch.arange(window**2) % window
        down, right = y[:, None] - y + window - 1, x[:, None] - x + window - 1
        return down * (2 * window - 1) + right


def attention_mask(size: int, window: int, shift: int) -> Tensor:
    """Return what is added to the scores of shifted windows, float32 ``[windows, T, T]``.

    T is the number of tokens in a window. 0 where both tokens were neighbours before the shift,
    `MASKED` where the cyclic shift brought them into one window (section 3.2, figure 4).
    """
    with torch.device("cpu"):
        place = torch.arange(size)
        band = (place >= size - window).long() + (place >= size - shift).long()
        region = windows((3 * band[:, None] + band)[None, :, :, None], window)[..., 0]
        return torch.where(region[:, None] == region[:, :, None], 0.0, MASKED)


class PatchEmbed(nn.Module):
    """Non-overlapping patches of ``[B, channels, H, W]`` to normalised ``[B, h, w, dim]``."""

    def __init__(self, spec: SwinSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.in_channels, spec.dim, spec.patch_size, spec.patch_size)
        self.tokens = Tap()
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed every patch."""
        return self.norm(self.tokens(self.proj(images).permute(0, 2, 3, 1)))


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, ``[B * windows, T, dim]`` to the same.

    `scores` is ``Q K^T / sqrt(head_dim)``, `position` the bias ``[heads, T, T]`` and `biased` their
    sum; the mask is added after it, so that no observer sees the -100 of masked pairs.
    """

    relative_position_index: Tensor

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.heads = stage.heads
        self.scale = (stage.dim // stage.heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * stage.window - 1) ** 2, stage.heads))
        self.register_buffer("relative_position_index", position_index(stage.window),
                             persistent=False)
        self.qkv = nn.Linear(stage.dim, 3 * stage.dim)
        self.q, self.k, self.v = Tap(), Tap(), Tap()
        self.scores, self.position, self.biased = Tap(), Tap(), Tap()
        self.softmax = nn.Softmax(dim=-1)
        self.context = Tap()
        self.proj = nn.Linear(stage.dim, stage.dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``softmax(Q K^T / sqrt(head_dim) + B) V`` (equation 4), then the output projection."""
        batch, tokens, dim = x.shape
        heads = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        q, k, v = self.q(q), self.k(k), self.v(v)
        scores = self.scores((q @ k.transpose(-2, -1)).mul_(self.scale))
        bias = self.relative_position_bias_table[self.relative_position_index]
        scores = self.biased(scores + self.position(bias.permute(2, 0, 1)))
        if mask is not None:
            scores = (scores.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
        context = self.softmax(scores) @ v
        return self.proj(self.context(context.transpose(1, 2).reshape(batch, tokens, dim)))


class Block(nn.Module):
    """One pre-norm block: window attention and MLP, each added to the residual stream."""

    def __init__(self, stage: Stage, shift: int) -> None:
        super().__init__()
        self.window, self.shift = stage.window, shift
        self.norm1 = nn.LayerNorm(stage.dim)
        self.attn = WindowAttention(stage)
        self.residual1 = Tap()
        self.norm2 = nn.LayerNorm(stage.dim)
        self.mlp = Mlp(VitSpec(dim=stage.dim, heads=stage.heads, mlp_hidden=stage.mlp_hidden))
        self.residual2 = Tap()
        self.register_buffer(
            "attn_mask", attention_mask(stage.size, stage.window, shift) if shift else None,
            persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h, w, dim]`` to the same."""
        shift, size = self.shift, x.shape[1]
        y = self.norm1(x).roll((-shift, -shift), (1, 2))
        y = unite(self.attn(windows(y, self.window), self.attn_mask), self.window, size)
        x = self.residual1(x + y.roll((shift, shift), (1, 2)))
        return self.residual2(x + self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Each 2x2 tokens to one of twice the channels: ``[B, h, w, C]`` to ``[B, h/2, w/2, 2C]``.

    `merged` has the channels of the upper left, lower left, upper right and lower right token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.merged = Tap()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate, normalise, reduce."""
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(self.merged(torch.cat(corners, dim=-1))))


class Layer(nn.Module):
    """One stage of the network: patch merging (none in the first) and blocks."""

    def __init__(self, stage: Stage, first: bool) -> None:
        super().__init__()
        self.downsample = Tap() if first else PatchMerging(stage.dim // 2)
        self.blocks = nn.Sequential(*(Block(stage, stage.shift(n)) for n in range(stage.depth)))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, h, w, C]`` to the stage's shape."""
        return self.blocks(self.downsample(x))


class Head(nn.Module):
    """Mean over all tokens, then the classifier: ``[B, h, w, dim]`` to ``[B, classes]``."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.pool = Tap()
        self.fc = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify by the mean token."""
        return self.fc(self.pool(x.mean((1, 2))))


class Swin(nn.Module):
    """The whole network: images ``[B, channels, H, W]`` to logits ``[B, classes]``."""

    def __init__(self, spec: SwinSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec)
        self.layers = nn.Sequential(*(Layer(stage, n == 0) for n, stage in enumerate(spec.stages)))
        self.norm = nn.LayerNorm(spec.stages[-1].dim)
        self.head = Head(spec.stages[-1].dim, spec.classes)

    def initialize(self, seed: int) -> "Swin":
        """Draw fresh parameters from a seed, and return the network.

        Weights: normal of variance 1/inputs, cut at two deviations; position bias: normal of
        deviation 0.02; norms one, biases zero.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" in name:
                nn.init.ones_(parameter)
            else:
                table = name.endswith("table")
                std = 0.02 if table else parameter[0].numel() ** -0.5
                nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std,
                                      generator=generator)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Classify by the mean of the tokens after the last norm."""
        return self.head(self.norm(self.layers(self.patch_embed(images))))
