# SPDX-License-Identifier: Apache-2.0
"""What the house says once: functions of one idea, and one place for what many rooms need."""

import ast
import re
from functools import cache

import pytest

from benchmarks.house import MODULES, imports

ROOMS = ("vitforge", "hw", "golden", "gen", "sim", "formal", "explore")
#: Lines of the longest function, docstring and all.
LONGEST = 90
#: Functions of which there is one: its name, however many underscores stand before it.
ONE = {"register": "hw.lib.stream", "delay": "hw.lib.stream", "progress_bar":
       "vitforge.base.progress", "progress_bars": "vitforge.base.progress"}
#: What one module imports for all others.
FOR_ALL = {"rich.progress": "vitforge.base.progress", "amaranth.back": "gen.convert"}
#: Text of code that stands in one module.
TEXT = {r"---[\"'|]": "vitforge.base.markdown", r"/ [\"']built[\"']": "",
        r"with m\.If\((self\.)?advance\):\n +m\.d\.sync \+= (\w+)\.eq\(.*\)\n +return \2\n":
            "hw.lib.stream"}


def _ours(*rooms: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[0] in rooms]


@cache
def _functions(module: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("room", ROOMS)
def test_functions_have_one_idea(room):
    lines = {f"{module}.{item.name}": (item.end_lineno or 0) - item.lineno + 1
             for module in _ours(room) for item in _functions(module)}
    assert lines
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


@pytest.mark.parametrize("name", ONE)
def test_one_function_of_a_name(name):
    rooms = ("hw",) if ONE[name].startswith("hw.") else ROOMS
    assert [module for module in _ours(*rooms) for item in _functions(module)
            if item.name.lstrip("_") == name] == [ONE[name]]


@pytest.mark.parametrize("package", FOR_ALL)
def test_one_module_imports_it(package):
    assert [module for module in _ours(*ROOMS, "benchmarks", "examples")
            if any(f"{name}.".startswith(f"{package}.") for name, _ in imports(module))] \
        == [FOR_ALL[package]]


@pytest.mark.parametrize("text", TEXT)
def test_one_module_says_it(text):
    found = [module for module in _ours(*ROOMS, "benchmarks", "examples")
             if re.search(text, MODULES[module].read_text(encoding="utf-8"))]
    assert found == [TEXT[text]] * bool(TEXT[text])


@pytest.mark.parametrize("module", _ours("hw"))
def test_members_are_written_as_they_are_in_code(module):
    for item in re.findall(r"^    Members\n    -+\n(.*?)\"\"\"",
                           MODULES[module].read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        assert not re.search(r":py:|\(streams? of|\(streams?\)|\(struct\)", item)
        for line in re.findall(r"^    ([a-z].*)", item, re.MULTILINE):
            assert re.fullmatch(r"[a-z_]\w*(, [a-z_]\w*)*( : (In|Out).*)?", line), line
