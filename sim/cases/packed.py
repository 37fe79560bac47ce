# SPDX-License-Identifier: Apache-2.0
"""Stimuli of an array with packed modes: tiles of every mode in every order, and their ends."""

__all__ = ["PackedTile", "exhaustive", "packed_case", "packed_cases"]

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.units.packed import pack_weights, segments
from golden.units.systolic import SystolicModel, matmul
from hw.array.systolic import SystolicArray
from sim.cases.case import Case
from vitforge.spec.config import Config
from vitforge.spec.elements import MODES, Element


@dataclass(frozen=True)
class PackedTile:
    """Weights ``[rows, cols, 1 or 2]``, and the words that meet them.

    Attributes
    ----------
    mantissa
        ``[T, rows, 2]``; the second token counts in `quad` only.
    shift
        ``[T, rows]``.
    modes
        Of every word: ``single``, or with two weights any of the others, word by word.
    """

    weights: Tensor
    mantissa: Tensor
    shift: Tensor
    modes: Sequence[str]
    by_column: bool = False


def _elements(weights: Tensor, element: Element) -> Tensor:
    """Return the elements of weight words, single weights or packed ones."""
    if weights.shape[-1] == 1:
        return weights[..., 0]
    pack_weights(weights, element)      # refuses what no packed tile may have
    return (weights[..., 1] << element.packed_bits) + weights[..., 0]


def _codes(tile: PackedTile, element: Element) -> Tensor:
    """Return the operands of activation words, of two tokens if they are."""
    both = (tile.mantissa[..., 1] << element.operand_bits["quad"]) + tile.mantissa[..., 0]
    quad = torch.tensor([mode == "quad" for mode in tile.modes])[:, None]
    return torch.where(quad, both, tile.mantissa[..., 0])


def _sums(tile: PackedTile, element: Element) -> Tensor:
    """Return the segments ``[T, cols, segments]`` of a tile, by one plain product a field."""
    found = torch.empty(len(tile.modes), tile.weights.shape[1], element.segments,
                        dtype=torch.int64)
    for mode in set(tile.modes):
        words = [word for word, name in enumerate(tile.modes) if name == mode]
        fields = [matmul(tile.mantissa[words, :, token], tile.shift[words],
                         tile.weights[..., weight])
                  for weight in range(MODES[mode][0]) for token in range(MODES[mode][1])]
        found[words] = segments(torch.stack(fields, -1), mode, element)
    return found


def packed_case(name: str, tiles: Iterable[PackedTile], config: Config, seed: int = 0) -> Case:
    """Put tiles one after the other; what the array must ignore is noise of `seed`."""
    element = Element(config)
    generator = torch.Generator().manual_seed(seed)
    longer = max(config.rows, config.cols)
    found: dict[str, list[Tensor]] = {name: [] for name in (
        "weights", "by_column", "packed", "mantissa", "shift", "mode", "last", "sums")}
    half = 1 << element.bus_bits - 1
    for tile in tiles:
        lines = _elements(tile.weights, element)
        lines = lines.T if tile.by_column else lines
        padded = torch.randint(-half, half, (lines.shape[0], longer), generator=generator)
        padded[:, :lines.shape[1]] = lines
        flags = torch.randint(0, 2, (2, lines.shape[0]), generator=generator)
        flags[:, 0] = torch.tensor([tile.by_column, tile.weights.shape[-1] > 1])
        ends = torch.zeros(len(tile.modes), dtype=torch.int64)
        ends[-1] = 1
        columns = (padded, flags[0], flags[1],
                   _codes(tile, element), tile.shift,
                   torch.tensor([element.modes.index(mode) for mode in tile.modes]), ends,
                   _sums(tile, element))
        for column, values in zip(found.values(), columns, strict=True):
            column.append(values)
    whole = {name: torch.cat(parts) for name, parts in found.items()}
    columns_of = {key: values.numpy() for key, values in whole.items()} | {
        f"segment_{place}": whole["sums"][..., place].numpy()
        for place in range(element.segments)}
    packed = {port: word.pack({item.name: columns_of[item.name] for item in word.fields})
              for port, word in SystolicArray.words(config).items()}
    return Case(name=name, words={port: packed[port] for port in ("w", "a")},
                expected={"o": packed["o"]},
                model=SystolicModel(config, whole["by_column"].bool().tolist(),
                                    whole["last"].bool().tolist()))


def _range(element: Element, weights: int) -> tuple[int, int]:
    """Least and greatest weight of a tile."""
    if weights == 1:
        return -(1 << element.weight_bits - 1), (1 << element.weight_bits - 1) - 1
    top = (1 << element.packed_bits - 1) - 1
    return -top, top


def _reach(config: Config, element: Element, mode: str) -> tuple[int, int]:
    """Bits of a mantissa, and the greatest shift that leaves all of them."""
    bits = min(element.operand_bits[mode], config.mantissa_bits) if mode != "quad" \
        else element.operand_bits[mode]
    return bits, element.operand_bits[mode] - bits if mode == "single" else 0


def _operands(generator: torch.Generator, config: Config, modes: Sequence[str]
              ) -> tuple[Tensor, Tensor]:
    """Random operands, of random shifts where they may be shifted, with all the bits there are."""
    element = Element(config)
    mantissa = torch.empty(len(modes), config.rows, 2, dtype=torch.int64)
    shift = torch.zeros(len(modes), config.rows, dtype=torch.int64)
    for word, mode in enumerate(modes):
        bits = element.operand_bits[mode]
        # A word of the pair mode may be shifted within its width.
        most = 0 if mode == "quad" or not element.single else min(config.max_shift, bits - 2)
        shift[word] = torch.randint(0, most + 1, (config.rows,), generator=generator)
        width = (bits - shift[word]).clamp_max(_reach(config, element, mode)[0])[:, None]
        half = 1 << width - 1
        mantissa[word] = torch.randint(0, 1 << 30, (config.rows, 2), generator=generator) \
            % (2 * half) - half
    return mantissa, shift


def _kinds(element: Element) -> list[list[str]]:
    """Modes that may meet in a tile: of one weight an element, of two."""
    kinds = [["single"] if element.single else [],
             [mode for mode in element.modes if mode != "single"]]
    return [kind for kind in kinds if kind]


def _tiles(generator: torch.Generator, config: Config, lengths: Sequence[int],
           by_column: Sequence[bool]) -> Iterator[PackedTile]:
    """Tiles of every kind in random order, and with two weights every mode in random order."""
    element = Element(config)
    kinds = _kinds(element)
    for length, order in zip(lengths, by_column, strict=True):
        kind = kinds[int(torch.randint(0, len(kinds), (1,), generator=generator))]
        drawn = torch.randint(0, len(kind), (length,), generator=generator).tolist()
        modes = [kind[index] for index in drawn]
        count = MODES[modes[0]][0]
        low, high = _range(element, count)
        weights = torch.randint(low, high + 1, (config.rows, config.cols, count),
                                generator=generator)
        yield PackedTile(weights, *_operands(generator, config, modes), modes, order)


def _corners(config: Config) -> Iterator[PackedTile]:
    """Every sign of every weight and token at the ends of its range, in all rows; and mixed."""
    element = Element(config)
    rows, cols = config.rows, config.cols
    checks = (torch.arange(rows)[:, None] + torch.arange(cols)) % 2
    for number, kind in enumerate(_kinds(element) * 2):
        count = MODES[kind[0]][0]
        ends = list(_range(element, count))
        modes, mantissa, shift = [], [], []
        for mode in kind:
            bits, most = _reach(config, element, mode)
            half = 1 << bits - 1
            for first, second in itertools.product((-half, half - 1, 0, -1), repeat=2):
                for turn in (0, 1):
                    # All rows the same, or in turn of the other sign.
                    flip = torch.arange(rows) % 2 * turn
                    modes.append(mode)
                    mantissa.append(torch.stack(
                        [torch.where(flip == 1, -1 - value, value)
                         for value in (first, second)], -1))
                    shift.append(torch.full((rows,), most))
        words = torch.stack(mantissa), torch.stack(shift), modes
        for both in itertools.product([*ends, 0, -1], repeat=count):
            plain = torch.tensor(both).expand(rows, cols, count)
            mixed = torch.where(checks[..., None] == 1, plain, plain.flip(-1).neg().clamp(*ends))
            yield PackedTile(mixed if number >= len(_kinds(element)) else plain, *words,
                             bool(sum(both) % 2))


def exhaustive(config: Config) -> Iterator[PackedTile]:
    """Every weight by every operand of an element, for an array of one row.

    Weights that are wider than four bits meet the operands at the ends of their range, and four
    between.
    """
    element = Element(config)
    for kind in _kinds(element):
        low, high = _range(element, MODES[kind[0]][0])
        values = torch.arange(low, high + 1)
        count = MODES[kind[0]][0]
        weights = torch.cartesian_prod(*[values] * count).reshape(-1, count)
        modes: list[str] = []
        operands: list[Tensor] = []
        for mode in kind:
            bits = _reach(config, element, mode)[0]
            codes = torch.arange(-(1 << bits - 1), 1 << bits - 1)
            if len(weights) > 1024:
                codes = codes[torch.linspace(0, len(codes) - 1, 8).long()]
            meet = torch.cartesian_prod(codes, codes) if mode == "quad" \
                else torch.stack([codes, torch.zeros_like(codes)], -1)
            operands.append(meet)
            modes += [mode] * len(meet)
        mantissa = torch.cat(operands)[:, None, :]
        shift = torch.zeros(len(modes), 1, dtype=torch.int64)
        for first in range(0, len(weights), config.cols):
            part = weights[first:first + config.cols]
            part = torch.nn.functional.pad(part, (0, 0, 0, config.cols - len(part)))
            yield PackedTile(part[None], mantissa, shift, modes)


def packed_cases(config: Config, seed: int) -> Iterator[Case]:
    """Yield the runs of the bench for a configuration with packed modes."""
    generator = torch.Generator().manual_seed(seed)
    shorter, longer = sorted((config.rows, config.cols))
    orders = torch.randint(0, 2, (24,), generator=generator).bool().tolist()
    lengths = torch.randint(1, 2 * longer + 1, (24,), generator=generator).tolist()

    def case(name: str, lengths: Sequence[int], by_column: Sequence[bool]) -> Case:
        return packed_case(name, _tiles(generator, config, lengths, by_column), config, seed)

    yield case("one word", [1], [False])
    yield case("random tiles", lengths, orders)
    yield case("no bubble, modes in turn", [longer] * 12, [False] * 12)
    yield case("no bubble by column", [longer] * 12, [True] * 12)
    yield case("one word a tile, both", [1] * 16, orders[:16])
    yield case("just too short", [max(shorter - 1, 1)] * 12, orders[:12])
    yield packed_case("corners", _corners(config), config, seed)
    if config.rows == 1:
        yield packed_case("every weight by every operand", exhaustive(config), config, seed)
