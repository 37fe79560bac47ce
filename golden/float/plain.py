# SPDX-License-Identifier: Apache-2.0
"""State dicts of ViTs that compute more, as those of a plain one that computes the same.

LayerScale goes into the layers before it, the tokens of registers and of a distilled DeiT into
their rows of the positions, and CLIP's first layer gets a bias of zero. Two classifiers of a
distilled DeiT become one of both tokens, and timm's `fc_norm` the last norm.
"""

__all__ = ["plain"]

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from golden.float.checkpoint import CheckpointError
from golden.float.preprocessing_options import TOKENS

#: The layer that a LayerScale of a block follows.
_BEFORE = {"ls1": "attn.proj", "ls2": "mlp.fc2"}


def plain(state: Mapping[str, Tensor], path: str | Path, token: str | None = None,
          ) -> tuple[dict[str, Tensor], int, str]:
    """Return a plain state dict, how many registers its positions have rows of, and its pool.

    Parameters
    ----------
    state
        With timm's names.
    path
        Its file, for messages.
    token
        Of a distilled DeiT, whose classifier alone counts: one of `TOKENS`; None takes the mean of
        both, as timm does.

    Raises
    ------
    CheckpointError
        If a tensor is missing or has another shape than it must; the message names it.
    ValueError
        If a network that is no distilled DeiT comes with a token.
    """
    found, pool = dict(state), "token"
    if "fc_norm.weight" in state:
        if "norm.weight" in state:
            raise CheckpointError(f"{path}: tensors 'norm.weight' and 'fc_norm.weight' are of two "
                                  "norms behind the blocks, and there may be one")
        pool = "mean"
        for part in ("weight", "bias"):
            if f"fc_norm.{part}" in found:
                found[f"norm.{part}"] = found.pop(f"fc_norm.{part}")
    for name in state:
        if match := re.fullmatch(r"(blocks\.\d+)\.(ls[12])\.gamma", name):
            _scale(found, f"{match[1]}.{_BEFORE[match[2]]}", name, path)
    more = []
    if "dist_token" in found:
        if token is not None and token not in TOKENS:
            raise ValueError(f"token must be {' or '.join(TOKENS)}, not {token!r}")
        more.append("dist_token")
    elif token is not None:
        raise ValueError(f"--token does not go with {path}, which has no distillation token")
    more += ["reg_token"] * ("reg_token" in found)
    weight = found.get("patch_embed.proj.weight")
    if weight is not None and "norm_pre.weight" in found:   # CLIP's first layer has no bias
        found.setdefault("patch_embed.proj.bias", weight.new_zeros(weight.shape[:1]))
    if not {"cls_token", "pos_embed"} <= found.keys():
        return found, 0, pool   # what is missing is said where shapes are read
    count = _positions(found, more, path)
    if "dist_token" in state:
        _distilled(found, token, path)
        pool = pool if token else "both"
    return found, count, pool


def _scale(state: dict[str, Tensor], layer: str, name: str, path: str | Path) -> None:
    """Multiply a layer's outputs."""
    gamma = state.pop(name)
    for part in ("weight", "bias"):
        full = f"{layer}.{part}"
        value = state.get(full)
        if value is None or gamma.ndim != 1 or value.shape[:1] != gamma.shape:
            raise CheckpointError(f"{path}: tensor {name!r} of shape {list(gamma.shape)} does not "
                                  f"fit {full!r}")
        by = gamma.double().reshape(-1, *(1,) * (value.ndim - 1))
        state[full] = (value.double() * by).to(value.dtype)


def _positions(state: dict[str, Tensor], more: list[str], path: str | Path) -> int:
    """Give every token its row of the positions; the tokens of `more` follow the class token."""
    positions, dim = state["pos_embed"], state["cls_token"].shape[-1]
    extra = [state.pop(name) for name in more]
    for name, value in zip(more, extra, strict=True):
        if value.ndim != 3 or value.shape[0] != 1 or value.shape[-1] != dim:
            raise CheckpointError(f"{path}: tensor {name!r} must have shape [1, tokens, {dim}], "
                                  f"not {list(value.shape)}")
    count = sum(value.shape[1] for value in extra)
    if positions.ndim != 3 or positions.shape[-1] != dim:
        return count
    # Positions may be those of the patches alone, a square number; registers have them seldom.
    alone = positions.shape[1] > 1 and _square(positions.shape[1]) and (
        "reg_token" in more or not _square(positions.shape[1] - 1 - count))
    if alone:
        positions = torch.cat((positions.new_zeros(1, 1 + count, dim), positions), 1)
    else:
        positions = positions.clone()
    row = 1
    for value in extra:
        positions[:, row:row + value.shape[1]] += value
        row += value.shape[1]
    state["pos_embed"] = positions
    return count


def _square(count: int) -> bool:
    return count > 0 and round(count**0.5) ** 2 == count


def _distilled(state: dict[str, Tensor], token: str | None, path: str | Path) -> None:
    """Keep the classifier of one token, which comes first: the order of tokens is free.

    Without one there is a classifier of both tokens side by side, half of each.
    """
    for part in ("weight", "bias"):
        name, first = f"head_dist.{part}", f"head.{part}"
        if name not in state:
            raise CheckpointError(f"{path}: tensor {name!r} is missing")
        second = state.pop(name)
        if token is None:
            if first not in state or state[first].shape != second.shape:
                raise CheckpointError(f"{path}: tensor {first!r} must have shape "
                                      f"{list(second.shape)} as {name!r} has")
            state[first] = torch.cat((state[first], second), 1) / 2 if second.ndim == 2 \
                else (state[first] + second) / 2
        elif token == "distilled":
            state[first] = second
    if token == "distilled":
        positions = state["pos_embed"].clone()
        positions[:, 0] += state["cls_token"][:, 0]   # a register now
        state["cls_token"] = torch.zeros_like(state["cls_token"])
        positions[:, :2] = positions[:, [1, 0]]
        state["pos_embed"] = positions
