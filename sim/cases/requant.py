# SPDX-License-Identifier: Apache-2.0
"""Stimuli of the requantizer's bench."""

__all__ = ["Batch", "cases", "image_case", "make_case"]

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden.units.encoding import SEARCH, Encoding, thresholds
from golden.units.requant import Requantization, RequantizerModel, operate, requantize
from hw.requant.unit import Requantizer
from sim.cases.case import Case
from vitforge.spec.config import Config
from vitforge.spec.formats import CODE_BITS, FORMATS
from vitforge.spec.requant_fields import OPERATIONS

#: Rows of a real image that one case replays.
IMAGE_ROWS = 4


@dataclass
class Batch:
    """Elements with one operation and encoding; tensors of the layer are ``[N]`` or one for all."""

    acc: Tensor
    layer: Requantization
    residual: Tensor | None = None


def _thresholds(batches: Sequence[Batch], config: Config) -> tuple[int, ...]:
    """Contents of the static input; the batches of a case must agree."""
    wanted = {thresholds(batch.layer.encoding, batch.layer.encode_shift, config)
              for batch in batches if batch.layer.encoding.kind != "uniform"}
    if len(wanted) > 1:
        raise ValueError("batches of one case must have the same thresholds")
    return wanted.pop() if wanted else (0,) * SEARCH


def make_case(name: str, batches: Sequence[Batch], config: Config) -> Case:
    """Pack batches into words, in order, and ask the golden function for the codes."""
    words = Requantizer.words(config)
    sent: list[int] = []
    expected: list[int] = []
    for batch in batches:
        count = -(-len(batch.acc) // config.lanes)
        layer = batch.layer

        def lay(value: Tensor | int | None, count: int = count,
                size: int = len(batch.acc)) -> Tensor:
            # The last word is filled up with zeros, which are elements like others.
            flat = torch.as_tensor(0 if value is None else value).expand(size)
            return torch.nn.functional.pad(flat, (0, count * config.lanes - size))

        acc, residual = lay(batch.acc), lay(batch.residual)
        fields: dict[str, Any] = {key: lay(getattr(layer, key))
                                  for key in ("bias", "multiplier", "shift")}
        encode_shift = layer.encode_shift
        if layer.encoding.kind == "uniform":
            encode_shift = lay(encode_shift)
        codes = requantize(acc, dataclasses.replace(layer, encode_shift=encode_shift, **fields),
                           config, residual if layer.operation == "residual" else None)
        if batch.residual is None:
            # Must not matter.
            residual = torch.randint(-(1 << config.norm_bits - 1), 1 << config.norm_bits - 1,
                                     residual.shape, generator=torch.Generator().manual_seed(3))
        elements = {"acc": acc, **fields, "residual": residual,
                    "encode_shift": lay(layer.encode_shift)}
        encoding = layer.encoding
        scalars = {"operation": OPERATIONS[layer.operation], "multiplier2": layer.multiplier2,
                   "format": FORMATS[encoding.kind], "zero_point": encoding.zero_point,
                   "bits": encoding.bits, "m": encoding.m, "signed": int(encoding.signed),
                   "lowest": encoding.lowest}
        last = np.arange(count) == count - 1
        sent += words["i"].pack({
            **{key: value.reshape(count, -1).numpy() for key, value in elements.items()},
            **{key: np.full(count, value) for key, value in scalars.items()}, "last": last})
        expected += words["o"].pack({"codes": codes.reshape(count, -1).numpy(), "last": last})
    bits = config.value_bits + 1
    static = sum((value & (1 << bits) - 1) << bits * index
                 for index, value in enumerate(_thresholds(batches, config)))
    return Case(name, {"i": sent}, {"o": expected}, RequantizerModel(), {"thresholds": static})


def image_case(tensors: Mapping[str, Any], config: Config) -> Case:
    """Replay a requantization of a real image.

    Parameters
    ----------
    tensors
        ``"acc"`` ``[..., C]``, ``"layer"`` and ``"residual"`` (a tensor, or None or left out), as
        `golden.units.requant.requantize` takes them. The first `IMAGE_ROWS` rows are replayed.
    """
    acc, layer, residual = tensors["acc"], tensors["layer"], tensors.get("residual")
    channels = acc.shape[-1]

    def rows(value: Tensor) -> Tensor:
        return value.broadcast_to(acc.shape).reshape(-1, channels)[:IMAGE_ROWS]

    def row(value: Tensor | int, index: int) -> Tensor | int:
        if not isinstance(value, Tensor) or value.numel() == 1:
            return int(value)
        return rows(value)[index]

    batches = []
    for index, values in enumerate(rows(acc)):
        fields = {key: row(getattr(layer, key), index)
                  for key in ("bias", "multiplier", "shift", "encode_shift")}
        batches.append(Batch(values, dataclasses.replace(layer, **fields),
                             None if residual is None else rows(residual)[index]))
    return make_case("image", batches, config)


class _Maker:
    """Random batches whose results cover the range of the codes, and not much more."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config = config
        self.rng = torch.Generator().manual_seed(seed)
        self.top = (1 << config.value_bits - 1) - 1

    def integers(self, low: int, high: int, count: int) -> Tensor:
        """Uniform in ``low..high``, both included."""
        return torch.randint(low, high + 1, (count,), generator=self.rng)

    def one(self, low: int, high: int) -> int:
        return int(self.integers(low, high, 1))

    def batch(self, values: Tensor, encoding: Encoding, encode_shift: Tensor | int = 0,
              operation: str = "linear", *, exact: bool = False) -> Batch:
        """Choose accumulators and scales that lead to wanted values.

        With a residual, its product is part of the value; GeLU comes after it. If `exact`, the
        values are met; else they are where the rounding puts them.
        """
        config, count = self.config, len(values)
        limit = 1 << config.acc_bits - 1
        # A linear word has a factor too, which must not matter.
        residual = None
        factor = self.one(1 << config.factor_bits - 1, (1 << config.factor_bits) - 1)
        if operation == "residual":
            factor >>= self.one(0, config.factor_bits - 2)
            high = (1 << config.norm_bits - 1) - 1
            residual = self.integers(-high - 1, high, count)
            addition = Requantization(operation=operation, multiplier2=factor, encoding=encoding)
            values = values - operate(torch.zeros_like(values), addition, config, residual)
            values = values.clamp(-self.top, self.top)
        if exact:
            shift = self.integers(0, config.multiplier_bits - 1, count)
            multiplier = 1 << shift
            total = values
        else:
            multiplier = self.integers(1, (1 << config.multiplier_bits) - 1, count)
            # A shift that lets the accumulator be as large as it can, or less.
            room = config.acc_bits - 2 - config.value_bits
            width = torch.tensor([int(value).bit_length() for value in multiplier])
            shift = (width + self.integers(-2, max(room, 0), count)).clamp(0, 63)
            jitter = torch.rand(count, generator=self.rng, dtype=torch.float64) - 0.5
            total = ((values + jitter) * 2.0**shift / multiplier).round().to(torch.int64)
        bias = self.integers(-limit // 2, limit // 2 - 1, count)
        acc = (total - bias).clamp(-limit, limit - 1)
        layer = Requantization(bias=bias, multiplier=multiplier, shift=shift, operation=operation,
                               encoding=encoding, encode_shift=encode_shift, multiplier2=factor)
        return Batch(acc, layer, residual)

    def uniform(self, count: int, operation: str = "linear", bits: int = 0) -> Batch:
        """Codes of 2 to 8 bits, all of them and a few beyond, with an own shift each."""
        bits, zero_point = bits or self.one(2, 8), self.one(0, 255)
        low, high = -zero_point - 9, (1 << bits) - zero_point + 9
        widest = max(abs(low), abs(high)).bit_length()
        shift = self.integers(0, max(0, min(15, self.config.value_bits - 1 - widest)), count)
        values = self.integers(low, high, count) << shift
        values += (self.integers(0, 1 << 15, count) << shift >> 15)
        values = values.clamp(-self.top, self.top)
        # Any, of those that let the codes fit a byte.
        lowest = 7 * zero_point % (257 - (1 << bits))
        return self.batch(values, Encoding(bits=bits, zero_point=zero_point, lowest=lowest), shift,
                          operation,
                          exact=operation == "linear" and self.one(0, 1) == 1)

    def probabilities(self, count: int) -> Tensor:
        """As many small values as large ones, with the extremes."""
        exponent = torch.rand(count, generator=self.rng, dtype=torch.float64)
        values = (2.0 ** (exponent * self.config.value_bits) / 2).to(torch.int64)
        values[::17], values[1::23], values[2::29] = 0, self.top, -1
        return values

    def two_scale(self, count: int, bits: int, shift: int, m: int, negative: bool) -> Tensor:
        """Values of the low region, its bounds, and values of the high one."""
        levels = 1 << bits - 1
        bound = thresholds(Encoding(kind="two-scale", bits=bits, m=m, signed=negative), shift,
                           self.config)
        low, high = bound[3], bound[11]
        scale = self.integers(0, 1, count) * m + shift
        values = (self.integers(-levels * negative, levels, count) << scale)
        values += self.integers(0, 1 << shift + m, count)
        for index, edge in enumerate((low - 1, low, high - 1, high)):
            values[index::11] = edge
        return values.clamp(-self.top, self.top)


def _extremes(make: _Maker) -> Iterator[Batch]:
    config = make.config
    limit = 1 << config.acc_bits - 1
    full, full2 = (1 << config.multiplier_bits) - 1, (1 << config.factor_bits) - 1
    ends = torch.tensor([-limit, limit - 1, 0, -1, 1])
    shifts = torch.tensor([0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63])
    for factor in sorted({0, 1, full}):
        grid = torch.cartesian_prod(ends[:3], ends, shifts)
        # About 60 of the 180, others every time.
        grid = grid[make.one(0, 2)::3]
        layer = Requantization(bias=grid[:, 1], multiplier=factor, shift=grid[:, 2],
                               encoding=Encoding(zero_point=128),
                               encode_shift=make.integers(0, 15, len(grid)))
        yield Batch(grid[:, 0], layer)
    # A little above the range, and far above: each of the bits that a saturation must see.
    far = make.integers(make.top, 2 * make.top, 40) << torch.arange(40) % 20
    yield make.batch(far * (make.integers(0, 1, 40) * 2 - 1), Encoding(zero_point=128),
                     config.value_bits - 9)
    high = (1 << config.norm_bits - 1) - 1
    residual = torch.tensor([-high - 1, high, -high - 1, high])
    acc = torch.tensor([-limit, -limit, limit - 1, limit - 1])
    yield Batch(acc, Requantization(operation="residual", multiplier2=full2,
                                    encoding=Encoding(zero_point=128), encode_shift=9), residual)
    yield Batch(acc, Requantization(operation="gelu", multiplier2=full2,
                                    encoding=Encoding(bits=7, zero_point=1), encode_shift=8))


def _far(make: _Maker) -> Iterator[Batch]:
    """Large products, shifted until they fit, and values far beyond codes of a few bits."""
    config = make.config
    limit, full = 1 << config.acc_bits - 1, (1 << config.multiplier_bits) - 1
    widest = config.acc_bits + config.multiplier_bits
    shift = torch.arange(max(0, widest - config.value_bits - 1), min(63, widest) + 1).repeat(6)
    count = len(shift)
    yield Batch(make.integers(-limit, limit - 1, count), Requantization(
        bias=make.integers(-limit, limit - 1, count), shift=shift,
        multiplier=make.integers(full // 2 + 1, full, count), encoding=Encoding(zero_point=128),
        encode_shift=(widest - shift - CODE_BITS).clamp(0, 15)))
    # The largest ones, which become 1 and -1 in every lane.
    ends = torch.tensor([-limit, limit - 1]).repeat_interleave(config.lanes)
    yield Batch(ends, Requantization(bias=ends, multiplier=full, shift=min(63, widest),
                                     encoding=Encoding(zero_point=128)))
    for bits in range(2, CODE_BITS):
        yield make.batch(make.integers(-make.top, make.top, 16),
                         Encoding(bits=bits, zero_point=make.one(0, 255)), exact=True)


def _lone_bits(make: _Maker) -> Iterator[Batch]:
    """Products of a single bit at every shift that leaves them too large, or nearly.

    So each of the bits that a saturation must see is the only one; then the same for the code.
    """
    config = make.config
    widest = config.acc_bits + config.multiplier_bits - 2
    place, shift = torch.tensor([(place, shift) for place in range(widest + 1)
                                 for shift in range(place - config.value_bits + 3)]).T
    total = place.clamp_max(config.acc_bits - 1)
    bias = make.integers(1, 1 << config.acc_bits - 2, len(place))
    yield Batch((1 << total) - bias, Requantization(
        bias=bias, multiplier=1 << place - total, shift=shift,
        encoding=Encoding(zero_point=128), encode_shift=config.value_bits - 9))
    # What the rounding alone makes too large.
    shift = torch.arange(1, config.acc_bits - config.value_bits + 1).repeat_interleave(2)
    yield Batch((1 << config.value_bits) - 1 << shift - 1, Requantization(
        shift=shift, encoding=Encoding(zero_point=128), encode_shift=config.value_bits - 9))
    place, shift = torch.tensor([(place, shift) for place in range(CODE_BITS, config.value_bits - 1)
                                 for shift in range(place - CODE_BITS + 1)]).T
    for sign in (0, -1):
        yield make.batch((1 << place) ^ sign, Encoding(zero_point=128), shift, exact=True)


def _ties(make: _Maker, count: int) -> Iterator[Batch]:
    """Halves of both signs in the first rounding and in that of the code."""
    odd = make.integers(-300, 300, count) * 2 + 1
    shift = make.integers(1, min(40, make.config.acc_bits - 12), count)
    yield Batch(odd << shift - 1, Requantization(shift=shift, encoding=Encoding(zero_point=128)))
    half = make.integers(1, min(15, make.config.value_bits - 8), count)
    yield make.batch((make.integers(-60, 60, count) * 2 + 1) << half - 1,
                     Encoding(zero_point=60, bits=7), half, exact=True)


def cases(config: Config, seed: int) -> Iterator[Case]:
    """Every operation and format, ties, extremes, and what a single element needs."""
    make = _Maker(config, seed)
    lanes = config.lanes
    some = 24 * lanes + 1

    def uniform(*operations: str) -> Iterator[Batch]:
        # Formats change from word to word, beside the ones with thresholds too.
        for operation in operations:
            yield make.uniform(make.one(1, 2 * lanes), operation)

    yield make_case("uniform", [*uniform(*("linear", "gelu", "residual") * 16),
                                make.uniform(some, bits=8)], config)
    yield make_case("extremes", [*_extremes(make), *_far(make), *_lone_bits(make)], config)
    yield make_case("ties", [*_ties(make, some)], config)
    zero = torch.zeros(3 * lanes, dtype=torch.int64)
    yield make_case("zeros", [Batch(zero, Requantization(encoding=Encoding()), None)], config)
    yield make_case("one element", [make.uniform(1)], config)

    fraction = config.value_bits - 5
    bend = make.integers(-(5 << fraction), 5 << fraction, some)
    wide = make.integers(-make.top, make.top, some)
    for index, edge in enumerate(sign * ((4 << fraction) + step)
                                 for sign in (-1, 1) for step in (-5, -1, 0, 1)):
        wide[index] = edge
    codes = Encoding(zero_point=30)
    yield make_case("GeLU", [make.batch(bend, codes, 1, "gelu", exact=True),
                             make.batch(wide, codes, min(15, config.value_bits - 9), "gelu",
                                        exact=True)],
                    config)

    # Every width, with a sign too; most of them with several factors.
    for bits, shift, negative, several in (
            (8, 1, True, True), (8, 0, False, True), (4, 3, True, True), (2, 2, True, True),
            (6, min(9, config.value_bits - 7), False, True), (7, 1, True, False),
            (6, 2, True, False), (5, 3, True, False), (3, 4, True, False)):
        if "two-scale" not in config.result_formats:
            break
        batches = []
        for m in ({0, make.one(1, 3), make.one(1, 6), 6, 15 - shift} if several
                  else {make.one(1, 6)}):
            code = Encoding(kind="two-scale", bits=bits, m=m, signed=negative)
            count = make.one(8 * lanes, 16 * lanes)
            values = make.two_scale(count, bits, shift, min(m, 6), negative)
            batches += [make.batch(values, code, shift, exact=True), *uniform("residual")]
            batches.append(make.batch(make.integers(-make.top, make.top, lanes), code, shift,
                                      "gelu"))
        yield make_case(f"two-scale {bits} {shift}", batches, config)

    for bits in (4, 3, 2):
        edges = make.probabilities((1 << bits) - 1).abs().sort().values
        for code in (Encoding(kind="log2", bits=bits),
                     Encoding(kind="table", bits=bits, thresholds=tuple(edges.tolist()))):
            if code.kind not in config.result_formats:
                continue
            level = torch.tensor(thresholds(code, 0, config))
            near = torch.cat([level - 1, level, level + 1]).clamp(-make.top, make.top)
            near = near[torch.randperm(len(near), generator=make.rng)]
            yield make_case(f"{code.kind} {bits}", [
                make.batch(near, code, exact=True), *uniform("linear", "gelu"),
                make.batch(make.probabilities(some), code, make.one(0, 15))], config)
    if "table" not in config.result_formats:
        return
    edges = make.integers(-make.top, make.top, SEARCH).sort().values
    code = Encoding(kind="table", bits=4, thresholds=tuple(edges.tolist()))
    yield make_case("table signed", [
        make.batch(make.integers(-make.top, make.top, some), code, exact=True)], config)
    # All edges on one side of 0, and near its end: so each of the 15 has every bit that it can.
    for low, high in ((-make.top, -1), (make.top - 4 * SEARCH, make.top), (1, 4 * SEARCH),
                      (1, make.top)):
        edges = make.integers(low, high, SEARCH).sort().values
        code = Encoding(kind="table", bits=4, thresholds=tuple(edges.tolist()))
        values = torch.cat([edges - 1, edges, make.integers(low, high, 4 * lanes)])
        yield make_case(f"table from {low}", [make.batch(values, code, exact=True)], config)
