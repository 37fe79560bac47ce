# SPDX-License-Identifier: Apache-2.0
"""Stimuli of the systolic array: every format of operands, every extreme, every order of tiles."""

__all__ = ["Tile", "cases", "image_case", "tile_case"]

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.units.systolic import SystolicModel, matmul
from hw.array.systolic import SystolicArray
from sim.cases.case import Case
from sim.cases.packed import PackedTile, packed_case, packed_cases
from vitforge.spec.config import Config
from vitforge.spec.elements import Element


@dataclass(frozen=True)
class Tile:
    """Weights ``[rows, cols]``, and the operands ``[T, rows]`` that meet them."""

    weights: Tensor
    mantissa: Tensor
    shift: Tensor
    by_column: bool = False


def tile_case(name: str, tiles: Iterable[Tile], config: Config, seed: int = 0) -> Case:
    """Put tiles one after the other; what the array must ignore is noise of `seed`."""
    generator = torch.Generator().manual_seed(seed)
    longer = max(config.rows, config.cols)
    weights, by_column, mantissa, shift, last, sums = [], [], [], [], [], []
    for tile in tiles:
        lines = tile.weights.T if tile.by_column else tile.weights
        padded = _weights(generator, config, lines.shape[0], longer)
        padded[:, :lines.shape[1]] = lines
        flags = torch.randint(0, 2, (lines.shape[0],), generator=generator)
        flags[0] = tile.by_column
        ends = torch.zeros(tile.mantissa.shape[0], dtype=torch.int64)
        ends[-1] = 1
        weights.append(padded)
        by_column.append(flags)
        mantissa.append(tile.mantissa)
        shift.append(tile.shift)
        last.append(ends)
        sums.append(matmul(tile.mantissa, tile.shift, tile.weights))
    word = SystolicArray.words(config)
    flags, ends = torch.cat(by_column), torch.cat(last)
    return Case(
        name=name,
        words={"w": word["w"].pack({"weights": torch.cat(weights).numpy(),
                                    "by_column": flags.numpy()}),
               "a": word["a"].pack({"mantissa": torch.cat(mantissa).numpy(),
                                    "shift": torch.cat(shift).numpy(), "last": ends.numpy()})},
        expected={"o": word["o"].pack({"sums": torch.cat(sums).numpy(), "last": ends.numpy()})},
        model=SystolicModel(config, flags.bool().tolist(), ends.bool().tolist()),
    )


def _weights(generator: torch.Generator, config: Config, *shape: int) -> Tensor:
    half = 1 << config.weight_bits - 1
    return torch.randint(-half, half, shape, generator=generator)


def _operands(generator: torch.Generator, config: Config, words: int) -> tuple[Tensor, Tensor]:
    """Random operands of random shifts that use all the bits there are at each shift."""
    shape = (words, config.rows)
    shift = torch.randint(0, config.max_shift + 1, shape, generator=generator)
    half = 1 << (config.operand_bits - shift).clamp_max(config.mantissa_bits) - 1
    mantissa = torch.randint(0, 1 << 30, shape, generator=generator) % (2 * half) - half
    return mantissa, shift


def _tiles(generator: torch.Generator, config: Config, lengths: Sequence[int],
           by_column: Sequence[bool]) -> Iterator[Tile]:
    for length, order in zip(lengths, by_column, strict=True):
        yield Tile(_weights(generator, config, config.rows, config.cols),
                   *_operands(generator, config, length), order)


def _formats(generator: torch.Generator, config: Config, words: int
             ) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Operands as each quantization format decodes them, as wide as the configuration allows."""
    shape = (words, config.rows)
    zero = torch.zeros(shape, dtype=torch.int64)
    bits = min(8, config.mantissa_bits - 1)
    code = torch.randint(0, 1 << bits, shape, generator=generator)

    yield "uniform", code - int(code[0, 0]), zero
    room = config.operand_bits - 1 - bits
    channel = torch.randint(0, 4, (config.rows,), generator=generator).clamp_max(room)
    yield "ptf", code - (1 << bits - 1), zero + channel
    region, low = code >> bits - 1, code & (1 << bits - 1) - 1
    yield "two-scale", low, region * min(5, room)
    half = 1 << bits - 1 >> 1
    yield "two-scale-signed", (low ^ half) - half, region * min(5, room)
    top = min(15, config.max_shift)
    log = torch.randint(0, top + 1, shape, generator=generator)
    log[0], log[-1] = 0, top
    yield "log2", (log != top).to(torch.int64), top - log
    table = torch.randint(0, 1 << bits, (16,), generator=generator).sort().values
    yield "table", table[torch.randint(0, 16, shape, generator=generator)], zero


def _extremes(config: Config) -> list[tuple[int, int]]:
    """(mantissa, shift) at the ends of the range."""
    half = 1 << config.mantissa_bits - 1
    reach = config.operand_bits - config.mantissa_bits
    return [(-half, reach), (half - 1, reach), (1, config.max_shift), (-1, config.max_shift),
            (-half, 0), (half - 1, 0), (0, config.max_shift), (0, 0), (-1, 0)]


def _corners(config: Config) -> Iterator[Tile]:
    ends = torch.tensor(_extremes(config))
    rows, cols = config.rows, config.cols
    half = 1 << config.weight_bits - 1
    uniform = ends[:, None, :].expand(-1, rows, -1)
    mixed = ends[(torch.arange(len(ends))[:, None] + torch.arange(rows)) % len(ends)]
    operands = torch.cat([uniform, mixed])
    one_hot = torch.eye(max(rows, cols), dtype=torch.int64)[:rows, :cols]
    checks = (torch.arange(rows)[:, None] + torch.arange(cols)) % 2
    for index, weights in enumerate((
            torch.full((rows, cols), -half), torch.full((rows, cols), half - 1),
            torch.zeros(rows, cols, dtype=torch.int64), one_hot, -one_hot,
            checks * (2 * half - 1) - half)):
        yield Tile(weights, operands[..., 0], operands[..., 1], bool(index % 2))


def cases(config: Config, seed: int) -> Iterator[Case]:
    """Yield the runs of the bench for one configuration."""
    if Element(config).packed:
        yield from packed_cases(config, seed)
        return
    generator = torch.Generator().manual_seed(seed)
    shorter, longer = sorted((config.rows, config.cols))

    def case(name: str, lengths: Sequence[int], by_column: Sequence[bool]) -> Case:
        return tile_case(name, _tiles(generator, config, lengths, by_column), config, seed)

    orders = torch.randint(0, 2, (24,), generator=generator).bool().tolist()
    lengths = torch.randint(1, 2 * longer + 1, (24,), generator=generator).tolist()
    yield case("one word", [1], [False])
    yield case("one word by column", [1], [True])
    yield case("random tiles", lengths, orders)
    yield case("no bubble by row", [longer] * 5, [False] * 5)
    yield case("no bubble by column", [longer] * 5, [True] * 5)
    yield case("one word a tile by row", [1] * 8, [False] * 8)
    yield case("one word a tile by column", [1] * 8, [True] * 8)
    yield case("one word a tile, both", [1] * 16, orders[:16])
    yield case("just too short", [max(shorter - 1, 1)] * 12, orders[:12])
    yield case("one long tile", [4 * longer + 3], [True])
    yield tile_case("corners", _corners(config), config, seed)
    for name, mantissa, shift in _formats(generator, config, 2 * longer):
        yield tile_case(name, [Tile(_weights(generator, config, config.rows, config.cols),
                                    mantissa, shift, by_column) for by_column in (False, True)],
                        config, seed)


def image_case(tensors: Mapping[str, Tensor], config: Config, words: int = 500) -> Case:
    """Make a case of one matrix product of a real image.

    Parameters
    ----------
    tensors
        ``mantissa`` ``[T, K]`` and ``shift`` ``[T, K]`` (or a scalar) of the decoded operands, and
        ``weights`` ``[K, N]``: what `golden.units.systolic.matmul` got.
    config
        The array; K and N are cut into its tiles, the last ones filled with zeros. Tiles are loaded
        by row and by column in turn.
    words
        About as many activation words are taken: tiles at equal distances, from first to last.
    """
    mantissa, weights = tensors["mantissa"], tensors["weights"]
    shift = torch.as_tensor(tensors["shift"]).expand_as(mantissa)
    rows, cols = config.rows, config.cols
    tiles: list[Tile] = []
    for k in range(0, weights.shape[0], rows):
        for n in range(0, weights.shape[1], cols):
            part = weights[k:k + rows, n:n + cols]
            missing = rows - part.shape[0]
            tiles.append(Tile(
                torch.nn.functional.pad(part, (0, cols - part.shape[1], 0, missing)),
                torch.nn.functional.pad(mantissa[:, k:k + rows], (0, missing)),
                torch.nn.functional.pad(shift[:, k:k + rows], (0, missing)),
                len(tiles) % 2 == 1))
    wanted = min(max(words // mantissa.shape[0], 1), len(tiles))
    chosen = torch.linspace(0, len(tiles) - 1, wanted).round().to(torch.int64).tolist()
    if Element(config).packed:
        return packed_case("image", [PackedTile(
            tile.weights[..., None], torch.stack([tile.mantissa] * 2, -1), tile.shift,
            ["single"] * len(tile.mantissa), tile.by_column)
            for tile in (tiles[index] for index in chosen)], config)
    return tile_case("image", [tiles[index] for index in chosen], config)
