# SPDX-License-Identifier: Apache-2.0
"""The one command: everything of the README's table, help at once, versions, files."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sample import leading
from vitforge import command
from vitforge.command import SUBCOMMANDS, Subcommand, main, versions

ROOT = Path(__file__).parents[1]


def test_every_command_of_the_readme_is_a_subcommand() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| you want | you type |")[1]
    typed = {name or module for name, module in
             re.findall(r"^\|[^|]+\| `(?:vitforge ([\w-]+)|python -m ([\w.]+))",
                        table.split("\n\n")[0], re.M)}
    known = set(SUBCOMMANDS) | {item.module for item in SUBCOMMANDS.values()}
    assert len(typed) > 8 and typed <= known


def _run(script: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize("name", leading(6, SUBCOMMANDS))
def test_help_has_an_example_with_the_name_that_was_typed(name: str) -> None:
    """And imports none of what takes a fifth of a second or more."""
    script = ("import sys\nfrom vitforge.command import main\n"
              f"try:\n    main([{name!r}, '--help'])\n"
              "finally:\n    heavy = {'amaranth', 'matplotlib', 'pandas', 'rich', 'torch'}\n"
              "    assert not heavy & set(sys.modules)")
    done = _run(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vitforge {name} ")
    assert re.search(rf"vitforge {name} .*\S", done.stdout.split("\n", 1)[1])
    assert "python -m" not in done.stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_takes_less_than_half_a_second_of_the_processor(name: str) -> None:
    """It is about a quarter; the best of three, for a machine may be busy."""
    def used() -> float:
        def seconds() -> float:
            found = resource.getrusage(resource.RUSAGE_CHILDREN)
            return found.ru_utime + found.ru_stime
        before = seconds()
        subprocess.run([sys.executable, "-m", "vitforge", name, "--help"], cwd=ROOT, check=True,
                       capture_output=True)
        return seconds() - before
    assert any(used() < 0.5 for _ in range(3))


def test_a_mistake_is_one_line_and_names_the_command() -> None:
    done = _run("from vitforge.command import main\n"
                "assert main(['verilog', '--config', 'edge12', '-o', 'nowhere']) == 2\n"
                "assert main(['nonsense']) == 2")
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith("vitforge verilog: error: no configuration 'edge12'")
    assert second.startswith("vitforge: error: no command 'nonsense'; the commands are verilog, ")


def test_names_do_not_stay_when_a_command_is_over() -> None:
    done = _run("from vitforge.command import main\n"
                "assert main(['verilog', '--config', 'edge12', '-o', 'nowhere']) == 2\n"
                "from gen.verilog import main\n"
                "assert main(['--config', 'edge12', '-o', 'nowhere']) == 2")
    assert done.returncode == 0
    assert done.stderr.splitlines()[1].startswith("python -m gen.verilog: error: ")


def test_what_the_package_lacks_is_said(monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SUBCOMMANDS, "networks", Subcommand("a_room_that_is_not_there.x", ""))
    assert main(["networks"]) == 2
    assert "comes with the repository" in capsys.readouterr().err


def test_versions_name_every_tool() -> None:
    found = dict(versions())
    assert list(found)[:3] == ["ViTForge", "Amaranth", "Amaranth's Yosys"]
    assert all(re.match(r"\d+\.\d+", version) for version in found.values())


def test_a_tool_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command._DISTRIBUTIONS, "torch", "a-distribution-that-is-not-there")
    assert dict(versions())["torch"] == "not installed"


@pytest.mark.parametrize(("kind", "some"), [
    ("driver", {"vitforge.c", "vitforge.h", "example.c"}),
    ("benches", {"memory.v", "accelerator_host.v"}),
    ("spaces", {"units.toml", "edge.toml"}),
])
def test_files_are_written_out(kind: str, some: set[str], tmp_path: Path) -> None:
    done = _run(f"from vitforge.command import main\nassert main(['files', {kind!r}, '-o', "
                f"{str(tmp_path / 'out')!r}]) == 0")
    assert done.returncode == 0, done.stderr
    assert some <= {path.name for path in (tmp_path / "out").iterdir()}
