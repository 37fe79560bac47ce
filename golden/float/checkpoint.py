# SPDX-License-Identifier: Apache-2.0
"""State dicts in files: written whole or not at all, read with every name and shape checked."""

__all__ = ["CheckpointError", "SUFFIXES", "fill", "fits", "load", "read", "save"]

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from golden.float.swin import Swin
from golden.float.vit import Vit, VitSpec
from vitforge.base.files import replace

#: Files that `read` takes: safetensors, and what ``torch.save`` writes.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class CheckpointError(ValueError):
    """A checkpoint that can't be used; the message names the file, and the tensor if it is one."""


def save(path: str | Path, model: Vit | Swin, notes: Mapping[str, str]) -> None:
    """Write float32 safetensors with the spec (JSON) and `notes` as metadata."""
    state = {name: value.detach().to(torch.float32).contiguous()
             for name, value in model.state_dict().items()}
    metadata = {"spec": json.dumps(dataclasses.asdict(model.spec)), **notes}
    replace(Path(path), lambda temporary: save_file(state, temporary, metadata=metadata))


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a state dict, of one of `SUFFIXES`, and its metadata (empty but for safetensors).

    What ``torch.save`` has written is unpickled with ``weights_only=True``, so it can't run code; a
    dict with the state under ``model`` or ``state_dict`` is accepted, as DeiT and timm publish
    them.

    Raises
    ------
    CheckpointError
        If the file can't be read, is truncated or corrupt, or holds something else.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path} must be a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}") from None
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}
                return state, dict(file.metadata() or {})
        except (SafetensorError, OSError, RuntimeError, ValueError):
            raise CheckpointError(f"{path} is not a {path.suffix} state dict, or is truncated or "
                                  "corrupt") from None
    return _unpickled(path), {}


def _unpickled(path: Path) -> dict[str, Tensor]:
    """State dict of what ``torch.save`` has written."""
    if not _stored(path):
        raise CheckpointError(f"{path} is not a {path.suffix} state dict: what is in it is "
                              "compressed, or larger than the file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:   # what a hostile file may make of the unpickler has no end
        raise CheckpointError(f"{path} is not a {path.suffix} state dict, is truncated or corrupt, "
                              "or holds more than tensors, which is not loaded") from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} must hold a dict of tensors, not {type(content).__name__}")
    size = path.stat().st_size
    for name, value in content.items():
        # A view may repeat a few bytes without end; copies of it would fill the memory.
        if not isinstance(name, str) or value.numel() * value.element_size() > size:
            raise CheckpointError(f"{path}: tensor {name!r} of shape {list(value.shape)} does not "
                                  "lie in the file")
    return dict(content)


def _stored(path: Path) -> bool:
    """Whether an archive holds its files as they are, which is how ``torch.save`` writes them.

    A compressed one may fill the memory. Of what is no archive the unpickler has its say.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    # The others are what `ZipFile` raises of a broken archive, or one of a newer version.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True
    return (all(part.compress_type == zipfile.ZIP_STORED for part in parts)
            and sum(part.file_size for part in parts) <= path.stat().st_size)


def load(path: str | Path, spec: VitSpec | None = None) -> Vit:
    """Build the network of a checkpoint, in evaluation mode.

    Parameters
    ----------
    spec
        Shape of the network; None takes it from the file's metadata.

    Raises
    ------
    CheckpointError
        As `read`; if no spec is given and the file has none; if a tensor is missing, unknown, not
        floating point, not finite, or of another shape.
    """
    state, metadata = read(path)
    if spec is None:
        try:
            spec = VitSpec(**json.loads(metadata["spec"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} has no usable spec in its metadata ({error}): "
                                  "give one") from None
    model = Vit(spec)
    fill(model, state, path)
    return model.eval()


def fits(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Check that all of a state dict that was read from `path` fits a network, and nothing is left.

    The network may be on PyTorch's "meta" device, so that nothing is allocated for it.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unknown, not floating point, not finite, or of another shape.
    """
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    for name, shape in wanted.items():
        if name not in state:
            raise CheckpointError(f"{path}: tensor {name!r} of shape {shape} is missing")
        if list(state[name].shape) != shape:
            raise CheckpointError(f"{path}: tensor {name!r} must have shape {shape}, "
                                  f"not {list(state[name].shape)}")
        if not state[name].is_floating_point() or not bool(state[name].isfinite().all()):
            raise CheckpointError(f"{path}: tensor {name!r} must hold finite floating-point "
                                  f"values ({state[name].dtype} found)")
    for name in state:
        if name not in wanted:
            raise CheckpointError(f"{path}: tensor {name!r} of shape {list(state[name].shape)} "
                                  "is not part of this network")


def fill(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy a state dict that was read from `path` into a network, if all of it fits.

    Raises
    ------
    CheckpointError
        As `fits`.
    """
    fits(model, state, path)
    model.load_state_dict({name: value.to(torch.float32) for name, value in state.items()})
