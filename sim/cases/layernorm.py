# SPDX-License-Identifier: Apache-2.0
"""Stimuli for the bench of `hw.layernorm`."""

__all__ = ["Row", "case_of", "cases", "image_case", "magnitudes"]

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.units.layernorm import (
    LayerNormModel,
    code_mask,
    layernorm,
    layernorm_parameters,
    normal,
    offset,
)
from hw.layernorm.unit import LayerNorm
from sim.cases.case import Case
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS
from vitforge.spec.layernorm_widths import FRACTION, GAMMA_BITS, OFFSET_BITS, NormFormat

#: Rows of a real image that one case replays.
IMAGE_ROWS = 6


@dataclass
class Row:
    """One row before it is cut into words; int64 ``[C]`` but for the zero point.

    Elements that `keep` leaves out are between the others, as noise; `keep` is bool ``[W]`` for W
    a multiple of lanes with C ones, or None for a row whose only gap is at its end.
    """

    mantissa: Tensor
    shift: Tensor
    gamma: Tensor
    beta: Tensor
    zero_point: int = 128
    keep: Tensor | None = None


def case_of(name: str, rows: Sequence[Row], config: Config, rng: torch.Generator,
            bits: int = CODE_BITS) -> Case:
    """Cut rows into words, and ask the golden function for the codes.

    `bits` is the field of 4 bits that says their width, as `code_mask` takes it.
    """
    columns: dict[str, list[Tensor]] = {key: [] for key in
                                        ("mantissa", "shift", "keep", "gamma", "offset", "code",
                                         "last")}
    lengths = []
    for row in rows:
        channels, lanes = len(row.mantissa), config.lanes
        keep = row.keep
        if keep is None:
            keep = torch.arange(-(-max(channels, 1) // lanes) * lanes) < channels
        lengths.append(len(keep) // lanes)
        codes = torch.zeros(0, dtype=torch.int64)
        if channels:
            codes = layernorm(row.mantissa, row.shift, row.gamma, row.beta, row.zero_point,
                              config).clamp_max(code_mask(bits))
        # Whatever stands where nothing is kept must not matter.
        width = NormFormat(config)
        fields = {"mantissa": (row.mantissa, -(1 << config.mantissa_bits - 1),
                               1 << config.mantissa_bits - 1),
                  "shift": (row.shift, 0, 1 << width.shift_bits),
                  "gamma": (row.gamma, -(1 << GAMMA_BITS - 1), 1 << GAMMA_BITS - 1),
                  "offset": (offset(row.beta, row.zero_point), -(1 << OFFSET_BITS - 1),
                             1 << OFFSET_BITS - 1),
                  "code": (codes, 0, 1)}
        for key, (values, low, high) in fields.items():
            column = torch.randint(low, high, keep.shape, generator=rng)
            column[keep] = values
            columns[key].append(column.reshape(-1, lanes))
        columns["keep"].append(keep.to(torch.int64).reshape(-1, lanes))
        columns["last"].append(torch.arange(lengths[-1]) == lengths[-1] - 1)
    whole = {key: torch.cat(parts).to(torch.int64).numpy() for key, parts in columns.items()}
    words = LayerNorm.words(config)
    packed = {port: word.pack({item.name: whole[item.name] for item in word.fields})
              for port, word in words.items()}
    return Case(name, {"i": packed["i"], "p": packed["p"]}, {"o": packed["o"]},
                LayerNormModel(config, lengths), {"bits": bits})


def image_case(tensors: Mapping[str, Tensor], config: Config) -> Case:
    """Replay a LayerNorm of a real image.

    Parameters
    ----------
    tensors
        int64: ``mantissa [T, C]``, ``shift [C]``, ``gamma [C]``, ``beta [C]``, ``zero_point`` and
        ``bits`` (scalars), as `golden.units.layernorm.layernorm` takes them. The first `IMAGE_ROWS`
        rows are replayed.
    """
    rows = [Row(mantissa, tensors["shift"], tensors["gamma"], tensors["beta"],
                int(tensors["zero_point"])) for mantissa in tensors["mantissa"][:IMAGE_ROWS]]
    return case_of("image", rows, config, torch.Generator().manual_seed(0), int(tensors["bits"]))


def _parameters(channels: int, rng: torch.Generator, config: Config,
                spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Parameters that use the range of the codes, for elements within +-`spread` deviations."""
    gamma = 1 + torch.randn(channels, generator=rng) / 3
    beta = torch.randn(channels, generator=rng) / 2
    return layernorm_parameters(gamma, beta, 2 * spread / 255, config)


def _limits(config: Config) -> tuple[int, int]:
    """Largest mantissa, and the largest shift that goes with it."""
    shift = max(0, config.norm_bits - config.mantissa_bits)
    return (1 << min(config.mantissa_bits, config.norm_bits) - 1) - 1, shift


def _random(channels: int, rng: torch.Generator, config: Config, bits: int = CODE_BITS) -> Row:
    """Return a row as a residual stream has them: normal, some channels wider than others.

    Most of its codes are within `bits` bits.
    """
    top, high = _limits(config)
    shift = torch.randint(0, high + 1, (channels,), generator=rng)
    mantissa = (torch.randn(channels, generator=rng) * top / 4 + top / 10).round()
    down = CODE_BITS - bits
    gamma, beta = _parameters(channels, rng, config)
    return Row(mantissa.to(torch.int64).clamp(-top - 1, top), shift, gamma >> down, beta >> down,
               zero_point=int(torch.randint(100, 156, (), generator=rng)) >> down)


def _constant(channels: int, value: int, shift: int, rng: torch.Generator,
              config: Config) -> Row:
    whole = torch.ones(channels, dtype=torch.int64)
    return Row(whole * value, whole * shift, *_parameters(channels, rng, config))


def _loud(rng: torch.Generator, config: Config) -> Row:
    """Return a row most of whose codes are 0, or the largest."""
    channels = min(config.max_channels, 3 * config.lanes + 1)
    row = _random(channels, rng, config)
    row.gamma = torch.where(torch.arange(channels) % 2 == 0, (1 << GAMMA_BITS - 1) - 1,
                            -(1 << GAMMA_BITS - 1))
    return row


def _sharp(mantissa: Tensor, shift: Tensor, rng: torch.Generator, config: Config) -> Row:
    """Return a row in whose codes every step of ``n * gamma`` shows.

    Its gamma is as large as the offset allows, and the sum with the offset is the first or the last
    that gives its code: a step less, or more, gives another.
    """
    channels, x = len(mantissa), mantissa << shift
    fraction = NormFormat(config).element_fraction
    n = normal(x, channels, x.sum(-1, keepdim=True), (x * x).sum(-1, keepdim=True), config)
    # The sum is below 2**16, and an offset's width is signed.
    most = (1 << OFFSET_BITS - 1) - (1 << CODE_BITS + FRACTION) << fraction
    top = min(most // (int(n.abs().max()) + 1), (1 << GAMMA_BITS - 1) - 1)

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (channels,), generator=rng)

    gamma = (top - draw(0, 1000)) * (2 * draw(0, 2) - 1)
    wanted = (draw(1, (1 << CODE_BITS) - 1) << FRACTION) + draw(0, 2) * ((1 << FRACTION) - 1)
    beta = wanted - (n * gamma >> fraction) - offset(torch.zeros_like(gamma), 0)
    return Row(mantissa, shift, gamma, beta, zero_point=0)


def _of_variance(power: int, channels: int, rng: torch.Generator, config: Config) -> list[Row]:
    """Return a row whose variance, as it is computed, has its first bit there, if one is found."""
    top, high = _limits(config)
    wide = torch.randn(64, channels, generator=rng) * 2 ** ((power + 0.5) / 2) / channels
    shift = next(s for s in range(high + 1) if s == high or wide.abs().max() < top << s)
    mantissa = (wide / (1 << shift)).round().to(torch.int64).clamp(-top - 1, top)
    x = mantissa << shift
    variance = channels * (x * x).sum(-1) - x.sum(-1) ** 2
    return [_sharp(row, torch.full((channels,), shift), rng, config)
            for row in mantissa[variance >> power == 1][:1]]


def magnitudes(config: Config, rng: torch.Generator) -> Iterator[Row]:
    """Rows with a variance of every power of two, of odd and even lengths, more of them short.

    So each has another number of leading zeros, by which everything is shifted.
    """
    top, high = _limits(config)
    longest = config.max_channels
    for power, odd in itertools.product(range(NormFormat(config).variance_bits), (1, 0)):
        # V is the square of this, ``C * sigma``.
        spread = 2 ** ((power + 0.5) / 2)
        # Elements of a step at least, and of the largest at most.
        drawn = min(2 * (longest / 2) ** float(torch.rand((), generator=rng)), 2 * spread)
        least = math.ceil(2 * spread / (top << high))
        channels = min(max(round(drawn), least) // 2 * 2 + odd, longest)
        yield from _of_variance(power, channels, rng, config)


def _corners(config: Config, rng: torch.Generator) -> Iterator[tuple[str, list[Row]]]:
    """Every row that a formula can trip over."""
    top, high = _limits(config)
    longest = config.max_channels
    some = min(longest, 3 * config.lanes + 1)

    yield "no variance", [_constant(n, value, high, rng, config)
                          for n, value in ((longest, top), (longest, -top - 1), (some, 0),
                                           (1, top), (1, max(-7, -top - 1)))]
    alternating = _constant(longest, top, high, rng, config)
    alternating.mantissa[::2] = -top - 1
    lonely = [_constant(longest, 0, 0, rng, config), _constant(longest, 0, 0, rng, config),
              _constant(longest, top - 1, high, rng, config)]
    lonely[0].mantissa[0] = top
    lonely[1].mantissa[-1] = -1
    lonely[2].mantissa[longest // 2] = top
    # One element far out reaches the largest |n|; its gamma is small enough to see it.
    for row in lonely:
        row.gamma, row.beta = _parameters(longest, rng, config, spread=longest**0.5)
    yield "extremes", [alternating, *lonely]

    # Small n: every bit of the factors shows in the codes.
    fine = []
    for _ in range(3):
        mantissa = (torch.randn(longest, generator=rng) * top / 24).round().to(torch.int64)
        mantissa[::16] = top
        fine.append(_sharp(mantissa, torch.full((longest,), high), rng, config))
    yield "fine", fine

    quiet = _random(some, rng, config)
    quiet.gamma = torch.zeros(some, dtype=torch.int64)
    # Ties of the final rounding, on both sides of 0, and both ends of the codes.
    quiet.beta = (torch.arange(some) - some // 2) * (1 << FRACTION) + (1 << FRACTION - 1)
    ends = _random(some, rng, config)
    ends.gamma = torch.ones(some, dtype=torch.int64) << FRACTION
    ends.beta = torch.where(torch.arange(some) % 2 == 0, 126, -127) << FRACTION
    yield "parameters", [_loud(rng, config), quiet, ends]
    # Behind them the longest rows, where their length, which is shifted by a place for every two
    # zeros before the variance, is so as far as it can be before that starts again.
    width = NormFormat(config)
    yield "magnitudes", [*magnitudes(config, rng), *(
        row for power in range(width.variance_bits)
        if (width.variance_bits - 1 - power) // 2 % width.coarse_step >= width.coarse_step - 2
        for row in _of_variance(power, longest, rng, config))]


def _holes(config: Config, rng: torch.Generator, bits: int) -> list[Row]:
    """Rows with elements left out anywhere, and a row of nothing."""
    rows = []
    words = min(4, config.max_channels // config.lanes)
    for _ in range(6):
        keep = torch.rand(words * config.lanes, generator=rng) < 0.6
        row = _random(max(1, int(keep.sum())), rng, config, bits)
        if not keep.any():
            keep[0] = True
        row.keep = keep
        rows.append(row)
    empty = torch.zeros(0, dtype=torch.int64)
    rows.insert(2, Row(empty, empty, empty, empty,
                       keep=torch.zeros(2 * config.lanes, dtype=torch.bool)))
    return rows


def cases(config: Config, seed: int) -> Iterator[Case]:
    """Random and corner rows for `config`; the same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    lanes, longest = config.lanes, config.max_channels

    def some(name: str, lengths: Iterable[int], bits: int = CODE_BITS) -> Case:
        rows = [*(_random(n, rng, config, bits) for n in lengths), _loud(rng, config)]
        return case_of(name, rows, config, rng, bits)

    lengths = torch.randint(1, min(longest, 12 * lanes) + 1, (12,), generator=rng).tolist()
    yield some("random rows", lengths)
    yield some("longest rows", [longest] * 3, 4)
    yield some("one channel", [1] * 6, 5)
    yield some("short rows", (min(longest, lanes), min(longest, 2 * lanes)) * 5, 3)
    yield some("short and long", (1, longest, 1, min(longest, 2), longest, 1), 7)
    for name, rows in _corners(config, rng):
        yield case_of(name, rows, config, rng)
    yield case_of("holes", [*_holes(config, rng, 2), _loud(rng, config)], config, rng, 2)
    # The other widths that the field of 4 bits can say, no code of a network among them.
    for bits in (0, 1, 6, CODE_BITS + 1):
        yield some(f"{bits} bits", [], bits)
