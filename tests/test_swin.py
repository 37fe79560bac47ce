# SPDX-License-Identifier: Apache-2.0
"""The Swin transformer: its windows, masks and indices from their definitions, and its taps."""

from typing import Any

import pytest
import torch
from torch import Tensor

from golden.float.swin import Swin, SwinSpec, attention_mask, position_index
from golden.float.vit import observe

SMALL = SwinSpec(image_size=24, patch_size=2, in_channels=2, classes=5, dim=6, depths=(2, 2),
                 heads=(2, 3), window=3, mlp_ratio=2)


def small() -> Swin:
    """Return a network whose parameters are all far from zero and one."""
    model = Swin(SMALL)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize("window", [1, 2, 7])
def test_position_index_is_the_distance_of_each_pair(window: int) -> None:
    index = position_index(window).tolist()
    pairs: dict[int, set[tuple[int, int]]] = {}
    for i in range(window**2):
        for j in range(window**2):
            apart = (i // window - j // window, i % window - j % window)
            pairs.setdefault(index[i][j], set()).add(apart)
            down, right = apart
            assert index[i][j] == (down + window - 1) * (2 * window - 1) + right + window - 1
    assert sorted(pairs) == list(range((2 * window - 1) ** 2))
    assert all(len(distances) == 1 for distances in pairs.values())


@pytest.mark.parametrize(("size", "window", "shift"), [(14, 7, 3), (8, 4, 2), (20, 5, 2)])
def test_mask_parts_what_the_shift_brought_together(size: int, window: int, shift: int) -> None:
    mask = attention_mask(size, window, shift)
    assert mask.shape == ((size // window) ** 2, window**2, window**2)
    for number in range(len(mask)):
        top, left = number // (size // window) * window, number % (size // window) * window
        # Where the tokens of this window were before the shift, without going round.
        rows = [top + t // window + shift for t in range(window**2)]
        columns = [left + t % window + shift for t in range(window**2)]
        for i in range(window**2):
            for j in range(window**2):
                together = ((rows[i] >= size) == (rows[j] >= size)
                            and (columns[i] >= size) == (columns[j] >= size))
                assert mask[number, i, j] == (0 if together else -100)


def reached(model: Swin, block: int, row: int, column: int) -> Tensor:
    """Which tokens of the first stage a change at one token reaches in one block, ``[12, 12]``."""
    x = torch.randn(1, 12, 12, SMALL.dim, generator=torch.Generator().manual_seed(6)).double()
    changed = x.clone()
    changed[0, row, column, 2] += 1   # one channel: a norm would hide a change of all
    layer = model.double().layers[0].get_submodule(f"blocks.{block}")
    return (layer(x) != layer(changed)).any(-1)[0]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (4, 7), (11, 11), (11, 0)])
def test_attention_stays_in_the_window(row: int, column: int) -> None:
    for block, shift in ((0, 0), (1, 1)):
        window = (row - shift) // 3, (column - shift) // 3
        same = [[((y - shift) // 3, (x - shift) // 3) == window for x in range(12)]
                for y in range(12)]
        assert reached(small(), block, row, column).tolist() == same


def test_observe_sees_every_intermediate_in_order() -> None:
    seen: dict[str, Tensor] = {}
    with observe(model := small(), seen.__setitem__):
        model(torch.zeros(2, 2, 24, 24))
    block = ["norm1", "attn.qkv", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.position",
             "attn.biased", "attn.softmax", "attn.context", "attn.proj", "residual1", "norm2",
             "mlp.fc1", "mlp.act", "mlp.fc2", "residual2"]
    first, second = ([f"layers.{layer}.blocks.{n}.{name}" for n in range(2) for name in block]
                     for layer in range(2))
    merging = [f"layers.1.downsample.{name}" for name in ("merged", "norm", "reduction")]
    assert list(seen) == ["patch_embed.proj", "patch_embed.tokens", "patch_embed.norm",
                          "layers.0.downsample", *first, *merging, *second, "norm", "head.pool",
                          "head.fc"]
    assert seen["layers.0.blocks.1.attn.softmax"].shape == (32, 2, 9, 9)
    assert seen["layers.1.blocks.0.attn.position"].shape == (3, 9, 9)
    assert seen["layers.1.downsample.merged"].shape == (2, 6, 6, 24)
    assert seen["layers.0.blocks.1.attn.biased"].min() > -50   # before the mask


def test_merging_takes_the_tokens_in_the_order_of_timm() -> None:
    merging = small().layers[1].get_submodule("downsample")
    x = torch.arange(4.0 * 6).reshape(1, 2, 2, 6)
    seen: dict[str, Tensor] = {}
    with observe(merging, seen.__setitem__):
        merging(x)
    assert torch.equal(seen["merged"][0, 0, 0],
                       torch.cat([x[0, 0, 0], x[0, 1, 0], x[0, 0, 1], x[0, 1, 1]]))


def test_fresh_parameters_follow_the_seed() -> None:
    one, again, other = (Swin(SMALL).initialize(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.fc.weight"], other["head.fc.weight"])
    assert not torch.equal(one["layers.0.blocks.0.attn.relative_position_bias_table"],
                           other["layers.0.blocks.0.attn.relative_position_bias_table"])
    assert one["layers.1.downsample.norm.weight"].eq(1).all()
    assert one["layers.1.blocks.1.mlp.fc2.bias"].eq(0).all()


@pytest.mark.parametrize(("changes", "message"), [
    ({"dim": 0}, "dim must be a positive integer, not 0"),
    ({"window": 7.0}, "window must be a positive integer, not 7.0"),
    ({"depths": [2, 2]}, "depths must be a tuple of positive integers, not [2, 2]"),
    ({"heads": (3, 0, 1, 1)}, "heads must be a tuple of positive integers, not (3, 0, 1, 1)"),
    ({"depths": (2, 2)}, "heads must have 2 stages as depths has, not 4"),
    ({"image_size": 208}, "image_size must be a multiple of patch_size times 8 (4 x 8), not 208"),
    ({"window": 5}, "window must divide the 56 rows of stage 0, not 5"),
    ({"window": 8}, "window must divide the 28 rows of stage 1, not 8"),
    ({"heads": (3, 6, 12, 25)}, "heads of stage 3 must divide its 768 channels, not 25"),
])
def test_impossible_spec_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        SwinSpec(**changes)
    assert str(caught.value) == message
