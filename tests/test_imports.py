# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: the rooms, the floors inside `hw`, no circles, nothing hidden."""

import ast
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from benchmarks import house
from benchmarks.house import MODULES, imports, room

SPEC, BASE = "vitforge.spec", "vitforge.base"
_ALL = {SPEC, BASE, "vitforge", "hw", "golden", "gen", "sim", "formal", "explore", "benchmarks",
        "examples"}
#: What of the project a room may import, beside itself.
ROOMS = {
    SPEC: set[str](), BASE: set[str](),
    "hw": {SPEC},
    "golden": {SPEC, BASE},
    "gen": {SPEC, BASE, "hw", "golden"},
    "sim": {SPEC, BASE, "hw", "golden", "gen"},
    "formal": {SPEC, BASE, "hw", "gen", "sim"},
    "explore": _ALL, "benchmarks": _ALL, "examples": _ALL, "vitforge": _ALL,
}
#: What no file of a room may import, anywhere in it.
NEVER = {"hw": {"torch"}, "golden": {"amaranth"}}
#: All that a room may import beside the project and Python's library.
ONLY = {SPEC: {"numpy"}}
#: Floors of `hw`, from the ground up; a room may import those of lower floors.
FLOORS = ({"lib"}, {"bus", "array", "softmax", "layernorm", "requant"},
          {"operand", "drain", "control"}, {"core"}, {"accelerator"}, {"units"})

#: Packages that not every user has, or that take long: imported where they are used.
OPTIONAL = {
    "rich": "of the extra `golden`, and Verilog needs none of it",
    "amaranth": "a third of a second, and `--help` needs none of it",
    "torch": "takes two seconds, and `--help` needs none of it",
    "safetensors": "comes with torch",
    "matplotlib": "of the extra `report`; a second",
    "PIL": "of the extra `golden`",
    "pandas": "of the extra `explore`; a second",
    "plotly": "of the extra `explore`; only the page needs it",
    "optuna": "of the extra `explore`; only a search needs it",
    "distributed": "of the extra `explore`; only a cluster needs it",
}
#: Modules that import the project inside a function, beside commands, which do so in order to
#: answer `--help` and refuse bad arguments at once.
LAZY = {
    "golden.graph.opened": "a state dict needs no ONNX",
    "explore.stages": "a stage that is in the store needs none of its tools",
}


def _floor(module: str) -> int:
    found = [number for number, floor in enumerate(FLOORS) if module.split(".")[1] in floor]
    assert found, f"{module} is on no floor"
    return found[0]


def test_the_picture_and_the_table_have_the_same_rooms():
    assert house.ROOMS.keys() == ROOMS.keys()


@pytest.mark.parametrize("name_of_room", ROOMS)
def test_a_room_imports_what_the_table_allows(name_of_room):
    own = [module for module in MODULES if room(module) == name_of_room]
    assert own
    allowed, never = {name_of_room, *ROOMS[name_of_room]}, NEVER.get(name_of_room, ())
    only = ONLY.get(name_of_room)
    for module in own:
        for name, _ in imports(module):
            top = name.split(".")[0]
            if name in MODULES:
                assert room(name) in allowed, f"{module} imports {name}"
            else:
                assert top not in never, f"{module} imports {name}"
                assert only is None or top in only or top in sys.stdlib_module_names, \
                    f"{module} imports {name}"


def test_floors_of_the_gateware():
    for module in MODULES:
        if not module.startswith("hw."):
            continue
        floor, folder = _floor(module), module.split(".")[1]
        for name, _ in imports(module):
            if name.startswith("hw."):
                assert name.split(".")[1] == folder or _floor(name) < floor, \
                    f"{module} imports {name}"


def test_there_are_no_circles():
    graph = {module: {name for name, _ in imports(module) if name in MODULES} - {module}
             for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@cache
def _is_command(module: str) -> bool:
    """Whether it has the ``main`` of a command, or adds a command to another's."""
    return any(isinstance(node, ast.FunctionDef) and node.name in ("main", "add_parser")
               for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body)


def test_what_is_imported_inside_a_function_has_a_reason():
    for module in MODULES:
        for name, inside in imports(module):
            if inside and name in MODULES:
                assert module in LAZY or _is_command(module), f"{module} imports {name} late"
            elif inside:
                assert name.split(".")[0] in {*OPTIONAL, *sys.stdlib_module_names}, \
                    f"{module} imports {name} late"
    for module in LAZY:
        assert any(inside and name in MODULES for name, inside in imports(module)), module
