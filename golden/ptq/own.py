# SPDX-License-Identifier: Apache-2.0
"""Methods by the name that a user gives: one of this package's, or a class of the user's own."""

__all__ = ["kind"]

import dataclasses
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

from golden.ptq import METHODS
from golden.ptq.method import Method


def _imported(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)   # an installed command doesn't look there, ``python -m`` does
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise ValueError(f"there is no module {missing!r} in the current folder or on "
                             "PYTHONPATH") from None
        raise ValueError(f"{name} needs {missing!r}, which is not installed") from None
    except Exception as error:
        raise ValueError(f"{name} can't be imported: {type(error).__name__}: {error}") from error


def _checked(found: object, name: str) -> type[Method]:
    """Refuse what `golden.commands.quantize` can't work with."""
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"{name} is not a subclass of golden.ptq.method.Method")
    if inspect.isabstract(found):
        raise ValueError(f"{name} lacks {', '.join(sorted(found.__abstractmethods__))}")
    if not isinstance(getattr(found, "name", None), str):
        raise ValueError(f"{name} lacks a name: `name: ClassVar[str] = ...`")
    try:
        settings = found().settings
        found(settings)  # type: ignore[call-arg]
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{name} must be made as {found.__name__}() and {found.__name__}"
                         f"(settings): {error}") from None
    if not dataclasses.is_dataclass(settings):
        raise ValueError(f"settings of {name} must be a dataclass, as golden.ptq.method.Settings")
    return found


def kind(name: str) -> type[Method]:
    """Return the class of a method.

    Parameters
    ----------
    name
        One of `golden.ptq.METHODS`, or ``package.module:Class``; the current folder is searched
        after all others.

    Raises
    ------
    ValueError
        If the module or the class does not exist, or is no `Method` that can be made.
    """
    if name in METHODS:
        return METHODS[name]
    module, _, own = name.partition(":")
    try:
        found = getattr(_imported(module), own, None)
        if found is None:
            raise ValueError(f"{module} has no class {own!r}")
        return _checked(found, f"{module}.{own}")
    except ValueError as error:
        raise ValueError(f"--method {name}: {error}") from error
