# SPDX-License-Identifier: Apache-2.0
"""Stimuli of the log-softmax bench."""

__all__ = ["cases", "fine", "image_case", "make_case"]

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from golden.units.softmax import (
    LogSoftmaxModel,
    PolynomialScale,
    ShiftScale,
    log2_codes,
    log_softmax,
    row_offset,
    softmax_scale,
    statistics,
)
from hw.softmax.unit import LogSoftmax
from sim.cases.case import Case
from vitforge.spec.config import Config
from vitforge.spec.softmax_widths import ShiftWidths

Scale = ShiftScale | PolynomialScale
#: Scores and keep bits of a row, ``[K]`` each, and its scale.
Row = tuple[Tensor, Tensor, Scale]


def make_case(name: str, rows: Sequence[Row], config: Config) -> Case:
    """Pack rows into words, the last word of a row padded with masked noise, and expect golden."""
    word_in, word_out = LogSoftmax.words(config)["i"], LogSoftmax.words(config)["o"]
    zero = (1 << config.attention_bits) - 1 if config.attention == "log2" else 0
    words: list[int] = []
    expected: list[int] = []
    lengths = []
    for scores, keep, scale in rows:
        count = -(-len(scores) // config.lanes)
        padding = count * config.lanes - len(scores)
        codes = log_softmax(scores, keep, scale, config)
        # Scores of masked keys must not matter: the highest would change every code.
        filler = torch.full((padding,), (1 << config.score_bits - 1) - 1)
        last = torch.arange(count) == count - 1

        def lay(values: Tensor, end: Tensor, count: int = count) -> Tensor:
            return torch.cat([values, end]).reshape(count, config.lanes)

        words += word_in.pack({
            "scores": lay(scores, filler).numpy(),
            "keep": lay(keep.long(), torch.zeros(padding, dtype=torch.int64)).numpy(),
            **{key: torch.full((count,), value).numpy()
               for key, value in dataclasses.asdict(scale).items()},
            "last": last.long().numpy()})
        expected += word_out.pack({
            "codes": lay(codes, torch.full((padding,), zero)).numpy(),
            "last": last.long().numpy()})
        lengths.append(count)
    return Case(name, {"i": words}, {"o": expected}, LogSoftmaxModel(config, lengths))


def image_case(tensors: Mapping[str, Tensor | Scale], config: Config) -> Case:
    """Return a case with the scores of a real image.

    Parameters
    ----------
    tensors
        ``"scores"``: codes ``[..., K]``; ``"keep"``: bool of the same shape (left out: all kept);
        ``"scale"``: what `golden.units.softmax.softmax_scale` has returned for the layer.
    config
        Its `max_keys` must be at least K.
    """
    scores, scale = tensors["scores"], tensors["scale"]
    if not isinstance(scores, Tensor) or isinstance(scale, Tensor):
        raise TypeError("scores must be a tensor, and scale the record of softmax_scale")
    keep = tensors.get("keep", torch.ones_like(scores, dtype=torch.bool))
    if not isinstance(keep, Tensor):
        raise TypeError(f"keep must be a tensor, not {type(keep).__name__}")
    keys = scores.shape[-1]
    rows = zip(scores.reshape(-1, keys), keep.reshape(-1, keys), strict=True)
    return make_case("image", [(row, kept, scale) for row, kept in rows], config)


def _ties(config: Config, scale: Callable[[float], Scale]) -> Iterator[Row]:
    """Rows whose sum is a whole number and a half of the largest power: n maxima, and one half.

    A score that is x0 less has exactly half the power. Every threshold of the rounding to a code
    is such a sum; the rows on either side of it have a maximum more or less.
    """
    high = (1 << config.score_bits - 1) - 1
    half = scale(0.3)
    assert isinstance(half, PolynomialScale)
    for ties in range(1, min(config.max_keys - 1, 13)):
        scores = torch.full((ties + 1,), high)
        scores[ties // 2] -= half.x0
        yield scores, torch.ones(ties + 1, dtype=torch.bool), half


def fine(config: Config, scale: Callable[[float], Scale], rng: torch.Generator) -> Iterator[Row]:
    """Rows in which every bit of the sum counts: a step more, or less, gives other codes.

    So does another last bit of the sums below 4 where they are normalised.

    A code is a logarithm rounded to whole numbers, so few of the rows of a network are so. Here
    they are picked from thousands.
    """
    high = 1 << config.score_bits - 1
    counts = sorted({min(config.max_keys, count) for count in (3, 5, 8, 13)})
    # With large scales few keys add anything.
    for keys, s in itertools.product(counts, (0.01, 0.02, 0.04, 0.08)):
        row_scale = scale(s)
        assert isinstance(row_scale, ShiftScale)
        scores = torch.randint(-high, high, (8192, keys), generator=rng)
        keep = torch.ones_like(scores, dtype=torch.bool)
        reference, total = statistics(scores, keep, row_scale, config)
        widths = ShiftWidths(config)
        one = 1 << widths.sum_fraction
        # The last bit that is left of the sum once it is shifted to its leading one.
        last = torch.where(total < 2 * one, 1, 2) << widths.sum_fraction - widths.fraction

        # A sum is at least 1.
        codes, less, more, ones, zeros = (
            log2_codes(scores, keep, row_offset(reference, changed.clamp_min(one), widths),
                       row_scale, config)
            for changed in (total, total - 1, total + 1, total | last, total & ~last))
        for wrong, most in ((less, 4), (more, 4), (ones, 3), (zeros, 3)):
            for row in (codes != wrong).any(-1).nonzero()[:most, 0]:
                yield scores[row], keep[row], row_scale


def _rises(config: Config) -> Iterator[Row]:
    """Rows whose maximum rises, from one word to the next, by a power of two in integer exponents.

    One bit of the difference alone is set: what compares it must look at that.
    """
    high = 1 << config.score_bits - 1
    for multiplier in (1 << 16, (1 << 17) - 1):
        for bit in range(config.score_bits):
            scores = torch.tensor([-high, -high + (1 << bit)]).repeat_interleave(config.lanes)
            yield scores, torch.ones_like(scores, dtype=torch.bool), ShiftScale(multiplier)


def cases(config: Config, seed: int) -> Iterator[Case]:
    """Rows of every length and shape, short and long ones in turn."""
    rng = torch.Generator().manual_seed(seed)
    high = 1 << config.score_bits - 1
    span = 256 / (1 << config.score_bits)
    lowest, largest = (0.01, 1.0) if config.exponential == "shift" else (0.02, 1.2)

    def scale(s: float | None = None) -> Scale:
        if s is None:
            s = lowest * (largest / lowest) ** float(torch.rand((), generator=rng))
        return softmax_scale(min(s * span, 1.6) if config.exponential == "iexp" else s * span,
                             config)

    def kept(keys: int, share: float = 1.0) -> Tensor:
        return torch.rand(keys, generator=rng) < share

    def gauss(keys: int, share: float = 1.0) -> Row:
        width = high * float(torch.rand((), generator=rng)) * 0.6
        centre = high * (float(torch.rand((), generator=rng)) - 0.5)
        scores = torch.randn(keys, generator=rng) * width + centre
        return scores.round().clamp(-high, high - 1).long(), kept(keys, share), scale()

    def uniform(keys: int) -> Row:
        return torch.randint(-high, high, (keys,), generator=rng), kept(keys), scale()

    def length(low: int, up: int) -> int:
        return int(torch.randint(low, up + 1, (), generator=rng))

    lanes, longest = config.lanes, config.max_keys
    some = min(longest, 12 * lanes)
    yield make_case("random rows with masks", [
        gauss(length(1, some), share) for share in (1.0, 0.9, 0.5, 0.2) for _ in range(8)], config)
    yield make_case("uniform rows", [uniform(length(1, some)) for _ in range(12)], config)
    yield make_case("longest rows", [gauss(longest), gauss(longest, 0.7)], config)
    yield make_case("one key", [gauss(1) for _ in range(40)], config)
    yield make_case("one word", [gauss(length(1, min(lanes, longest))) for _ in range(50)], config)
    yield make_case("equal scores", [
        (torch.full((keys,), value), kept(keys), scale())
        for keys in (1, min(2, longest), min(3 * lanes, longest), longest)
        for value in (-high, 0, high - 1)],
        config)
    yield make_case("masked rows", [
        (uniform(keys)[0], kept(keys, share), scale()) for keys in (1, lanes, some)
        for share in (0.0, 0.5, 0.0)], config)
    alternating = torch.tensor([-high, high - 1]).repeat(longest)
    yield make_case("extremes", [
        (alternating[at:at + min(some, longest)], kept(min(some, longest), share), scale(s))
        for at in (0, 1) for share in (1.0, 0.5) for s in (lowest, largest)], config)
    ramp = torch.linspace(-high, high - 1, longest).long()
    yield make_case("rising and falling", [
        (row, kept(longest), scale(s)) for s in (lowest * 3, largest)
        for row in (ramp, ramp.flip(0))], config)
    steps = (torch.arange(some) // lanes * 3 - high).clamp_max(high - 1)
    yield make_case("a higher maximum in every word", [
        (steps, kept(some), scale(s)) for s in (0.1, 0.3, largest)], config)
    if config.exponential == "iexp" and longest > 2:
        yield make_case("exact ties", [*_ties(config, scale)], config)
    if config.exponential == "shift":
        # A masked key counts as the lowest score where it must not count at all.
        yield make_case("masked keys among the lowest", [
            (torch.randint(0, 2, (keys,), generator=rng) - high, kept(keys, 0.5), scale(lowest))
            for keys in (some, longest)], config)
        if longest >= 2 * lanes:
            yield make_case("rises by a power of two", [*_rises(config)], config)
    # There are none of one key: its sum is 1.
    if ((config.exponential, config.attention) == ("shift", "log2")
            and (rows := [*fine(config, scale, rng)])):
        yield make_case("every bit of the sum", rows, config)
    yield make_case("short rows behind a long one", [
        gauss(longest), *(gauss(length(1, min(2 * lanes, longest))) for _ in range(40)),
        gauss(longest), gauss(1)], config)
