# SPDX-License-Identifier: Apache-2.0
"""A network of timm, as the object that timm makes, without its file and without importing timm."""

__all__ = ["from_timm"]

from typing import Any

import torch
from torch import Tensor, nn

from golden.float import models
from golden.float.models import Preprocessing
from golden.float.preprocessing import usual
from golden.float.preprocessing_options import ANY, INTERPOLATIONS
from golden.float.shape import of_state
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import QuickGelu, Vit, VitSpec

_WHERE = "the model"
#: Logits are as near, as a share of the largest one.
_NEAR = 1e-4


def from_timm(model: nn.Module, token: str | None = None) -> tuple[Vit | Swin, Preprocessing]:
    """Build the network that a model of timm is, in evaluation mode.

    Parameters
    ----------
    model
        ``timm.create_model("vit_...", ...)``, ``"deit_..."`` or ``"swin_..."``, on the processor.
    token
        Of a distilled DeiT, whose classifier alone counts: "class" or "distilled"; None is the mean
        of both.

    Returns
    -------
    Vit or Swin
        Its logits are the model's, for a random image too.
    Preprocessing
        By the model's ``pretrained_cfg``, for its image size; where that says nothing, DeiT's.

    Raises
    ------
    ValueError
        If the model is another network, or computes anything else (the message says what).
    """
    parts: Any = model
    if hasattr(parts, "blocks"):
        found: Vit | Swin = _vit(parts, token)
    elif hasattr(parts, "layers") and hasattr(parts, "patch_embed"):
        if token is not None:
            raise ValueError("token does not go with a Swin")
        found = _swin(parts)
    else:
        raise ValueError(f"{type(model).__name__} is neither a ViT nor a Swin of timm")
    _compare(parts, found, token)
    return found, _preprocessing(found.spec, getattr(model, "pretrained_cfg", None) or {})


def _vit(model: Any, token: str | None) -> Vit:
    pool = getattr(model, "global_pool", "token")
    state = {name: value.detach() for name, value in model.state_dict().items()}
    normed = "fc_norm.weight" in state
    if pool != ("avg" if normed else "token"):
        raise ValueError(f"global_pool must be 'token', or 'avg' with fc_norm, not {pool!r}"
                         f"{'' if normed else ' without it'}")
    known = {"heads": model.blocks[0].attn.num_heads,
             "norm_eps": (model.fc_norm if normed else model.norm).eps}
    made = of_state(state, _WHERE, heads=known["heads"], token=token,
                    quick=_quick(model.blocks[0].mlp)).model
    assert isinstance(made, Vit)
    for module in made.modules():   # no tensor shows it
        if isinstance(module, nn.LayerNorm):
            module.eps = known["norm_eps"]
    made.spec = VitSpec(**vars(made.spec) | {"norm_eps": known["norm_eps"]})
    return made


def _quick(mlp: Any) -> bool:
    """Whether an MLP's function is QuickGELU: by its values, as no tensor shows it."""
    act, places = getattr(mlp, "act", None), torch.linspace(-4, 4, 33)
    return isinstance(act, nn.Module) and torch.allclose(act(places), QuickGelu()(places),
                                                         rtol=0, atol=1e-6)


def _swin(model: Any) -> Swin:
    embed, blocks = model.patch_embed, [layer.blocks for layer in model.layers]
    first = blocks[0][0]
    weight = embed.proj.weight
    spec = SwinSpec(
        image_size=embed.img_size[0], patch_size=embed.patch_size[0], in_channels=weight.shape[1],
        classes=model.num_classes, dim=len(weight), depths=tuple(len(part) for part in blocks),
        heads=tuple(part[0].attn.num_heads for part in blocks), window=first.window_size[0],
        mlp_ratio=len(first.mlp.fc1.weight) // len(weight))
    return models.filled(Swin(spec), dict(model.state_dict()), _WHERE)


def _compare(model: Any, found: Vit | Swin, token: str | None) -> None:
    """Refuse a model that computes something else than what was made of it."""
    spec = found.spec
    image = torch.randn(1, spec.in_channels, spec.image_size, spec.image_size,
                        generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            wanted: Tensor = _of_token(model, image, token) if token else model(image)
            got = found(image)
    finally:
        model.train(training)
    apart = float((wanted - got).abs().max()) if wanted.shape == got.shape else float("inf")
    if not apart <= _NEAR * float(wanted.abs().max()):
        raise ValueError(f"{type(model).__name__} computes something else: its logits differ by "
                         f"{apart:.3g} (exact GELU or QuickGELU, softmax of all scores and a class "
                         "token are what there is)")


def _of_token(model: Any, image: Tensor, token: str) -> Tensor:
    """Logits of a distilled DeiT's one token."""
    head = {"class": model.head, "distilled": model.head_dist}[token]
    logits: Tensor = head(model.forward_features(image)[:, ("class", "distilled").index(token)])
    return logits


def _preprocessing(spec: VitSpec | SwinSpec, given: Any) -> Preprocessing:
    how = usual(spec, ANY)
    changes: dict[str, Any] = {}
    if len(given.get("mean") or ()) == len(given.get("std") or ()) == spec.in_channels:
        changes |= {name: tuple(float(value) for value in given[name]) for name in ("mean", "std")}
    if given.get("crop_pct"):
        changes["crop"] = float(given["crop_pct"])
    if given.get("interpolation") in INTERPOLATIONS:
        changes["interpolation"] = given["interpolation"]
    return Preprocessing(**vars(how) | changes)
