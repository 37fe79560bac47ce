# SPDX-License-Identifier: Apache-2.0
"""Any ViT or DeiT with timm's names: the shape of a network is read off the tensors of its file.

Only the number of heads leaves no trace in a state dict. It is that of a named network if the name
is given, else that in the file's metadata, else one for every 64 channels, as all of timm's have.
"""

__all__ = ["Checkpoint", "of_state", "of_tensors", "open_checkpoint"]

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from golden.float import checkpoint, models
from golden.float.checkpoint import CheckpointError
from golden.float.models import Model
from golden.float.plain import plain
from golden.float.preprocessing_options import ANY
from golden.float.swin import Swin, SwinSpec
from golden.float.vit import Vit, VitSpec

#: Channels of a head where nothing says how many heads there are.
HEAD = 64

#: Tensors of networks that look like a ViT, and why they aren't one here.
_OTHERS = {
    r"layers\.\d+\.": "a Swin, whose shape goes by its name",
    r"blocks\.\d+\.attn\.[qk]_norm\.": "norms of queries and keys are not supported",
    r"blocks\.\d+\.mlp\.(w12|w3|fc1_[gx])\.": "gated MLPs are not supported",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A float network of a file, and how its heads are known, in words."""

    model: Vit | Swin
    heads: str

    def __str__(self) -> str:
        """Say what was found, in one line."""
        spec = self.model.spec
        if isinstance(spec, SwinSpec):
            return (f"a Swin, {spec.image_size}x{spec.image_size} pixels of {spec.in_channels} "
                    f"channels, patches of {spec.patch_size}, windows of {spec.window}, "
                    f"{'+'.join(map(str, spec.depths))} blocks of {spec.dim} channels and more, "
                    f"{spec.classes} classes, {'+'.join(map(str, spec.heads))} heads "
                    f"({self.heads})")
        return (f"{spec.image_size}x{spec.image_size} pixels of {spec.in_channels} channels, "
                f"patches of {spec.patch_size}, {spec.depth} blocks of {spec.dim} channels, "
                f"MLP of {spec.mlp_hidden}, {spec.classes} classes, "
                + (f"{spec.registers} registers, " if spec.registers else "")
                + ("a norm before the blocks, " if spec.norm_pre else "")
                + ("QuickGELU, " if spec.gelu == "quick" else
                   "GELU taken to be the exact one (--quick-gelu says otherwise), "
                   if spec.norm_pre else "")
                + {"token": "", "both": "the mean of two tokens' classifiers, ",
                   "mean": "the mean of all patches is classified, "}[spec.pool]
                + f"{spec.heads} heads ({self.heads})")


def of_tensors(state: Mapping[str, Tensor], path: str | Path, registers: int = 0,
               ) -> dict[str, int]:
    """Return all fields of a `VitSpec` but `heads` and `norm_eps`.

    Parameters
    ----------
    state
        A state dict with timm's names.
    path
        Its file, for messages.
    registers
        Tokens between the class token and the patches.

    Raises
    ------
    CheckpointError
        If it is of another kind of network, or a tensor is missing or of an impossible shape; the
        message names the tensor. Shapes that contradict each other are found when the network is
        filled (`golden.float.checkpoint.fill`).
    """
    for name in state:
        for pattern, why in _OTHERS.items():
            if re.match(pattern, name):
                raise CheckpointError(f"{path}: tensor {name!r} is not part of a plain ViT: {why}")

    def shape(name: str, form: str) -> list[int]:
        if name not in state:
            raise CheckpointError(f"{path}: tensor {name!r} of shape {form} is missing")
        found = list(state[name].shape)
        if len(found) != form.count(",") + 1 or 0 in found:
            raise CheckpointError(f"{path}: tensor {name!r} must have shape {form}, not {found}")
        return found

    form = "[dim, channels, patch, patch]"
    dim, channels, patch, across = shape("patch_embed.proj.weight", form)
    if patch != across:
        raise CheckpointError(f"{path}: tensor 'patch_embed.proj.weight' must have shape {form}, "
                              f"not {[dim, channels, patch, across]}")
    patches = shape("pos_embed", "[1, 1 + patches, dim]")[1] - 1 - registers
    side = round(max(patches, 1) ** 0.5)
    if side * side != patches:
        form = f"[1, {1 + registers} + n * n, {dim}]"
        raise CheckpointError(f"{path}: tensor 'pos_embed' must have shape {form}, "
                              f"not {list(state['pos_embed'].shape)}")
    numbers = {int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    for number in range(len(numbers) or 1):
        if number not in numbers:
            raise CheckpointError(f"{path}: tensor 'blocks.{number}.norm1.weight' of shape [{dim}] "
                                  "is missing")
    return {"image_size": side * patch, "patch_size": patch, "in_channels": channels,
            "classes": shape("head.weight", "[classes, dim]")[0], "dim": dim,
            "depth": len(numbers), "registers": registers,
            "norm_pre": "norm_pre.weight" in state,
            "mlp_hidden": shape("blocks.0.mlp.fc1.weight", "[hidden, dim]")[0]}


#: Fields that a name stands for, each with a tensor that shows it; a fine-tuned network has
#: other classes or another image size, and still its name.
_NAMED = {"dim": "patch_embed.proj.weight", "patch_size": "patch_embed.proj.weight",
          "mlp_hidden": "blocks.0.mlp.fc1.weight"}


def _as_named(found: Mapping[str, int], state: Mapping[str, Tensor], named: Model,
              path: str | Path) -> None:
    """Refuse the tensors of another network than the name says."""
    assert isinstance(named.spec, VitSpec)
    for field, tensor in _NAMED.items():
        if found[field] != (wanted := getattr(named.spec, field)):
            raise CheckpointError(f"{path}: tensor {tensor!r} of shape {list(state[tensor].shape)} "
                                  f"is not of {named.name}, whose {field} is {wanted}")
    if found["depth"] != (depth := named.spec.depth):
        tensor = f"blocks.{min(found['depth'], depth)}.norm1.weight"
        raise CheckpointError(f"{path}: tensor {tensor!r} is "
                              f"{'missing' if found['depth'] < depth else 'not part'} of "
                              f"{named.name}, which has {depth} blocks")


def _own(metadata: Mapping[str, str], path: str | Path) -> dict[str, object] | None:
    """Return the spec of a file that this project wrote, None of others."""
    if "spec" not in metadata:
        return None
    try:
        found = json.loads(metadata["spec"])
        int(found["heads"])
        return dict(found)
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} has no usable spec in its metadata") from None


def _heads(dim: int, named: Model | None, own: Mapping[str, object] | None, given: int | None,
           path: str | Path) -> tuple[int, str]:
    """Return the number of heads, and how it is known."""
    known, source = 0, ""
    if named is not None:
        assert isinstance(named.spec, VitSpec)
        known, source = named.spec.heads, f"those of {named.name}"
    elif own is not None:
        known, source = int(str(own["heads"])), "from the file"
    if given is not None:
        if known and given != known:
            raise ValueError(f"--heads must be {known}, {source}, not {given}")
        if given < 1 or dim % given:
            raise ValueError(f"--heads must divide the {dim} channels of {path}, not be {given}")
        return given, "as given"
    if known:
        return known, source
    if dim % HEAD:
        raise ValueError(f"--heads is needed: {path} does not say how many heads its {dim} "
                         "channels have")
    return dim // HEAD, f"an assumption: {HEAD} channels each; --heads says otherwise"


def open_checkpoint(path: str | Path, name: str = ANY, heads: int | None = None,
                    token: str | None = None, quick: bool = False) -> Checkpoint:
    """Build the network of a file, in evaluation mode.

    Parameters
    ----------
    path
        As `golden.float.checkpoint.read`.
    name
        A named ViT, whose width, depth, patch and MLP the tensors must have (not its classes, image
        size or input channels); `ANY` takes all of them from the tensors.
    heads
        Number of heads, where the tensors are all there is.
    token
        Of a distilled DeiT (`golden.float.plain.plain`).
    quick
        Whether MLPs have QuickGELU, which no tensor shows.

    Raises
    ------
    CheckpointError
        As `of_tensors` and `golden.float.checkpoint.load`, or if the network is not the named one;
        the message names the tensor.
    ValueError
        If there is no such name, or `heads` is needed, or an option contradicts what is known.
    """
    named = None if name == ANY else models.lookup(name)
    state, metadata = checkpoint.read(path)
    return of_state(state, path, named, _own(metadata, path), heads, token, quick)


def of_state(state: Mapping[str, Tensor], path: str | Path, named: Model | None = None,
             own: Mapping[str, object] | None = None, heads: int | None = None,
             token: str | None = None, quick: bool = False) -> Checkpoint:
    """Build the network of tensors.

    Parameters
    ----------
    state, path
        With timm's names; and where they come from, for messages.
    named
        The network whose width, depth, patch and MLP they must have.
    own
        Fields of a `VitSpec` that are known: tensors are as this project saves them.
    heads, token, quick
        As `open_checkpoint`.

    Raises
    ------
    CheckpointError, ValueError
        As `open_checkpoint`.
    """
    registers, pool, gelu = 0, "token", "quick" if quick else "exact"
    if own is None:
        state, registers, pool = plain(state, path, token)
    elif quick and own.get("gelu") != gelu:
        raise ValueError(f"--quick-gelu does not go with {path}, which says what its GELU is")
    elif isinstance(given := own.get("registers", 0), int):
        registers, pool = given, str(own.get("pool", pool))
        gelu = str(own.get("gelu", gelu))
    found = of_tensors(state, path, registers)
    if named is not None:
        _as_named(found, state, named, path)
    number, source = _heads(found["dim"], named, own, heads, path)
    # No tensor shows it: it is CLIP's where there is a norm before the blocks, or timm's ViT's.
    epsilon = {"norm_eps": 1e-5} if found["norm_pre"] else {}
    if own is not None and "norm_eps" in own:
        epsilon = {"norm_eps": own["norm_eps"]}   # type: ignore[dict-item]
    try:
        spec = VitSpec(**found, heads=number, pool=pool, gelu=gelu,   # type: ignore[arg-type]
                       **epsilon)   # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    with torch.device("meta"):   # before memory is taken for what a file claims
        checkpoint.fits(Vit(spec), state, path)
    model = Vit(spec)
    checkpoint.fill(model, state, path)
    return Checkpoint(model=model.eval(), heads=source)
