# SPDX-License-Identifier: Apache-2.0
"""Tables as Markdown."""

__all__ = ["table"]

from collections.abc import Iterable, Sequence


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a line of names, a line of dashes, and a line a row; every line ends."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
