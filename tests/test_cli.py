# SPDX-License-Identifier: Apache-2.0
"""What the commands share: one-line errors, and output folders that appear whole."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vitforge.base.cli import LISTING, replace_folder, run_command
from vitforge.base.errors import ToolchainError
from vitforge.base.progress import progress_bar, progress_bars
from vitforge.spec.config import ConfigError


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*")
            if path.is_file() and path.name != LISTING}


def _write(folder: Path, **files: str) -> None:
    with replace_folder(folder) as temporary:
        for name, text in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(text)


def test_new_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "out"
    with replace_folder(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
    assert _contents(target) == {"a": "1"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("exists", [False, True])
def test_failure_leaves_what_was_there(tmp_path, exists):
    target = tmp_path / "out"
    if exists:
        _write(target, a="1")
    with pytest.raises(KeyboardInterrupt), replace_folder(target) as temporary:
        (temporary / "a").write_text("2")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * exists
    assert not exists or _contents(target) == {"a": "1"}


def test_equal_files_keep_their_time(tmp_path):
    target = tmp_path / "out"
    _write(target, a="1", b="1")
    for name in ("a", "b", LISTING):
        os.utime(target / name, (1, 1))
    _write(target, a="1", b="2")
    assert [(target / name).stat().st_mtime == 1 for name in ("a", "b", LISTING)] == [
        True, False, True]
    assert _contents(target) == {"a": "1", "b": "2"}


def test_files_no_longer_made_go_and_those_of_others_stay(tmp_path):
    target = tmp_path / "out"
    _write(target, **{"a": "1", "sub/b": "1"})
    (target / "mine").write_text("kept")
    _write(target, a="2")
    assert _contents(target) == {"a": "2", "mine": "kept"}


def test_file_of_somebody_else_is_not_overwritten(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "b").write_text("mine")
    with pytest.raises(ValueError, match="b was not written by this command"):
        _write(target, a="1", b="1")
    assert _contents(target) == {"b": "mine"}


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    for target in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(OSError, match="out"):
            _write(target, a="1")
    assert (tmp_path / "out").read_text() == ""


def test_folder_that_is_read_only(tmp_path, monkeypatch):
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied", "temporary name")
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)  # root may write everywhere
    with pytest.raises(PermissionError, match=r"can't be written: Permission denied.*out"):
        _write(tmp_path / "out", a="1")


def _run(error: BaseException | None, capsys: pytest.CaptureFixture[str],
         argv: tuple[str, ...] = ()) -> tuple[int, str, str]:
    def command(args: argparse.Namespace) -> int:
        if error is not None:
            raise error
        return 7
    parser = argparse.ArgumentParser(prog="thing")
    parser.add_argument("--count", type=int)
    code = run_command(command, parser, argv)
    return code, *capsys.readouterr()


@pytest.mark.parametrize(("error", "words"), [
    (ConfigError("rows must be an integer,\nnot 'x'"), "rows must be an integer, not 'x'"),
    (ToolchainError("perl not found"), "perl not found"),
    (FileNotFoundError(2, "No such file or directory", "x.toml"),
     "x.toml: No such file or directory"),
    (OSError("odd"), "odd"),
    (ValueError(), "ValueError"),
])
def test_mistake_is_one_line_and_code_2(capsys, error, words):
    assert _run(error, capsys) == (2, "", f"thing: error: {words}\n")


def test_bad_argument_is_one_line_and_code_2(capsys):
    code, out, err = _run(None, capsys, ("--count", "x"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "argument --count: invalid int value: 'x' (see --help)" in err


def test_success_interrupt_and_help(capsys):
    assert _run(None, capsys) == (7, "", "")
    assert _run(KeyboardInterrupt(), capsys) == (130, "", "thing: interrupted\n")
    with pytest.raises(SystemExit) as exit_:
        _run(None, capsys, ("--help",))
    assert exit_.value.code == 0


def test_defect_keeps_its_traceback(capsys, monkeypatch):
    with pytest.raises(KeyError):
        _run(KeyError("defect"), capsys)
    monkeypatch.setenv("VITFORGE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="mistake"):
        _run(ValueError("mistake"), capsys)


def test_reader_that_goes_away_is_no_error():
    program = ("import argparse, sys\nfrom vitforge.base.cli import run_command\n"
               "def command(args):\n    for n in range(100000):\n        print(n)\n    return 0\n"
               "sys.exit(run_command(command, argparse.ArgumentParser()))\n")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_no_progress_without_a_terminal(capsys):
    with progress_bar("work", 3) as update:
        update(1)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("work", 3) as update:
        update(2)
    assert "2/3" in capsys.readouterr().err


def test_bars_below_each_other(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars() as bars:
        first, second = bars.add("first", 5, done=1), bars.add("second", 7)
        first.advance(3)
        second.update(2, "renamed")
        bars.say("a line above")
    text = capsys.readouterr().err
    assert "4/5" in text and "2/7" in text and "renamed" in text and "a line above" in text


def test_lines_are_said_without_a_terminal(capsys):
    with progress_bars() as bars:
        bars.add("work", 3).advance()
        bars.say("done")
    assert capsys.readouterr().err == "done\n"
