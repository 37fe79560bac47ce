# SPDX-License-Identifier: Apache-2.0
"""Write the weights and scales of the official RepQ-ViT code, for ``golden.ptq.given:Given``.

At the end of its ``classification/test_quant.py``, where ``q_model`` is calibrated and
reparameterized (ERQ's code has the same modules, and calls its quantizers likewise):

    from examples.own_scales.repq_vit import write
    write(q_model, "weights.pth", "scales.json")

A layer there has an ``input_quantizer`` and a ``weight_quantizer``; ``matmul1`` and ``matmul2`` of
an attention have ``quantizer_A`` and ``quantizer_B``. Each has ``delta``, ``n_bits`` and, but for
the logarithm's, ``zero_point``. That of a LayerNorm's output is a mean there, and no integer: here
it is rounded, so that a range ends up to half a step elsewhere.
"""

__all__ = ["formats", "write"]

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from golden.ptq.formats import TensorFormat
from golden.ptq.sites import source

#: The tensors that the products of an attention read.
_PRODUCTS = {"matmul1.quantizer_A": "q", "matmul1.quantizer_B": "k",
             "matmul2.quantizer_A": "softmax", "matmul2.quantizer_B": "v"}


def _format(quantizer: Any, *, weights: bool) -> TensorFormat:
    """Return what a quantizer of the official code does."""
    scale = quantizer.delta.detach().double().flatten().tolist()
    one = len(scale) == 1
    common: dict[str, Any] = {"bits": quantizer.n_bits, "scale": scale[0] if one else tuple(scale),
                              "axis": 0 if weights else -1}
    if not hasattr(quantizer, "zero_point"):
        return TensorFormat(kind="log-sqrt2", **common)
    zero = [round(value) for value in quantizer.zero_point.detach().flatten().tolist()]
    return TensorFormat(kind="uniform", zero_point=zero[0] if one else tuple(zero), **common)


def formats(q_model: nn.Module) -> dict[str, TensorFormat]:
    """Return the formats of a calibrated model, by the names of tensors."""
    found = {}
    for name, module in q_model.named_modules():
        parent, _, leaf = name.rpartition(".")
        if leaf == "input_quantizer":
            found[source(parent)] = _format(module, weights=False)
        elif leaf == "weight_quantizer":
            found[f"{parent}.weight"] = _format(module, weights=True)
        else:
            for end, part in _PRODUCTS.items():
                if name.endswith(f".{end}"):
                    found[f"{name.removesuffix(end)}{part}"] = _format(module, weights=False)
    return found


def write(q_model: nn.Module, weights: str | Path, scales: str | Path) -> None:
    """Write a state dict with timm's names, and the formats as JSON."""
    state = {name: value.detach().cpu() for name, value in q_model.state_dict().items()
             if "quantizer" not in name}
    torch.save(state, weights)
    plain = {name: item.to_dict() for name, item in formats(q_model).items()}
    text = json.dumps({"formats": plain}, indent=1)
    Path(scales).write_text(f"{text}\n", encoding="ascii")
