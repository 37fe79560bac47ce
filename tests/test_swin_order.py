# SPDX-License-Identifier: Apache-2.0
"""Orders and parts of a Swin's tokens: every token once, merged ones a quarter apart."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.compiler.compile import compile_network
from gen.compiler.fit import room
from gen.compiler.image import Blocks
from gen.compiler.stored import stored
from gen.compiler.swin_order import Order, consecutive, cut, nested, where
from golden.float.swin import Swin, SwinSpec
from golden.network import file as network_file
from golden.network.calibrate import calibrate
from golden.network.regions import windowed
from vitforge.spec.config import Config, load
from vitforge.spec.sizes import SHORT

SWIN16 = load("swin16")
TINY = SwinSpec()
#: Patches of 2 in blocks of 4x4 where there are 8 lanes, one stage.
SHORT_ONE = SwinSpec(image_size=48, patch_size=2, dim=8, depths=(2,), heads=(1,), window=3)


@pytest.mark.parametrize(("side", "levels"), [(8, 0), (8, 1), (8, 3), (12, 2)])
def test_four_merged_tokens_lie_a_quarter_apart(side: int, levels: int) -> None:
    order = nested(side, levels)
    assert sorted(order) == list(range(side * side))
    if levels:
        corners, half = order.reshape(4, -1), side // 2
        inner = nested(half, levels - 1)
        for corner, (row, column) in zip(corners, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
            assert (corner // side == 2 * (inner // half) + row).all()
            assert (corner % side == 2 * (inner % half) + column).all()


def test_parts_are_about_equal_and_not_too_long() -> None:
    assert cut(196, 196) == [(0, 196)]
    assert cut(3136, 196)[-1] == (2940, 196)
    assert cut(10, 4) == [(0, 3), (3, 3), (6, 4)]


@pytest.mark.parametrize(("spec", "config"), [
    (TINY, SWIN16), (TINY, dataclasses.replace(SWIN16, max_tokens=100)),
    (SHORT_ONE, dataclasses.replace(SWIN16, max_tokens=40))])
def test_attention_and_stream_have_every_token_once(spec: SwinSpec, config: Config) -> None:
    order = Order(spec, config)
    for stage in spec.stages:
        for shift in {stage.shift(block) for block in range(stage.depth)}:
            source, regions = windowed(stage.size, stage.window, shift)
            lies = order.orders[len(source)]
            parts = order.attention(source, regions)
            assert tuple(region for part in parts for region in part.regions) == regions
            # What a part gathers from the stream are its regions' tokens.
            assert [int(token) for part in parts for token in lies[part.places]] == list(source)
            for part in parts:
                sizes = [rows * columns for rows, columns in part.regions]
                assert sum(sizes) == len(part.places) <= config.max_tokens
                assert sum(sizes[:-1]) + max(sizes[-1], SHORT) <= config.max_tokens
            # And back: the stream's tokens from their places among the regions.
            back = order.back(source)
            assert [source[place] for _, places in back for place in places] == lies.tolist()
            for merged in (False, stage != spec.stages[-1]):
                flat = [part for parts in order.stream(len(lies), merged) for part in parts]
                assert sorted(token for first, count in flat
                              for token in range(first, first + count)) == list(range(len(lies)))


@pytest.mark.parametrize(("spec", "size"), [(TINY, 2), (SHORT_ONE, 4)])
def test_the_embedding_makes_the_stream_in_its_order(spec: SwinSpec, size: int) -> None:
    order = Order(spec, SWIN16)
    assert order.image.size == size
    side = spec.image_size // spec.patch_size
    blocks, place = side // size, 0
    for patch in order.embedding():
        assert patch.first == place
        tokens = order.orders[spec.patches][place:place + len(patch.blocks)]
        place += len(patch.blocks)
        assert (patch.blocks == tokens // side // size * blocks + tokens % side // size).all()
        assert sorted(patch.values[patch.values >= 0]) == list(range(spec.patch_values))
    assert place == spec.patches


def test_a_pass_of_small_patches_leaves_out_words_of_other_rows() -> None:
    order = Order(TINY, SWIN16)
    assert order.image.tiles == 12   # 8x8 pixels of 3 channels, and each patch in half of them
    assert {len(patch.values) // 16 for patch in order.embedding()} == {6}
    assert {patch.tile for patch in order.embedding()} == {0, 6}
    fields = order.image.load(0)
    assert np.prod([fields[f"count_{loop}"] for loop in range(6)]) * 8 == 224 * 224 * 3
    # One row of a word of 8 values: a word holds whole rows, and the loops would be too many.
    assert Blocks(TINY, dataclasses.replace(SWIN16, rows=8, cols=8, lanes=4)).size == 1


def test_tables_have_what_the_passes_gather() -> None:
    assert Order(TINY, SWIN16).table_tokens() == 17248 <= SWIN16.table_tokens
    assert where(np.array([2, 0, 1])).tolist() == [1, 2, 0]
    assert consecutive(np.array([4, 5, 6])) and not consecutive(np.array([4, 6]))


def test_a_stored_swin_may_have_been_quantized_for_a_machine_without_tables(tmp_path: Path) -> None:
    spec = dataclasses.replace(SHORT_ONE, image_size=12)
    pictures = torch.randint(256, (1, 3, 12, 12)).to(torch.uint8)
    made = calibrate(Swin(spec).initialize(1).eval(), pictures, load("edge16"))
    network_file.save(tmp_path / "network.json", made)
    with pytest.raises(ValueError, match="table_tokens must be at least"):
        compile_network(stored(tmp_path / "network.json", load("edge16")))
    given = dataclasses.replace(room(spec, load("edge16")), max_channels=1024)
    assert compile_network(stored(tmp_path / "network.json", given)).config == given
