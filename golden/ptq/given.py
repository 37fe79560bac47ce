# SPDX-License-Identifier: Apache-2.0
"""Formats that somebody else's tool has decided: ``--method golden.ptq.given:Given``."""

__all__ = ["Given", "GivenSettings"]

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from golden.float.swin import Swin
from golden.float.vit import Vit
from golden.ptq.formats import TensorFormat
from golden.ptq.method import Method, Settings
from golden.ptq.record import Record
from golden.ptq.sites import layers, sites
from golden.ptq.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class GivenSettings(Settings):
    """Where the formats are; widths are those of the file.

    Attributes
    ----------
    file
        JSON with ``formats``, `golden.ptq.formats.TensorFormat` by the names of
        `golden.ptq.sites`, as a record has them: a record is such a file.

    Raises
    ------
    ValueError
        If the file can't be read, or holds something else.
    """

    file: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file:
            _read(self.file)


def _read(file: str) -> dict[str, TensorFormat]:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))["formats"]
        return {str(name): _format(file, name, item) for name, item in found.items()}
    except OSError as error:
        raise ValueError(f"can't read {file}: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError,
            json.JSONDecodeError) as error:
        raise ValueError(f"{file} must hold JSON with formats by the names of tensors "
                         f"({type(error).__name__}: {error})") from None


def _format(file: str, name: str, item: Mapping[str, object]) -> TensorFormat:
    try:
        return TensorFormat.from_dict(dict(item))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {name}: {error}") from None


def _channels(model: Vit | Swin, role: str) -> int | None:
    """Return the channels of an activation of a ViT, None if they are not known."""
    if isinstance(model, Swin):
        return None
    spec = model.spec
    known = {"stream": spec.dim, "norm": spec.dim, "context": spec.dim, "gelu": spec.mlp_hidden}
    return known.get(role, spec.head_dim if role in ("query", "key", "value") else None)


@dataclass(frozen=True)
class Given(Method):
    """The formats of a file; tensors without one stay in floating point, weights must have one."""

    name: ClassVar[str] = "given"
    settings: GivenSettings = field(default_factory=GivenSettings)

    def observe(self, model: Vit | Swin, batches: Iterable[Tensor],
                advance: Callable[[int], object] = lambda images: None) -> Statistics:
        self._check(model)   # before images are computed
        return super().observe(model, batches, advance)

    def decide(self, statistics: Statistics) -> Record:
        return self.record(self._check(statistics.model))

    def _check(self, model: Vit | Swin) -> dict[str, TensorFormat]:
        """Return the formats, all of which must fit a network."""
        file = self.settings.file
        if not file:
            raise ValueError("--set file=FILE.json is needed: the formats that are given")
        found, parameters = _read(file), dict(model.named_parameters())
        rows = {f"{name}.weight": len(parameters[f"{name}.weight"]) for name in layers(model)}
        roles = {site.name: site.role for site in sites(model)}
        for name, item in found.items():
            if name not in rows and name not in roles:
                raise ValueError(f"{file}: {name!r} is no tensor of this network with a format")
            wanted = rows[name] if name in rows else _channels(model, roles[name])
            for part in (item.scale, item.zero_point, item.shift):
                if isinstance(part, tuple) and part and wanted not in (None, len(part)):
                    raise ValueError(f"{file}: {name!r} has {wanted} channels, not {len(part)}")
        for name in rows:
            if name not in found:
                raise ValueError(f"{file}: {name!r} has no format, and weights are integers")
        return found
