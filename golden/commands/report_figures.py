# SPDX-License-Identifier: Apache-2.0
"""Pictures of the tensors that quantization methods were invented for, with the codes they got.

- The residual stream: channels differ, hence FQ-ViT's factors and TSPTQ-ViT's outlier scale.
- LayerNorm's result: so do these, hence RepQ-ViT's reparameterization, MPTQ-ViT's smoothing and
  DopQ-ViT's medians.
- The attention map: most of it is tiny, hence log2, two-scale and tangent codes.
- GeLU: a dense negative side and a long positive one, hence two-scale codes.
"""

__all__ = ["FIGURES", "figures"]

from collections.abc import Iterable, Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.network.ops import Operation, Softmax
from golden.network.topology import operations
from golden.ptq.formats import TensorFormat, simulate
from golden.ptq.record import Record
from vitforge.base import svg

#: By file name: what the picture shows.
FIGURES = {"stream.svg": "Largest magnitude of the residual stream by channel, and what its codes "
                         "reach",
           "norm.svg": "Range of LayerNorm's result by channel, in the float network and as the "
                       "method has rescaled it",
           "attention.svg": "Attention map: how often, and the levels of its codes",
           "gelu.svg": "GeLU: how often, and the levels of its codes"}
#: More levels than that would be a grey area.
_MOST = 64
_SAMPLES = 1 << 18


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 3))
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _reach(item: TensorFormat, channels: int) -> Tensor | None:
    """Largest magnitude of a channel's codes."""
    if isinstance(item.scale, tuple) or isinstance(item.zero_point, tuple):
        return None
    top = max(item.zero_point - item.low, item.high - item.zero_point)
    shift = torch.tensor(item.shift or (0,)).expand(channels)
    return top * item.scale * 2.0**shift


def _stream(name: str, seen: Tensor, item: TensorFormat | None) -> Figure:
    figure, axes = _axes(name, "channel, by magnitude", "largest magnitude")
    peak, order = seen.reshape(-1, seen.shape[-1]).abs().amax(0).sort(descending=True)
    axes.semilogy(peak.tolist(), label="float")
    if item is not None and (reach := _reach(item, len(peak))) is not None:
        axes.semilogy(reach[order].tolist(), ".", markersize=3, label="codes")
    axes.legend()
    return figure


def _norm(name: str, seen: Tensor, rescaled: Tensor) -> Figure:
    figure, axes = _axes(name, "channel, by range", "value")
    rows = seen.reshape(-1, seen.shape[-1])
    order = (rows.amax(0) - rows.amin(0)).argsort(descending=True)
    for label, values in (("float", seen), ("rescaled", rescaled)):
        if label == "rescaled" and torch.equal(seen, rescaled):
            continue
        rows = values.reshape(-1, values.shape[-1])[:, order]
        axes.fill_between(range(len(order)), rows.amin(0).tolist(), rows.amax(0).tolist(),
                          alpha=0.5, label=label)
    axes.legend()
    return figure


def _histogram(name: str, seen: Tensor, item: TensorFormat | None, *,
               logarithmic: bool) -> Figure:
    figure, axes = _axes(name, "log2 of the value" if logarithmic else "value", "count")
    values = seen.flatten()[::max(1, seen.numel() // _SAMPLES)].double()
    levels = simulate(values, item).unique() if item is not None else values[:0]
    if logarithmic:
        values, levels = (part[part > 0].log2() for part in (values, levels))
    axes.hist(values.tolist(), bins=100, log=True)
    if 0 < len(levels) <= _MOST:
        axes.vlines(levels.tolist(), 0, 1, transform=axes.get_xaxis_transform(), linewidth=0.5,
                    color="black")
    return figure


def figures(model: Vit | Swin, record: Record, seen: Mapping[str, Tensor],
            rescaled: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the pictures as SVG text, by file name, of the block in the middle.

    Parameters
    ----------
    seen, rescaled
        `golden.commands.report_layers.observed` of the float network, and of it with the record's
        parameters.
    """
    found = operations(model.spec)
    softmaxes = [item for item in found if isinstance(item, Softmax)]
    middle = found.index(softmaxes[len(softmaxes) // 2])

    def of_role(role: str, among: Iterable[Operation]) -> str:
        return next(item.writes[0] for item in among if role in item.roles)

    def decided(name: str) -> TensorFormat | None:
        return record.formats.get(name)

    norm = of_role("norm", reversed(found[:middle]))
    attention, stream, gelu = (of_role(role, found[middle:])
                               for role in ("attention", "stream", "gelu"))
    pictures = {"stream.svg": _stream(stream, seen[stream], decided(stream)),
             "norm.svg": _norm(norm, seen[norm], rescaled[norm]),
             "attention.svg": _histogram(attention, seen[attention], decided(attention),
                                         logarithmic=True),
             "gelu.svg": _histogram(gelu, seen[gelu], decided(gelu), logarithmic=False)}
    return {name: svg.text(figure) for name, figure in pictures.items()}
