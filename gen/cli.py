# SPDX-License-Identifier: Apache-2.0
"""What every command shares: one-line errors, output folders that appear whole, progress."""

__all__ = ["named", "progress_bar", "replace_folder", "run_command"]

import argparse
import filecmp
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

from sim.toolchain import ToolchainError

#: In every output folder: the files that the command wrote, which it may replace and remove.
LISTING = ".vitforge"


#: What a user typed to start a command, where that is not ``python -m MODULE``.
_NAME: ContextVar[str | None] = ContextVar("name", default=None)


class _UsageError(ValueError):
    pass


@contextmanager
def named(name: str) -> Iterator[None]:
    """Let `run_command` call a command by the name that the user typed, in help and errors."""
    token = _NAME.set(name)
    try:
        yield
    finally:
        _NAME.reset(token)


def _rename(parser: argparse.ArgumentParser, name: str) -> None:
    old = f"python -m {parser.prog.removeprefix('python -m ')}"
    if parser.epilog:
        parser.epilog = parser.epilog.replace(old, name)
    parser.prog = name


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # nothing public knows the subcommands
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def run_command(command: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser,
                argv: Sequence[str] | None = None) -> int:
    """Parse `argv`, run `command` and return its exit code.

    A user's mistake (a bad argument, ValueError, OSError, ToolchainError) becomes one line on
    standard error and exit code 2; an interrupt gives 130. With ``VITFORGE_TRACEBACK`` in the
    environment the traceback is shown instead.
    """
    def refuse(message: str) -> NoReturn:
        raise _UsageError(f"{message} (see --help)")

    if (name := _NAME.get()) is not None:
        for sub, item in _subparsers(parser):
            _rename(item, f"{name} {sub}")
        _rename(parser, name)
    for item in (parser, *(item for _, item in _subparsers(parser))):
        # argparse would print the usage too.
        item.error = refuse  # type: ignore[method-assign]
    try:
        code = command(parser.parse_args(argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of a pipe is gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ToolchainError) as error:
        if "VITFORGE_TRACEBACK" in os.environ:
            raise
        print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return 2


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder to fill, and publish its files in `path` if nothing is raised.

    A new folder appears whole, in one step. In a folder from an earlier run a file that is equal
    keeps its time (so incremental tools do nothing), files that are no longer made are removed,
    and files that somebody else put there stay.

    Raises
    ------
    OSError
        If `path` is no folder, or can't be made or written. Found before anything is computed.
    ValueError
        If a file would overwrite one that an earlier run did not write.
    """
    path = Path(path).absolute()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(20, "is a file, an output folder is needed", str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Inside an existing folder: its parent need not be writable.
        parent = path if path.exists() else path.parent
        temporary = Path(tempfile.mkdtemp(prefix=".vitforge-", dir=parent))
    except OSError as error:
        raise OSError(error.errno, f"can't be written: {error.strerror}", str(path)) from None
    try:
        temporary.chmod(0o755)
        yield temporary
        _publish(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    return sorted(str(item.relative_to(folder)) for item in folder.rglob("*") if item.is_file())


def _publish(temporary: Path, path: Path) -> None:
    made = _files(temporary)
    (temporary / LISTING).write_text("".join(f"{name}\n" for name in made), encoding="utf-8")
    if not path.exists():
        temporary.replace(path)
        return
    listing = path / LISTING
    ours = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    for name in made:
        target = path / name
        if target.exists() and name not in ours and not _equal(temporary / name, target):
            raise ValueError(f"{target} was not written by this command: give an empty folder")
    for name in [*made, LISTING]:
        target = path / name
        if not _equal(temporary / name, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(target)
    for name in set(ours) - set(made):
        (path / name).unlink(missing_ok=True)


def _equal(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


@contextmanager
def progress_bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error if it is a terminal; call the result with what is done.

    Without a terminal, or without rich (the ``golden`` extra), nothing is shown.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    except ImportError:
        yield lambda done: None
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/"
                  "{task.total}"), TimeElapsedColumn(), console=Console(stderr=True),
                  transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, completed=done)
