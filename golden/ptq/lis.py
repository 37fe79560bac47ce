# SPDX-License-Identifier: Apache-2.0
"""The log-integer-softmax of FQ-ViT inside a float-simulated network."""

__all__ = ["LogIntSoftmax"]

import torch
from torch import Tensor, nn

from golden.ptq.formats import TensorFormat
from golden.softmax import log_softmax, softmax_scale
from hw.config import Config


class LogIntSoftmax(nn.Module):
    """Softmax of quantized scores ``[..., K]`` by `golden.softmax.log_softmax`.

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
        code = (scores / self.step + 0.5).floor().to(torch.int64) - self.lowest
        keep = code >= 0
        # Codes 0 to 255 as signed integers of 8 bits: only differences matter.
        code = log_softmax((code - 128).clamp_(-128, 127), keep, self.scale, self.config)
        top = (1 << self.config.attention_bits) - 1
        return torch.exp2(-code.to(scores.dtype)).masked_fill_(code == top, 0)
