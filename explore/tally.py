# SPDX-License-Identifier: Apache-2.0
"""What an integer network classifies rightly, beside the float one, batch by batch."""

__all__ = ["Tally"]

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class Tally:
    """Counts over batches of logits."""

    images: int = 0
    right: int = 0
    float_right: int = 0
    alike: int = 0
    error: float = 0.0
    power: float = 0.0

    def add(self, real: Tensor, found: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Parameters
        ----------
        real, found
            Logits of the float network, and of the integer one times its scale, ``[B, classes]``.
        labels
            ``[B]``.
        """
        real, found = real.double(), found.double()
        classes, own = real.argmax(1), found.argmax(1)
        self.images += len(labels)
        self.right += int((own == labels).sum())
        self.float_right += int((classes == labels).sum())
        self.alike += int((own == classes).sum())
        self.error += float((found - real).square().sum())
        self.power += float(real.square().sum())

    def result(self) -> dict[str, Any]:
        """Return the columns.

        Returns
        -------
        dict
            ``images``; ``top1`` and ``float_top1``, per cent; ``drop``, points; ``alike``, per cent
            of images with the float network's class; ``logit_error``, root mean square of the
            logits' difference from the float ones, in per cent of their own: a sample may be small
            and easy, and this tells apart what it classifies alike.
        """
        total = self.images
        return {"images": total, "top1": 100 * self.right / total,
                "float_top1": 100 * self.float_right / total,
                "drop": 100 * (self.float_right - self.right) / total,
                "alike": 100 * self.alike / total,
                "logit_error": 100 * (self.error / self.power) ** 0.5}
