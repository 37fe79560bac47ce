# SPDX-License-Identifier: Apache-2.0
"""SQ-b of MPTQ-ViT: SmoothQuant with a bias term, at LayerNorm outputs. A reconstruction.

SmoothQuant (arXiv 2211.10438, equation 4) divides every channel of an activation by ``s = max|x| **
alpha / max|w| ** (1 - alpha)`` and multiplies the next layer's weights by it. MPTQ-ViT's abstract
says that a bias term is added because activations are asymmetric, so that less is clamped. That
the term is the middle of the channel's range, and that it is taken away before s is computed, is
reconstructed. Both are folded into LayerNorm and the next layer, so inference computes no more.
"""

__all__ = ["smooth", "smoothing"]

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from golden.ptq.folding import folded, network, readers
from golden.ptq.formats import simulate
from golden.ptq.ranges import affine, channel_weights
from golden.ptq.statistics import Observed, Statistics

_LEAST = 1e-5   # as the official code of SmoothQuant, for channels that are always 0


def smoothing(rows: Tensor, weight: Tensor, alpha: float, biased: bool) -> tuple[Tensor, Tensor]:
    """Return ratio and shift of every channel, float64 ``[C]``: x becomes ``x / ratio - shift``.

    Parameters
    ----------
    rows
        Activations ``[N, C]``.
    weight
        Of the next layer, ``[M, C]``.
    alpha
        0: all difficulty stays in the activations; 1: all goes to the weights.
    biased
        False: no shift, plain SmoothQuant.
    """
    low, high = rows.double().aminmax(dim=0)
    middle = (low + high) / 2 if biased else torch.zeros_like(low)
    peak = torch.maximum(high - middle, middle - low).clamp_min(_LEAST)
    ratio = peak ** alpha / weight.double().abs().amax(0).clamp_min(_LEAST) ** (1 - alpha)
    return ratio, middle / ratio


def _error(rows: Tensor, weight: Tensor, bits: tuple[int, int]) -> float:
    """Mean squared error that min-max formats of both operands make in the layer's output."""
    x = simulate(rows, affine(float(rows.min()), float(rows.max()), bits[1]))
    got = linear(x, simulate(weight, channel_weights(weight, bits[0])))
    return float((got - linear(rows, weight)).square().mean())


def _moved(seen: Observed, ratio: Tensor, shift: Tensor) -> Observed:
    """Return what would be observed of ``x / ratio - shift``, its range that of the kept rows."""
    rows = tuple((part.double() / ratio - shift).float() for part in seen.rows)
    low, high = zip(*(part.aminmax() for part in rows), strict=True)
    return Observed(torch.stack(low), torch.stack(high), rows)


def smooth(statistics: Statistics, bits: tuple[int, int], alphas: Sequence[float],
           biased: bool) -> tuple[Statistics, dict[str, Tensor]]:
    """Smooth every LayerNorm output that one layer reads.

    Of several `alphas`, each layer takes that of the least error of its output. A layer without
    bias gets no shift.

    Parameters
    ----------
    bits
        Widths of weights and activations.

    Returns
    -------
    statistics
        What calibration would have seen of the changed network, which is in it.
    parameters
        Those that have changed, by name.
    """
    state = {name: value.detach() for name, value in statistics.model.named_parameters()}
    changed: dict[str, Tensor] = {}
    observed, importance = dict(statistics.observed), dict(statistics.importance)
    for norm, layer in readers(statistics.model).items():
        rows, weight = observed[norm].all_rows, state[f"{layer}.weight"]
        shifted = biased and f"{layer}.bias" in state
        found = [smoothing(rows, weight, alpha, shifted) for alpha in alphas]
        best = 0
        if len(found) > 1:
            errors = [_error(rows / ratio - shift, weight * ratio, bits)
                      for ratio, shift in found]
            best = errors.index(min(errors))
        ratio, shift = found[best]
        changed |= folded(state, norm, layer, ratio, shift)
        observed[norm] = _moved(observed[norm], ratio, shift)
        if norm in importance:
            # d loss / d (x / ratio) = ratio * d loss / d x, squared.
            importance[norm] = importance[norm] * ratio.square().float()
    return (Statistics(network(statistics.model, changed), statistics.sites, observed, importance,
                       statistics.class_token), changed)
