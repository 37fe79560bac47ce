# SPDX-License-Identifier: Apache-2.0
"""The log-integer-softmax of FQ-ViT inside a float-simulated network."""

__all__ = ["LogIntSoftmax"]

import torch
from torch import Tensor, nn

from golden.network.fast_polynomial import FastPolynomial
from golden.ptq.formats import TensorFormat
from golden.units.softmax import PolynomialScale, log_softmax, softmax_scale
from vitforge.spec.config import Config

#: Scores at a time: few stay in the caches, many leave Python to other threads.
_CHUNK = 1 << 17


class LogIntSoftmax(nn.Module):
    """Softmax of quantized scores ``[..., K]`` by `golden.units.softmax.log_softmax`.

    Returns ``2**-code``, and 0 for the highest code, bit-exact with the integer unit given the
    same score codes. Scores more than half a step below the lowest code are masked keys.

    Parameters
    ----------
    scores
        Uniform format of the scores, one scale.
    bits
        Width of an attention code, 3 to 5.
    exponential
        "polynomial" (the paper's LIS, exponential of I-BERT) or "shift".
    """

    def __init__(self, scores: TensorFormat, bits: int, exponential: str) -> None:
        super().__init__()
        if scores.kind != "uniform" or isinstance(scores.scale, tuple) \
                or isinstance(scores.zero_point, tuple):
            raise ValueError("scores of an integer softmax must be uniform with one scale")
        self.config = Config(attention_bits=bits, score_bits=8,
                             exponential={"polynomial": "iexp", "shift": "shift"}[exponential])
        self.step, self.lowest = scores.scale, -scores.zero_point
        self.scale = softmax_scale(self.step, self.config)

    def forward(self, scores: Tensor) -> Tensor:
        """Return probabilities of the shape of `scores`."""
        rows = scores.reshape(-1, scores.shape[-1])
        fast = self._fast(rows.shape[-1], scores.device)
        found = torch.empty_like(rows)
        some = max(1, _CHUNK // rows.shape[-1])
        for part, out in zip(rows.split(some), found.split(some), strict=True):
            out.copy_(self._part(part, fast))
        return found.reshape(scores.shape)

    def _part(self, scores: Tensor, fast: FastPolynomial | None) -> Tensor:
        """Probabilities of some rows."""
        code = (scores / self.step).add_(0.5).floor_()
        if fast is not None and not bool(code.amin() < self.lowest):
            found = fast(code.clamp_max_(255 + self.lowest))   # differences alone matter
        else:
            code.sub_(self.lowest)
            # Codes 0 to 255 as signed integers of 8 bits: only differences matter.
            found = log_softmax((code - 128).clamp_(-128, 127).to(torch.int64).cpu(),
                                (code >= 0).cpu(), self.scale, self.config).to(code.device,
                                                                               torch.int32)
        top = (1 << self.config.attention_bits) - 1
        values = torch.exp2(-torch.arange(top + 1, dtype=scores.dtype, device=scores.device))
        values[top] = 0
        return values.index_select(0, found.flatten()).reshape(found.shape)

    def _fast(self, keys: int, device: torch.device) -> FastPolynomial | None:
        if not isinstance(self.scale, PolynomialScale):
            return None
        try:
            return FastPolynomial(self.scale, self.config, keys, device)
        except ValueError:
            return None
