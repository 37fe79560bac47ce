# SPDX-License-Identifier: Apache-2.0
"""What a quantization method has decided: formats by tensor name, as plain data."""

__all__ = ["ACTIVATIONS", "SOFTMAXES", "Record", "RecordError", "plain_settings"]

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from golden.ptq.formats import TensorFormat
from vitforge.base.files import replace

SOFTMAXES = ("float", "polynomial", "shift")
ACTIVATIONS = ("gelu", "relu")
_SUFFIX = ".safetensors"


class RecordError(ValueError):
    """A file that holds no record; the message names it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """The decision of one method about one network.

    Attributes
    ----------
    method
        Its name on the command line.
    settings
        Every option it ran with.
    formats
        By site name (`golden.ptq.sites`) for activations, by parameter name for weights. A tensor
        without one stays in floating point.
    softmax
        "float", or the integer softmax of `golden.units.softmax` that makes the attention codes.
    activation
        Between the layers of an MLP: "gelu", or "relu", with parameters that were trained for it.
    parameters
        Parameters that differ from the checkpoint's, before quantization, by name.
    """

    method: str
    settings: Mapping[str, Any]
    formats: Mapping[str, TensorFormat]
    softmax: str = "float"
    activation: str = "gelu"
    parameters: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.softmax not in SOFTMAXES:
            raise ValueError(f"softmax must be one of {', '.join(SOFTMAXES)}, "
                             f"not {self.softmax!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, "
                             f"not {self.activation!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (self._plain() == other._plain()
                and self.parameters.keys() == other.parameters.keys()
                and all(torch.equal(value, other.parameters[name])
                        for name, value in self.parameters.items()))

    __hash__ = None  # type: ignore[assignment]  # mappings inside

    def _plain(self) -> dict[str, Any]:
        more = {} if self.activation == "gelu" else {"activation": self.activation}
        return {"method": self.method, **more,
                "settings": json.loads(json.dumps(dict(self.settings))), "softmax": self.softmax,
                "formats": {name: item.to_dict() for name, item in self.formats.items()}}

    def save(self, path: str | Path) -> None:
        """Write JSON and, if parameters differ, a safetensors file of the same name beside it.

        Where a record has such a file already, the new one is called ``NAME.next.safetensors``, or
        the other way round: so the JSON always names parameters of its own, at whatever moment the
        process ends. The file that it no longer names goes.
        """
        path = Path(path)
        old = _arrays(path)
        arrays = path.with_suffix(_SUFFIX)
        if self.parameters:
            if old == arrays:
                arrays = path.with_suffix(f".next{_SUFFIX}")
            tensors = {name: value.contiguous() for name, value in self.parameters.items()}
            replace(arrays, lambda temporary: save_file(tensors, temporary))
        plain = self._plain() | {"parameters": arrays.name if self.parameters else None}
        text = json.dumps(plain, indent=1) + "\n"
        replace(path, lambda temporary: temporary.write_text(text))
        if old is not None and (old != arrays or not self.parameters):
            old.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Read what `save` wrote.

        Raises
        ------
        RecordError
            If a file can't be read or holds something else.
        """
        path = Path(path)
        try:
            plain = json.loads(path.read_text())
            name = plain.pop("parameters")
            formats = {key: TensorFormat.from_dict(value)
                       for key, value in plain.pop("formats").items()}
            parameters = load_file(path.with_name(name)) if name else {}
            return cls(**plain, formats=formats, parameters=parameters)
        except OSError as error:
            raise RecordError(f"can't read {error.filename or path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
            raise RecordError(f"{path} holds no quantization record ({error})") from None


def _arrays(path: Path) -> Path | None:
    """Return the file of parameters that the record of a path names, if it is one of `save`'s."""
    try:
        name = json.loads(path.read_text())["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = (path.with_suffix(_SUFFIX), path.with_suffix(f".next{_SUFFIX}"))
    return next((item for item in ours if item.name == name), None)


def plain_settings(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings dataclass as JSON would give them back."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return found
