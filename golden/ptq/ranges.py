# SPDX-License-Identifier: Apache-2.0
"""From observed values to uniform formats: the observers and searches that methods share."""

__all__ = ["OBSERVERS", "affine", "channel_weights", "observed_range", "omse_range",
           "percentile_search", "squared_error"]

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.statistics import Observed

OBSERVERS = ("minmax", "ema", "percentile", "omse")
_LEAST = 1e-9   # range of a constant tensor


def affine(low: float, high: float, bits: int) -> TensorFormat:
    """Cover ``low..high`` and 0 with unsigned codes and an integer zero point."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, _LEAST) / ((1 << bits) - 1)
    return TensorFormat(kind="uniform", bits=bits, scale=scale,
                        zero_point=math.floor(-low / scale + 0.5))


def squared_error(x: Tensor, item: TensorFormat) -> float:
    """Mean squared error of simulated values, accumulated in double precision."""
    return float((simulate(x, item) - x).double().square().mean())


def _quantiles(x: Tensor, shares: Sequence[float]) -> list[tuple[float, float]]:
    """Return the ``1 - share`` and the ``share`` quantile of each, by linear interpolation."""
    # torch.quantile refuses large inputs and sorts them; only the ends are needed here.
    flat = x.flatten()
    last = len(flat) - 1
    count = min(int(last * (1 - min(shares))) + 2, len(flat))
    ends = [flat.topk(count, largest=largest).values.tolist() for largest in (False, True)]

    def quantile(values: list[float], share: float) -> float:
        index, part = divmod(last * (1 - share), 1)
        here, following = values[int(index)], values[min(int(index) + 1, last)]
        return here + part * (following - here)

    return [(quantile(ends[0], share), quantile(ends[1], share)) for share in shares]


def observed_range(seen: Observed, observer: str, bits: int, *, sigma: float = 0.01,
                   share: float = 0.99999) -> tuple[float, float]:
    """Range of a tensor by one of FQ-ViT's observers (arXiv 2111.13824, official code).

    Parameters
    ----------
    observer
        "minmax": least and largest of all batches. "ema": those of the batches, averaged with
        weight `sigma` for a new batch. "percentile": so averaged `share` quantiles of the kept
        rows. "omse": `omse_range` of the last batch's kept rows.
    """
    if observer == "minmax":
        return float(seen.low.min()), float(seen.high.max())
    if observer == "ema":
        return _average(seen.low.tolist(), sigma), _average(seen.high.tolist(), sigma)
    if observer == "percentile":
        pairs = [_quantiles(rows, [share])[0] for rows in seen.rows]
        return (_average([low for low, _ in pairs], sigma),
                _average([high for _, high in pairs], sigma))
    if observer == "omse":
        return omse_range(seen.rows[-1], float(seen.low.min()), float(seen.high.max()), bits)
    raise ValueError(f"observer must be one of {', '.join(OBSERVERS)}, not {observer!r}")


def _average(values: Sequence[float], sigma: float) -> float:
    mean = values[0]
    for value in values[1:]:
        mean += sigma * (value - mean)
    return mean


def omse_range(x: Tensor, low: float, high: float, bits: int,
               candidates: int = 90) -> tuple[float, float]:
    """Of ranges shrunk by 0, 1, 2, ... percent return the one of the least squared error."""
    shares = [1 - 0.01 * step for step in range(candidates)]
    errors = [squared_error(x, affine(low * share, high * share, bits)) for share in shares]
    best = shares[errors.index(min(errors))]
    return low * best, high * best


def percentile_search(x: Tensor, bits: int, make: Callable[[float, float, int], TensorFormat],
                      shares: Sequence[float]) -> TensorFormat:
    """Of the formats for ranges of given quantiles return that of the least squared error."""
    found = [make(low, high, bits) for low, high in _quantiles(x, shares)]
    errors = [squared_error(x, item) for item in found]
    return found[errors.index(min(errors))]


def channel_weights(weight: Tensor, bits: int) -> TensorFormat:
    """Symmetric min-max per output channel, ``+-(2**(bits-1) - 1)`` steps."""
    peak = weight.flatten(1).abs().amax(1).double().clamp_min(_LEAST)
    return TensorFormat(kind="uniform", bits=bits, axis=0, signed=True,
                        scale=tuple((peak / ((1 << bits - 1) - 1)).tolist()))
