# SPDX-License-Identifier: Apache-2.0
"""Ridge regression of a linear layer's weights on its quantized inputs, from second moments alone.

For rows x of a layer's input and their quantized values q, with a last column of ones if the layer
has a bias, all that regression needs is ``Q^T Q`` and ``Q^T X``: neither grows with the images.
Both are sums over tokens, not means, so a regularization counts for less the more there are.
"""

__all__ = ["Moments", "absorb", "moments", "ridge"]

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.sites import layers, source


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of the inputs of one layer; K is its inputs, plus one if it has a bias.

    Attributes
    ----------
    gram
        ``Q^T Q``, float64 ``[K, K]``.
    cross
        ``Q^T X``, float64 ``[K, K]``.
    rows
        How many rows were summed.
    bias
        There is the column of ones.
    pooled
        The layer sees one row an image: a classifier.
    """

    gram: Tensor
    cross: Tensor
    rows: int
    bias: bool
    pooled: bool = False

    @classmethod
    def of(cls, real: Tensor, quantized: Tensor, *, bias: bool, pooled: bool = False) -> "Moments":
        """Sum over rows ``[N, C]``, in double precision."""
        x, q = real.double(), quantized.double()
        if bias:
            ones = x.new_ones(len(x), 1)
            x, q = torch.cat((x, ones), 1), torch.cat((q, ones), 1)
        return cls(q.T @ q, q.T @ x, len(x), bias, pooled)

    def __add__(self, other: "Moments") -> "Moments":
        return replace(self, gram=self.gram + other.gram, cross=self.cross + other.cross,
                       rows=self.rows + other.rows)


def ridge(gram: Tensor, target: Tensor, weight: float) -> Tensor:
    """Solve ``(gram + weight I) D = target``: ``[K, N]`` for a target ``[K, N]``.

    Raises
    ------
    ValueError
        If the matrix is singular, which only a `weight` of 0 allows.
    """
    matrix = gram.clone()
    matrix.diagonal().add_(weight)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        raise ValueError(f"ridge regression needs a larger weight than {weight}: inputs depend "
                         "linearly on each other")
    return torch.cholesky_solve(target, factor)


def absorb(weight: Tensor, seen: Moments, penalty: float) -> Tensor:
    """Return weights ``[N, K]`` that make up for the error of quantized inputs.

    ``W + D^T`` for the D that minimizes ``|X W^T - Q (W^T + D)|^2 + penalty |D|^2``.
    """
    return weight + ridge(seen.gram, (seen.cross - seen.gram) @ weight.T, penalty).T


def moments(model: Vit | Swin, batches: Iterable[Tensor], formats: Mapping[str, TensorFormat],
            ) -> dict[str, Moments]:
    """Second moments of the inputs of every linear layer, by its name.

    The network computes in floating point throughout: the input of a layer is that of the float
    network, and only its own quantization is seen.

    Parameters
    ----------
    batches
        Images ``[B, channels, H, W]``.
    formats
        By site; the input of a layer without one counts as exact.
    """
    found: dict[str, Moments] = {}

    def hook(name: str, bias: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        item = formats.get(source(name))

        def see(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            new = Moments.of(rows, rows if item is None else simulate(rows, item), bias=bias,
                             pooled=inputs[0].ndim == 2)
            found[name] = found[name] + new if name in found else new
        return see

    modules = dict(model.named_modules())
    handles = [layer.register_forward_pre_hook(hook(name, layer.bias is not None))
               for name in layers(model) if isinstance(layer := modules[name], nn.Linear)]
    try:
        with torch.inference_mode():
            for batch in batches:
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
    # Tensors of inference mode can't be used by autograd any more; copies can.
    return {name: replace(seen, gram=seen.gram.clone(), cross=seen.cross.clone())
            for name, seen in found.items()}
