# SPDX-License-Identifier: Apache-2.0
"""An integer network as two files: its tensors (safetensors), and everything else (JSON).

`save` and `load` are exact: integers, and every real scale, come back as they were. Integer tensors
take the narrowest type in the file. The JSON names the digest of the tensors, so that a file
that was damaged, or the two of different networks, are refused.

Version 2 names the topology and has its shape, so that the list of operations is made again
(`golden.network.topology.operations`) and can't contradict either; integers stand under the names
of operations. Version 1 (`golden.network.file_v1`) is read too.
"""

__all__ = ["NAME", "NetworkFileError", "about", "load", "save"]

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from golden.float.swin import SwinSpec
from golden.float.vit import VitSpec
from golden.formats import formats
from golden.network import file_v1, integers
from golden.network.integers import Network
from golden.network.topology import operations
from golden.units import encoding, requant, softmax
from vitforge.base.files import replace
from vitforge.spec.config import Config

#: The JSON of a network that stands in a folder.
NAME = "model.json"
_VERSION = 2
_FIRST = 1
_SUFFIX = ".safetensors"
_NARROW = (torch.int8, torch.uint8, torch.int16, torch.int32)


def _plain_types() -> dict[str, type]:
    """Return the dataclasses that a network is made of, by name."""
    found: dict[str, type] = {"Config": Config, "VitSpec": VitSpec, "SwinSpec": SwinSpec}
    for module in (integers, formats, requant, encoding, softmax):
        for name, item in vars(module).items():
            if isinstance(item, type) and dataclasses.is_dataclass(item):
                found[name] = item
    return found


_TYPES = _plain_types()
#: Types that a file may name, by its version.
_READ = {_FIRST: _TYPES | file_v1.TYPES, _VERSION: _TYPES}


class NetworkFileError(ValueError):
    """A file that holds no integer network; the message names it."""


class _Writer:
    """Values as JSON has them, and the tensors among them by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}   # a tensor that occurs twice is written once

    def plain(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            known = self._names.setdefault(id(value), name)
            self.tensors[known] = value
            return {"tensor": known}
        if dataclasses.is_dataclass(value):
            return {"type": type(value).__name__,
                    **{item.name: self.plain(f"{name}.{item.name}", getattr(value, item.name))
                       for item in dataclasses.fields(value)}}
        if isinstance(value, dict):
            return {"items": {key: self.plain(f"{name}.{key}", item)
                              for key, item in value.items()}}
        if isinstance(value, tuple):
            return [self.plain(f"{name}.{index}", item) for index, item in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{name} can't be written: {type(value).__name__}")


def _narrowed(value: Tensor) -> Tensor:
    if value.dtype == torch.int64:
        low, high = (int(end) for end in value.aminmax()) if value.numel() else (0, 0)
        for kind in _NARROW:
            limits = torch.iinfo(kind)
            if limits.min <= low and high <= limits.max:
                return value.to(kind).contiguous()
    return value.contiguous()


def _value(plain: Any, tensors: dict[str, Tensor], types: Mapping[str, type]) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item, tensors, types) for item in plain)
    if not isinstance(plain, dict):
        return plain
    if "tensor" in plain:
        return tensors[plain["tensor"]]
    if "items" in plain:
        return {key: _value(item, tensors, types) for key, item in plain["items"].items()}
    given = {key: _value(item, tensors, types) for key, item in plain.items() if key != "type"}
    return types[plain["type"]](**given)


def save(path: str | Path, whole: Network, about: Mapping[str, str] | None = None) -> None:
    """Write the JSON `path`, and the tensors beside it under the same name.

    `about` is kept for readers: "model" is the name of the float network.
    """
    path = Path(path)
    writer = _Writer()
    plain = writer.plain("network", whole)
    # Under the path's own names, in order: the same network gives the same bytes.
    data = tensor_bytes({name: _narrowed(value) for name, value in writer.tensors.items()})
    types = {name: str(value.dtype).removeprefix("torch.")
             for name, value in writer.tensors.items()}
    text = json.dumps({"version": _VERSION, "about": dict(about or {}),
                       "tensors": path.with_suffix(_SUFFIX).name,
                       "sha256": hashlib.sha256(data).hexdigest(), "types": types,
                       "network": plain}, indent=1) + "\n"
    replace(path.with_suffix(_SUFFIX), lambda temporary: temporary.write_bytes(data))
    replace(path, lambda temporary: temporary.write_text(text, encoding="ascii"))


def _json(path: str | Path) -> Path:
    path = Path(path)
    return path / NAME if path.is_dir() else path.with_suffix(".json")


def _plain(path: Path) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
        if plain["version"] not in _READ:
            raise ValueError(f"version {plain['version']}, not one of "
                             f"{', '.join(map(str, _READ))}")
        return plain
    except OSError as error:
        raise NetworkFileError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NetworkFileError(f"{path} holds no integer network ({error})") from None


def about(path: str | Path) -> dict[str, str]:
    """Return what `save` was told about a network.

    Raises
    ------
    NetworkFileError
        If the file can't be read or holds something else, or does not name the model.
    """
    path = _json(path)
    found = _plain(path).get("about")
    if not isinstance(found, dict) or not isinstance(found.get("model"), str):
        raise NetworkFileError(f"{path} does not name the float network it was made of")
    return found


def load(path: str | Path) -> Network:
    """Read what `save` wrote: the JSON, the tensors beside it, or a folder with `NAME`.

    Raises
    ------
    NetworkFileError
        If a file can't be read, is damaged, holds something else, or has an unknown version or
        topology.
    """
    path = _json(path)
    try:
        plain = _plain(path)
        arrays = path.with_name(plain["tensors"])
        data = arrays.read_bytes()
        if hashlib.sha256(data).hexdigest() != plain["sha256"]:
            raise NetworkFileError(f"{arrays} is not the file that {path} was written with, "
                                   "or is damaged")
        tensors = {name: value.to(getattr(torch, plain["types"][name]))
                   for name, value in read_tensors(data).items()}
        found = _value(plain["network"], tensors, _READ[plain["version"]])
        if isinstance(found, file_v1.Old):
            found = file_v1.upgraded(found)
        if not isinstance(found, Network):
            raise ValueError(f"{type(found).__name__}")
        operations(found.spec, found.topology)   # refuses an unknown one
        return found
    except NetworkFileError:
        raise
    except OSError as error:
        raise NetworkFileError(f"can't read {error.filename or path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, SafetensorError,
            RecursionError) as error:
        raise NetworkFileError(f"{path} holds no integer network ({error})") from None
