# SPDX-License-Identifier: Apache-2.0
"""`benchmarks.same`: equal trees, a changed byte, a missing file, a command that fails."""

import pytest

from benchmarks import same

#: A tree whose only command writes what its data file says.
COMMAND = """
import sys
from pathlib import Path
output = Path(sys.argv[sys.argv.index("-o") + 1])
for line in Path("data.txt").read_text().splitlines():
    name, text = line.split("=")
    if name == "fail":
        sys.exit(text)
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_text(text)
"""


def tree(folder, data):
    (folder / "gen").mkdir(parents=True)
    (folder / "gen" / "__init__.py").touch()
    (folder / "gen" / "verilog.py").write_text(COMMAND)
    (folder / "data.txt").write_text(data)
    return str(folder)


@pytest.mark.parametrize(("before", "after", "code", "said"), [
    ("rtl/a.v=1", "rtl/a.v=1", 0, "equal"),
    ("rtl/a.v=1\nREADME.md=1", "rtl/a.v=1\nREADME.md=2", 0, "equal"),
    ("rtl/a.v=1", "rtl/a.v=2", 1, "different: rtl/a.v"),
    ("rtl/a.v=1\nb.json=1", "rtl/a.v=1", 1, "different: b.json"),
    ("rtl/a.v=1", "fail=no such unit", 1, "no such unit"),
    ("README.md=1", "README.md=1", 1, "nothing was written"),
])
def test_two_trees(tmp_path, capsys, before, after, code, said):
    assert same.main(["--before", tree(tmp_path / "x", before), "--after",
                      tree(tmp_path / "y", after), "--part", "verilog", "--config", "tiny"]) == code
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert shown.count(said) == 2     # of the accelerator, and of the units


def test_neither_folder_nor_revision(capsys):
    assert same.main(["--before", "no-such-revision", "--part", "verilog"]) == 2
    assert "neither a folder nor a revision" in capsys.readouterr().err


def test_pictures_are_the_same_everywhere(tmp_path):
    for name in ("x", "y"):
        same.draw(tmp_path / name)
    files, size, different = same.compare(tmp_path / "x", tmp_path / "y")
    assert (files, different) == (10, []) and size > 10 * 32 * 32
