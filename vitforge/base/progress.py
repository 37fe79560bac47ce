# SPDX-License-Identifier: Apache-2.0
"""Progress bars on standard error, if it is a terminal and rich (the extra ``golden``) is there."""

__all__ = ["Bar", "Bars", "progress_bar", "progress_bars"]

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """One bar: say how much more is done, or how much in all."""

    def __init__(self, shown: "Progress | None", text: str, total: int, done: int):
        self._shown = shown
        self._task = None if shown is None else shown.add_task(text, total=total, completed=done)

    def advance(self, count: int = 1) -> None:
        """Note that `count` more are done."""
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, count)

    def update(self, done: int, text: str | None = None) -> None:
        """Note that `done` are done in all; `text` replaces what stands before the bar."""
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, completed=done, description=text)


class Bars:
    """Bars below each other, and lines that are printed above them."""

    def __init__(self, shown: "Progress | None" = None):
        self._shown = shown

    def add(self, text: str, total: int, done: int = 0) -> Bar:
        """Show one bar more, of which `done` of `total` are done."""
        return Bar(self._shown, text, total, done)

    def say(self, line: str) -> None:
        """Print a line on standard error, with a terminal and without."""
        if self._shown is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._shown.console.print(line)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show bars until the end of the block; without a terminal, or without rich, none."""
    if not sys.stderr.isatty():
        yield Bars()
        return
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        yield Bars()
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                  TimeRemainingColumn(elapsed_when_finished=True), console=Console(stderr=True),
                  transient=True) as progress:
        yield Bars(progress)


@contextmanager
def progress_bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show one bar; call the result with how many are done in all."""
    with progress_bars() as bars:
        yield bars.add(text, total).update
