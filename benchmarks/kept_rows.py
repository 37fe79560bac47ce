# SPDX-License-Identifier: Apache-2.0
"""Rows of a table in a CSV file: a dataclass of texts and numbers each, a column a field."""

__all__ = ["read", "write"]

import csv
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from vitforge.base.files import replace

Row = TypeVar("Row")


def read(kind: type[Row], path: Path) -> list[Row]:
    """Return the rows of a file; none if it is not there."""
    if not path.exists():
        return []
    types: dict[str, Any] = {item.name: item.type
                             for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    with path.open(encoding="utf-8", newline="") as file:
        return [kind(**{name: types[name](value) for name, value in row.items()})
                for row in csv.DictReader(file)]


def write(kind: type[Row], rows: Iterable[Row], path: Path) -> None:
    """Write rows, whole or not at all."""
    def to(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(vars(row) for row in rows)

    replace(path, to)
